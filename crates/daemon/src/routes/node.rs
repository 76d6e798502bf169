//! The node: is it there; end it.

use api::{
    error::{ErrorBody, ErrorCode},
    node::{Health, Shutdown},
};
use axum::extract::State;
use http::StatusCode;

use crate::{app::App, extract::Json, reply::Failure};

/// Check health.
///
/// Needs no key. `recovering` while sandboxes of an earlier run are being adopted; requests made
/// meanwhile wait.
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "node", security(()),
    responses((status = 200, description = "The server answers", body = Health))
)]
pub(super) async fn healthz(State(app): State<App>) -> axum::Json<Health> {
    let status = if app.is_open() { "ok" } else { "recovering" };
    axum::Json(Health { status: status.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// Stop the server.
///
/// Requests under way get a few seconds to finish. By default sandboxes keep running and the next
/// start adopts them. For admin keys.
#[utoipa::path(
    post, path = "/v1/node:shutdown", operation_id = "shutdownNode", tag = "node",
    request_body = Shutdown,
    responses(
        (status = 202, description = "The server stops; it has stopped when it no longer answers"),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 503, description = "`SHUTTING_DOWN`: it is stopping already", body = ErrorBody),
    )
)]
pub(super) async fn shutdown(
    State(app): State<App>,
    Json(request): Json<Shutdown>,
) -> Result<StatusCode, Failure> {
    app.shutdown
        .try_send(request.sandboxes)
        .map(|()| StatusCode::ACCEPTED)
        .map_err(|_full| Failure::new(ErrorCode::ShuttingDown, "the server is stopping already"))
}
