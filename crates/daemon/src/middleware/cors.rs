//! What a browser wants to hear before it lets a page of another site use the API, for the pages that
//! the operator trusts. Without any, nothing is said, and a browser keeps every page out.
//!
//! Who is let in is decided before ([`super::host`]), and who may do what behind ([`super::authenticate`]):
//! this is about scripts that read answers, not about what requests may do.

use std::time::Duration;

use http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// How long a browser need not ask again. What it asks for is answered from memory, so minutes save
/// enough; an operator who takes an origin away is refused from the next request on, whatever a
/// browser remembers.
const MAX_AGE: Duration = Duration::from_secs(600);

const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Answers browsers' questions (preflight requests), which have no key, and marks all answers for
/// their origin. Never for cookies: a key is in a header that a script has to write.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods(AllowMethods::list(METHODS))
        // Each route looks at its own headers; a list here would be a second one.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::any())
        .max_age(MAX_AGE);
    Some(layer)
}
