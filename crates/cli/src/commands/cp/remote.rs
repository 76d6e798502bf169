//! Questions about paths in a sandbox that the API has no single answer to.

use api::{
    error::ErrorCode,
    file::{FileEntry, FileType, ListFiles},
    id::SandboxId,
};
use client::{Client, ClientError};

use super::{
    MODE_BITS,
    place::{join, last_component},
};

/// Pages of a directory looked through for the permission bits of one file in it: 64,000 entries.
/// In a larger directory the file gets the default bits.
const MODE_PAGES: usize = 64;

/// What is at a path, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    NotDirectory,
    Missing,
}

pub(super) async fn kind(client: &Client, id: &SandboxId, path: &str) -> Result<Kind, ClientError> {
    let query = ListFiles { path: path.to_owned(), limit: Some(1), ..ListFiles::default() };
    match client.list_files(id, &query).await {
        Ok(_page) => Ok(Kind::Directory),
        Err(ClientError::Api { error, .. }) if error.code == ErrorCode::NotDirectory => {
            Ok(Kind::NotDirectory)
        }
        Err(ClientError::Api { error, .. }) if error.code == ErrorCode::FileNotFound => {
            Ok(Kind::Missing)
        }
        Err(error) => Err(error),
    }
}

/// Permission bits of the regular file at `path`, from the listing of its directory. None for
/// anything else, a link included.
pub(super) async fn mode(
    client: &Client,
    id: &SandboxId,
    path: &str,
) -> Result<Option<u32>, ClientError> {
    let Some(name) = last_component(path) else { return Ok(None) };
    let parent = path.trim_end_matches('/').strip_suffix(name).unwrap_or("/");
    let mut query = ListFiles { path: join(parent, ""), hidden: true, ..ListFiles::default() };
    for _page in 0..MODE_PAGES {
        let page = client.list_files(id, &query).await?;
        let found = page.entries.iter().find(|entry| entry.name == name);
        if let Some(FileEntry { file_type, mode, .. }) = found {
            return Ok((*file_type == FileType::File).then_some(mode & MODE_BITS));
        }
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
    }
    Ok(None)
}
