//! The log of a process, as JSON or as events.

use std::sync::Arc;

use api::{
    error::ErrorBody,
    exec::{Encoding, ExecEvent},
    process::{LogRecord, OutputStream, ProcessLogs, ReadLogs},
};
use axum::{extract::State, http::HeaderMap, response::Response};
use bytes::Bytes;

use super::{Found, json_in_pieces};
use crate::{
    event,
    extract::Query,
    follow::{self, Follow, Until},
    init::Agent,
    process::{Following, Process, log::Read},
    refusal::Refusal,
    text::{CUT_BYTES, Encoder},
};

/// Bytes of output in one record; a multiple of 3, so that base64 has no padding inside.
const RECORD_BYTES: usize = 48 * 1024;

/// Bytes of JSON made at once, beside one record.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads what a process has written.
///
/// As JSON the answer has what is kept from `cursor` on, up to now. With `Accept:
/// text/event-stream` it is a stream of `ExecEvent`s: what is kept, then, with `follow`, what comes,
/// until the process ends with an `exit` event. Each event has its cursor as `id:`; a stream that
/// breaks goes on after the one in `Last-Event-ID`. A reader that is slower than the process by more
/// than the log holds gets a `dropped` event in place of what it missed.
#[utoipa::path(get, path = "/processes/{pid}/logs", operation_id = "readProcessLogs", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox"), ReadLogs,
        ("last-event-id" = Option<u64>, Header, description = "Go on after this cursor")),
    responses(
        (status = 200, description = "What it wrote",
            content((ProcessLogs = "application/json"), (ExecEvent = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED; also for a cursor after the end of the log", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
    ))]
pub(crate) async fn logs(
    State(agent): State<Arc<Agent>>,
    Found(process): Found,
    Query(query): Query<ReadLogs>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let cursor = follow::last_event(&headers)?.or(query.cursor);
    if let Some(cursor) = cursor {
        follow::check_cursor(&process, cursor)?;
    }
    let cursor = cursor.unwrap_or_else(|| process.log.describe().first_cursor);
    let following = agent.processes.follow(Arc::clone(&process));
    if event::is_wanted(&headers) {
        let until = if query.follow { Until::Exit } else { Until::Now };
        let follow = Follow::new(process, cursor, query.encoding).until(until);
        return Ok(follow.respond(following, std::future::pending()));
    }
    Ok(json_in_pieces(Records::new(process, following, cursor, query.encoding)))
}

/// The pieces of a [`ProcessLogs`] as JSON.
struct Records {
    process: Arc<Process>,
    _following: Following,
    cursor: u64,
    /// Where the answer ends.
    end: u64,
    dropped: u64,
    stdout: Encoder,
    stderr: Encoder,
    /// Between two records: nothing before the first.
    separator: &'static str,
    is_over: bool,
}

impl Records {
    fn new(process: Arc<Process>, following: Following, cursor: u64, encoding: Encoding) -> Self {
        let encoder =
            |stream| Encoder::resumed(encoding, &process.log.tail(stream, cursor, CUT_BYTES));
        let (stdout, stderr) = (encoder(OutputStream::Stdout), encoder(OutputStream::Stderr));
        let end = process.log.describe().next_cursor;
        Self {
            process,
            _following: following,
            cursor,
            end,
            dropped: 0,
            stdout,
            stderr,
            separator: "",
            is_over: false,
        }
    }

    /// The next record, and nothing at the end. What makes no whole character yet is left for the
    /// next one, or for the next read.
    fn record(&mut self) -> Option<LogRecord> {
        while self.cursor < self.end {
            let most = usize::try_from(self.end - self.cursor).unwrap_or(usize::MAX);
            let Self { process, cursor, dropped, stdout, stderr, .. } = self;
            let record = process.log.read(*cursor, most.min(RECORD_BYTES), |read| match read {
                Read::Bytes { stream, time_ms, bytes } => {
                    *cursor += bytes.len() as u64;
                    let encoder = match stream {
                        OutputStream::Stdout => stdout,
                        OutputStream::Stderr => stderr,
                    };
                    let data = encoder.encode(bytes);
                    Some(LogRecord { cursor: *cursor, stream, time_ms, data })
                }
                Read::Dropped(bytes) => {
                    *cursor += bytes;
                    *dropped += bytes;
                    None
                }
                Read::Event { length, .. } => {
                    *cursor += length;
                    None
                }
                Read::Pending | Read::End => None,
            });
            if let Some(record) = record.filter(|record| !record.data.is_empty()) {
                return Some(record);
            }
        }
        None
    }

    /// What an ended process's outputs broke off in.
    fn rest(&mut self, time_ms: i64) -> impl Iterator<Item = LogRecord> {
        let cursor = self.cursor;
        [(OutputStream::Stdout, self.stdout.finish()), (OutputStream::Stderr, self.stderr.finish())]
            .into_iter()
            .filter(|(_, data)| !data.is_empty())
            .map(move |(stream, data)| LogRecord { cursor, stream, time_ms, data })
    }

    fn push(&mut self, json: &mut String, record: &LogRecord) {
        json.push_str(self.separator);
        *json += &serde_json::to_string(record).expect("a record is numbers and text");
        self.separator = ",";
    }
}

impl Iterator for Records {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let mut json = String::new();
        if self.separator.is_empty() {
            json.push_str(r#"{"records":["#);
        }
        while json.len() < PIECE_BYTES {
            if let Some(record) = self.record() {
                self.push(&mut json, &record);
                continue;
            }
            let end = self.process.end();
            let state = self.process.log.describe();
            if end.is_some() && self.end < state.next_cursor {
                // It has ended meanwhile, so its last words belong to the answer.
                self.end = state.next_cursor;
                continue;
            }
            if let Some(end) = &end {
                self.dropped += self.process.log.refused();
                for record in self.rest(end.at_ms).collect::<Vec<_>>() {
                    self.push(&mut json, &record);
                }
            }
            let (dropped, next, running) = (self.dropped, self.cursor, end.is_none());
            json +=
                &format!(r#"],"droppedBytes":{dropped},"nextCursor":{next},"running":{running}}}"#);
            self.is_over = true;
            break;
        }
        Some(json.into())
    }
}
