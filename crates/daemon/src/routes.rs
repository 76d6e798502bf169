//! THE TABLE: every route of the API. A line serves a path and documents it.
//!
//! What a sandbox can do (exec, files, ...) is not here: those lines are in the agent's table, and
//! are forwarded from its document, see [`crate::forward`].

mod checkpoint;
mod diff;
pub(crate) mod docs;
mod event;
mod image;
mod key;
mod metrics;
mod node;
mod port;
mod sandbox;
mod webhook;

#[cfg(test)]
mod tests;

use api::error::ErrorCode;
use axum::Router;
use http::{Method, Uri};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, docs::document, forward, reply::Failure};

/// Routes that need no key: that the server is there and how to talk to it is no secret.
const PUBLIC: [&str; 3] = ["/", "/healthz", "/openapi.json"];

/// The routes, and the document that describes them with the agent's.
#[rustfmt::skip]
pub(crate) fn table() -> (Router<App>, OpenApi) {
    let agent = forward::table::published();
    let (own, described) = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(sandbox::create, sandbox::list))
        .routes(routes!(sandbox::get, sandbox::update, sandbox::destroy))
        .routes(routes!(sandbox::freeze))
        .routes(routes!(sandbox::thaw))
        .routes(routes!(sandbox::stop))
        .routes(routes!(sandbox::start))
        .routes(routes!(checkpoint::create, checkpoint::list))
        .routes(routes!(checkpoint::get, checkpoint::remove))
        .routes(routes!(checkpoint::restore))
        .routes(routes!(checkpoint::fork))
        .routes(routes!(checkpoint::export))
        .routes(routes!(checkpoint::import))
        .routes(routes!(diff::diff))
        .routes(routes!(port::expose, port::list))
        .routes(routes!(port::get, port::hide))
        .routes(routes!(port::rotate))
        .routes(routes!(port::validate_token))
        .routes(routes!(event::list))
        .routes(routes!(image::list))
        .routes(routes!(image::build))
        .routes(routes!(key::create, key::list))
        .routes(routes!(key::remove))
        .routes(routes!(key::rotate))
        .routes(routes!(webhook::create, webhook::list))
        .routes(routes!(webhook::get, webhook::remove))
        .routes(routes!(webhook::test))
        .routes(routes!(node::shutdown))
        .routes(routes!(node::healthz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .split_for_parts();
    let router = own
        .merge(forward::table::routes(&agent))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method);
    (router, document::assemble(described, agent))
}

/// Whether a path needs no key.
pub(crate) fn is_public(path: &str) -> bool {
    PUBLIC.contains(&path)
}

async fn unknown_route(method: Method, uri: Uri) -> Failure {
    let what = format!("no route {method} {}; GET / lists them", shown(uri.path()));
    Failure::new(ErrorCode::RouteNotFound, what)
}

async fn unknown_method(method: Method, uri: Uri) -> Failure {
    let what = format!(
        "{} does not take {method}; the Allow header lists what it takes",
        shown(uri.path())
    );
    Failure::new(ErrorCode::MethodNotAllowed, what)
}

/// A path for an error message: it may be 64 KiB long.
fn shown(path: &str) -> &str {
    const SHOWN_BYTES: usize = 200;
    // A path is ASCII, so every byte is a boundary.
    path.get(..SHOWN_BYTES).unwrap_or(path)
}
