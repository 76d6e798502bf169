//! Files of a sandbox: contents as bytes or as streams, directories as pages.
//!
//! Paths are absolute, without exception: a relative one would mean different files in different
//! sandboxes. They are bytes, as the kernel has them; a `&str` is good where it is UTF-8. Contents are byte-exact; the streaming forms hold one chunk in memory.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use api::{
    file::{DeleteFile, FileEntry, FileList, ListFiles, MODE_HEADER, MakeDirectory, WriteFile},
    id::SandboxId,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response};

use crate::{
    Client, ClientError, MAX_ANSWER_BYTES,
    call::ANSWER_LIMIT,
    encode::{Query, decode, file_path},
    transfer::ByteStream,
};

/// The content of a file as it arrives. Dropping it closes the connection.
pub struct FileStream {
    size: Option<u64>,
    mode: Option<u32>,
    content: ByteStream,
}

impl FileStream {
    /// Bytes of the whole content, where the server knows it before the end.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Permission bits of the file.
    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }
}

impl fmt::Debug for FileStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStream").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.content.poll_next_unpin(context)
    }
}

impl Client {
    /// Reads a file into memory.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] over [`MAX_ANSWER_BYTES`]; [`ClientError::Api`] with
    /// `FILE_NOT_FOUND`, `IS_DIRECTORY`, ...
    pub async fn read_file(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
    ) -> Result<Bytes, ClientError> {
        let response = self.open_file(id, path.as_ref()).await?;
        Ok(self.collect(READ, response, MAX_ANSWER_BYTES).await?.into())
    }

    /// Reads a file of any size, piece by piece.
    ///
    /// # Errors
    /// As [`Client::read_file`], but for the size; a broken connection comes from the stream.
    pub async fn read_file_stream(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
    ) -> Result<FileStream, ClientError> {
        let response = self.open_file(id, path.as_ref()).await?;
        let size = response.content_length();
        let mode = response.headers().get(MODE_HEADER).and_then(|bits| bits.to_str().ok());
        let mode = mode.and_then(|bits| u32::from_str_radix(bits, 8).ok());
        Ok(FileStream { size, mode, content: self.download(READ, response) })
    }

    /// Writes a file whole: readers see the old content or the new. Parents are made.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `IS_DIRECTORY`, `NO_SPACE`, `PERMISSION_DENIED`, ...
    pub async fn write_file(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
        options: &WriteFile,
        content: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let call = self.write_request(id, path.as_ref(), options)?.body(content.into());
        self.send(WRITE, ANSWER_LIMIT, call).await.map(drop)
    }

    /// Writes a file of any size from a stream, in constant memory. An error of the stream, or
    /// dropping the future, leaves the old content.
    ///
    /// # Errors
    /// As [`Client::write_file`]; [`ClientError::Content`] when `content` fails;
    /// [`ClientError::Timeout`] when neither side moves a byte for a minute.
    pub async fn write_file_stream<S>(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
        options: &WriteFile,
        content: S,
    ) -> Result<(), ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let call = self.write_request(id, path.as_ref(), options)?;
        self.upload(WRITE, call, content).await.map(drop)
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
            .optional("limit", limit.as_deref());
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
    ) -> Result<(), ClientError> {
        let path = format!("/v1/sandboxes/{id}/files:mkdir");
        let call = self.request(Method::POST, &path).json(request);
        self.send("make a directory", ANSWER_LIMIT, call).await.map(drop)
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
        let query = Query::default().flag("recursive", options.recursive);
        let url = format!("{}{}", url(id, path.as_ref())?, query.as_str());
        let call = self.request(Method::DELETE, &url);
        self.send("delete a file", ANSWER_LIMIT, call).await.map(drop)
    }

    async fn open_file(&self, id: &SandboxId, path: &[u8]) -> Result<Response, ClientError> {
        self.send(READ, ANSWER_LIMIT, self.request(Method::GET, &url(id, path)?)).await
    }

    fn write_request(
        &self,
        id: &SandboxId,
        path: &[u8],
        options: &WriteFile,
    ) -> Result<RequestBuilder, ClientError> {
        let query = Query::default().optional("mode", options.mode.as_deref());
        let url = format!("{}{}", url(id, path)?, query.as_str());
        let call = self.request(Method::PUT, &url);
        Ok(call.header(CONTENT_TYPE, "application/octet-stream"))
    }
}

const READ: &str = "read a file";
const WRITE: &str = "write a file";

/// The path of an entry as bytes, also where it is not UTF-8: what the calls of this client take.
#[must_use]
pub fn entry_path(entry: &FileEntry) -> Vec<u8> {
    let encoded = entry.encoded_path.as_deref().and_then(decode);
    encoded.map_or_else(|| entry.path.clone().into_bytes(), |path| [b"/", &*path].concat())
}

fn url(id: &SandboxId, path: &[u8]) -> Result<String, ClientError> {
    if !path.starts_with(b"/") {
        let path = String::from_utf8_lossy(path).into_owned();
        return Err(ClientError::RelativePath { path });
    }
    Ok(format!("/v1/sandboxes/{id}/files/{}", file_path(path)))
}
