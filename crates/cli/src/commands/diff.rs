//! `sandbar diff`: what differs between the files of a sandbox and an earlier state of them.

use std::process::ExitCode;

use api::{
    diff::{DiffFiles, Difference, DifferenceKind, DifferencePart},
    file::FileType,
    id::{CheckpointId, SandboxId},
    limit::FILE_PAGE_ENTRIES,
};
use clap::Args;
use client::Client;

use crate::{
    output::{Output, escape_control, print_json, print_text},
    units::format_bytes,
};

/// Arguments of `sandbar diff`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    id: SandboxId,
    /// Compare with this checkpoint, instead of with the image that the sandbox began from.
    #[arg(long, value_name = "CHECKPOINT")]
    against: Option<CheckpointId>,
    /// Compare the files of this checkpoint, instead of those there are now.
    #[arg(long, value_name = "CHECKPOINT")]
    of: Option<CheckpointId>,
}

/// Prints a line for each difference, page by page; with `--json` one object a line.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let Arguments { id, against, of } = arguments;
    let mut query = DiffFiles { against, of, cursor: None, limit: Some(FILE_PAGE_ENTRIES) };
    loop {
        let page = client.diff_files(&id, &query).await?;
        if out.json {
            page.differences.iter().try_for_each(print_json)?;
        } else {
            print_text(page.differences.iter().map(line).collect::<String>())?;
        }
        match page.next_cursor {
            Some(cursor) if query.cursor.as_ref() != Some(&cursor) => query.cursor = Some(cursor),
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// As in `M /etc/hosts (content, time)`.
fn line(found: &Difference) -> String {
    let letter = match found.kind {
        DifferenceKind::Added => 'A',
        DifferenceKind::Modified => 'M',
        DifferenceKind::Deleted => 'D',
    };
    let path = escape_control(&found.path).replace('\n', "\\n").replace('\t', "\\t");
    let slash = match found.file_type {
        FileType::Directory if found.path != "/" => "/",
        _ => "",
    };
    let mut about: Vec<String> = found.changes.iter().map(|part| name(*part).to_owned()).collect();
    if found.kind == DifferenceKind::Added && found.file_type == FileType::File {
        about.push(format_bytes(found.size));
    }
    if found.unread {
        about.push("not all of what is in it was compared: it lies too deep".to_owned());
    }
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    format!("{letter} {path}{slash}{about}\n")
}

fn name(part: DifferencePart) -> &'static str {
    match part {
        DifferencePart::Content => "content",
        DifferencePart::Mode => "mode",
        DifferencePart::Owner => "owner",
        DifferencePart::Time => "time",
        DifferencePart::Attributes => "attributes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line() {
        let told = |json| line(&serde_json::from_value(json).unwrap());
        for (json, expected) in [
            (
                serde_json::json!({"path": "/a\nb\u{1b}", "kind": "added", "type": "file", "size": 3 << 20}),
                "A /a\\nb\\u{1b} (3.0 MiB)\n",
            ),
            (
                serde_json::json!({"path": "/d", "kind": "deleted", "type": "directory", "size": 0}),
                "D /d/\n",
            ),
            (
                serde_json::json!({"path": "/", "kind": "modified", "type": "directory", "size": 0,
                    "changes": ["mode", "owner"]}),
                "M / (mode, owner)\n",
            ),
        ] {
            assert_eq!(told(json), expected);
        }
    }
}
