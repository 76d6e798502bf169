//! `sandbar rm`: destroy sandboxes.

use std::process::ExitCode;

use api::id::SandboxId;
use clap::Args;
use client::{Client, ClientError};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    failure::Stop,
    output::{Output, note, print_json, print_line},
};

/// Sandboxes destroyed at once; more than the server's cores only wait there.
const IN_FLIGHT: usize = 8;

/// Arguments of `sandbar rm`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandboxes.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<SandboxId>,
    /// All sandboxes of the server.
    #[arg(long)]
    all: bool,
}

/// Destroys the sandboxes. One that cannot be destroyed does not keep the others.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let ids = if arguments.all {
        client.all_sandboxes(None).await?.into_iter().map(|sandbox| sandbox.id).collect()
    } else {
        arguments.ids
    };
    destroy(ids, out, async |id| client.destroy_sandbox(id).await.map(|()| true)).await
}

/// Destroys the sandboxes by `one`, which says whether it did, and prints the id of each. One that
/// cannot be destroyed does not keep the others.
pub(crate) async fn destroy(
    ids: Vec<SandboxId>,
    out: Output,
    one: impl AsyncFn(&SandboxId) -> Result<bool, ClientError>,
) -> anyhow::Result<ExitCode> {
    let mut results = stream::iter(ids)
        .map(|id| async {
            let result = one(&id).await;
            (id, result)
        })
        .buffered(IN_FLIGHT);
    let (mut destroyed, mut failures) = (Vec::new(), Vec::new());
    while let Some((id, result)) = results.next().await {
        match result {
            Ok(false) => {}
            Ok(true) => {
                if !out.json {
                    print_line(&id)?;
                }
                destroyed.push(id);
            }
            Err(error) => failures.push((id, error)),
        }
    }
    if out.json {
        let failed: Vec<_> = failures
            .iter()
            .map(|(id, error)| json!({"id": id, "message": error.to_string()}))
            .collect();
        print_json(&json!({"destroyed": destroyed, "failed": failed}))?;
    }
    match failures.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => {
            let (id, error) = failures.remove(0);
            Err(anyhow::Error::new(error).context(format!("could not destroy {id}")))
        }
        _ => {
            for (id, error) in failures {
                note(out, format_args!("could not destroy {id}: {error}"));
            }
            Err(Stop::Reported.into())
        }
    }
}
