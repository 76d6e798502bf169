//! The daemon: configuration, wiring, HTTP.
//!
//! Routes bytes between callers and sandboxes. Owns the public HTTP surface: who may call, in which
//! form, how much at once, and what crosses the boundary to an agent. Knows no sandbox semantics
//! beyond lifecycle: what a sandbox can do is the agent's table, forwarded as it is.
//!
//! ```text
//! accept (server) ─► layers (middleware) ─► table (routes) ─┬─► engine           lifecycle, images
//!                                                           └─► forward ─► agent  everything else
//! ```

#![forbid(unsafe_code)]

mod serve;

mod claim;
mod endpoint;
mod port_owner;
mod preflight;
mod user;

mod app;
mod server;

mod middleware;

mod extract;
mod hosts;
mod routes;

mod forward;

mod preview;

mod docs;
mod lease;
mod log;
mod metrics;
mod reply;

pub mod config;
pub mod key;

use utoipa::openapi::OpenApi;

pub use self::{
    claim::{ClaimError, Claimed},
    config::{Config, ConfigError},
    preflight::PreflightError,
    serve::{DownReport, ServeError, down, serve},
    user::UserError,
};

/// The process of this machine that listens on TCP port `port`, if its descriptors can be seen.
#[must_use]
pub fn listener_on(port: u16) -> Option<u32> {
    port_owner::find(port).map(|owner| owner.pid)
}

/// The OpenAPI document of the whole API, without starting anything.
#[must_use]
pub fn openapi() -> OpenApi {
    routes::table().1
}
