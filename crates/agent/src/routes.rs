//! The table: everything a sandbox can do. A line here both serves and documents its routes.

use std::sync::Arc;

use api::error::{ApiError, ErrorCode};
use axum::{Router, extract::DefaultBodyLimit, http::Uri, middleware};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{env, exec, file, health, init::Agent, refusal, refusal::Refusal, session};

fn table() -> OpenApiRouter<Arc<Agent>> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(exec::exec))
        .routes(routes!(session::list, session::create))
        .routes(routes!(session::get, session::delete))
        .routes(routes!(session::get_env, session::change_env))
        .routes(routes!(env::get, env::change))
        .routes(routes!(file::read, file::write, file::delete))
        .routes(routes!(file::list))
        .routes(routes!(file::make_directory))
}

/// The routes as an OpenAPI document, for the daemon to forward and to publish.
///
/// OpenAPI has no parameter that spans slashes: what the router calls `{*path}` is `{path}` here.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    let mut document = table().into_openapi();
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// The table with its state and what surrounds every route.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    let (router, _) = table().with_state(agent).split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // Each body is bounded where it is read: JSON by `extract::Json`, contents by the disk.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(refusal::render))
}

async fn no_route(uri: Uri) -> Refusal {
    Refusal(ApiError::new(ErrorCode::RouteNotFound, format!("there is no route {}", uri.path())))
}

async fn no_method(method: http::Method, uri: Uri) -> Refusal {
    let text = format!("{} does not take {method}", uri.path());
    Refusal(ApiError::new(ErrorCode::MethodNotAllowed, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_documents_its_errors() {
        let document = serde_json::to_value(api()).unwrap();
        let mut seen = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                seen.push(format!("{method} {path}"));
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let schema = &response["content"]["application/json"]["schema"]["$ref"];
                    let is_error = status.starts_with(['4', '5']);
                    assert!(
                        !is_error || schema == "#/components/schemas/ErrorBody",
                        "{method} {path} {status}"
                    );
                }
            }
        }
        seen.sort();
        assert_eq!(
            seen,
            [
                "delete /files/{path}",
                "delete /sessions/{sid}",
                "get /env",
                "get /files/{path}",
                "get /files:list",
                "get /health",
                "get /sessions",
                "get /sessions/{sid}",
                "get /sessions/{sid}/env",
                "head /files/{path}",
                "patch /env",
                "patch /sessions/{sid}/env",
                "post /exec",
                "post /files:mkdir",
                "post /sessions",
                "put /files/{path}",
            ]
        );
    }
}
