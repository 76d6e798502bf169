//! Is the agent there.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Answer of `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentHealth {
    /// Always `ok`.
    status: &'static str,
}

/// Says that the sandbox's agent answers.
#[utoipa::path(get, path = "/health", tag = "sandboxes",
    responses((status = 200, description = "The sandbox's agent answers", body = AgentHealth)))]
pub(crate) async fn health() -> Json<AgentHealth> {
    Json(AgentHealth { status: "ok" })
}
