//! What happens to every request before its route, in this order.

mod authenticate;
mod cors;
mod host;
mod limit;
mod observe;
mod request_id;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use self::{limit::Parting, request_id::RequestId};
use crate::{app::App, preview, reply::Failure};

/// Puts the layers around the table; the first is the outermost.
pub(crate) fn around(table: Router<App>, app: &App) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(app.clone(), preview::recognise))
        .layer(from_fn(request_id::give))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), preview::divert))
        .layer(from_fn_with_state(app.clone(), host::allow))
        .option_layer(cors::layer(app.hosts.origins()))
        .layer(from_fn_with_state(app.clone(), authenticate::authenticate))
        .layer(from_fn_with_state(app.clone(), limit::limit));
    table.layer(layers).with_state(app.clone())
}

/// A panic in a handler is a fault of ours that costs one request.
#[expect(clippy::needless_pass_by_value, reason = "the signature the layer asks for")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
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
    use axum::{body::Body, routing::get};
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_request_and_tells_nothing() {
        async fn fails() -> &'static str {
            panic!("/secret/path")
        }
        let router = Router::new().route("/", get(fails)).layer(CatchPanicLayer::custom(panicked));

        let mut response =
            router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();

        let error = crate::reply::render(&mut response, "r-1").unwrap();
        assert_eq!(error.code, api::error::ErrorCode::InternalError);
        assert!(!error.message.contains("secret"));
    }
}
