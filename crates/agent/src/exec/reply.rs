//! A command's log as one JSON document.

use std::{convert::Infallible, sync::Arc};

use api::{
    error::ApiError,
    exec::{Encoding, Ending, ExecResult},
    id::ProcessId,
    limit::SESSION_TAIL_BYTES,
    process::OutputStream,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use crate::{
    process::{Aftermath, Attachment, End, log::Log},
    refusal::Refusal,
    session,
    text::Encoder,
};

/// Bytes of output turned into JSON at once; a multiple of 3, so that base64 has no padding inside.
pub(crate) const PIECE_BYTES: usize = 48 * 1024;

/// Waits for a command's end and answers with all that its log has.
///
/// Cancel safety: dropping the future drops `attachment`.
pub(super) async fn buffered(attachment: Attachment, encoding: Encoding) -> Response {
    let process = attachment.process();
    let end = process.ended().await;
    if let Some(loss) = session::loss(process, &end) {
        return Refusal(with_tails(loss, &process.log, encoding)).into_response();
    }
    let pieces = pieces(process.about.id.clone(), Arc::clone(&process.log), &end, encoding);
    whole(&process.log, pieces)
}

/// A JSON document in pieces, as one answer: at once when the log that it is made of is small.
pub(crate) fn whole(log: &Log, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response {
    let kept = log.describe();
    let body = if kept.next_cursor - kept.first_cursor <= PIECE_BYTES as u64 {
        Body::from(pieces.collect::<Vec<_>>().concat())
    } else {
        Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
    };
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An error that stands in place of a result has the ends of both outputs.
fn with_tails(error: ApiError, log: &Log, encoding: Encoding) -> ApiError {
    let tail = |stream| {
        let bytes = log.tail(stream, log.describe().next_cursor, SESSION_TAIL_BYTES);
        let mut encoder = Encoder::new(encoding);
        encoder.encode(&bytes) + &encoder.finish()
    };
    let (stdout, stderr) = (tail(OutputStream::Stdout), tail(OutputStream::Stderr));
    error.with("stdout", stdout).with("stderr", stderr)
}

/// An [`ExecResult`] as JSON, taken apart where its two outputs go.
#[derive(Debug)]
struct Frame {
    head: String,
    middle: String,
    tail: String,
}

impl Frame {
    fn of(process_id: ProcessId, log: &Log, end: &End) -> Self {
        let whole = serde_json::to_string(&ExecResult {
            process_id,
            success: end.ending == Ending::Exited { code: 0 },
            exit_code: end.ending.exit_code(),
            ending: end.ending,
            stdout: String::new(),
            stderr: String::new(),
            dropped_bytes: log.describe().dropped_bytes,
            duration_ms: end.duration_ms(),
            usage: end.usage,
            session_reset: end.aftermath == Aftermath::Reset,
            refused: end.refused(),
        })
        .expect("numbers, names and empty texts are JSON");
        let (head, rest) =
            whole.split_once(r#""stdout":"""#).expect("a result has the field stdout");
        let (middle, tail) =
            rest.split_once(r#""stderr":"""#).expect("stderr comes after stdout in a result");
        Self {
            head: format!(r#"{head}"stdout":""#),
            middle: format!(r#""{middle}"stderr":""#),
            tail: format!(r#""{tail}"#),
        }
    }
}

/// The JSON of a result in pieces, each made when it is asked for: text with many control
/// characters is six times as long in JSON, so the whole might not fit in memory.
fn pieces(
    process_id: ProcessId,
    log: Arc<Log>,
    end: &End,
    encoding: Encoding,
) -> impl Iterator<Item = Bytes> + use<> {
    let Frame { head, middle, tail } = Frame::of(process_id, &log, end);
    std::iter::once(Bytes::from(head))
        .chain(escaped(Arc::clone(&log), OutputStream::Stdout, encoding))
        .chain(std::iter::once(Bytes::from(middle)))
        .chain(escaped(log, OutputStream::Stderr, encoding))
        .chain(std::iter::once(Bytes::from(tail)))
}

fn escaped(log: Arc<Log>, stream: OutputStream, encoding: Encoding) -> impl Iterator<Item = Bytes> {
    let mut encoder = Encoder::new(encoding);
    let mut position = Some(0);
    std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(4096));
        let next = log.collect(position?, stream, PIECE_BYTES, &mut piece);
        position = next;
        let mut text = encoder.encode(&piece);
        if next.is_none() {
            // What is cut off by the end, or by the limit.
            text.push_str(&encoder.finish());
        }
        Some(Bytes::from(json_inside(&text)))
    })
}

/// `text` as it stands between the quotes of a JSON string.
pub(crate) fn json_inside(text: &str) -> String {
    let mut quoted = serde_json::to_string(text).expect("any text is JSON");
    quoted.pop();
    quoted.remove(0);
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::exec::ExecUsage;

    use super::*;
    use crate::process::log::{BUDGET_BYTES, Budget, Retention};

    const END: End = End {
        ending: Ending::Exited { code: 3 },
        refused: None,
        duration: Duration::from_millis(5),
        usage: ExecUsage { cpu_ms: 1, peak_memory_bytes: 2 },
        at_ms: 0,
        aftermath: Aftermath::Kept,
    };

    /// What belongs together is apart in the log.
    fn written_in_turns(stdout: &[u8], stderr: &[u8]) -> Arc<Log> {
        let log = Log::new(Retention::Oldest, Arc::new(Budget::new(BUDGET_BYTES)));
        for turn in 0..stdout.len().max(stderr.len()).div_ceil(1000) {
            for (stream, bytes) in [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)]
            {
                let chunk = bytes.chunks(1000).nth(turn).unwrap_or_default();
                log.append(stream, chunk.to_vec());
            }
        }
        Arc::new(log)
    }

    #[test]
    fn pieces_make_the_json_of_a_result() {
        let long: Vec<u8> = "a\"\n€\u{1}".bytes().cycle().take(3 * PIECE_BYTES + 1).collect();
        for (encoding, decode) in [
            (
                Encoding::Utf8,
                (|b: &[u8]| String::from_utf8_lossy(b).into_owned()) as fn(&[u8]) -> _,
            ),
            (Encoding::Base64, |b| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, b)),
        ] {
            for (stdout, stderr) in [(&b""[..], &b"\xff"[..]), (&long, b"x"), (b"", &long)] {
                let log = written_in_turns(stdout, stderr);
                let id: ProcessId = "p".parse().unwrap();

                let json: Vec<Bytes> = pieces(id.clone(), log, &END, encoding).collect();

                let result: ExecResult = serde_json::from_slice(&json.concat()).unwrap();
                assert_eq!(
                    result,
                    ExecResult {
                        process_id: id,
                        success: false,
                        exit_code: 3,
                        ending: END.ending,
                        stdout: decode(stdout),
                        stderr: decode(stderr),
                        dropped_bytes: 0,
                        duration_ms: 5,
                        usage: END.usage,
                        session_reset: false,
                        refused: None,
                    }
                );
            }
        }
    }
}
