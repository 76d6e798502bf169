//! `sandbar ls`: what is in a directory of a sandbox.

use std::{process::ExitCode, time::UNIX_EPOCH};

use anyhow::Context as _;
use api::{
    error::ErrorCode,
    file::{FileEntry, FileList, FileType, ListFiles, StatFile},
    limit::FILE_PAGE_ENTRIES,
};
use clap::Args;
use client::{Client, ClientError};

use crate::{
    output::{Output, escape_control, note, print_json, print_text},
    sandbox_path::SandboxPath,
};

/// Arguments of `sandbar ls`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox, and what to list in it: the working directory unless given.
    #[arg(value_name = "ID[:/PATH]")]
    place: SandboxPath,
    /// Type and mode, owner, group, size and time of each.
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot, too.
    #[arg(short, long)]
    all: bool,
    /// Also what is in the directories below.
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Lists page by page, so that any directory fits; with `--json` one object a line.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let SandboxPath { id, path } = &arguments.place;
    let path = path.as_deref().unwrap_or(".");
    let mut query = ListFiles {
        path: path.to_owned(),
        recursive: arguments.recursive,
        hidden: arguments.all,
        limit: Some(FILE_PAGE_ENTRIES),
        ..ListFiles::default()
    };
    let mut root = None;
    loop {
        let page = match client.list_files(id, &query).await {
            Err(ClientError::Api { error, .. }) if error.code == ErrorCode::NotDirectory => {
                let query = StatFile { path: path.to_owned(), ..StatFile::default() };
                let entries = vec![client.stat_file(id, &query).await?];
                FileList { entries, next_cursor: None }
            }
            page => page.with_context(|| format!("could not list {id}:{path}"))?,
        };
        print(&page.entries, &mut root, &arguments, out)?;
        match page.next_cursor {
            Some(cursor) if query.cursor.as_ref() != Some(&cursor) => query.cursor = Some(cursor),
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn print(
    entries: &[FileEntry],
    root: &mut Option<usize>,
    arguments: &Arguments,
    out: Output,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for entry in entries {
        if out.json {
            print_json(entry)?;
            continue;
        }
        // The first entry lies in the listed directory itself.
        let root = *root.get_or_insert(entry.path.len().saturating_sub(entry.name.len()));
        let name = if arguments.recursive { entry.path.get(root..) } else { None };
        let name = one_line(name.unwrap_or(&entry.name));
        if arguments.long {
            text.push_str(&details(entry));
        }
        text.push_str(&name);
        if arguments.long
            && let Some(target) = &entry.link_target
        {
            text.push_str(" -> ");
            text.push_str(&one_line(target));
        }
        text.push('\n');
        if entry.unlisted {
            note(out, format_args!("left out what is in {name}"));
        }
    }
    print_text(text)
}

/// A name that stays on its line.
fn one_line(name: &str) -> String {
    escape_control(name).replace('\n', "\\n").replace('\t', "\\t")
}

/// Seconds since 1970 of the last time whose year has four digits: later ones have no RFC 3339 form, and
/// are shown as this, as those before 1970 are shown as its beginning.
const LAST_SECOND: u64 = 253_402_300_799;

fn details(entry: &FileEntry) -> String {
    let kind = match entry.file_type {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Other => '?',
    };
    let bits: String = (0..9)
        .map(|bit| {
            let is_set = entry.mode & (0o400 >> bit) != 0;
            if is_set { ['r', 'w', 'x'][bit % 3] } else { '-' }
        })
        .collect();
    let time = u64::try_from(entry.modified_ms / 1000).unwrap_or_default().min(LAST_SECOND);
    let time = UNIX_EPOCH + std::time::Duration::from_secs(time);
    let time = humantime::format_rfc3339_seconds(time);
    format!("{kind}{bits} {:>5} {:>5} {:>12} {time} ", entry.uid, entry.gid, entry.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_read_as_those_of_ls() {
        let entry: FileEntry = serde_json::from_value(serde_json::json!({
            "name": "f", "path": "/f", "type": "symlink", "size": 7, "mode": 0o1754,
            "uid": 0, "gid": 65534, "modifiedMs": 1_000_000_000_999_i64
        }))
        .unwrap();
        let expected = "lrwxr-xr--     0 65534            7 2001-09-09T01:46:40Z ";
        assert_eq!(details(&entry), expected);
        assert_eq!(one_line("a\tb\nc\u{1b}"), "a\\tb\\nc\\u{1b}");
        for (modified_ms, shown) in
            [(i64::MAX, "9999-12-31T23:59:59Z "), (-1, "1970-01-01T00:00:00Z ")]
        {
            assert!(details(&FileEntry { modified_ms, ..entry.clone() }).ends_with(shown));
        }
    }
}
