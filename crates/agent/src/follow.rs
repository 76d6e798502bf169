//! Follows the log of a process as server-sent events: the stream of an exec, and that of a log.
//!
//! Each event of output carries the cursor after it as its `id:`, so that a caller whose connection
//! broke goes on where it was.

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::{Encoding, Ending, ExecEvent},
    process::OutputStream,
};
use axum::{http::HeaderMap, response::Response};
use bytes::Bytes;
use futures_util::stream;

use crate::{
    event,
    process::{
        Aftermath, End, Process,
        log::{Read, now_ms},
    },
    session,
    text::{CUT_BYTES, Encoder},
};

/// Bytes of output in one event; a multiple of 3, so that base64 has no padding inside.
const EVENT_BYTES: usize = 48 * 1024;

const LAST_EVENT: &str = "last-event-id";

/// The cursor after which a request's stream of events is to go on.
pub(crate) fn last_event(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT) else { return Ok(None) };
    match value.to_str().map(str::parse) {
        Ok(Ok(cursor)) => Ok(Some(cursor)),
        _ => Err(ApiError::new(ErrorCode::ValidationFailed, "a Last-Event-ID is a number")),
    }
}

/// Refuses a position that the log has not come to.
pub(crate) fn check_cursor(process: &Process, cursor: u64) -> Result<(), ApiError> {
    let next = process.log.describe().next_cursor;
    if cursor <= next {
        return Ok(());
    }
    let text = format!("the cursor {cursor} is after the end of the log, {next}");
    Err(ApiError::new(ErrorCode::ValidationFailed, text).with("nextCursor", next))
}

/// Where a stream of events ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// With the process.
    Exit,
    /// With what there is now, or with the process.
    Now,
}

/// A reader of a process's log.
#[derive(Debug)]
pub(crate) struct Follow {
    process: Arc<Process>,
    cursor: u64,
    stdout: Encoder,
    stderr: Encoder,
    /// The process waits for this reader.
    is_awaited: bool,
    until: Until,
    /// The end of the log when the reader came.
    newest: u64,
    /// What is followed is code in a context: its events are in the log, the last one too.
    is_run: bool,
    /// The first event, until it is sent.
    start: Option<ExecEvent>,
}

/// What comes next.
enum Next {
    Event {
        event: ExecEvent,
        cursor: u64,
    },
    /// An event that is a text already.
    Text(String),
    /// Bytes were read that make no whole character yet.
    More,
    Wait,
    End,
}

impl Follow {
    /// Reads from `cursor` on.
    pub(crate) fn new(process: Arc<Process>, cursor: u64, encoding: Encoding) -> Self {
        let encoder =
            |stream| Encoder::resumed(encoding, &process.log.tail(stream, cursor, CUT_BYTES));
        let (stdout, stderr) = (encoder(OutputStream::Stdout), encoder(OutputStream::Stderr));
        let (is_awaited, until, is_run, start) = (false, Until::Exit, false, None);
        let newest = 0;
        Self { process, cursor, stdout, stderr, is_awaited, until, newest, is_run, start }
    }

    /// Shows the events of code in a context, instead of those of a command.
    pub(crate) fn of_run(mut self) -> Self {
        self.is_run = true;
        self
    }

    /// The process waits for this reader.
    pub(crate) fn awaited(mut self) -> Self {
        self.is_awaited = true;
        self
    }

    /// Says first that the process has started.
    pub(crate) fn announced(mut self) -> Self {
        let process_id = self.process.about.id.clone();
        self.start = Some(ExecEvent::Start { pid: self.process.pid(), process_id });
        self
    }

    /// Ends where `until` says.
    pub(crate) fn until(mut self, until: Until) -> Self {
        self.until = until;
        self.newest = self.process.log.describe().next_cursor;
        self
    }

    /// The answer that follows the log. `held` lives as long as its body. When `taken` ends, the
    /// stream ends with an `error`.
    pub(crate) fn respond(
        self,
        held: impl Send + 'static,
        taken: impl Future<Output = ()> + Send + 'static,
    ) -> Response {
        let state = Some((self, Box::pin(taken), held));
        event::respond(stream::unfold(state, |state| async move {
            let (mut follow, mut taken, held) = state?;
            let (text, is_last) = tokio::select! {
                next = follow.next() => next,
                () = &mut taken => (taken_over(), true),
            };
            Some((text, (!is_last).then_some((follow, taken, held))))
        }))
    }

    /// The next text of the stream, and whether it is the last.
    ///
    /// Cancel safe: nothing is read before the last await.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(start) = self.start.take() {
            return (render(&start, None).into(), false);
        }
        loop {
            let is_through = self.until == Until::Now && self.cursor >= self.newest;
            match self.step() {
                // Newer than what there was: a process may write faster than its reader reads.
                Next::Event { .. } | Next::Text(_) | Next::More if is_through => {
                    return (Bytes::new(), true);
                }
                Next::Event { event, cursor } => {
                    return (render(&event, Some(cursor)).into(), false);
                }
                Next::Text(text) => return (text.into(), false),
                Next::More => {}
                Next::Wait if self.until == Until::Now => return (Bytes::new(), true),
                Next::Wait => self.process.log.readable(self.cursor).await,
                Next::End if self.is_run => return (Bytes::new(), true),
                Next::End => return (self.exit(&self.process.ended().await), true),
            }
        }
    }

    fn step(&mut self) -> Next {
        let Self { process, cursor, stdout, stderr, is_run, .. } = self;
        let next = process.log.read(*cursor, EVENT_BYTES, |read| match read {
            Read::Bytes { stream, time_ms, bytes } => {
                *cursor += bytes.len() as u64;
                let encoder = match stream {
                    OutputStream::Stdout => stdout,
                    OutputStream::Stderr => stderr,
                };
                let data = encoder.encode(bytes);
                if data.is_empty() {
                    return Next::More;
                }
                Next::Event { event: output(stream, data, time_ms), cursor: *cursor }
            }
            Read::Dropped(bytes) => {
                *cursor += bytes;
                Next::Event { event: ExecEvent::Dropped { bytes }, cursor: *cursor }
            }
            Read::Event { text, length } => {
                *cursor += length;
                match text {
                    Some(text) if *is_run => {
                        let mut event = String::new();
                        if name_of(text) == "end" {
                            event += &rests(stdout, stderr, now_ms(), *cursor);
                        }
                        event += &render_text(text, *cursor);
                        Next::Text(event)
                    }
                    // One who looks on follows the outputs alone; or it has been sent.
                    _ => Next::More,
                }
            }
            Read::Pending => Next::Wait,
            Read::End => Next::End,
        });
        if self.is_awaited {
            self.process.log.advance(self.cursor);
        }
        next
    }

    /// What is missing at the end of the log, what is still kept of both outputs, and the end.
    fn exit(&mut self, end: &End) -> Bytes {
        let exit = ExecEvent::Exit {
            success: end.ending == Ending::Exited { code: 0 },
            exit_code: end.ending.exit_code(),
            ending: end.ending,
            duration_ms: end.duration_ms(),
            usage: end.usage,
            session_reset: end.aftermath == Aftermath::Reset,
            refused: end.refused(),
        };
        // Whoever runs the command has lost its session; whoever looks on sees how it ended.
        let loss = session::loss(&self.process, end).filter(|_| self.is_awaited);
        let mut text = String::new();
        let refused = self.process.log.refused();
        if refused > 0 {
            text += &render(&ExecEvent::Dropped { bytes: refused }, Some(self.cursor));
        }
        text += &rests(&mut self.stdout, &mut self.stderr, end.at_ms, self.cursor);
        text += &match loss {
            Some(error) => event::render("error", None, &ErrorBody { error }),
            None => render(&exit, Some(self.cursor)),
        };
        text.into()
    }
}

/// What both outputs broke off in.
fn rests(stdout: &mut Encoder, stderr: &mut Encoder, time_ms: i64, cursor: u64) -> String {
    let mut text = String::new();
    for (stream, encoder) in [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)] {
        let rest = encoder.finish();
        if !rest.is_empty() {
            text += &render(&output(stream, rest, time_ms), Some(cursor));
        }
    }
    text
}

/// The name of an event from its JSON, which begins with its type.
pub(crate) fn name_of(json: &[u8]) -> &str {
    let rest = json.strip_prefix(br#"{"type":""#).unwrap_or_default();
    let name = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

/// An event that is JSON already.
fn render_text(json: &[u8], cursor: u64) -> String {
    let (name, json) = (name_of(json), String::from_utf8_lossy(json));
    format!("event: {name}\nid: {cursor}\ndata: {json}\n\n")
}

/// The end of a stream whose place another one took.
fn taken_over() -> Bytes {
    let text = "another request with this Idempotency-Key reads the stream now";
    let error = ErrorBody { error: ApiError::new(ErrorCode::ResourceBusy, text) };
    event::render("error", None, &error).into()
}

fn output(stream: OutputStream, data: String, time_ms: i64) -> ExecEvent {
    match stream {
        OutputStream::Stdout => ExecEvent::Stdout { data, time_ms },
        OutputStream::Stderr => ExecEvent::Stderr { data, time_ms },
    }
}

fn render(event: &ExecEvent, cursor: Option<u64>) -> String {
    event::render(event.name(), cursor, event)
}
