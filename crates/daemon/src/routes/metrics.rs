//! Metrics for collectors.

use std::collections::BTreeMap;

use api::error::ErrorBody;
use axum::{extract::State, response::IntoResponse};
use http::header;

use crate::{app::App, metrics::state_name, reply::Failure};

/// Read metrics.
///
/// Counters of the server in the OpenMetrics text format, for Prometheus and its like. For admin keys.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "node",
    responses(
        (status = 200, description = "Metrics", body = String,
         content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 503, description = "`STARTING`", body = ErrorBody),
    )
)]
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Failure> {
    let engine = app.engine().await?;
    let found = (engine.remains_found(), engine.networks_restored());
    let text = app.metrics.render(&count(&app).await?, engine.sandboxes_ahead(), found);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text))
}

/// Sandboxes by state.
async fn count(app: &App) -> Result<BTreeMap<&'static str, i64>, Failure> {
    let mut counts = BTreeMap::new();
    for state in app.engine().await?.states() {
        *counts.entry(state_name(state)).or_insert(0) += 1;
    }
    Ok(counts)
}
