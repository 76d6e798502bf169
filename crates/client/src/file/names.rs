//! What is done with names: look, list, make, move, copy, delete.

use std::time::Duration;

use api::{
    error::ErrorCode,
    file::{
        ChangeMode, CopyFile, DeleteFile, FileEntry, FileList, ListFiles, MakeDirectory,
        MakeSymlink, MoveFile, StatFile,
    },
    id::{SandboxId, SessionId},
    limit::EXEC_TIMEOUT_MS,
};
use reqwest::Method;
use serde::Serialize;

use super::url;
use crate::{Client, ClientError, call::ANSWER_LIMIT, encode::Query};

/// Time for what may copy a tree: as long as an exec, which would do the same.
const COPY_LIMIT: Duration = Duration::from_millis(EXEC_TIMEOUT_MS);

impl Client {
    /// Looks at a file.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `NOT_DIRECTORY`, ...
    pub async fn stat_file(
        &self,
        id: &SandboxId,
        query: &StatFile,
    ) -> Result<FileEntry, ClientError> {
        let text = Query::default()
            .text("path", &query.path)
            .flag("follow", query.follow)
            .optional("session", query.session.as_ref().map(SessionId::as_str));
        let path = format!("/v1/sandboxes/{id}/files:stat{}", text.as_str());
        self.send_json("look at a file", ANSWER_LIMIT, self.request(Method::GET, &path)).await
    }

    /// True when there is something at the absolute path `path`, links followed.
    ///
    /// # Errors
    /// As [`Client::stat_file`], except for what says that nothing is there.
    pub async fn file_exists(&self, id: &SandboxId, path: &str) -> Result<bool, ClientError> {
        let query = StatFile { path: path.to_owned(), follow: true, session: None };
        match self.stat_file(id, &query).await {
            Ok(_there) => Ok(true),
            Err(ClientError::Api { error, .. })
                if matches!(error.code, ErrorCode::FileNotFound | ErrorCode::NotDirectory) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// One page of a directory.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `NOT_DIRECTORY`, ...
    pub async fn list_files(
        &self,
        id: &SandboxId,
        query: &ListFiles,
    ) -> Result<FileList, ClientError> {
        let limit = query.limit.map(|limit| limit.to_string());
        let text = Query::default()
            .text("path", &query.path)
            .flag("recursive", query.recursive)
            .flag("hidden", query.hidden)
            .optional("cursor", query.cursor.as_deref())
            .optional("limit", limit.as_deref())
            .optional("session", query.session.as_ref().map(SessionId::as_str));
        let path = format!("/v1/sandboxes/{id}/files:list{}", text.as_str());
        self.send_json("list a directory", ANSWER_LIMIT, self.request(Method::GET, &path)).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_EXISTS`, `FILE_NOT_FOUND` (the parent), ...
    pub async fn make_directory(
        &self,
        id: &SandboxId,
        request: &MakeDirectory,
    ) -> Result<FileEntry, ClientError> {
        self.change("make a directory", ANSWER_LIMIT, id, ("mkdir", request)).await
    }

    /// Moves or renames a file, a link or a directory. A move to another file system copies, and
    /// takes as long as that takes.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `FILE_EXISTS`, ...
    pub async fn move_file(
        &self,
        id: &SandboxId,
        request: &MoveFile,
    ) -> Result<FileEntry, ClientError> {
        self.change("move a file", COPY_LIMIT, id, ("move", request)).await
    }

    /// Copies a file, or a directory with everything in it. Takes as long as that takes.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `IS_DIRECTORY`, `FILE_EXISTS`, ...
    pub async fn copy_file(
        &self,
        id: &SandboxId,
        request: &CopyFile,
    ) -> Result<FileEntry, ClientError> {
        self.change("copy a file", COPY_LIMIT, id, ("copy", request)).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_EXISTS`, `FILE_NOT_FOUND` (the parent), ...
    pub async fn make_symlink(
        &self,
        id: &SandboxId,
        request: &MakeSymlink,
    ) -> Result<FileEntry, ClientError> {
        self.change("make a link", ANSWER_LIMIT, id, ("symlink", request)).await
    }

    /// Changes permission bits.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `READ_ONLY`, ...
    pub async fn change_mode(
        &self,
        id: &SandboxId,
        request: &ChangeMode,
    ) -> Result<FileEntry, ClientError> {
        self.change("change a mode", ANSWER_LIMIT, id, ("chmod", request)).await
    }

    /// Deletes a file, or with `options.recursive` a directory and everything in it.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `IS_DIRECTORY`, ...
    pub async fn delete_file(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
        options: &DeleteFile,
    ) -> Result<(), ClientError> {
        let query = Query::default()
            .flag("recursive", options.recursive)
            .optional("session", options.session.as_ref().map(SessionId::as_str));
        let url = format!("{}{}", url(id, path.as_ref())?, query.as_str());
        let call = self.request(Method::DELETE, &url);
        self.send("delete a file", ANSWER_LIMIT, call).await.map(drop)
    }

    async fn change(
        &self,
        attempt: &str,
        limit: Duration,
        id: &SandboxId,
        (verb, request): (&str, &impl Serialize),
    ) -> Result<FileEntry, ClientError> {
        let path = format!("/v1/sandboxes/{id}/files:{verb}");
        self.send_json(attempt, limit, self.request(Method::POST, &path).json(request)).await
    }
}
