//! The forwarded routes: exactly those of the agent's document, with exactly its methods.

use axum::{
    Extension, Router,
    routing::{MethodFilter, MethodRouter, on},
};
use utoipa::openapi::{OpenApi, PathItem, path::Operation};

use super::{Forward, forward};
use crate::{app::App, extract::SANDBOXES};

/// Routes whose answer takes as long as the work they ask for.
const ENDLESS: [&str; 15] = [
    // An interpreter may take long to start, and code to run.
    "/contexts",
    "/contexts/{cid}/restart",
    "/contexts/{cid}/run",
    "/exec",
    "/files:copy",
    "/files:move",
    "/git/checkout",
    "/ports/{port}/wait",
    // Waits for its session to be idle.
    "/processes",
    "/processes/{pid}/kill",
    "/processes/{pid}/stdin",
    "/processes/{pid}/wait",
    "/processes:kill",
    "/run",
    "/sessions/{sid}/env",
];

/// Routes of the agent that are the engine's, not the caller's.
const INTERNAL: [&str; 4] = ["/diff", "/health", "/layer", "/listening"];

/// The part of the agent's document that is public.
pub(crate) fn published() -> OpenApi {
    let mut agent = agent::api();
    agent.paths.paths.retain(|path, _| !INTERNAL.contains(&path.as_str()));
    agent
}

/// A route for every operation of the agent's document, below `/v1/sandboxes/{id}`.
pub(crate) fn routes(agent: &OpenApi) -> Router<App> {
    agent.paths.paths.iter().fold(Router::new(), |router, (path, item)| {
        router.route(&format!("{SANDBOXES}{{id}}{}", pattern(path)), methods(path, item))
    })
}

/// The router's spelling of a path. OpenAPI has no parameter that spans slashes; by our convention a
/// last segment `{path}` is one.
fn pattern(path: &str) -> String {
    match documented(path).strip_suffix("/{path}") {
        Some(start) => format!("{start}/{{*path}}"),
        None => path.to_owned(),
    }
}

/// OpenAPI's spelling of a path: the agent's document has the router's.
pub(crate) fn documented(path: &str) -> String {
    path.replace("{*", "{")
}

fn methods(path: &str, item: &PathItem) -> MethodRouter<App> {
    let is_endless = ENDLESS.contains(&path);
    let operations: [(MethodFilter, Option<&Operation>); 6] = [
        (MethodFilter::GET, item.get.as_ref()),
        (MethodFilter::HEAD, item.head.as_ref()),
        (MethodFilter::PUT, item.put.as_ref()),
        (MethodFilter::POST, item.post.as_ref()),
        (MethodFilter::PATCH, item.patch.as_ref()),
        (MethodFilter::DELETE, item.delete.as_ref()),
    ];
    operations.into_iter().filter_map(|(filter, operation)| Some((filter, operation?))).fold(
        MethodRouter::new(),
        |router, (filter, operation)| {
            let is_json = operation
                .request_body
                .as_ref()
                .is_some_and(|body| body.content.contains_key("application/json"));
            let may_switch = operation.responses.responses.contains_key("101");
            let how = Forward { may_switch, ..Forward::new(is_json, is_endless) };
            router.merge(on(filter, forward).layer(Extension(how)))
        },
    )
}
