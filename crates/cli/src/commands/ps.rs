//! `sandbar ps`: the sandboxes and what they use.

use std::{process::ExitCode, time::SystemTime};

use api::sandbox::{Sandbox, SandboxState};
use clap::Args;
use client::Client;
use futures_util::{StreamExt as _, stream};
use owo_colors::{OwoColorize as _, Stream};
use serde_json::json;

use crate::{
    output::{Output, print_json, print_line, print_text},
    table::Table,
    units::{format_age, format_bytes},
};

/// Sandboxes asked for their usage at once; a list of a thousand then takes well under a second.
const IN_FLIGHT: usize = 16;

/// Arguments of `sandbar ps`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only sandboxes with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
    /// Only the ids, one a line.
    #[arg(short, long)]
    quiet: bool,
}

/// Lists the sandboxes, sorted by id.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let mut sandboxes = client.all_sandboxes(arguments.label.as_deref()).await?;
    if arguments.quiet && !out.json {
        for sandbox in &sandboxes {
            print_line(&sandbox.id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    sandboxes = stream::iter(sandboxes)
        .map(|sandbox| with_usage(&client, sandbox))
        .buffered(IN_FLIGHT)
        .collect()
        .await;
    if out.json {
        print_json(&json!({"sandboxes": sandboxes}))?;
    } else {
        print_text(table(&sandboxes, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists come without usage. A sandbox that goes away meanwhile is shown as it was listed.
async fn with_usage(client: &Client, listed: Sandbox) -> Sandbox {
    if listed.state != SandboxState::Running {
        return listed;
    }
    client.sandbox(&listed.id).await.unwrap_or(listed)
}

fn table(sandboxes: &[Sandbox], now: SystemTime) -> Table<6> {
    let mut table = Table::new(["ID", "IMAGE", "MEMORY", "PIDS", "AGE", "STATE"]);
    for sandbox in sandboxes {
        let used = |text: fn(&api::sandbox::SandboxUsage) -> String| {
            sandbox.usage.as_ref().map_or_else(|| "-".to_owned(), text)
        };
        table.row([
            sandbox.id.to_string(),
            sandbox.image.to_string(),
            used(|usage| format_bytes(usage.memory_bytes)),
            used(|usage| usage.pids.to_string()),
            format_age(sandbox.created_at_ms, now),
            // Last, because colours would count as width.
            state(sandbox.state),
        ]);
    }
    table
}

/// The state as a word, coloured on a terminal.
pub(crate) fn state(state: SandboxState) -> String {
    match state {
        SandboxState::Creating => "creating".to_owned(),
        SandboxState::Running => {
            "running".if_supports_color(Stream::Stdout, |word| word.green()).to_string()
        }
        SandboxState::Stopped => {
            "stopped".if_supports_color(Stream::Stdout, |word| word.yellow()).to_string()
        }
        SandboxState::Failed => {
            "failed".if_supports_color(Stream::Stdout, |word| word.red()).to_string()
        }
    }
}
