//! `sandbar config`: look at the server's configuration without starting it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    commands::serve::ConfigurationArguments,
    output::{Output, print_json, print_line, print_text},
};

/// Arguments of `sandbar config`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every fault of the configuration, with where it is.
    Check(ConfigurationArguments),
    /// Print the values in force and where each comes from.
    Print(ConfigurationArguments),
}

/// Checks or prints the configuration.
pub(crate) fn run(arguments: &Arguments, out: Output) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Check(configuration) => {
            configuration.load(&[])?;
            if out.json {
                print_json(&json!({"valid": true}))?;
            } else {
                print_line("The configuration has no faults.")?;
            }
        }
        Command::Print(configuration) => {
            let page = configuration.load(&[])?.print();
            if out.json {
                print_json(&json!({"settings": page.lines().collect::<Vec<_>>()}))?;
            } else {
                print_text(page)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
