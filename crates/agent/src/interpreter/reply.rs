//! A run's log as one JSON document.

use std::sync::Arc;

use api::{
    exec::Refused,
    id::{ContextId, ProcessId},
    interpreter::RunEvent,
    process::OutputStream,
};
use axum::response::Response;
use bytes::Bytes;

use crate::{
    exec::reply::{PIECE_BYTES, json_inside, whole},
    follow::name_of,
    process::{Attachment, log::Log},
    text::Encoder,
};

/// What is known at the end of a run.
#[derive(Debug, Default)]
struct Outcome {
    error: Option<Vec<u8>>,
    success: bool,
    execution_count: u64,
    duration_ms: u64,
    context_reset: bool,
    refused: Option<Refused>,
}

/// Waits for a run's end and answers with all that its log has.
///
/// Cancel safety: dropping the future drops `attachment`.
pub(super) async fn buffered(attachment: Attachment, context_id: ContextId) -> Response {
    let process = attachment.process();
    process.ended().await;
    let pieces = pieces((context_id, process.about.id.clone()), Arc::clone(&process.log));
    whole(&process.log, pieces)
}

/// The events of a log.
fn events(log: Arc<Log>) -> impl Iterator<Item = Vec<u8>> {
    let mut cursor = 0;
    std::iter::from_fn(move || {
        let (event, next) = log.event(cursor)?;
        cursor = next;
        Some(event)
    })
}

fn outcome(log: &Arc<Log>) -> Outcome {
    let mut outcome = Outcome::default();
    for event in events(Arc::clone(log)) {
        match name_of(&event) {
            "error" => outcome.error = Some(untyped(&event)),
            "end" => {
                if let Ok(RunEvent::End {
                    success,
                    execution_count,
                    duration_ms,
                    context_reset,
                    refused,
                }) = serde_json::from_slice(&event)
                {
                    let error = outcome.error.take();
                    outcome = Outcome {
                        error,
                        success,
                        execution_count,
                        duration_ms,
                        context_reset,
                        refused,
                    };
                }
            }
            _ => {}
        }
    }
    outcome
}

/// An event's JSON without its type, which it begins with.
fn untyped(event: &[u8]) -> Vec<u8> {
    let rest = event.iter().position(|byte| *byte == b',');
    let rest = rest.and_then(|comma| event.get(comma + 1..)).unwrap_or(b"}");
    [b"{", rest].concat()
}

/// The JSON of a [`api::interpreter::RunResult`] in pieces, each made when it is asked for.
fn pieces(
    (context_id, process_id): (ContextId, ProcessId),
    log: Arc<Log>,
) -> impl Iterator<Item = Bytes> {
    let outcome = outcome(&log);
    let head = format!(
        r#"{{"contextId":"{context_id}","processId":"{process_id}","success":{},"logs":{{"stdout":["#,
        outcome.success
    );
    let mut tail = b"]".to_vec();
    if let Some(error) = outcome.error {
        tail.extend(br#","error":"#);
        tail.extend(error);
    }
    let reset = if outcome.context_reset { r#","contextReset":true"# } else { "" };
    let refused = outcome.refused.as_ref().map_or_else(String::new, |refused| {
        let json = serde_json::to_string(refused).expect("what was refused is numbers and texts");
        format!(r#","refused":{json}"#)
    });
    tail.extend(
        format!(
            r#","executionCount":{},"durationMs":{},"droppedBytes":{}{reset}{refused}}}"#,
            outcome.execution_count,
            outcome.duration_ms,
            log.describe().dropped_bytes,
        )
        .bytes(),
    );
    std::iter::once(Bytes::from(head))
        .chain(lines(Arc::clone(&log), OutputStream::Stdout))
        .chain(std::iter::once(Bytes::from_static(br#"],"stderr":["#)))
        .chain(lines(Arc::clone(&log), OutputStream::Stderr))
        .chain(std::iter::once(Bytes::from_static(br#"]},"results":["#)))
        .chain(results(log))
        .chain(std::iter::once(Bytes::from(tail)))
}

fn results(log: Arc<Log>) -> impl Iterator<Item = Bytes> {
    let mut separator = "";
    events(log).filter(|event| name_of(event) == "result").map(move |event| {
        let piece = [separator.as_bytes(), &untyped(&event)].concat();
        separator = ",";
        Bytes::from(piece)
    })
}

/// One output as JSON texts, a line in each.
fn lines(log: Arc<Log>, stream: OutputStream) -> impl Iterator<Item = Bytes> {
    let mut encoder = Encoder::new(api::exec::Encoding::Utf8);
    let mut position = Some(0);
    let (mut separator, mut is_open) = ("", false);
    std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(4096));
        let next = log.collect(position?, stream, PIECE_BYTES, &mut piece);
        position = next;
        let mut text = encoder.encode(&piece);
        if next.is_none() {
            // What is cut off by the end, or by the limit.
            text.push_str(&encoder.finish());
        }
        let mut json = String::new();
        for line in text.split_inclusive('\n') {
            if !is_open {
                json += separator;
                json.push('"');
            }
            json += &json_inside(line);
            is_open = !line.ends_with('\n');
            if !is_open {
                json.push('"');
            }
            separator = ",";
        }
        if next.is_none() && is_open {
            json.push('"');
        }
        Some(Bytes::from(json))
    })
}

#[cfg(test)]
mod tests {
    use api::interpreter::{CodeError, RunOutput, RunResult};

    use super::*;
    use crate::process::log::{BUDGET_BYTES, Budget, Retention};

    fn put(log: &Log, event: &RunEvent) {
        log.append_event(serde_json::to_vec(event).unwrap(), false);
    }

    #[test]
    fn pieces_make_the_json_of_a_result() {
        let log = Arc::new(Log::new(Retention::Oldest, Arc::new(Budget::new(BUDGET_BYTES))));
        let ids: (ContextId, ProcessId) = ("c".parse().unwrap(), "p".parse().unwrap());
        put(&log, &RunEvent::Start { context_id: ids.0.clone(), process_id: ids.1.clone() });
        let long = "x".repeat(2 * PIECE_BYTES);
        log.append(OutputStream::Stdout, format!("a\"b\n{long}").into_bytes());
        log.append(OutputStream::Stdout, b"y\nno end \xff".to_vec());
        let output = RunOutput { text: Some("2".into()), is_main: true, ..RunOutput::default() };
        put(&log, &RunEvent::Result(Box::new(output.clone())));
        put(&log, &RunEvent::Result(Box::default()));
        let error = CodeError { name: "E".into(), ..CodeError::default() };
        put(&log, &RunEvent::Error(error.clone()));
        let refused = Refused {
            connections: 2,
            destinations: vec!["10.0.0.1:80/tcp".into()],
            names: vec![r"a\034.test".into()],
        };
        put(
            &log,
            &RunEvent::End {
                success: false,
                execution_count: 4,
                duration_ms: 5,
                context_reset: true,
                refused: Some(refused.clone()),
            },
        );
        log.close();

        let json: Vec<Bytes> = pieces(ids, log).collect();

        let result: RunResult = serde_json::from_slice(&json.concat()).unwrap();
        assert_eq!(
            result.logs.stdout,
            ["a\"b\n".to_owned(), format!("{long}y\n"), "no end \u{fffd}".into()]
        );
        assert!(result.logs.stderr.is_empty());
        assert_eq!(result.results, [output, RunOutput::default()]);
        assert_eq!(result.error, Some(error));
        assert_eq!((result.execution_count, result.duration_ms), (4, 5));
        assert!(result.context_reset && !result.success);
        assert_eq!(result.refused, Some(refused));
    }
}
