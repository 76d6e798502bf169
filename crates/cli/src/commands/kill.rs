//! `sandbar kill`: ends processes with their trees.

use std::{process::ExitCode, time::Duration};

use api::{
    id::SandboxId,
    process::{KillProcess, Signal},
};
use clap::Args;
use client::Client;
use serde_json::json;

use crate::{
    commands::require_sandbox,
    failure::Stop,
    output::{Output, note, print_json, print_line},
    units::parse_duration,
};

/// Arguments of `sandbar kill`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    sandbox: SandboxId,
    /// The processes: their ids, or their process ids inside the sandbox.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    process: Vec<String>,
    /// All processes; commands of `exec` go on.
    #[arg(long)]
    all: bool,
    /// The signal that each whole tree gets first.
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM")]
    signal: Signal,
    /// Time to end of it before SIGKILL (0s to 1m).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    grace: Duration,
}

/// Ends the processes and prints the ids of those that are dead.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let grace_ms = u64::try_from(arguments.grace.as_millis()).unwrap_or(u64::MAX);
    let request = KillProcess { signal: arguments.signal, grace_ms };
    let client = Client::from_environment()?;
    require_sandbox(&client, &arguments.sandbox).await?;
    if arguments.all {
        let killed = client.kill_processes(&arguments.sandbox, request).await?;
        if out.json {
            print_json(&json!({"killed": killed}))?;
        } else {
            print_line(killed)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut killed = Vec::new();
    let mut failed = Vec::new();
    for name in &arguments.process {
        match client.kill_process(&arguments.sandbox, name, request).await {
            Ok(process) => {
                if !out.json {
                    print_line(&process.id)?;
                }
                killed.push(process);
            }
            // With one process, its error is the command's.
            Err(error) if arguments.process.len() == 1 => return Err(error.into()),
            Err(error) => {
                note(out, format_args!("could not kill {name}: {error}"));
                failed.push(json!({"process": name, "message": error.to_string()}));
            }
        }
    }
    if out.json {
        print_json(&json!({"processes": killed, "failed": failed}))?;
    }
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Stop::Reported.into()) }
}
