//! Previews: what listens in a sandbox, for browsers and everybody else who knows its URL.
//!
//! ```text
//! Host names a preview ─► label ─► engine: exposed, and the token right ─► have the sandbox run
//!   ─► link: a connection through its agent to the port ─► request and answer, checked and rewritten
//! ```
//!
//! Owns: which host names are previews (`domain.rs`), what crosses the boundary (`request.rs`,
//! `response.rs`), who a visitor is (`proxies.rs`), how many there may be (`places.rs`), how long it may
//! take (`proxy.rs`), and what people read when there is nothing to see (`page.rs`). Does not: know the
//! API or its key's holders, or look into bodies.
//!
//! Invariants:
//! - Nothing is done for a visitor before the token was found right: no sandbox is started, nothing
//!   is connected to. Who presents wrong ones is slowed down (`guesses.rs`).
//! - A request reaches the port of the sandbox that its Host names, and nothing else.
//! - What a preview answers is the sandbox's word: it is never given in the name of the API, and
//!   what it could say about other previews is left out.
//! - Host names of previews hold tokens: they are never logged.

mod arrival;
mod domain;
mod guesses;
mod page;
mod places;
mod proxies;
mod proxy;
mod request;
mod response;

use api::{
    error::{ApiError, ErrorCode},
    port::PreviewLabel,
};
use axum::{extract::Request, response::Response};

use self::{guesses::Guesses, places::Places};
use crate::app::App;

pub(crate) use self::proxies::TrustedProxies;
pub(crate) use self::{arrival::Arrival, domain::Domain};

/// What the daemon knows of previews.
#[derive(Debug)]
pub(crate) struct Previews {
    pub(crate) domain: Domain,
    /// The API's listener serves no previews: they have their own.
    pub(crate) is_apart: bool,
    /// One per visit in work.
    places: Places,
    trusted: TrustedProxies,
    guesses: Guesses,
}

impl Previews {
    pub(crate) fn new(
        domain: Domain,
        is_apart: bool,
        visits_at_once: usize,
        trusted: TrustedProxies,
    ) -> Self {
        let places = Places::new(visits_at_once);
        Self { domain, is_apart, places, trusted, guesses: Guesses::default() }
    }
}

/// In the extensions of a request whose Host is one of the previews'.
#[derive(Debug, Clone)]
pub(crate) enum Addressed {
    /// This preview.
    To(PreviewLabel),
    /// A name that no preview can have.
    ToNobody,
    /// It cannot be told which: more than one name, or none.
    Ambiguously,
}

/// Finds out whether a request is for a preview, before anything else is done with it.
pub(crate) fn recognise(app: &App, mut request: Request) -> Request {
    let is_only = request.extensions().get::<Arrival>().is_some_and(|arrival| arrival.is_previews);
    if is_only || !app.previews.is_apart {
        let addressed = app.previews.domain.addressee(request.uri(), request.headers());
        if let Some(addressed) = addressed.or(is_only.then_some(Addressed::ToNobody)) {
            let (mut head, body) = request.into_parts();
            head.extensions.insert(addressed);
            if let Some(arrival) = head.extensions.get_mut::<Arrival>() {
                arrival.visitor = app.previews.trusted.visitor(arrival.visitor, &head.headers);
            }
            request = Request::from_parts(head, body);
        }
    }
    request
}

/// Answers requests for previews; the others go on to the API.
pub(crate) async fn divert(app: &App, mut request: Request) -> Result<Request, Response> {
    let Some(addressed) = request.extensions_mut().remove::<Addressed>() else {
        return Ok(request);
    };
    let reader = page::Reader::of(request.headers());
    let visited = match addressed {
        Addressed::To(label) => proxy::visit(app, &label, request).await,
        Addressed::ToNobody => Err(unknown()),
        Addressed::Ambiguously => {
            let text = "the request does not say which host it is for";
            Err(ApiError::new(ErrorCode::ValidationFailed, text))
        }
    };
    Err(visited.unwrap_or_else(|error| reader.show(&error)))
}

/// What everybody is told who has no right URL, whatever is wrong with it.
fn unknown() -> ApiError {
    let text = "no preview has this URL: its token is wrong, or the port is not exposed";
    ApiError::new(ErrorCode::InvalidToken, text)
}
