//! The content of a file as JSON, piece by piece: [`FileContent`] in memory that does not grow with
//! the file.

use std::io;

use api::{
    error::{ApiError, ErrorCode},
    exec::Encoding,
    file::{FileContent, ReadEncoding},
};
use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{
    entry::{PERMISSIONS, etag, modified_ms},
    fault::io_fault,
    mime,
    path::FilePath,
    pieces,
    read::{Opened, PIECE_BYTES, READ, read_piece, shrank},
};

/// The content of one file on its way into JSON.
#[derive(Debug)]
pub(super) struct Content {
    opened: Opened,
    /// Everything before the content, up to the quote that begins it; none once it is written.
    head: Option<Vec<u8>>,
    encoding: Encoding,
    size: u64,
    position: u64,
}

/// What follows the content.
const TAIL: &[u8] = b"\"}";

impl Content {
    /// Looks at all of the content, of which there may be `limit` bytes.
    pub(super) fn new(
        opened: Opened,
        path: &FilePath,
        encoding: ReadEncoding,
        limit: u64,
    ) -> Result<Self, ApiError> {
        let size = opened.length.filter(|length| *length <= limit);
        let size = size.ok_or_else(|| too_large(path, opened.length, limit))?;
        let mime_type = mime::of(path.as_path(), &opened.first);
        let is_text = mime::is_text(mime_type)
            && is_utf8(&opened, size).map_err(|error| io_fault(READ, path, &error))?;
        let encoding = match encoding {
            ReadEncoding::Utf8 => Encoding::Utf8,
            ReadEncoding::Auto if is_text => Encoding::Utf8,
            ReadEncoding::Auto | ReadEncoding::Base64 => Encoding::Base64,
        };
        let mut head = serde_json::to_vec(&FileContent {
            path: path.shown(),
            size,
            mode: opened.stat.mode & PERMISSIONS,
            modified_ms: modified_ms(&opened.stat),
            mime_type: mime_type.to_owned(),
            is_binary: !is_text,
            etag: etag(&opened.stat),
            encoding,
            content: String::new(),
        })
        .map_err(|fault| ApiError::new(ErrorCode::InternalError, fault.to_string()))?;
        // The content is the last field.
        head.truncate(head.len() - TAIL.len());
        Ok(Self { opened, head: Some(head), encoding, size, position: 0 })
    }

    /// Bytes of the content.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next piece of the JSON to `out`; true when it was the last.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        match self.encoding {
            Encoding::Base64 => {
                let piece = self.opened.piece(self.position, self.size)?;
                out.extend_from_slice(BASE64_STANDARD.encode(&piece).as_bytes());
                self.position += piece.len() as u64;
            }
            Encoding::Utf8 => {
                let (text, _) = self.opened.text(self.position, self.size)?;
                let quoted = serde_json::to_vec(&String::from_utf8_lossy(&text))?;
                out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default());
                self.position += text.len() as u64;
            }
        }
        let is_last = self.position == self.size;
        if is_last {
            out.extend_from_slice(TAIL);
        }
        Ok(is_last)
    }

    /// The answer that has it as its body.
    pub(super) fn respond(mut self, tag: &str) -> Response {
        let mut is_done = false;
        let body = pieces(None, move || {
            if is_done {
                return Ok(None);
            }
            let mut out = Vec::new();
            is_done = self.write(&mut out)?;
            Ok(Some(Bytes::from(out)))
        });
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(tag) = HeaderValue::from_str(tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

impl Opened {
    /// The piece at `position` of a content of `size` bytes.
    fn piece(&self, position: u64, size: u64) -> io::Result<Bytes> {
        if position == 0 {
            return Ok(self.first.clone());
        }
        let piece = read_piece(&self.file, position, size - position)?;
        if piece.is_empty() { Err(shrank()) } else { Ok(piece) }
    }

    /// The same of a text, without a character at its end that is not whole; and whether it is the last.
    fn text(&self, position: u64, size: u64) -> io::Result<(Bytes, bool)> {
        let piece = self.piece(position, size)?;
        let is_last = position + piece.len() as u64 == size;
        let length = if is_last { piece.len() } else { mime::whole(&piece).len() };
        // The rest of the last character is gone.
        if length == 0 && !is_last { Err(shrank()) } else { Ok((piece.slice(..length), is_last)) }
    }
}

/// True when all of the content is UTF-8.
fn is_utf8(opened: &Opened, size: u64) -> io::Result<bool> {
    let mut position = 0;
    loop {
        let (text, is_last) = opened.text(position, size)?;
        if std::str::from_utf8(&text).is_err() {
            return Ok(false);
        }
        if is_last {
            return Ok(true);
        }
        position += text.len() as u64;
    }
}

fn too_large(path: &FilePath, size: Option<u64>, limit: u64) -> ApiError {
    let shown = path.shown();
    // Without a known size it has more than a piece.
    let size = size.unwrap_or(PIECE_BYTES as u64);
    let text = format!(
        "{shown} has {size} bytes, and {limit} fit in this JSON answer; read it raw, without \
         `encoding`"
    );
    ApiError::new(ErrorCode::FileTooLarge, text)
        .with("path", shown)
        .with("maxSize", limit)
        .with("actualSize", size)
}
