//! The table: everything a sandbox can do. A line here both serves and documents its routes.

use std::sync::Arc;

use api::error::{ApiError, ErrorCode};
use axum::{Router, extract::DefaultBodyLimit, http::Uri, middleware};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    env, exec, file, file::watch, health, init::Agent, interpreter, processes, refusal,
    refusal::Refusal, session, terminal,
};

fn table() -> OpenApiRouter<Arc<Agent>> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(exec::exec))
        .routes(routes!(processes::start, processes::list))
        .routes(routes!(processes::get, processes::delete))
        .routes(routes!(processes::logs))
        .routes(routes!(processes::stdin))
        .routes(routes!(processes::signal))
        .routes(routes!(processes::kill))
        .routes(routes!(processes::wait))
        .routes(routes!(processes::kill_all))
        .routes(routes!(session::list, session::create))
        .routes(routes!(session::get, session::delete))
        .routes(routes!(session::get_env, session::change_env))
        .routes(routes!(interpreter::list, interpreter::create))
        .routes(routes!(interpreter::get, interpreter::delete))
        .routes(routes!(interpreter::interrupt))
        .routes(routes!(interpreter::restart))
        .routes(routes!(interpreter::run))
        .routes(routes!(interpreter::run_default))
        .routes(routes!(env::get, env::change))
        .routes(routes!(terminal::create, terminal::list))
        .routes(routes!(terminal::attach, terminal::delete))
        .routes(routes!(file::read::read, file::write::write, file::remove::delete))
        .routes(routes!(file::list::list))
        .routes(routes!(file::stat::stat))
        .routes(routes!(file::mkdir::make_directory))
        .routes(routes!(file::rename::move_file))
        .routes(routes!(file::copy::copy_file))
        .routes(routes!(file::symlink::make_symlink))
        .routes(routes!(file::chmod::change_mode))
        .routes(routes!(file::batch::read_files))
        .routes(routes!(file::batch::write_files))
        .routes(routes!(file::archive::read, file::archive::write))
        .routes(routes!(watch::watch))
        .routes(routes!(watch::changes))
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

    const ROUTES: [&str; 49] = [
        "delete /contexts/{cid}",
        "delete /files/{path}",
        "delete /processes/{pid}",
        "delete /sessions/{sid}",
        "delete /terminals/{tid}",
        "get /archive",
        "get /contexts",
        "get /contexts/{cid}",
        "get /env",
        "get /files/{path}",
        "get /files:list",
        "get /files:stat",
        "get /files:watch",
        "get /health",
        "get /processes",
        "get /processes/{pid}",
        "get /processes/{pid}/logs",
        "get /sessions",
        "get /sessions/{sid}",
        "get /sessions/{sid}/env",
        "get /terminals",
        "get /terminals/{tid}",
        "head /files/{path}",
        "patch /env",
        "patch /sessions/{sid}/env",
        "post /contexts",
        "post /contexts/{cid}/interrupt",
        "post /contexts/{cid}/restart",
        "post /contexts/{cid}/run",
        "post /exec",
        "post /files:changes",
        "post /files:chmod",
        "post /files:copy",
        "post /files:mkdir",
        "post /files:move",
        "post /files:read",
        "post /files:symlink",
        "post /files:write",
        "post /processes",
        "post /processes/{pid}/kill",
        "post /processes/{pid}/signal",
        "post /processes/{pid}/stdin",
        "post /processes/{pid}/wait",
        "post /processes:kill",
        "post /run",
        "post /sessions",
        "post /terminals",
        "put /archive",
        "put /files/{path}",
    ];

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
        assert_eq!(seen, ROUTES);
    }
}
