//! Streams of events that only look on: they have no end that could be waited for.

use std::io;

use axum::{body::Body, response::Response};
use futures_util::{StreamExt, stream};
use http::{Method, header};
use tokio_util::sync::CancellationToken;

/// `response`, or, when it only follows what goes on without it, one that is broken off when
/// `stopping` ends: what is not whole does not look whole.
pub(super) fn until(method: &Method, response: Response, stopping: CancellationToken) -> Response {
    if !is_follower(method, &response) {
        return response;
    }
    response.map(|body| {
        let state = Some((body.into_data_stream(), stopping));
        Body::from_stream(stream::unfold(state, |state| async {
            let (mut texts, stopping) = state?;
            tokio::select! {
                text = texts.next() => text.map(|text| (text, Some((texts, stopping)))),
                () = stopping.cancelled() => {
                    Some((Err(axum::Error::new(io::Error::other("the server stops"))), None))
                }
            }
        }))
    })
}

/// True for events that were asked for with GET. The events of a POST are those of work that ends
/// with them.
fn is_follower(method: &Method, response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    method == Method::GET && kind.is_some_and(|kind| kind == "text/event-stream")
}
