//! The table: everything a sandbox can do. A line here both serves and documents its routes.

use std::sync::Arc;

use api::error::{ApiError, ErrorCode};
use axum::{
    Router, body::Body, extract::DefaultBodyLimit, http::Uri, response::Response,
    routing::MethodRouter,
};
use utoipa_axum::{PathItemExt as _, paste, router::OpenApiRouter, routes};

use crate::{
    diff, env, exec, file, file::watch, git, health, init::Agent, interpreter, port, processes,
    refusal, refusal::Refusal, service, session, terminal,
};

/// Makes of one list of handlers, those of one path side by side, both the router that serves them
/// and the one that documents them. The first is all that an agent in a sandbox builds: a document
/// costs it 3 ms and 1 MiB before it can answer anything.
macro_rules! table {
    ($([$($handler:path),+])+) => {
        fn served() -> Router<Arc<Agent>> {
            Router::new()$($(.route(&path_of!($handler), method_of!($handler)))+)+
        }

        fn documented() -> OpenApiRouter<Arc<Agent>> {
            OpenApiRouter::new()$(.routes(routes!($($handler),+)))+
        }
    };
}

/// The path in a handler's documentation.
macro_rules! path_of {
    ($handler:path) => {
        paste! { utoipa_axum::routes!(@path [path()] of $handler) }
    };
}

/// A handler for the methods in its documentation.
macro_rules! method_of {
    ($handler:path) => {{
        let methods = paste! { utoipa_axum::routes!(@path [methods()] of $handler) };
        methods.iter().fold(MethodRouter::new(), |router, method| {
            router.on(method.to_method_filter(), $handler)
        })
    }};
}

table! {
    [health::health]
    [exec::exec]
    [processes::start, processes::list]
    [processes::get, processes::delete]
    [processes::logs]
    [processes::stdin]
    [processes::signal]
    [processes::kill]
    [processes::wait]
    [processes::kill_all]
    [service::list]
    [session::list, session::create]
    [session::get, session::delete]
    [session::get_env, session::change_env]
    [interpreter::list, interpreter::create]
    [interpreter::get, interpreter::delete]
    [interpreter::interrupt]
    [interpreter::restart]
    [interpreter::run]
    [interpreter::warm]
    [interpreter::run_default]
    [env::get, env::change]
    [terminal::create, terminal::list]
    [terminal::attach, terminal::delete]
    [file::read::read, file::write::write, file::remove::delete]
    [file::list::list]
    [file::stat::stat]
    [file::mkdir::make_directory]
    [file::rename::move_file]
    [file::copy::copy_file]
    [file::symlink::make_symlink]
    [file::chmod::change_mode]
    [file::batch::read_files]
    [file::batch::write_files]
    [file::archive::read, file::archive::write]
    [file::archive::read_layer, file::archive::write_layer]
    [diff::diff]
    [watch::watch]
    [watch::changes]
    [git::checkout]
    [port::listening]
    [port::wait]
    [port::connect]
}

/// The routes as an OpenAPI document, for the daemon to forward and to publish.
///
/// OpenAPI has no parameter that spans slashes: what the router calls `{*path}` is `{path}` here.
#[must_use]
pub fn api() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// The table, which takes its state when that is known.
pub(crate) fn router() -> Router<Arc<Agent>> {
    served()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // Each body is bounded where it is read: JSON by `extract::Json`, contents by the disk.
        .layer(DefaultBodyLimit::disable())
}

/// Answers a request by the table, with what surrounds every route. As layers of the router these
/// would be copied, with all that is inside them, for each request.
pub(crate) fn answer(
    agent: &Agent,
    router: Router,
    request: http::Request<hyper::body::Incoming>,
) -> impl Future<Output = Response> + use<> {
    agent.figures.ask();
    refusal::render(router, request.map(Body::new))
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

    const ROUTES: [&str; 58] = [
        "delete /contexts/{cid}",
        "delete /files/{path}",
        "delete /processes/{pid}",
        "delete /sessions/{sid}",
        "delete /terminals/{tid}",
        "get /archive",
        "get /contexts",
        "get /contexts/{cid}",
        "get /diff",
        "get /env",
        "get /files/{path}",
        "get /files:list",
        "get /files:stat",
        "get /files:watch",
        "get /health",
        "get /layer",
        "get /listening",
        "get /ports/{port}/connect",
        "get /processes",
        "get /processes/{pid}",
        "get /processes/{pid}/logs",
        "get /services",
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
        "post /contexts:warm",
        "post /exec",
        "post /files:changes",
        "post /files:chmod",
        "post /files:copy",
        "post /files:mkdir",
        "post /files:move",
        "post /files:read",
        "post /files:symlink",
        "post /files:write",
        "post /git/checkout",
        "post /ports/{port}/wait",
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
        "put /layer",
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
