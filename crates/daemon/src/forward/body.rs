//! Bodies on their way through: nothing is kept, everything is counted, a break is passed on.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Silence a caller may keep in the middle of a body. Longer, and it is gone or holds a place on
/// purpose.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// A caller's body. It can be lent to one request after another, so that a request of which nothing
/// was read can be sent again.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<Lent>>);

struct Lent {
    body: Body,
    state: UploadState,
    idle: Pin<Box<Sleep>>,
    sent: Counter,
}

/// Where a body is.
struct UploadState {
    remaining: u64,
    is_touched: bool,
    is_finished: bool,
    /// The agent waits for the caller since the idle timer was set.
    is_awaited: bool,
    fault: Option<UploadFault>,
    /// When the agent last took something.
    moved: Instant,
}

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadFault {
    /// It went over its limit.
    TooLarge,
    /// The caller kept silent for too long.
    Stalled,
    /// The caller broke it off.
    Broken,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload")
    }
}

impl Upload {
    /// A body of at most `limit` bytes, counted in `sent`.
    pub(crate) fn new(body: Body, limit: u64, sent: Counter) -> Self {
        let state = UploadState {
            remaining: limit,
            is_touched: false,
            is_finished: body.is_end_stream(),
            is_awaited: false,
            fault: None,
            moved: Instant::now(),
        };
        let idle = Box::pin(sleep(UPLOAD_IDLE));
        Self(Arc::new(Mutex::new(Lent { body, state, idle, sent })))
    }

    /// The body for one request.
    pub(crate) fn lend(&self) -> Self {
        self.clone()
    }

    /// Nobody asked for its bytes yet.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.lent().state.is_touched
    }

    /// It has no bytes to ask for.
    pub(crate) fn is_empty(&self) -> bool {
        self.lent().body.is_end_stream()
    }

    /// Why it broke off, if it did.
    pub(crate) fn fault(&self) -> Option<UploadFault> {
        self.lent().state.fault
    }

    /// Ends when the agent has taken nothing for `limit` and owes something: the rest of the body, or
    /// the answer. The answer is owed for ever when `is_endless`.
    pub(crate) async fn silence(&self, limit: Duration, is_endless: bool) {
        loop {
            let (due, is_finished) = {
                let lent = self.lent();
                (lent.state.moved + limit, lent.state.is_finished)
            };
            if is_finished && is_endless {
                std::future::pending::<()>().await;
            }
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// No code that holds the lock can panic, so a poisoned lock holds a whole value.
    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.lent().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lent().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lent().body.size_hint()
    }
}

impl Lent {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut self.state;
        state.is_touched = true;
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            // The caller's time runs while the agent waits for it, not while the agent is busy.
            if !state.is_awaited {
                state.is_awaited = true;
                self.idle.as_mut().reset(Instant::now() + UPLOAD_IDLE);
            }
            ready!(self.idle.as_mut().poll(context));
            state.fault = Some(UploadFault::Stalled);
            let error = io::Error::new(io::ErrorKind::TimedOut, "the caller stopped sending");
            return Poll::Ready(Some(Err(error.into())));
        };
        state.is_awaited = false;
        state.moved = Instant::now();
        let Some(frame) = frame else {
            state.is_finished = true;
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| {
            state.fault = Some(UploadFault::Broken);
            BoxError::from(error)
        })?;
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(remaining) = state.remaining.checked_sub(bytes) else {
            state.fault = Some(UploadFault::TooLarge);
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "the body is over its limit");
            return Poll::Ready(Some(Err(error.into())));
        };
        state.remaining = remaining;
        state.is_finished = self.body.is_end_stream();
        self.sent.inc_by(bytes);
        Poll::Ready(Some(Ok(frame)))
    }
}

/// An agent's body, and what must live as long as it.
pub(crate) struct Download<B, G> {
    body: B,
    /// Keeps the sandbox from being stopped for idleness.
    _guard: G,
    received: Counter,
}

impl<B, G> Download<B, G> {
    pub(crate) fn new(body: B, guard: G, received: Counter) -> Self {
        Self { body, _guard: guard, received }
    }
}

// No field is pinned by anybody: the body is Unpin, and the guard is only held.
impl<B: Unpin, G> Unpin for Download<B, G> {}

impl<B: HttpBody<Data = Bytes> + Unpin, G> HttpBody for Download<B, G> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // Trailers are headers nobody listed; they end here.
        match frame {
            Some(Ok(frame)) if frame.is_trailers() => Poll::Ready(None),
            Some(Ok(frame)) => {
                self.received.inc_by(frame.data_ref().map_or(0, Bytes::len) as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;
    use crate::metrics::Metrics;

    fn upload(body: Body, limit: u64) -> Upload {
        Upload::new(body, limit, Metrics::new().bytes_to_agents())
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_wait_for_a_busy_agent_but_not_the_other_way_round() {
        let chunks = stream::iter([Ok::<_, io::Error>("chunk")]).chain(stream::pending());
        let mut body = upload(Body::from_stream(chunks), 9);
        let begun = Instant::now();

        // The agent is busy for long; then the caller keeps silent.
        sleep(UPLOAD_IDLE * 10).await;
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        sleep(UPLOAD_IDLE * 10).await;
        let awaited = Instant::now();
        let error = body.frame().await.unwrap().unwrap_err();

        assert_eq!(chunk, "chunk");
        assert_eq!(error.to_string(), "the caller stopped sending");
        assert_eq!(body.fault(), Some(UploadFault::Stalled));
        assert_eq!(awaited - begun, UPLOAD_IDLE * 20);
        assert!((UPLOAD_IDLE..UPLOAD_IDLE * 2).contains(&awaited.elapsed()));
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_limit_and_no_longer() {
        let whole = upload(Body::from("12345"), 5).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "12345");

        let over = upload(Body::from("123456"), 5);
        assert!(over.lend().collect().await.is_err());
        assert_eq!(over.fault(), Some(UploadFault::TooLarge));
    }

    #[tokio::test]
    async fn a_body_that_was_asked_for_is_touched() {
        let body = upload(Body::from_stream(stream::pending::<Result<Bytes, io::Error>>()), 9);
        assert!(body.is_untouched() && !body.is_empty());

        let mut lent = body.lend();
        poll_fn(|context| Poll::Ready(Pin::new(&mut lent).poll_frame(context).is_pending())).await;

        assert!(!body.is_untouched());
    }
}
