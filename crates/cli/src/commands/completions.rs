//! `sandbar completions`: the command line as a shell's completion script.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::{command_line::CommandLine, output::written};

/// Arguments of `sandbar completions`.
#[derive(Debug, Args)]
#[command(after_help = "For bash: sandbar completions bash > /etc/bash_completion.d/sandbar")]
pub(crate) struct Arguments {
    /// The shell.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut CommandLine::command(), "sandbar", &mut script);
    written(io::stdout().lock().write_all(&script))?;
    Ok(ExitCode::SUCCESS)
}
