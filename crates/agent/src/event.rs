//! Server-sent events: how one is written, and a stream of them with signs of life between.

use std::{convert::Infallible, time::Duration};

use api::limit::HEARTBEAT_SECS;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const EVENT_STREAM: &str = "text/event-stream";

/// A quiet stream's sign of life: a comment, which clients ignore.
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// True when a request asks for events.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains(EVENT_STREAM))
}

/// One event. JSON has no line breaks, so the data is one line whatever is in it.
pub(crate) fn render(name: &str, id: Option<u64>, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("events are numbers, names and texts");
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {name}\n{id}data: {data}\n\n")
}

/// Answers with `texts`, each of one or more events, and a sign of life whenever there is none for
/// a while.
///
/// Cancel safety: dropping the response drops `texts`.
pub(crate) fn respond(texts: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let period = Duration::from_secs(HEARTBEAT_SECS);
    let mut heartbeat = interval_at(Instant::now() + period, period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = (Box::pin(texts), heartbeat);
    let events = stream::unfold(state, |(mut texts, mut heartbeat)| async move {
        let text = tokio::select! {
            text = texts.next() => text?,
            _ = heartbeat.tick() => HEARTBEAT,
        };
        heartbeat.reset();
        Some((Ok::<_, Infallible>(text), (texts, heartbeat)))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        assert_eq!(
            render("stdout", Some(7), &"a\n\nevent: exit\n"),
            "event: stdout\nid: 7\ndata: \"a\\n\\nevent: exit\\n\"\n\n"
        );
        assert_eq!(render("x", None, &1), "event: x\ndata: 1\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_gives_signs_of_life() {
        let period = Duration::from_secs(HEARTBEAT_SECS);
        let texts = stream::unfold(0, move |count| async move {
            tokio::time::sleep(period * 5 / 2).await;
            (count < 2).then(|| (Bytes::from_static(b"x\n"), count + 1))
        });
        let body = to_bytes(respond(texts).into_body(), 1024).await.unwrap();
        assert_eq!(&*body, b":\n\n:\n\nx\n:\n\n:\n\nx\n:\n\n:\n\n");
    }
}
