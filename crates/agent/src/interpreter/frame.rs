//! What an interpreter says through its socket: frames of JSON, each with its length before it.
//!
//! Code of the context can write to the socket too if it looks for it, so nothing here is believed
//! to be well formed. All it can spoil is its own answer.

use std::io;

use api::{
    interpreter::{Chart, RunOutput, TableData},
    limit::RESULT_BYTES,
};
use bytes::{Buf, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::run::GRACE;

/// Bytes of a frame: a result at its limit, and its names.
const FRAME_BYTES: usize = RESULT_BYTES + 1024 * 1024;

/// Bytes read from the socket at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// MIME types of what interpreters add for programs.
const CHART: &str = "application/vnd.sandbar.chart+json";
const TABLE: &str = "application/vnd.sandbar.table+json";
const VALUE: &str = "application/vnd.sandbar.value+json";

/// Says that a result was read, and what was written before it.
const READ: &[u8] = br#"{"op":"read"}"#;

/// What an interpreter says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Said {
    /// It takes code.
    Ready,
    /// It cannot work in this image.
    Missing { what: String, why: String, version: String },
    /// Its memory is in the file, which has so many bytes.
    Kept { bytes: u64 },
    /// Its memory cannot be kept.
    Unfit { why: String },
    /// Code showed something.
    Result(Shown),
    /// What was shown is to be cleared.
    Clear { wait: bool },
    /// Code failed.
    Error(Failed),
    /// Code is over.
    End { count: u64 },
    /// What it says cannot be read.
    #[serde(skip)]
    Unreadable { why: String },
}

/// A frame: what is said, and of which run.
#[derive(Debug, Deserialize)]
pub(super) struct Frame {
    /// None before the first run.
    pub(super) id: Option<u64>,
    /// The interpreter waits until it is told that this was read, see [`READ`].
    #[serde(default)]
    pub(super) awaits: bool,
    #[serde(flatten)]
    pub(super) said: Said,
}

/// Something shown, by MIME type.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    main: bool,
    data: Map<String, Value>,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    display: Option<String>,
    #[serde(default)]
    update: bool,
    #[serde(default)]
    truncated: Vec<String>,
}

/// An exception.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Failed {
    pub(super) name: String,
    pub(super) value: String,
    #[serde(default)]
    pub(super) traceback: Vec<String>,
    #[serde(default)]
    pub(super) line: Option<u32>,
}

impl Shown {
    pub(super) fn output(mut self) -> RunOutput {
        let mut output = RunOutput {
            is_main: self.main,
            metadata: self.metadata,
            display_id: self.display,
            is_update: self.update,
            truncated: self.truncated,
            ..RunOutput::default()
        };
        let value = self.data.remove(VALUE);
        for (mime, value) in self.data {
            put(&mut output, mime, value);
        }
        output.json = output.json.or(value);
        output
    }
}

fn put(output: &mut RunOutput, mime: String, value: Value) {
    let field = match mime.as_str() {
        "text/plain" => &mut output.text,
        "text/html" => &mut output.html,
        "text/markdown" => &mut output.markdown,
        "image/svg+xml" => &mut output.svg,
        "image/png" => &mut output.png,
        "image/jpeg" => &mut output.jpeg,
        "application/pdf" => &mut output.pdf,
        "text/latex" => &mut output.latex,
        "application/javascript" => &mut output.javascript,
        "application/json" => {
            output.json = Some(value);
            return;
        }
        CHART => {
            output.chart = serde_json::from_value::<Chart>(value).ok();
            return;
        }
        TABLE => {
            output.data = serde_json::from_value::<TableData>(value).ok();
            return;
        }
        _ => {
            output.extra.insert(mime, value);
            return;
        }
    };
    match value {
        Value::String(text) => *field = Some(text),
        // Nothing that an object says of itself is lost for being of another kind.
        other => drop(output.extra.insert(mime, other)),
    }
}

/// The agent's end of the socket.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
    read: BytesMut,
}

impl Wire {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, read: BytesMut::new() }
    }

    /// Sends a frame. Whoever gives this up cannot use the interpreter any more.
    pub(super) async fn send(&self, json: &[u8]) -> io::Result<()> {
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut rest = bytes::Bytes::from([&length.to_be_bytes()[..], json].concat());
        while !rest.is_empty() {
            self.socket.writable().await?;
            match self.socket.try_write(&rest) {
                Ok(written) => rest.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frame; an error when no more can come.
    ///
    /// Cancel safety: what is read is kept for the next call.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.now()? {
                return Ok(frame);
            }
            self.socket.readable().await?;
        }
    }

    /// Tells an interpreter that waits for it that its frame was read. It fits into the socket of one who
    /// waits, and nothing is lost by one who does not.
    pub(super) async fn acknowledge(&self) {
        drop(tokio::time::timeout(GRACE, self.send(READ)).await);
    }

    /// A frame that is there already.
    pub(super) fn now(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = parse(&mut self.read)? {
                return Ok(Some(frame));
            }
            let mut chunk = [0; CHUNK_BYTES];
            match self.socket.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.read.extend_from_slice(chunk.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes a frame off the front of what was read, once it is there whole.
fn parse(read: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(head) = read.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).map_err(io::Error::other)?;
    if length > FRAME_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if read.len() < 4 + length {
        return Ok(None);
    }
    read.advance(4);
    let frame = read.split_to(length);
    if read.is_empty() {
        // A large result must not leave its memory with an idle context.
        *read = BytesMut::new();
    }
    // Code decides what is in it: numbers without end, or values in values. That costs it the result.
    Ok(Some(serde_json::from_slice(&frame).unwrap_or_else(|error| Frame {
        id: None,
        awaits: true,
        said: Said::Unreadable { why: error.to_string() },
    })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn representations_go_to_their_fields() {
        let frame = json!({
            "id": 3, "op": "result", "main": true, "truncated": ["text/html"],
            "data": {
                "text/plain": "t", "image/png": "cG5n", "application/json": {"a": 1},
                VALUE: {"b": 2}, "application/vnd.x+json": [1], "text/html": 7,
            },
        });
        let frame: Frame = serde_json::from_value(frame).unwrap();
        assert_eq!(frame.id, Some(3));
        let Said::Result(shown) = frame.said else { panic!("not a result") };
        let output = shown.output();
        assert!(output.is_main);
        assert_eq!(output.text.as_deref(), Some("t"));
        assert_eq!(output.png.as_deref(), Some("cG5n"));
        assert_eq!(output.json, Some(json!({"a": 1})), "an object's own goes first");
        assert_eq!(output.html, None);
        assert_eq!(output.extra["application/vnd.x+json"], json!([1]));
        assert_eq!(output.extra["text/html"], json!(7));
        assert_eq!(output.truncated, ["text/html"]);
    }

    /// Frames are taken one after the other from the front, and nothing is read twice.
    #[test]
    fn hostile_frames_are_refused_or_read_once() {
        let said = [
            json!({"op": "ready"}),
            json!({"op": "missing", "what": "a", "why": "b", "version": "c"}),
            json!({"id": 1, "op": "result", "main": true, "data": {"text/plain": "t",
                CHART: {"type": "line"}, TABLE: {"columns": []}, VALUE: [1]}}),
            json!({"id": 1, "op": "clear", "wait": false}),
            json!({"id": 1, "op": "error", "name": "E", "value": "v", "traceback": ["x"]}),
            json!({"id": 18_446_744_073_709_551_615_u64, "op": "end", "count": 3}),
            json!({"op": "kept", "bytes": 7}),
        ];
        let frames = said.map(|frame| {
            let text = frame.to_string();
            let length = u32::try_from(text.len()).unwrap();
            [&length.to_be_bytes()[..], text.as_bytes()].concat()
        });
        let examples: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        hostile::bytes(&examples, |bytes| {
            let mut read = BytesMut::from(bytes);
            let mut left = bytes.len();
            while let Ok(Some(frame)) = parse(&mut read) {
                assert!(read.len() < left && bytes.ends_with(&read));
                left = read.len();
                if let Said::Result(shown) = frame.said {
                    serde_json::to_vec(&shown.output()).unwrap();
                }
            }
        });
    }

    #[tokio::test]
    async fn frames_are_read_whole_and_bounded() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours);
        let other = Wire::new(theirs);
        other.send(br#"{"id": 1, "op": "end", "count": 2}"#).await.unwrap();
        other.send(br#"{"id": 1, "op": "clear", "wait": true}"#).await.unwrap();
        assert!(matches!(wire.next().await.unwrap().said, Said::End { count: 2 }));
        assert!(matches!(wire.next().await.unwrap().said, Said::Clear { wait: true }));
        assert!(wire.now().unwrap().is_none());
        other.socket.writable().await.unwrap();
        other.socket.try_write(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(wire.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
