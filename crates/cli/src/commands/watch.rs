//! `sandbar watch`: what changes in a sandbox's files, a line for each change.

use std::process::ExitCode;

use anyhow::bail;
use api::watch::{FileChange, FileChangeType, WatchEnd, WatchEvent, WatchFiles};
use clap::Args;
use client::Client;
use futures_util::StreamExt as _;

use super::cp::place::Place;
use crate::{
    failure::Stop,
    output::{Output, escape_control, note, print_json, print_line},
};

const EXCLUDE: &str = "Leave out what matches; may be repeated. Without it .git, node_modules and \
    .DS_Store are left out; '' leaves out nothing";

/// Arguments of `sandbar watch`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory or file, as `ID:/path`.
    #[arg(value_name = "SANDBOX:PATH")]
    place: Place,
    /// Leave out the directories below it.
    #[arg(long)]
    no_recursive: bool,
    /// Show only what matches (*.py, src/**); may be repeated.
    #[arg(long, value_name = "PATTERN", conflicts_with = "exclude")]
    include: Vec<String>,
    #[arg(long, value_name = "PATTERN", help = EXCLUDE)]
    exclude: Option<Vec<String>>,
}

/// Shows changes until there can be none or a signal comes.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let Place::Sandbox { id, path } = arguments.place else {
        let text = "name what to watch as ID:/path; files of this machine are not watched";
        return Err(Stop::Usage(text.to_owned()).into());
    };
    let exclude = arguments.exclude.map(|patterns| {
        patterns.into_iter().filter(|pattern| !pattern.is_empty()).collect::<Vec<_>>()
    });
    let request = WatchFiles {
        recursive: !arguments.no_recursive,
        include: arguments.include,
        exclude,
        ..WatchFiles::new(path)
    };
    let client = Client::from_environment()?;
    let mut events = client.watch_files(&id, &request).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        if out.json {
            print_json(&event)?;
        }
        match event {
            WatchEvent::Watching { path, directories } => {
                let path = escape_control(&path);
                note(out, format_args!("watching {path} ({directories} directories)"));
            }
            WatchEvent::Event(change) if !out.json => {
                if let Some(line) = line(&change) {
                    print_line(escape_control(&line))?;
                }
            }
            WatchEvent::Event(_) => {}
            WatchEvent::Overflow { path } => {
                let path = escape_control(&path);
                note(out, format_args!("too many changes: some are not shown; list {path} again"));
            }
            WatchEvent::Stopped { reason } => {
                note(out, format_args!("{} {}", escape_control(&request.path), ended(reason)));
                return Ok(ExitCode::SUCCESS);
            }
            // The stream turns it into its error.
            WatchEvent::Error { error } => bail!(error),
        }
    }
    bail!("the events ended before the watch did")
}

fn ended(reason: WatchEnd) -> &'static str {
    match reason {
        WatchEnd::Deleted => "was deleted",
        WatchEnd::Moved => "was moved",
    }
}

/// What a change is to people; none for the first half of a move that the second half tells.
fn line(change: &FileChange) -> Option<String> {
    let FileChange { path, from, to, .. } = change;
    let slash = if change.is_directory { "/" } else { "" };
    let word = match change.event_type {
        FileChangeType::Create => "created",
        FileChangeType::Modify => "modified",
        FileChangeType::Attrib => "attributes",
        FileChangeType::Delete => "deleted",
        FileChangeType::MoveFrom if to.is_some() => return None,
        FileChangeType::MoveFrom => "moved away",
        FileChangeType::MoveTo => "moved here",
    };
    Some(match from {
        Some(from) => format!("{:<10}  {from}{slash} -> {path}{slash}", "moved"),
        None => format!("{word:<10}  {path}{slash}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_one_line() {
        let change = |event_type, from: Option<&str>, to: Option<&str>| FileChange {
            event_type,
            path: "/w/x".to_owned(),
            encoded_path: None,
            is_directory: true,
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            timestamp_ms: 0,
        };
        for (change, expected) in [
            (change(FileChangeType::MoveFrom, None, Some("/w/y")), None),
            (change(FileChangeType::MoveFrom, None, None), Some("moved away  /w/x/")),
            (
                change(FileChangeType::MoveTo, Some("/w/y"), None),
                Some("moved       /w/y/ -> /w/x/"),
            ),
            (change(FileChangeType::MoveTo, None, None), Some("moved here  /w/x/")),
            (change(FileChangeType::Create, None, None), Some("created     /w/x/")),
        ] {
            assert_eq!(line(&change).as_deref(), expected);
        }
    }
}
