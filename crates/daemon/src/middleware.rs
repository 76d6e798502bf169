//! What happens to every request before its route, in this order.

mod authenticate;
mod cors;
mod host;
mod limit;
mod observe;
mod request_id;

use std::{any::Any, panic::AssertUnwindSafe};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tower::ServiceBuilder;

pub(crate) use self::{limit::Parting, request_id::RequestId};
use crate::{app::App, preview, reply::Failure};

/// Puts the layers around the table; the first is the outermost. There are few, because each copies
/// all that is inside it for each request.
pub(crate) fn around(table: Router<App>, app: &App) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(app.clone(), watched))
        .option_layer(cors::layer(app.hosts.origins()))
        .layer(from_fn_with_state(app.clone(), admitted));
    table.layer(layers).with_state(app.clone())
}

/// What happens to every request, whoever sends it and whatever for.
async fn watched(State(app): State<App>, request: Request, next: Next) -> Response {
    let request = preview::recognise(&app, request);
    request_id::give(request, |request| {
        let inner = app.clone();
        observe::observe(app, request, |request| caught(addressed(inner, request, next)))
    })
    .await
}

/// To the API, unless it is for a preview or in the name of another site.
async fn addressed(app: App, request: Request, next: Next) -> Response {
    let request = match preview::divert(&app, request).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    match host::allow(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// To its route, if whoever sends it may, and if there is a place for it.
async fn admitted(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match authenticate::authenticate(&app, &mut request).await {
        Ok(()) => limit::limit(&app, request, next).await,
        Err(failure) => failure.into_response(),
    }
}

/// A panic costs one request.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(panicked)
}

/// A panic in a handler is a fault of ours.
#[expect(clippy::needless_pass_by_value, reason = "the signature that `catch_unwind` leads to")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("of an unknown kind");
    tracing::error!(panic = text, "a handler panicked");
    let code = api::error::ErrorCode::InternalError;
    Failure::new(code, "the server failed; its log has the cause under the request's id")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_request_and_tells_nothing() {
        let mut response = caught(async { panic!("/secret/path") }).await;

        let error = crate::reply::render(&mut response, "r-1").unwrap();
        assert_eq!(error.code, api::error::ErrorCode::InternalError);
        assert!(!error.message.contains("secret"));
    }
}
