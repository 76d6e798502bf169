//! The two renderings of a command's events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    exec::{Encoding, Ending, ExecEvent, ExecResult, ExecUsage},
    limit::{EXEC_OUTPUT_BYTES, HEARTBEAT_SECS},
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::text::Encoder;
use crate::process::{End, Event, Process, Stream};

/// Bytes of output that all buffered execs together keep beyond [`FREE_BYTES`] each; the rest is
/// dropped and counted as over the limit of one. Bounds the agent: two commands may fill it.
pub(crate) const OUTPUT_BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of each output that a buffered exec may keep whatever others do: enough for any usual
/// command, and with `EXECS_PER_SANDBOX` commands at once half of the budget.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes of output turned into JSON at once; a multiple of 3, so that base64 has no padding inside.
const PIECE_BYTES: usize = 48 * 1024;

/// A quiet stream's sign of life: a comment, which clients ignore.
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// What is said of a command whose follower is gone: only a fault of the agent can cause it.
const LOST: End = End {
    ending: Ending::Lost,
    duration: Duration::ZERO,
    usage: ExecUsage { cpu_ms: 0, peak_memory_bytes: 0 },
};

fn is_success(ending: Ending) -> bool {
    ending == Ending::Exited { code: 0 }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Follows a command to its end and answers with all of it.
///
/// Cancel safety: dropping the future drops `process`, which kills the command's tree.
pub(super) async fn buffered(
    mut process: Process,
    encoding: Encoding,
    budget: &Arc<Semaphore>,
) -> Response {
    let mut stdout = Kept::default();
    let mut stderr = Kept::default();
    let end = loop {
        match process.events.recv().await {
            Some(Event::Output(Stream::Stdout, bytes)) => stdout.keep(&bytes, budget),
            Some(Event::Output(Stream::Stderr, bytes)) => stderr.keep(&bytes, budget),
            Some(Event::Ended(end)) => break end,
            Some(Event::Started { .. }) => {}
            Some(Event::Failed(_)) | None => break LOST,
        }
    };
    if encoding == Encoding::Utf8 {
        stdout.trim_cut();
        stderr.trim_cut();
    }
    let frame = Frame::of(end, stdout.dropped + stderr.dropped);
    let body = if stdout.bytes.len() + stderr.bytes.len() <= PIECE_BYTES {
        Body::from(pieces(frame, stdout, stderr, encoding).collect::<Vec<_>>().concat())
    } else {
        Body::from_stream(stream::iter(
            pieces(frame, stdout, stderr, encoding).map(Ok::<_, Infallible>),
        ))
    };
    typed(body, "application/json")
}

fn typed(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// One output of a buffered exec.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: u64,
    /// The share of the budget that `bytes` has taken.
    share: Option<OwnedSemaphorePermit>,
}

impl Kept {
    /// Keeps as much of `bytes` as the limits allow. What comes after a dropped byte is dropped
    /// too, so that the text has no hole.
    fn keep(&mut self, bytes: &[u8], budget: &Arc<Semaphore>) {
        let room = if self.dropped > 0 { 0 } else { EXEC_OUTPUT_BYTES - self.bytes.len() };
        let mut wanted = bytes.len().min(room);
        let free = FREE_BYTES.saturating_sub(self.bytes.len());
        if wanted > free && !self.take_share(wanted - free, budget) {
            wanted = free;
        }
        let (kept, dropped) = bytes.split_at(wanted);
        self.bytes.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    fn take_share(&mut self, bytes: usize, budget: &Arc<Semaphore>) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else { return false };
        let Ok(share) = Arc::clone(budget).try_acquire_many_owned(bytes) else { return false };
        match &mut self.share {
            Some(all) => all.merge(share),
            none => *none = Some(share),
        }
        true
    }

    /// Takes a UTF-8 sequence that the limit has cut off the end.
    fn trim_cut(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let cut = self.bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        self.bytes.truncate(self.bytes.len() - cut);
        self.dropped += cut as u64;
    }
}

/// An [`ExecResult`] as JSON, taken apart where its two outputs go.
#[derive(Debug)]
struct Frame {
    head: String,
    middle: String,
    tail: String,
}

impl Frame {
    fn of(end: End, dropped_bytes: u64) -> Self {
        let whole = serde_json::to_string(&ExecResult {
            success: is_success(end.ending),
            exit_code: end.ending.exit_code(),
            ending: end.ending,
            stdout: String::new(),
            stderr: String::new(),
            dropped_bytes,
            duration_ms: millis(end.duration),
            usage: end.usage,
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
    frame: Frame,
    stdout: Kept,
    stderr: Kept,
    encoding: Encoding,
) -> impl Iterator<Item = Bytes> {
    let Frame { head, middle, tail } = frame;
    std::iter::once(Bytes::from(head))
        .chain(escaped(stdout, encoding))
        .chain(std::iter::once(Bytes::from(middle)))
        .chain(escaped(stderr, encoding))
        .chain(std::iter::once(Bytes::from(tail)))
}

fn escaped(kept: Kept, encoding: Encoding) -> impl Iterator<Item = Bytes> {
    let mut encoder = Encoder::new(encoding);
    let mut position = Some(0);
    std::iter::from_fn(move || {
        let start = position?;
        let end = (start + PIECE_BYTES).min(kept.bytes.len());
        let piece = kept.bytes.get(start..end).filter(|piece| !piece.is_empty());
        position = piece.is_some().then_some(end);
        let text = match piece {
            Some(piece) => encoder.encode(piece),
            None => encoder.finish(),
        };
        Some(Bytes::from(json_inside(&text)))
    })
}

/// `text` as it stands between the quotes of a JSON string.
fn json_inside(text: &str) -> String {
    let mut quoted = serde_json::to_string(text).expect("any text is JSON");
    quoted.pop();
    quoted.remove(0);
    quoted
}

/// Answers at once with events that follow the command.
///
/// Cancel safety: dropping the response drops `process`, which kills the command's tree.
pub(super) fn stream(process: Process, pid: i32, encoding: Encoding) -> Response {
    let period = Duration::from_secs(HEARTBEAT_SECS);
    let mut heartbeat = interval_at(Instant::now() + period, period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower {
        process,
        stdout: Encoder::new(encoding),
        stderr: Encoder::new(encoding),
        heartbeat,
        start: Some(ExecEvent::Start { pid }),
    };
    let events = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let (text, is_last) = follower.next().await;
        Some((Ok::<_, Infallible>(text), (!is_last).then_some(follower)))
    });
    let mut response = typed(Body::from_stream(events), "text/event-stream");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Renders one command's events as server-sent events.
#[derive(Debug)]
struct Follower {
    process: Process,
    stdout: Encoder,
    stderr: Encoder,
    heartbeat: Interval,
    /// The first event, until it is sent.
    start: Option<ExecEvent>,
}

impl Follower {
    /// The next text of the stream, and whether it is the last.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(start) = self.start.take() {
            return (Bytes::from(render(&start)), false);
        }
        loop {
            let event = tokio::select! {
                event = self.process.events.recv() => event,
                _ = self.heartbeat.tick() => return (HEARTBEAT, false),
            };
            let data = match event {
                Some(Event::Output(stream, bytes)) => self.output(stream, &bytes),
                Some(Event::Ended(end)) => return (self.exit(end), true),
                Some(Event::Failed(_)) | None => return (self.exit(LOST), true),
                Some(Event::Started { .. }) => None,
            };
            if let Some(event) = data {
                self.heartbeat.reset();
                return (Bytes::from(render(&event)), false);
            }
        }
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) -> Option<ExecEvent> {
        match stream {
            Stream::Stdout => said(self.stdout.encode(bytes), stdout_event),
            Stream::Stderr => said(self.stderr.encode(bytes), stderr_event),
        }
    }

    /// What is still kept of both outputs, and the end.
    fn exit(&mut self, end: End) -> Bytes {
        let exit = ExecEvent::Exit {
            success: is_success(end.ending),
            exit_code: end.ending.exit_code(),
            ending: end.ending,
            duration_ms: millis(end.duration),
            usage: end.usage,
        };
        let stdout = said(self.stdout.finish(), stdout_event);
        let stderr = said(self.stderr.finish(), stderr_event);
        let text: String = [stdout, stderr, Some(exit)].iter().flatten().map(render).collect();
        Bytes::from(text)
    }
}

fn stdout_event(data: String) -> ExecEvent {
    ExecEvent::Stdout { data }
}

fn stderr_event(data: String) -> ExecEvent {
    ExecEvent::Stderr { data }
}

fn said(text: String, event: fn(String) -> ExecEvent) -> Option<ExecEvent> {
    (!text.is_empty()).then(|| event(text))
}

/// JSON has no line breaks, so the data is one line whatever a program wrote.
fn render(event: &ExecEvent) -> String {
    let data = serde_json::to_string(event).expect("an event is numbers, names and text");
    format!("event: {}\ndata: {data}\n\n", event.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: End = End {
        ending: Ending::Exited { code: 3 },
        duration: Duration::from_millis(5),
        usage: ExecUsage { cpu_ms: 1, peak_memory_bytes: 2 },
    };

    fn kept(bytes: &[u8]) -> Kept {
        Kept { bytes: bytes.to_vec(), ..Kept::default() }
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
                let json: Vec<Bytes> =
                    pieces(Frame::of(END, 7), kept(stdout), kept(stderr), encoding).collect();

                let result: ExecResult = serde_json::from_slice(&json.concat()).unwrap();

                assert_eq!(
                    result,
                    ExecResult {
                        success: false,
                        exit_code: 3,
                        ending: END.ending,
                        stdout: decode(stdout),
                        stderr: decode(stderr),
                        dropped_bytes: 7,
                        duration_ms: 5,
                        usage: END.usage,
                    }
                );
            }
        }
    }

    #[test]
    fn an_output_keeps_its_limit_and_counts_the_rest() {
        let budget = Arc::new(Semaphore::new(OUTPUT_BUDGET_BYTES));
        let mut kept = Kept::default();
        for _ in 0..17 {
            kept.keep(&vec![b'x'; 1024 * 1024], &budget);
        }
        assert_eq!(kept.bytes.len(), EXEC_OUTPUT_BYTES);
        assert_eq!(kept.dropped, 1024 * 1024);
        drop(kept);
        assert_eq!(budget.available_permits(), OUTPUT_BUDGET_BYTES);
    }

    #[test]
    fn a_spent_budget_leaves_each_output_its_free_part() {
        let budget = Arc::new(Semaphore::new(0));
        let mut kept = Kept::default();
        kept.keep(&vec![b'x'; FREE_BYTES + 1], &budget);
        kept.keep(b"after the hole", &budget);
        assert_eq!((kept.bytes.len(), kept.dropped), (FREE_BYTES, 15));
    }

    #[test]
    fn a_limit_does_not_cut_a_character() {
        let mut kept = Kept { bytes: b"ab\xe2\x82".to_vec(), dropped: 1, share: None };
        kept.trim_cut();
        assert_eq!((&*kept.bytes, kept.dropped), (&b"ab"[..], 3));
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let event = ExecEvent::Stdout { data: "a\n\nevent: exit\n".to_owned() };
        assert_eq!(
            render(&event),
            "event: stdout\ndata: {\"type\":\"stdout\",\"data\":\"a\\n\\nevent: exit\\n\"}\n\n"
        );
    }
}
