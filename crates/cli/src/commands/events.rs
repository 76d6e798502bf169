//! `sandbar events`: what happened to sandboxes and why, and what happens.

use std::{
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use api::{
    event::{Event, ListEvents},
    id::SandboxId,
};
use clap::Args;
use client::Client;
use futures_util::StreamExt as _;
use serde::Serialize;

use crate::output::{Output, escape_control, print_json, print_line};

/// Arguments of `sandbar events`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only those of this sandbox, be it there or not.
    sandbox: Option<SandboxId>,
    /// Show what happens from now on, over a restart of the server too.
    #[arg(short, long)]
    follow: bool,
    /// Only events after this one (see --json); with --follow, those that have happened since first.
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// Only of sandboxes that had this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
    /// Only of this kind (created, frozen, destroyed, ...); may be repeated.
    #[arg(long)]
    kind: Vec<String>,
}

/// Shows the events that are kept, or those that happen until a signal comes: with --json, one a line.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let mut query = ListEvents {
        after: arguments.after,
        sandbox: arguments.sandbox,
        label: arguments.label,
        kind: Some(arguments.kind.join(",")).filter(|kinds| !kinds.is_empty()),
        limit: None,
    };
    let client = Client::from_environment()?;
    if arguments.follow {
        let mut events = client.follow_events(&query).await?;
        while let Some(event) = events.next().await {
            show(&event?, out)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let page = client.events(&query).await?;
        page.events.iter().try_for_each(|event| show(event, out))?;
        if !page.more {
            return Ok(ExitCode::SUCCESS);
        }
        query.after = Some(page.cursor);
    }
}

fn show(event: &Event, out: Output) -> anyhow::Result<()> {
    if out.json { print_json(event) } else { print_line(escape_control(&line(event))) }
}

fn line(event: &Event) -> String {
    let since = Duration::from_millis(u64::try_from(event.at_ms).unwrap_or_default());
    let at = humantime::format_rfc3339_millis(UNIX_EPOCH + since);
    let sandbox = event.sandbox_id.as_ref().map_or("-", SandboxId::as_str);
    let what = format!("{at}  {:<17}  {sandbox}  {}", word(event.kind), word(event.cause));
    let facts = [
        event.key.as_ref().map(|key| format!("by={key}")),
        event.source.as_ref().map(|source| format!("from={source}")),
        event.checkpoint.as_ref().map(|checkpoint| format!("checkpoint={checkpoint}")),
        event.message.clone(),
    ];
    std::iter::once(what).chain(facts.into_iter().flatten()).collect::<Vec<_>>().join("  ")
}

/// A name of the wire.
fn word(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_happened_and_why() {
        let event = serde_json::json!({"cursor": 3, "atMs": 1_764_000_000_123_i64,
            "kind": "checkpointCreated", "cause": "request", "sandboxId": "box", "key": "local",
            "checkpoint": "c1"});
        let event = serde_json::from_value(event).unwrap();
        assert_eq!(
            line(&event),
            "2025-11-24T16:00:00.123Z  checkpointCreated  box  request  by=local  checkpoint=c1"
        );
    }
}
