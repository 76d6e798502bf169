//! So many requests at once, and no queue: a caller that is told "later" can decide, one that waits
//! in a queue cannot.
//!
//! What a request holds while it is worked on, its answer's body holds to its last byte: a place
//! among the node's and its key's, the right of its connection to stay, and the key being in force.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::error::{ApiError, ErrorCode};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use engine::{Full, Key, Place};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::authenticate::unauthorized;
use crate::{
    app::{App, REQUESTS_AT_ONCE},
    reply::Failure,
    server::{Seat, Working},
};

/// In the extensions of an answer: the request ended its own key, and this is still to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parting;

/// Takes a place for the request. Public routes need none, so that a full server can still be asked
/// for its health; their callers are nobody, and their connections the first to be closed.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(key) = request.extensions().get::<Arc<Key>>().cloned() else {
        return next.run(request).await;
    };
    let place = match key.place(&app.requests) {
        Ok(place) => place,
        Err(full) => return Failure(too_many(full, &app, &key)).into_response(),
    };
    let working = request.extensions().get::<Seat>().map(Seat::work);
    let mut ended = Box::pin(key.ended());
    let response = tokio::select! {
        // First, so that the request which ends its own key gets its answer.
        biased;
        response = next.run(request) => response,
        () = &mut ended => return unauthorized().into_response(),
    };
    let is_parting = response.extensions().get::<Parting>().is_some();
    let ended: Option<Ended> = if is_parting { None } else { Some(ended) };
    response.map(|body| Body::new(Placed { body, ended, _place: place, _working: working }))
}

fn too_many(full: Full, app: &App, key: &Key) -> ApiError {
    let (limit, message) = match full {
        Full::Key => {
            let limit = app.keys.requests_per_key();
            (limit, format!("the key {} has {limit} requests under way; try again", key.name()))
        }
        Full::Node => (
            REQUESTS_AT_ONCE,
            format!("the server works on nearly {REQUESTS_AT_ONCE} requests; try again"),
        ),
    };
    ApiError::new(ErrorCode::TooManyRequests, message).with("limit", limit)
}

/// The end of a key, see [`Key::ended`].
type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer's body with what its request holds, which is given back when the body is dropped. It
/// breaks off when the key ends.
struct Placed {
    body: Body,
    ended: Option<Ended>,
    _place: Place,
    _working: Option<Working>,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            // Not to be asked again.
            self.ended = None;
            self.body = Body::empty();
            let cause = "the key it was asked for with is not in force any more";
            return Poll::Ready(Some(Err(axum::Error::new(cause))));
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
