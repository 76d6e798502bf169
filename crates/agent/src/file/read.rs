//! Reading a file: a small one in one step, a large one in pieces.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
};

use api::{
    error::{ApiError, ErrorCode},
    file::{MODE_HEADER, MODIFIED_HEADER},
};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;

use super::{
    fault::io_fault,
    path::{FilePath, open_file},
    range::Range,
};

/// Bytes read at once: large enough that the way to a thread and back costs little beside the
/// copy, small enough that 100 downloads at once hold some 25 MiB.
const PIECE_BYTES: usize = 256 * 1024;

/// Bytes of the longest content that a file without a size can have; past it the connection ends.
/// Such files are /proc's, and theirs are short.
const SIZELESS_BYTES: u64 = 64 * 1024 * 1024;

/// An open file, the part of it that was asked for, and the first piece of that part.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    metadata: Metadata,
    content_type: HeaderValue,
    /// Where the part starts and how long it is; none for the whole.
    part: Option<(u64, u64)>,
    /// Bytes to send; none when the file does not say how long it is.
    length: Option<u64>,
    first: Bytes,
}

/// Opens `path` and reads its first piece.
pub(super) fn open(path: &FilePath, range: Option<Range>) -> Result<Opened, ApiError> {
    let file = open_file(path)?;
    let metadata = file.metadata().map_err(|error| io_fault("read", path, &error))?;
    let size = metadata.len();
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
    let first = read_piece(&file, start, wanted).map_err(|error| io_fault("read", path, &error))?;
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
    let guess = mime_guess::from_path(path.as_path()).first_or_octet_stream();
    let content_type = HeaderValue::from_str(guess.essence_str())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok(Opened { file, metadata, content_type, part, length, first })
}

fn unsatisfiable(path: &FilePath, size: u64) -> ApiError {
    let text = format!("the range is outside {}, which has {size} bytes", path.shown());
    ApiError::new(ErrorCode::RangeNotSatisfiable, text)
        .with("path", path.shown())
        .with("size", size)
}

/// Reads up to a piece from `start`, at most `wanted` bytes; less only at the file's end.
fn read_piece(file: &File, start: u64, wanted: u64) -> io::Result<Bytes> {
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

/// The response: headers, and the content piece by piece.
pub(super) fn respond(opened: Opened, is_head: bool) -> Response {
    let Opened { file, metadata, content_type, part, length, first } = opened;
    let size = metadata.len();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Content is data: no browser may take it for anything but its declared type.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(MODE_HEADER, format!("{:o}", metadata.mode() & 0o7777));
    let modified_ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
    set(MODIFIED_HEADER, modified_ms.to_string());
    if let Some(length) = length {
        set("content-length", length.to_string());
    }
    let start = part.map_or(0, |(start, _)| start);
    if let (Some(_), Some(length)) = (part, length) {
        let last = (start + length).saturating_sub(1);
        set("content-range", format!("bytes {start}-{last}/{size}"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if !is_head {
        *response.body_mut() = body(file, start, length, first);
    }
    response
}

/// The content. A file that ends before `length` ends the stream with an error, which closes the
/// connection: the length has been promised.
fn body(file: File, start: u64, length: Option<u64>, first: Bytes) -> Body {
    let total = length.unwrap_or(SIZELESS_BYTES);
    if total <= first.len() as u64 {
        return Body::from(first);
    }
    let position = start + first.len() as u64;
    let left = total - first.len() as u64;
    let rest = stream::try_unfold(Some((file, position, left)), move |state| async move {
        let Some((file, position, left)) = state.filter(|(_, _, left)| *left > 0) else {
            return Ok(None);
        };
        let (file, piece) = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&file, position, left);
            (file, piece)
        })
        .await
        .map_err(io::Error::other)?;
        let piece = piece?;
        let read = piece.len() as u64;
        match (read, length) {
            (0, Some(_)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank")),
            (0, None) => Ok(None),
            _ => Ok(Some((piece, Some((file, position + read, left - read))))),
        }
    });
    let first = stream::once(async move { Ok(first) });
    Body::from_stream(futures_util::StreamExt::chain(first, rest))
}
