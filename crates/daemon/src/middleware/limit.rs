//! So many requests at once, and no queue: a caller that is told "later" can decide, one that waits
//! in a queue cannot.

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
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    app::{App, REQUESTS_AT_ONCE},
    reply::Failure,
    routes::is_public,
};

/// Takes a place for the request, until the last byte of its answer. Public routes need none, so
/// that a full server can still be asked for its health.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    if is_public(request.uri().path()) {
        return next.run(request).await;
    }
    let Ok(place) = Arc::clone(&app.requests).try_acquire_owned() else {
        let message = format!("the server works on {REQUESTS_AT_ONCE} requests; try again");
        let error = ApiError::new(ErrorCode::TooManyRequests, message);
        return Failure(error.with("limit", REQUESTS_AT_ONCE)).into_response();
    };
    next.run(request).await.map(|body| Body::new(Placed { body, _place: place }))
}

/// An answer's body with the place of its request, which is given back when the body is dropped.
struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
