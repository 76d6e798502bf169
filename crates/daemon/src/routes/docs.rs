//! The API's description, for programs and for people.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::app::App;

/// Read the OpenAPI document.
///
/// OpenAPI 3.1, generated from the code that serves. Needs no key.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenapi", tag = "node", security(()),
    responses((status = 200, description = "The document", content_type = "application/json", body = serde_json::Value))
)]
pub(super) async fn openapi(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.docs.json.clone()).into_response()
}

/// Read this page.
///
/// The API's documentation for people. Needs no key.
#[utoipa::path(
    get, path = "/", operation_id = "getDocs", tag = "node", security(()),
    responses((status = 200, description = "A page of HTML", content_type = "text/html", body = String))
)]
pub(super) async fn page(State(app): State<App>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, app.docs.policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, app.docs.page.clone()).into_response()
}
