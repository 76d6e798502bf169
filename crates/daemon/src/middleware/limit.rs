//! So many requests at once, and no queue: a caller that is told "later" can decide, one that waits
//! in a queue cannot.
//!
//! What a request holds while it is worked on, its answer's body holds to its last byte: a place
//! among the node's and its key's, the right of its connection to stay, and the key being in force.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use api::error::{ApiError, ErrorCode};
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use engine::{Full, Key};

use super::authenticate::unauthorized;
use crate::{app::App, lease::Leased, reply::Failure, server::Seat};

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
    let mut ended = Box::pin(key.ended());
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
    let lease = async move {
        let _held = (place, working);
        if parting.has_begun() {
            std::future::pending::<()>().await;
        }
        ended.await;
    };
    let cause = "the key it was asked for with is not in force any more";
    response.map(|body| Leased::body(body, Box::pin(lease), cause))
}

fn too_many(full: Full, app: &App, key: &Key) -> ApiError {
    let (limit, whose) = match full {
        Full::Key => (app.keys.requests_per_key(), format!("for the key {}", key.name())),
        Full::Node => (app.requests.size(), "for all keys together".to_owned()),
    };
    let message = format!("the server works on as many requests as it may {whose}; try again");
    ApiError::new(ErrorCode::TooManyRequests, message).with("limit", limit)
}
