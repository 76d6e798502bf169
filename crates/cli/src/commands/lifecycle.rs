//! `sandbar freeze`, `thaw` and `stop`: where sandboxes are in their life.

use std::process::ExitCode;

use api::{id::SandboxId, sandbox::Sandbox};
use clap::Args;
use client::{Client, ClientError};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    failure::Stop,
    output::{Output, note, print_json, print_line},
};

/// Sandboxes changed at once; more than the server's cores only wait there.
const IN_FLIGHT: usize = 8;

/// Arguments of all three.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandboxes.
    #[arg(required = true)]
    ids: Vec<SandboxId>,
}

/// What is to become of the sandboxes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Freeze,
    Thaw,
    Stop,
}

impl Change {
    async fn of(self, client: &Client, id: &SandboxId) -> Result<Sandbox, ClientError> {
        match self {
            Self::Freeze => client.freeze_sandbox(id).await,
            Self::Thaw => client.thaw_sandbox(id).await,
            Self::Stop => client.stop_sandbox(id).await,
        }
    }
}

/// Changes the sandboxes and prints the id of each. One that fails does not keep the others.
pub(crate) async fn run(
    change: Change,
    arguments: Arguments,
    out: Output,
) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let is_one = arguments.ids.len() == 1;
    let mut results = stream::iter(arguments.ids)
        .map(|id| async {
            let result = change.of(&client, &id).await;
            (id, result)
        })
        .buffered(IN_FLIGHT);
    let (mut changed, mut failed) = (Vec::new(), Vec::new());
    while let Some((id, result)) = results.next().await {
        match result {
            Ok(sandbox) if out.json => changed.push(sandbox),
            Ok(_) => print_line(&id)?,
            // Of one sandbox, its error is the command's.
            Err(error) if is_one => return Err(error.into()),
            Err(error) => {
                note(out, format_args!("{id}: {error}"));
                failed.push(json!({"id": id, "message": error.to_string()}));
            }
        }
    }
    if out.json {
        print_json(&json!({"sandboxes": changed, "failed": failed}))?;
    }
    if !failed.is_empty() {
        return Err(Stop::Reported.into());
    }
    Ok(ExitCode::SUCCESS)
}
