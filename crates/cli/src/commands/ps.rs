//! `sandbar ps`: the sandboxes and what they use, or the processes of one.

use std::{process::ExitCode, time::SystemTime};

use api::{
    exec::Ending,
    id::SandboxId,
    process::{ListProcesses, Process, ProcessKind},
    sandbox::{Sandbox, SandboxState},
};
use clap::Args;
use client::Client;
use futures_util::{StreamExt as _, stream};
use owo_colors::{OwoColorize as _, Stream};
use serde_json::json;

use crate::{
    commands::require_sandbox,
    output::{Output, escape_control, print_json, print_line, print_text},
    table::Table,
    units::{format_age, format_bytes},
};

/// Sandboxes asked for their usage at once; a list of a thousand then takes well under a second.
const IN_FLIGHT: usize = 16;

/// Arguments of `sandbar ps`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// List the processes of this sandbox, in place of the sandboxes.
    sandbox: Option<SandboxId>,
    /// Only sandboxes with this label.
    #[arg(long, value_name = "NAME[=VALUE]", conflicts_with = "sandbox")]
    label: Option<String>,
    /// Only the ids, one a line.
    #[arg(short, long)]
    quiet: bool,
}

/// Characters of a command that the list shows.
const COMMAND_CHARS: usize = 60;

/// Lists the sandboxes, sorted by id, or the processes of one, oldest first.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    if let Some(sandbox) = &arguments.sandbox {
        return processes(&client, sandbox, arguments.quiet, out).await;
    }
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
    if !matches!(listed.state, SandboxState::Running | SandboxState::Frozen) {
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

async fn processes(
    client: &Client,
    sandbox: &SandboxId,
    quiet: bool,
    out: Output,
) -> anyhow::Result<ExitCode> {
    require_sandbox(client, sandbox).await?;
    let processes = client.list_processes(sandbox, &ListProcesses::default()).await?;
    if out.json {
        print_json(&json!({"processes": processes}))?;
    } else if quiet {
        for process in &processes {
            print_line(&process.id)?;
        }
    } else {
        print_text(process_table(&processes, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn process_table(processes: &[Process], now: SystemTime) -> Table<6> {
    let mut table = Table::new(["ID", "KIND", "PID", "AGE", "STATE", "COMMAND"]);
    for process in processes {
        let kind = match process.kind {
            ProcessKind::Process => "process",
            ProcessKind::Exec => "exec",
            ProcessKind::Run => "run",
        };
        table.row([
            process.id.to_string(),
            kind.to_owned(),
            process.pid.to_string(),
            format_age(process.started_at_ms, now),
            process.ending.map_or_else(|| "running".to_owned(), ending),
            escape_control(&shortened(&process.command)).replace('\n', "\\n"),
        ]);
    }
    table
}

fn shortened(command: &str) -> String {
    match command.char_indices().nth(COMMAND_CHARS) {
        Some((end, _)) => format!("{}...", &command[..end]),
        None => command.to_owned(),
    }
}

/// How a process ended, in a word or two.
fn ending(ending: Ending) -> String {
    match ending {
        Ending::Exited { code } => format!("exited {code}"),
        Ending::Signaled { signal } => format!("signal {signal}"),
        Ending::Timeout => "timeout".to_owned(),
        Ending::OutOfMemory => "out of memory".to_owned(),
        Ending::PidsLimit => "pids limit".to_owned(),
        Ending::DiskFull => "disk full".to_owned(),
        Ending::Killed { signal } => format!("killed {signal}"),
        Ending::Lost => "lost".to_owned(),
    }
}

/// The state as a word, coloured on a terminal.
pub(crate) fn state(state: SandboxState) -> String {
    match state {
        SandboxState::Creating => "creating".to_owned(),
        SandboxState::Running => {
            "running".if_supports_color(Stream::Stdout, |word| word.green()).to_string()
        }
        SandboxState::Frozen => {
            "frozen".if_supports_color(Stream::Stdout, |word| word.blue()).to_string()
        }
        SandboxState::Stopped => {
            "stopped".if_supports_color(Stream::Stdout, |word| word.yellow()).to_string()
        }
        SandboxState::Failed => {
            "failed".if_supports_color(Stream::Stdout, |word| word.red()).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_a_line_each_whatever_their_commands_hold() {
        let process: Process = serde_json::from_value(json!({
            "id": "web", "kind": "process", "pid": 7, "running": false, "startedAtMs": 0,
            "command": format!("a\n\u{1b}[2J{}", "x".repeat(100)), "exitCode": 143,
            "ending": {"type": "killed", "signal": 15},
            "log": {"firstCursor": 0, "nextCursor": 0, "droppedBytes": 0}
        }))
        .unwrap();

        let table = process_table(&[process], SystemTime::UNIX_EPOCH).to_string();

        let line = table.lines().nth(1).unwrap();
        assert_eq!(table.lines().count(), 2);
        assert!(line.starts_with("web  process  7    0s   killed 15  a\\n\\u{1b}[2Jxxx"), "{line}");
        assert!(line.ends_with("x..."), "{line}");
    }
}
