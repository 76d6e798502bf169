//! Event streams of the API as [`Stream`]s of typed events.
//!
//! Invariant: a stream that does not fail ends with its final event. A connection that ends before
//! it is an error, so that a cut stream is never taken for a finished one.
//! Invariant: a stream with a way back has each event once, however often its connection broke.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use api::{error::ErrorCode, limit::RESUME_GRACE_SECS};
use futures_util::{
    Stream,
    stream::{self, BoxStream, StreamExt},
};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, SILENCE_LIMIT, protocol, stream_error, within},
    sse::Parser,
};

/// How long a server that is replaced is waited for: as long as a command waits for its caller.
pub(crate) const COME_BACK_LIMIT: Duration = Duration::from_secs(RESUME_GRACE_SECS);

/// Pause before the first try to come back, and between the later ones.
pub(crate) const COME_BACK_PAUSE: Duration = Duration::from_millis(100);

/// Header of a request that goes on after an event.
pub(crate) const LAST_EVENT: &str = "last-event-id";

/// Typed events as they arrive. Dropping it closes the connection, which cancels the operation.
pub struct EventStream<T> {
    events: BoxStream<'static, Result<T, ClientError>>,
    cursor: Arc<AtomicU64>,
}

impl<T> EventStream<T> {
    /// The cursor after the last event that had one: what `Last-Event-ID` of a request that goes on
    /// from here says. 0 before.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl<T> Stream for EventStream<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

/// Makes the request that goes on after a cursor, or, without one, begins again.
pub(crate) type WayBack = Box<dyn Fn(&Client, Option<u64>) -> RequestBuilder + Send + Sync>;

/// A stream under way.
struct Reading<T> {
    client: Client,
    attempt: &'static str,
    response: Response,
    parser: Parser,
    is_final: fn(&T) -> bool,
    is_over: bool,
    way_back: Option<WayBack>,
    /// Where it goes on; none before the first event that says.
    after: Option<u64>,
    cursor: Arc<AtomicU64>,
    /// It has said that the command runs.
    has_begun: bool,
}

impl<T: DeserializeOwned + Send + 'static> EventStream<T> {
    pub(crate) fn new(
        client: Client,
        attempt: &'static str,
        response: Response,
        is_final: fn(&T) -> bool,
    ) -> Self {
        Self::of(client, attempt, response, is_final, None)
    }

    /// A stream that goes on by `way_back` when its connection breaks. It has gone on after a cursor
    /// already, if there is one.
    pub(crate) fn resumable(
        client: Client,
        attempt: &'static str,
        response: Response,
        is_final: fn(&T) -> bool,
        way_back: (WayBack, Option<u64>),
    ) -> Self {
        Self::of(client, attempt, response, is_final, Some(way_back))
    }

    fn of(
        client: Client,
        attempt: &'static str,
        response: Response,
        is_final: fn(&T) -> bool,
        way_back: Option<(WayBack, Option<u64>)>,
    ) -> Self {
        let (way_back, after) = way_back.map_or((None, None), |(way, after)| (Some(way), after));
        let cursor = Arc::new(AtomicU64::new(after.unwrap_or(0)));
        let reading = Reading {
            client,
            attempt,
            response,
            parser: Parser::default(),
            is_final,
            is_over: false,
            way_back,
            after,
            cursor: Arc::clone(&cursor),
            has_begun: false,
        };
        let events = stream::try_unfold(reading, |mut reading| async move {
            if reading.is_over {
                return Ok(None);
            }
            let event = reading.next().await?;
            reading.is_over = (reading.is_final)(&event);
            Ok(Some((event, reading)))
        });
        Self { events: events.boxed(), cursor }
    }
}

impl<T: DeserializeOwned> Reading<T> {
    async fn next(&mut self) -> Result<T, ClientError> {
        loop {
            match self.read().await {
                Err(error) if self.way_back.is_some() && is_passing(&error) => {
                    self.come_back(error).await?;
                }
                Ok(None) => {}
                Ok(Some(event)) => return Ok(event),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next event; none when it is one that was there before.
    async fn read(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(event) = self.parser.next_event() {
                if event.name == "error" && is_failure(&event.data) {
                    return Err(stream_error(self.attempt, &event.data));
                }
                if event.name == "start" && std::mem::replace(&mut self.has_begun, true) {
                    return Ok(None);
                }
                if let Some(cursor) = event.id {
                    self.after = Some(cursor);
                    self.cursor.store(cursor, Ordering::Relaxed);
                }
                let read = serde_json::from_str(&event.data);
                return read.map(Some).map_err(|fault| {
                    protocol(
                        self.attempt,
                        format!("an event {:?} does not read: {fault}", event.name),
                    )
                });
            }
            let chunk = within(self.attempt, SILENCE_LIMIT, self.response.chunk()).await?;
            let chunk = chunk.map_err(|source| self.client.broken(self.attempt, source))?;
            let Some(chunk) = chunk else { return Err(ClientError::cut_off(self.attempt)) };
            self.parser.feed(&chunk).map_err(|fault| protocol(self.attempt, fault.to_string()))?;
            if let Some(position) = self.parser.take_position() {
                self.after = Some(position);
                self.cursor.store(position, Ordering::Relaxed);
            }
        }
    }

    /// Opens the stream again where it broke.
    async fn come_back(&mut self, broken: ClientError) -> Result<(), ClientError> {
        let Some(way_back) = &self.way_back else { return Err(broken) };
        let begun = Instant::now();
        loop {
            sleep(COME_BACK_PAUSE).await;
            let request = way_back(&self.client, self.after);
            match self.client.send(self.attempt, ANSWER_LIMIT, request).await {
                Ok(response) => {
                    (self.response, self.parser) = (response, Parser::default());
                    return Ok(());
                }
                Err(error) if !is_passing(&error) => return Err(error),
                Err(_) if begun.elapsed() < COME_BACK_LIMIT => {}
                Err(_) => return Err(broken),
            }
        }
    }
}

/// True for an [`ErrorBody`](api::error::ErrorBody), and for an event of a stream's own that carries one's error, which has a
/// code: an event of the same name may be about the code that runs.
fn is_failure(data: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(data)
        .map_or(true, |data| data.get("type").is_none() || data["error"]["code"].is_string())
}

/// True for what a server that is replaced looks like.
pub(crate) fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Transport { .. }
        | ClientError::Timeout { .. }
        | ClientError::CutOff { .. } => true,
        ClientError::Api { error, .. } => matches!(
            error.code,
            ErrorCode::Starting | ErrorCode::ShuttingDown | ErrorCode::TooManyRequests
        ),
        _ => false,
    }
}
