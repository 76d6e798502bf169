//! `sandbar checkpoint`, `restore` and `fork`: files of sandboxes kept, brought back, multiplied.

use std::{process::ExitCode, time::SystemTime};

use api::{
    checkpoint::{Checkpoint, CreateCheckpoint, ForkSandbox, RestoreCheckpoint},
    id::{CheckpointId, SandboxId},
};
use clap::{Args, Subcommand};
use client::Client;
use serde_json::json;

use crate::{
    output::{Output, note, print_json, print_line, print_text},
    table::Table,
    units::{format_age, format_bytes},
};

/// Arguments of `sandbar checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the files of a sandbox as they are now, and print the checkpoint's id. Its processes go on.
    Create {
        /// The sandbox.
        id: SandboxId,
        /// The checkpoint's id; generated unless given.
        checkpoint: Option<CheckpointId>,
    },
    /// List the checkpoints of a sandbox.
    Ls {
        /// The sandbox.
        id: SandboxId,
    },
    /// Remove checkpoints of a sandbox.
    Rm {
        /// The sandbox.
        id: SandboxId,
        /// The checkpoints.
        #[arg(required = true)]
        checkpoints: Vec<CheckpointId>,
    },
}

/// Makes, lists or removes.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    match arguments.command {
        Command::Create { id, checkpoint } => {
            let request = CreateCheckpoint { id: checkpoint };
            let created = client.create_checkpoint(&id, &request).await?;
            if out.json {
                print_json(&created)?;
            } else {
                print_line(&created.checkpoint.id)?;
            }
        }
        Command::Ls { id } => {
            let checkpoints = client.checkpoints(&id).await?;
            if out.json {
                print_json(&json!({"checkpoints": checkpoints}))?;
            } else {
                print_text(table(&checkpoints, SystemTime::now()))?;
            }
        }
        Command::Rm { id, checkpoints } => {
            for checkpoint in &checkpoints {
                client.remove_checkpoint(&id, checkpoint).await?;
                if !out.json {
                    print_line(checkpoint)?;
                }
            }
            if out.json {
                print_json(&json!({"removed": checkpoints}))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `sandbar restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The sandbox.
    id: SandboxId,
    /// The checkpoint of this sandbox to go back to.
    checkpoint: CheckpointId,
}

/// Goes back to a checkpoint.
pub(crate) async fn restore(arguments: RestoreArguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let request = RestoreCheckpoint { checkpoint: arguments.checkpoint };
    let sandbox = client.restore_checkpoint(&arguments.id, &request).await?;
    if out.json {
        print_json(&sandbox)?;
    } else {
        print_line(&sandbox.id)?;
        note(
            out,
            "its processes have ended; the next use starts it with the files of the checkpoint",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `sandbar fork`.
#[derive(Debug, Args)]
pub(crate) struct ForkArguments {
    /// The sandbox whose files they begin with.
    id: SandboxId,
    /// Ids of the new sandboxes; generated unless given.
    ids: Vec<SandboxId>,
    /// Begin with the files of this checkpoint, instead of those there are now.
    #[arg(long, value_name = "ID")]
    checkpoint: Option<CheckpointId>,
    /// How many sandboxes to make [default: one, or as many as ids are given].
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "ids")]
    count: Option<u32>,
}

/// Makes sandboxes with the files of another, and prints their ids.
pub(crate) async fn fork(arguments: ForkArguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let request = ForkSandbox {
        checkpoint: arguments.checkpoint,
        count: arguments.count,
        ids: Some(arguments.ids).filter(|ids| !ids.is_empty()),
        labels: None,
    };
    let forks = client.fork_sandbox(&arguments.id, &request).await?;
    if out.json {
        print_json(&json!({"sandboxes": forks}))?;
    } else {
        forks.iter().try_for_each(|fork| print_line(&fork.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(checkpoints: &[Checkpoint], now: SystemTime) -> Table<3> {
    let mut table = Table::new(["CHECKPOINT", "AGE", "SIZE"]);
    for checkpoint in checkpoints {
        table.row([
            checkpoint.id.to_string(),
            format_age(checkpoint.created_at_ms, now),
            format_bytes(checkpoint.size_bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_one_line() {
        let checkpoint = serde_json::from_value(json!({
            "id": "before", "sandboxId": "a", "createdAtMs": 0, "sizeBytes": 3 << 20
        }))
        .unwrap();
        let text = table(&[checkpoint], SystemTime::UNIX_EPOCH).to_string();
        assert_eq!(
            text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["before", "0s", "3.0", "MiB"]
        );
    }
}
