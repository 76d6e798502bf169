//! Reading a file: a small one in one step, a large one in pieces.

use std::{fs::File, io, os::fd::AsFd, os::unix::fs::FileExt, sync::Arc};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{FileContent, MODE_HEADER, MODIFIED_HEADER, ReadEncoding, ReadFile},
};
use axum::{
    body::Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use sys::file::Stat;

use super::{
    QUICK_BYTES, blocking, condition,
    content::Content,
    entry::{PERMISSIONS, etag, modified_ms},
    fault::io_fault,
    mime,
    path::{self, FilePath, open_file},
    pieces, place, quickly,
    range::{self, Range},
};
use crate::{extract::Query, init::Agent, refusal::Refusal};

pub(super) const READ: &str = "read";

/// Bytes read at once: large enough that the way to a thread and back costs little beside the
/// copy, small enough that 100 downloads at once hold some 25 MiB. A multiple of three, so that
/// pieces in base64 join without padding.
pub(super) const PIECE_BYTES: usize = 255 * 1024;

/// Bytes of the longest content that a file without a size can have; past it the connection ends.
/// Such files are /proc's, and theirs are short.
const SIZELESS_BYTES: u64 = 64 * 1024 * 1024;

/// Reads a file.
///
/// The body is the content, byte for byte; `{path}` is the absolute path without its leading slash,
/// percent-encoded. `Range: bytes=a-b`, `a-` or `-n` gives a part. A file that shrinks while it is
/// sent ends the connection before the promised length; one that grows is sent as long as it was.
///
/// With `encoding` the answer is JSON: the content as text or base64, up to 32 MiB.
#[utoipa::path(method(get, head), path = "/files/{*path}", operation_id = "readFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"), ReadFile,
        ("range" = Option<String>, Header, description = "One range of bytes, RFC 9110 section 14.2"),
        ("if-range" = Option<String>, Header, description = "The range only of the content with this etag, else the whole"),
        ("if-match" = Option<String>, Header, description = "Only the content with one of these etags"),
        ("if-none-match" = Option<String>, Header, description = "Etags the caller has: then 304")),
    responses(
        (status = 200, description = "The content; its MIME type by the name's extension, else by the content. With `encoding` a FileContent in JSON",
            content((Vec<u8> = "application/octet-stream"), (FileContent = "application/json")),
            headers(("etag" = String, description = "Names this content"),
                ("x-sandbar-mode" = String, description = "Permission bits in octal"),
                ("x-sandbar-modified-ms" = i64, description = "Last change, milliseconds since 1970"))),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = [u8]),
        (status = 304, description = "The caller has this content"),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 412, description = "PRECONDITION_FAILED", body = ErrorBody),
        (status = 413, description = "FILE_TOO_LARGE: for `encoding`", body = ErrorBody),
        (status = 416, description = "RANGE_NOT_SATISFIABLE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn read(
    State(agent): State<Arc<Agent>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ReadFile>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = path::of_url(place(&agent, query.session.as_ref())?.as_deref(), uri.path())?;
    let opened = quickly(move || Ok((open_file(READ, &path)?, path)));
    let ((file, stat), path) = opened.await?;
    let is_small = (1..=QUICK_BYTES).contains(&stat.size);
    // Ranges are for GET alone (RFC 9110, section 14.2).
    let range = range::of(&headers).filter(|_| method == Method::GET);
    let answer = move || answer(&path, (file, stat), (query.encoding, range), &headers);
    Ok(if is_small { quickly(answer).await? } else { blocking(answer).await? })
}

/// The answer about an open file.
fn answer(
    path: &FilePath,
    (file, stat): (File, Stat),
    (encoding, range): (Option<ReadEncoding>, Option<Range>),
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let tag = etag(&stat);
    if let Some(tags) = condition::if_match(headers) {
        tags.require(path, Some(&tag))?;
    }
    if condition::is_known(headers, &tag) {
        return Ok(unchanged(&tag));
    }
    if let Some(encoding) = encoding {
        let opened = Opened::whole(file, stat, path)?;
        return Content::new(opened, path, encoding, api::limit::JSON_CONTENT_BYTES)
            .map(|content| content.respond(&tag));
    }
    let range = range.filter(|_| condition::range_holds(headers, &tag));
    Opened::part(file, stat, path, range).map(|opened| opened.respond(path, &tag))
}

fn unchanged(tag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    set(response.headers_mut(), header::ETAG.as_str(), tag);
    response
}

/// An open file, the part of it that was asked for, and the first piece of that part.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) stat: Stat,
    /// Where the part starts.
    start: u64,
    /// The part is not the whole.
    is_part: bool,
    /// Bytes of the part; none when the file does not say how long it is.
    pub(super) length: Option<u64>,
    pub(super) first: Bytes,
}

impl Opened {
    /// All of a file, read as far as its first piece.
    pub(super) fn whole(file: File, stat: Stat, path: &FilePath) -> Result<Self, ApiError> {
        Self::part(file, stat, path, None)
    }

    fn part(
        file: File,
        stat: Stat,
        path: &FilePath,
        range: Option<Range>,
    ) -> Result<Self, ApiError> {
        let size = stat.size;
        // Files of /proc say 0 and have content; the same file is not worth a range.
        let is_sizeless = size == 0
            && sys::file_system::of(file.as_fd()).is_ok_and(|file_system| file_system.is_proc());
        let part = match range {
            Some(range) if !is_sizeless => match range.within(size) {
                Some(part) => Some(part),
                None => return Err(unsatisfiable(path, size)),
            },
            _ => None,
        };
        let (start, length) = part.unwrap_or((0, size));
        let wanted = if is_sizeless { SIZELESS_BYTES } else { length };
        let first =
            read_piece(&file, start, wanted).map_err(|error| io_fault(READ, path, &error))?;
        if part.is_some() && first.is_empty() {
            return Err(unsatisfiable(path, start));
        }
        // What is smaller than a piece is known whole, so its length is what was read.
        let is_whole = first.len() < PIECE_BYTES;
        let length = match (is_whole, is_sizeless) {
            (true, _) => Some(first.len() as u64),
            (false, true) => None,
            (false, false) => Some(length),
        };
        Ok(Self { file, stat, start, is_part: part.is_some(), length, first })
    }

    /// The response: headers, and the content piece by piece.
    fn respond(self, path: &FilePath, tag: &str) -> Response {
        // The end of a file says nothing about its kind.
        let beginning = if self.start == 0 { &self.first[..] } else { &[0] };
        let mime_type = mime::of(path.as_path(), beginning);
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime_type));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // Content is data: no browser may take it for anything but its declared type.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        set(headers, header::ETAG.as_str(), tag);
        set(headers, MODE_HEADER, &format!("{:o}", self.stat.mode & PERMISSIONS));
        set(headers, MODIFIED_HEADER, &modified_ms(&self.stat).to_string());
        if let Some(length) = self.length {
            set(headers, header::CONTENT_LENGTH.as_str(), &length.to_string());
            if self.is_part {
                let last = (self.start + length).saturating_sub(1);
                let range = format!("bytes {}-{last}/{}", self.start, self.stat.size);
                set(headers, header::CONTENT_RANGE.as_str(), &range);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
        }
        *response.body_mut() = self.body();
        response
    }

    /// The content. A file that ends before its length ends the stream with an error, which closes
    /// the connection: the length has been promised.
    fn body(self) -> Body {
        let total = self.length.unwrap_or(SIZELESS_BYTES);
        if total <= self.first.len() as u64 {
            return Body::from(self.first);
        }
        let Self { file, length, first, start, .. } = self;
        let mut position = start + first.len() as u64;
        let mut left = total - first.len() as u64;
        pieces(Some(first), move || {
            if left == 0 {
                return Ok(None);
            }
            let piece = read_piece(&file, position, left)?;
            position += piece.len() as u64;
            left -= piece.len() as u64;
            match (piece.is_empty(), length) {
                (true, Some(_)) => Err(shrank()),
                (true, None) => Ok(None),
                (false, _) => Ok(Some(piece)),
            }
        })
    }
}

/// What ends a stream whose length was promised.
pub(super) fn shrank() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank")
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn unsatisfiable(path: &FilePath, size: u64) -> ApiError {
    let text = format!("the range is outside {}, which has {size} bytes", path.shown());
    ApiError::new(ErrorCode::RangeNotSatisfiable, text)
        .with("path", path.shown())
        .with("size", size)
}

/// Reads up to a piece from `start`, at most `wanted` bytes; less only at the file's end.
pub(super) fn read_piece(file: &File, start: u64, wanted: u64) -> io::Result<Bytes> {
    let length = usize::try_from(wanted).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let mut piece = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.into())
}
