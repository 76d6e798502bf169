//! So many requests at once, and no queue: a caller that is told "later" can decide, one that waits
//! in a queue cannot.
//!
//! What a request holds while it is worked on, its answer's body holds to its last byte: a place
//! among the node's and its key's, the right of its connection to stay, and the key being in force.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use api::error::{ApiError, ErrorCode};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use engine::{Full, Key, Place};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::authenticate::unauthorized;
use crate::{
    app::App,
    reply::Failure,
    server::{Seat, Working},
};

/// In the extensions of a request. One that may end its own key says so beforehand, and then gets
/// its answer: the key ends on another thread, which may be ahead.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parting(Arc<AtomicBool>);

impl Parting {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes a place for the request. Public routes need none, so that a full server can still be asked
/// for its health; their callers are nobody, and their connections the first to be closed.
pub(super) async fn limit(app: &App, mut request: Request, next: Next) -> Response {
    let Some(key) = request.extensions().get::<Arc<Key>>().cloned() else {
        return next.run(request).await;
    };
    let place = match key.place(&app.requests) {
        Ok(place) => place,
        Err(full) => return Failure(too_many(full, app, &key)).into_response(),
    };
    let working = request.extensions().get::<Seat>().map(Seat::work);
    let parting = Parting::default();
    request.extensions_mut().insert(parting.clone());
    let mut ended: Ended = Box::pin(key.ended());
    let mut response = Box::pin(next.run(request));
    let response = tokio::select! {
        response = &mut response => response,
        () = &mut ended => {
            if !parting.has_begun() {
                return unauthorized().into_response();
            }
            response.await
        }
    };
    let ended = if parting.has_begun() { None } else { Some(ended) };
    response.map(|body| Body::new(Placed { body, ended, _place: place, _working: working }))
}

fn too_many(full: Full, app: &App, key: &Key) -> ApiError {
    let (limit, whose) = match full {
        Full::Key => (app.keys.requests_per_key(), format!("for the key {}", key.name())),
        Full::Node => (app.requests.size(), "for all keys together".to_owned()),
    };
    let message = format!("the server works on as many requests as it may {whose}; try again");
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
