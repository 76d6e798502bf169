//! Archives: a directory of a sandbox as one tar stream, out and in.

use std::io;

use api::{
    archive::{ReadArchive, Unpacked, WriteArchive},
    id::SandboxId,
};
use bytes::Bytes;
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use reqwest::Method;

use crate::{
    ByteStream, Client, ClientError, MAX_ANSWER_BYTES,
    call::{ANSWER_LIMIT, protocol},
    encode::Query,
};

const READ: &str = "read an archive";
const WRITE: &str = "write an archive";

impl Client {
    /// Packs a directory of the sandbox, or one file, and gives the archive as it is made.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FILE_NOT_FOUND`, `TOO_MANY_REQUESTS`, ...; an archive that breaks off
    /// is an error of the stream.
    pub async fn archive_out(
        &self,
        id: &SandboxId,
        query: &ReadArchive,
    ) -> Result<ByteStream, ClientError> {
        let text = Query::default().text("path", &query.path).text("format", query.format.as_str());
        let text = query.exclude.iter().fold(text, |text, one| text.text("exclude", one));
        let path = format!("/v1/sandboxes/{id}/archive{}", text.as_str());
        let response = self.send(READ, ANSWER_LIMIT, self.request(Method::GET, &path)).await?;
        Ok(self.download(READ, response))
    }

    /// Unpacks an archive into a directory of the sandbox, from a stream, in constant memory. When it
    /// fails, or the future is dropped, what was unpacked before stays, each file whole.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `INVALID_ARCHIVE`, `NO_SPACE`, ..., whose details say how much was
    /// written; [`ClientError::Content`] when `content` fails; [`ClientError::Timeout`] when neither
    /// side moves a byte for a minute.
    pub async fn archive_in<S>(
        &self,
        id: &SandboxId,
        query: &WriteArchive,
        content: S,
    ) -> Result<Unpacked, ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let strip = (query.strip_components > 0).then(|| query.strip_components.to_string());
        let text = Query::default()
            .text("path", &query.path)
            .text("format", query.format.as_str())
            .optional("stripComponents", strip.as_deref())
            .flag("keepOwner", query.keep_owner)
            .optional("keepTimes", (!query.keep_times).then_some("false"));
        let path = format!("/v1/sandboxes/{id}/archive{}", text.as_str());
        let call = self.request(Method::PUT, &path);
        let call = call.header(CONTENT_TYPE, query.format.content_type());
        let response = self.upload(WRITE, call, content).await?;
        let body = self.collect(WRITE, response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|fault| protocol(WRITE, format!("its body does not read: {fault}")))
    }
}
