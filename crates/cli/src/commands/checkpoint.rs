//! `sandbar checkpoint`, `restore` and `fork`: files of sandboxes kept, brought back, multiplied.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use api::{
    archive::ArchiveFormat,
    checkpoint::{Checkpoint, CreateCheckpoint, ForkSandbox, ImportCheckpoint, RestoreCheckpoint},
    id::{CheckpointId, SandboxId},
};
use bytes::Bytes;
use clap::{Args, Subcommand};
use client::{ByteStream, Client};
use futures_util::{Stream, TryStreamExt as _};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::cp;
use crate::{
    output::{Output, note, print_json, print_line, print_text, written},
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
    /// Write a checkpoint into a file, or to stdout, to be imported elsewhere.
    Export {
        /// The sandbox.
        id: SandboxId,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The file, which must not be there; stdout unless given.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write tar as it is, not compressed by zstd.
        #[arg(long)]
        tar: bool,
    },
    /// Make a checkpoint of a sandbox of an export, and print its id.
    Import {
        /// The sandbox, which began from the same image.
        id: SandboxId,
        /// The file; stdin unless given.
        file: Option<PathBuf>,
        /// The checkpoint's id; generated unless given.
        #[arg(long = "as", value_name = "CHECKPOINT")]
        checkpoint: Option<CheckpointId>,
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
        Command::Export { id, checkpoint, output, tar } => {
            let format = if tar { ArchiveFormat::Tar } else { ArchiveFormat::TarZst };
            let pieces = client.export_checkpoint(&id, &checkpoint, format).await?;
            export(pieces, output.as_deref()).await?;
        }
        Command::Import { id, file, checkpoint } => {
            let (format, pieces) = open_export(file).await?;
            let query = ImportCheckpoint { checkpoint, format };
            let made = client.import_checkpoint(&id, &query, pieces).await?;
            cp::tell(&made.unpacked.left_out, out);
            if out.json {
                print_json(&made)?;
            } else {
                print_line(&made.checkpoint.id)?;
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

/// Writes an export. A file that does not become whole is taken away.
async fn export(mut pieces: ByteStream, output: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = output else {
        if std::io::stdout().is_terminal() {
            bail!("an export is no text for a terminal: redirect it, or name a file with --output");
        }
        let mut stdout = tokio::io::stdout();
        while let Some(piece) = pieces.try_next().await? {
            written(stdout.write_all(&piece).await)?;
        }
        return written(stdout.flush().await);
    };
    let attempt = || format!("could not write {}", path.display());
    let mut file = tokio::fs::File::create_new(path).await.with_context(attempt)?;
    let unfinished = Unfinished(path);
    while let Some(piece) = pieces.try_next().await? {
        file.write_all(&piece).await.with_context(attempt)?;
    }
    file.sync_all().await.with_context(attempt)?;
    std::mem::forget(unfinished);
    Ok(())
}

/// A file that is not whole yet. Dropping it, as a signal does, removes the file.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // What led here is what is told.
        std::fs::remove_file(self.0).unwrap_or(());
    }
}

/// What the compressed form begins with.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// An export as it is read, and how it is written.
async fn open_export(
    file: Option<PathBuf>,
) -> anyhow::Result<(ArchiveFormat, impl Stream<Item = std::io::Result<Bytes>> + Send + 'static)> {
    let mut input: Box<dyn AsyncRead + Send + Unpin> = match &file {
        Some(path) => {
            let attempt = || format!("could not read {}", path.display());
            Box::new(tokio::fs::File::open(path).await.with_context(attempt)?)
        }
        None => Box::new(tokio::io::stdin()),
    };
    let mut head = Vec::new();
    let head_bytes = ZSTD.len() as u64;
    (&mut input).take(head_bytes).read_to_end(&mut head).await.context("could not read it")?;
    let format = if head == ZSTD { ArchiveFormat::TarZst } else { ArchiveFormat::Tar };
    Ok((format, ReaderStream::new(std::io::Cursor::new(head).chain(input))))
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
    /// Have them start nothing by themselves: neither its command for that nor its services.
    #[arg(long)]
    bare: bool,
}

/// Makes sandboxes with the files of another, and prints their ids.
pub(crate) async fn fork(arguments: ForkArguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let request = ForkSandbox {
        checkpoint: arguments.checkpoint,
        count: arguments.count,
        ids: Some(arguments.ids).filter(|ids| !ids.is_empty()),
        labels: None,
        bare: arguments.bare,
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
