//! Files of a sandbox: contents as bytes or as streams, directories as pages.
//!
//! Paths as arguments are absolute: a relative one would mean different files in different
//! sandboxes; the types of [`api::file`] take relative ones. They are bytes, as the kernel has them; a
//! `&str` is good where it is UTF-8. Contents are byte-exact; the streaming forms hold one chunk in
//! memory.

mod names;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use api::{
    file::{
        FileContent, FileContents, FileEntry, FileResult, FilesWritten, MODE_HEADER, ReadEncoding,
        ReadFiles, WriteFile, WriteFiles,
    },
    id::{SandboxId, SessionId},
};
use bytes::Bytes;
use futures_util::{Stream, stream::StreamExt};
use http::header::{CONTENT_TYPE, IF_MATCH};
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
    ) -> Result<FileEntry, ClientError> {
        let call = self.write_request(id, path.as_ref(), options)?.body(content.into());
        self.send_json(WRITE, ANSWER_LIMIT, call).await
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
    ) -> Result<FileEntry, ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let call = self.write_request(id, path.as_ref(), options)?;
        let response = self.upload(WRITE, call, content).await?;
        self.json(WRITE, response).await
    }

    /// Writes a file whole, but only over the content that `etag` names: of two programs that have
    /// read the same content, the second to write is refused.
    ///
    /// # Errors
    /// As [`Client::write_file`]; [`ClientError::Api`] with `PRECONDITION_FAILED`.
    pub async fn replace_file(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
        options: &WriteFile,
        etag: &str,
        content: impl Into<Bytes>,
    ) -> Result<FileEntry, ClientError> {
        let call = self.write_request(id, path.as_ref(), options)?.header(IF_MATCH, etag);
        self.send_json(WRITE, ANSWER_LIMIT, call.body(content.into())).await
    }

    /// Reads a file of up to 32 MiB as text or base64, with what is said about it.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `FILE_TOO_LARGE`, ...
    pub async fn file_content(
        &self,
        id: &SandboxId,
        path: impl AsRef<[u8]>,
        encoding: ReadEncoding,
    ) -> Result<FileContent, ClientError> {
        let encoding = match encoding {
            ReadEncoding::Auto => "auto",
            ReadEncoding::Utf8 => "utf8",
            ReadEncoding::Base64 => "base64",
        };
        let query = Query::default().text("encoding", encoding);
        let url = format!("{}{}", url(id, path.as_ref())?, query.as_str());
        self.send_json(READ, ANSWER_LIMIT, self.request(Method::GET, &url)).await
    }

    /// Reads several files; one result per path, in their order.
    ///
    /// # Errors
    /// Those of the request as a whole; a file's own are in its result.
    pub async fn read_files(
        &self,
        id: &SandboxId,
        request: &ReadFiles,
    ) -> Result<Vec<FileResult<FileContent>>, ClientError> {
        let path = format!("/v1/sandboxes/{id}/files:read");
        let call = self.request(Method::POST, &path).json(request);
        let answer: FileContents = self.send_json("read files", ANSWER_LIMIT, call).await?;
        Ok(answer.files)
    }

    /// Writes several files; one result per file, in their order. The request has up to 8 MiB.
    ///
    /// # Errors
    /// As [`Client::read_files`].
    pub async fn write_files(
        &self,
        id: &SandboxId,
        request: &WriteFiles,
    ) -> Result<Vec<FileResult<FileEntry>>, ClientError> {
        let path = format!("/v1/sandboxes/{id}/files:write");
        let call = self.request(Method::POST, &path).json(request);
        let answer: FilesWritten = self.send_json("write files", ANSWER_LIMIT, call).await?;
        Ok(answer.files)
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
        let query = Query::default()
            .optional("mode", options.mode.as_deref())
            .flag("append", options.append)
            .flag("exclusive", options.exclusive)
            .optional("sha256", options.sha256.as_deref())
            .optional("session", options.session.as_ref().map(SessionId::as_str));
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
