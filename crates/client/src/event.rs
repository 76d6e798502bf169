//! Event streams of the API as [`Stream`]s of typed events.
//!
//! Invariant: a stream that does not fail ends with its final event. A connection that ends before
//! it is an error, so that a cut stream is never taken for a finished one.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    Stream,
    stream::{self, BoxStream, StreamExt},
};
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::{
    Client, ClientError,
    call::{SILENCE_LIMIT, protocol, stream_error, within},
    sse::Parser,
};

/// Typed events as they arrive. Dropping it closes the connection, which cancels the operation.
pub struct EventStream<T> {
    events: BoxStream<'static, Result<T, ClientError>>,
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

/// A stream under way.
struct Reading<T> {
    client: Client,
    attempt: &'static str,
    response: Response,
    parser: Parser,
    is_final: fn(&T) -> bool,
    is_over: bool,
}

impl<T: DeserializeOwned + Send + 'static> EventStream<T> {
    pub(crate) fn new(
        client: Client,
        attempt: &'static str,
        response: Response,
        is_final: fn(&T) -> bool,
    ) -> Self {
        let parser = Parser::default();
        let reading = Reading { client, attempt, response, parser, is_final, is_over: false };
        let events = stream::try_unfold(reading, |mut reading| async move {
            if reading.is_over {
                return Ok(None);
            }
            let event = reading.next().await?;
            reading.is_over = (reading.is_final)(&event);
            Ok(Some((event, reading)))
        });
        Self { events: events.boxed() }
    }
}

impl<T: DeserializeOwned> Reading<T> {
    async fn next(&mut self) -> Result<T, ClientError> {
        loop {
            if let Some(event) = self.parser.next_event() {
                if event.name == "error" {
                    return Err(stream_error(self.attempt, &event.data));
                }
                return serde_json::from_str(&event.data).map_err(|fault| {
                    protocol(
                        self.attempt,
                        format!("an event {:?} does not read: {fault}", event.name),
                    )
                });
            }
            let chunk = within(self.attempt, SILENCE_LIMIT, self.response.chunk()).await?;
            let chunk = chunk.map_err(|source| self.client.broken(self.attempt, source))?;
            let Some(chunk) = chunk else {
                return Err(protocol(self.attempt, "the stream ended before its final event"));
            };
            self.parser.feed(&chunk).map_err(|fault| protocol(self.attempt, fault.to_string()))?;
        }
    }
}
