//! Refuses requests in the name of another site, whatever route they ask for.

use api::error::ErrorCode;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{app::App, reply::Failure};

/// Passes requests whose Host and Origin are ours, see [`crate::hosts`].
pub(super) async fn allow(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.hosts.allow(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => {
            let what = "use a loopback name, or add the name to allowed_hosts in the configuration, or a page's \
                        origin to allowed_origins";
            Failure::new(ErrorCode::HostNotAllowed, format!("{why}: {what}")).into_response()
        }
    }
}
