//! `sandbar config`: look at the server's configuration without starting it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

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
            let config = configuration.load(&[])?;
            if out.json {
                let settings: Vec<Value> = config
                    .values()
                    .map(|(name, value, origin)| {
                        json!({"name": name, "value": value, "origin": origin.to_string()})
                    })
                    .collect();
                print_json(&json!({"settings": settings}))?;
            } else {
                print_text(config.print())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
