//! Many files in one request.

use std::{io, sync::Arc, vec};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::Encoding,
    file::{
        FileContent, FileContents, FileEntry, FileResult, FilesWritten, NewFile, ReadEncoding,
        ReadFiles, WriteFiles,
    },
    limit::{BATCH_FILES, JSON_CONTENT_BYTES},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    base, chmod,
    condition::Tags,
    content::Content,
    path, pieces,
    read::{Opened, PIECE_BYTES, READ},
    write::{How, parse_sha256, write_whole},
};
use crate::{extract, init::Agent, refusal::Refusal};

/// Reads several files.
///
/// The answer has one result per path, in their order: a `FileContent`, or an error that concerns this
/// path alone. Together they carry up to 32 MiB of content; a file that does not fit any more is
/// `FILE_TOO_LARGE`.
#[utoipa::path(post, path = "/files:read", operation_id = "readFiles", tag = "files", request_body = ReadFiles,
    responses(
        (status = 200, description = "What was read", body = FileContents),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
    ))]
pub(crate) async fn read_files(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<ReadFiles>,
) -> Result<Response, Refusal> {
    check_count("paths", request.paths.len())?;
    let mut reading = Reading {
        base: base(&agent, request.session.as_ref())?,
        encoding: request.encoding,
        paths: request.paths.into_iter(),
        current: None,
        left: JSON_CONTENT_BYTES,
        stage: Stage::Beginning,
    };
    let mut response = Response::new(pieces(None, move || reading.next_piece()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// Writes several files.
///
/// One after the other, each as PUT would: whole or not at all, with its parents. A file that is
/// refused does not keep the next ones from being written. The answer has one result per file, in
/// their order: what is there now, or the error.
#[utoipa::path(post, path = "/files:write", operation_id = "writeFiles", tag = "files", request_body = WriteFiles,
    responses(
        (status = 200, description = "What became of each", body = FilesWritten),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE: more than 8 MiB of JSON", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
    ))]
pub(crate) async fn write_files(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<WriteFiles>,
) -> Result<Json<FilesWritten>, Refusal> {
    check_count("files", request.files.len())?;
    let base = base(&agent, request.session.as_ref())?;
    let mut files = Vec::with_capacity(request.files.len());
    for file in request.files {
        let path = file.path.clone();
        files.push(match write_one(&base, file).await {
            Ok(entry) => FileResult::Done(entry),
            Err(error) => FileResult::Failed { path, error },
        });
    }
    Ok(Json(FilesWritten { files }))
}

fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    if (1..=BATCH_FILES).contains(&count) {
        return Ok(());
    }
    let text = format!("{field} has 1 to {BATCH_FILES} elements");
    Err(ApiError::new(ErrorCode::ValidationFailed, text).with("field", field))
}

async fn write_one(base: &str, file: NewFile) -> Result<FileEntry, ApiError> {
    let path = path::absolute(base, &file.path)?;
    let how = How {
        mode: file.mode.as_deref().map(chmod::parse).transpose()?,
        append: file.append,
        exclusive: file.exclusive,
        sha256: file.sha256.as_deref().map(parse_sha256).transpose()?,
        if_match: file.if_match.map(Tags::one),
    };
    write_whole(path, how, decode(file.content, file.encoding)?).await
}

fn decode(content: String, encoding: Encoding) -> Result<Vec<u8>, ApiError> {
    match encoding {
        Encoding::Utf8 => Ok(content.into_bytes()),
        Encoding::Base64 => BASE64_STANDARD.decode(content).map_err(|fault| {
            let text = format!("content is not base64 (RFC 4648, with padding): {fault}");
            ApiError::new(ErrorCode::ValidationFailed, text).with("field", "content")
        }),
    }
}

/// An answer of [`read_files`] in the making.
#[derive(Debug)]
struct Reading {
    base: String,
    encoding: ReadEncoding,
    paths: vec::IntoIter<String>,
    /// The file that is being written out.
    current: Option<Content>,
    /// Bytes of content that the answer may still carry.
    left: u64,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Beginning,
    /// Something has been written before, so a comma goes before the next.
    Middle,
    Done,
}

impl Reading {
    fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        while out.len() < PIECE_BYTES {
            if let Some(content) = &mut self.current {
                if content.write(&mut out)? {
                    self.current = None;
                }
                continue;
            }
            let stage = match (&self.stage, self.paths.len()) {
                (Stage::Done, _) => break,
                (_, 0) => Stage::Done,
                _ => Stage::Middle,
            };
            out.extend_from_slice(match std::mem::replace(&mut self.stage, stage) {
                Stage::Beginning => b"{\"files\":[",
                _ if self.stage == Stage::Done => b"]}",
                _ => b",",
            });
            if let Some(path) = self.paths.next() {
                self.begin(path, &mut out)?;
            }
        }
        Ok(Some(Bytes::from(out)).filter(|out| !out.is_empty()))
    }

    /// Begins the next file, or says why it cannot be read.
    fn begin(&mut self, path: String, out: &mut Vec<u8>) -> io::Result<()> {
        match self.open(&path) {
            Ok(content) => {
                self.left -= content.size();
                self.current = Some(content);
            }
            Err(error) => {
                let failed = FileResult::<FileContent>::Failed { path, error };
                serde_json::to_writer(out, &failed)?;
            }
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Result<Content, ApiError> {
        let path = path::absolute(&self.base, path)?;
        let (file, stat) = path::open_file(READ, &path)?;
        let opened = Opened::whole(file, stat, &path)?;
        Content::new(opened, &path, self.encoding, self.left)
    }
}
