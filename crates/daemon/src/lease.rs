//! What an answer holds, and the right that it is given under, last together.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Ends when a right does. It owns what is held while something is done under that right, so dropping
/// it gives that back.
pub(crate) type Lease = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer's body with its lease. It breaks off when that ends.
pub(crate) struct Leased {
    body: Body,
    /// None: it has ended, and the body with it.
    lease: Option<Lease>,
    /// What a body that breaks off says.
    cause: &'static str,
}

impl Leased {
    /// `body` until `lease` ends, and then an error of that `cause`.
    pub(crate) fn body(body: Body, lease: Lease, cause: &'static str) -> Body {
        Body::new(Self { body, lease: Some(lease), cause })
    }
}

impl HttpBody for Leased {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        if lease.as_mut().poll(context).is_ready() {
            self.lease = None;
            return Poll::Ready(Some(Err(axum::Error::new(self.cause))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
