//! What is at a path in a sandbox, which the API says only by how a listing goes.

use api::{error::ErrorCode, file::ListFiles, id::SandboxId};
use client::{Client, ClientError};

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
