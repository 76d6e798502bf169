//! Refuses requests in the name of another site, whatever route they ask for.

use api::error::ErrorCode;
use axum::extract::Request;

use crate::{app::App, reply::Failure};

/// Passes requests whose Host and Origin are ours, see [`crate::hosts`].
pub(super) fn allow(app: &App, request: &Request) -> Result<(), Failure> {
    app.hosts.allow(request.uri(), request.headers()).map_err(|why| {
        let what = "use a loopback name and the server's own port, or add the name to allowed_hosts in the \
                    configuration, or a page's origin to allowed_origins";
        Failure::new(ErrorCode::HostNotAllowed, format!("{why}: {what}"))
    })
}
