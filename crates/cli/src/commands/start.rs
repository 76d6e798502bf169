//! `sandbar start`: a process that runs on by itself; without a command, the sandbox alone.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use api::{
    id::{ProcessId, SandboxId},
    process::{ProcessStdin, StartProcess},
};
use clap::Args;
use client::Client;

use crate::{
    commands::exec::{command, environment, parse_variable},
    output::{Output, print_json, print_line},
    units::parse_duration,
};

/// Arguments of `sandbar start`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox; for a command it is created when it does not exist.
    pub(crate) sandbox: SandboxId,
    /// Call the process this; generated unless given.
    #[arg(long, value_name = "ID", requires = "command")]
    id: Option<ProcessId>,
    /// Set a variable for the process; NAME alone takes its value from here.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse_variable, requires = "command")]
    env: Vec<(String, Option<String>)>,
    /// Directory to run in; a relative path begins at /workspace.
    #[arg(short, long, value_name = "DIR", requires = "command")]
    workdir: Option<String>,
    /// Kill the process after this time (30m, 2h).
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "command")]
    timeout: Option<Duration>,
    /// Forget the process and its log when it has ended.
    #[arg(long, requires = "command")]
    forget: bool,
    /// Program and arguments; one argument with spaces is a text for the shell.
    ///
    /// Without one, the sandbox itself is started if it was stopped, or thawed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Starts the process and prints its id, or starts the sandbox and prints its.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    if arguments.command.is_empty() {
        let sandbox = Client::from_environment()?.start_sandbox(&arguments.sandbox).await?;
        if out.json {
            print_json(&sandbox)?;
        } else {
            print_line(&sandbox.id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let timeout_ms = arguments.timeout.map(|limit| u64::try_from(limit.as_millis()));
    let request = StartProcess {
        command: command(&arguments.command),
        id: arguments.id,
        session: None,
        cwd: arguments.workdir,
        env: environment(&arguments.env)?,
        timeout_ms: timeout_ms.transpose().context("the timeout is too long")?,
        stdin: ProcessStdin::Closed,
        auto_cleanup: arguments.forget,
    };
    let client = Client::from_environment()?;
    let process = client.start_process(&arguments.sandbox, &request).await?;
    if out.json {
        print_json(&process)?;
    } else {
        print_line(&process.id)?;
    }
    Ok(ExitCode::SUCCESS)
}
