//! One visit: from a visitor's request to the program that listens, and back.

use std::time::{Duration, Instant};

use api::{
    error::{ApiError, ErrorCode},
    port::PreviewLabel,
};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use engine::{Active, Found, Visit};
use http::{Method, StatusCode, Uri, header, request::Parts, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use link::LinkError;

use super::{
    Arrival,
    places::{Full, Place},
    request::{self, Visitor},
    response, unknown,
};
use crate::{
    app::App,
    forward::{
        Patience,
        body::{Upload, UploadFault},
        may_repeat,
    },
    lease::{Lease, Leased},
    log,
    metrics::Lifecycle,
    server::{Seat, Working, tunnel::Switch},
};

/// Silence a program may keep before its head, counted from the last byte of the request it took. A
/// page that is compiled, or computed, on its first request can take minutes.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);

/// What an answer says that breaks off.
const HIDDEN: &str = "the port was hidden, or has another URL now";

/// Answers a request to the preview `label`.
///
/// # Cancel safety
/// Dropping the future or the answer's body closes the connection to the program.
pub(super) async fn visit(
    app: &App,
    label: &PreviewLabel,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine().await.map_err(|failure| failure.0)?;
    let visitor = request.extensions().get::<Arrival>().map(|arrival| arrival.visitor);
    let now = Instant::now();
    if visitor.is_some_and(|visitor| app.previews.guesses.is_slowed(visitor, label, now)) {
        let text = "too many wrong URLs of this port came from your address; try again";
        return Err(ApiError::new(ErrorCode::TooManyRequests, text));
    }
    let visit = match engine.find_preview(label) {
        Found::Exposed(visit) => visit,
        found @ (Found::Hidden | Found::Unknown) => {
            if let (Found::Unknown, Some(visitor)) = (&found, visitor) {
                app.previews.guesses.count(visitor, label, now);
            }
            return Err(nothing(&found));
        }
    };
    check(app, label, &request)?;
    let place = app.previews.places.take(visit.jail()).map_err(too_many)?;
    let working = request.extensions().get::<Seat>().map(Seat::work);
    carry(app, label, &visit, request, (place, working)).await
}

/// What is told who may not visit, or not any more.
fn nothing(found: &Found) -> ApiError {
    match found {
        Found::Hidden => {
            let text = "the port was hidden by whoever shared this URL";
            ApiError::new(ErrorCode::StalePreviewUrl, text)
        }
        Found::Unknown | Found::Exposed(_) => unknown(),
    }
}

fn too_many(full: Full) -> ApiError {
    let (limit, text) = match full {
        Full::Sandbox(limit) => {
            let text = "visits to this sandbox, which is as many as it may have while so few places \
                        are left for others";
            (limit, text)
        }
        Full::Server(limit) => (limit, "visits, which is as many as it may"),
    };
    let text = format!("the server works on {limit} {text}; try again");
    ApiError::new(ErrorCode::TooManyRequests, text).with("limit", limit)
}

/// What is refused though the URL is right.
fn check(app: &App, label: &PreviewLabel, request: &Request) -> Result<(), ApiError> {
    let invalid = |text| Err(ApiError::new(ErrorCode::ValidationFailed, text));
    if request.uri().path_and_query().is_none() || *request.method() == Method::CONNECT {
        return invalid("a preview is no proxy");
    }
    if request::is_loop(request.headers()) {
        let text = "the request came through this server too often: a preview leads back to itself";
        return Err(ApiError::new(ErrorCode::LoopDetected, text));
    }
    // A browser may send requests for all names of a certificate over one connection; what was
    // encrypted for one preview is not for another.
    let server_name = request.extensions().get::<Arrival>().and_then(|it| it.server_name.clone());
    let host = app.previews.domain.host(label);
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    if server_name.is_some_and(|server_name| *server_name != *name) {
        let text = "the connection was made for another host";
        return Err(ApiError::new(ErrorCode::MisdirectedRequest, text));
    }
    Ok(())
}

async fn carry(
    app: &App,
    label: &PreviewLabel,
    visit: &Visit,
    request: Request,
    held: (Place, Option<Working>),
) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let switch = head.extensions.remove::<Switch>().filter(|_| body.is_end_stream());
    let upgrade = switch.as_ref().and_then(|_| request::upgrade(&head.headers));
    let arrival = head.extensions.remove::<Arrival>();
    let visitor =
        Visitor { domain: &app.previews.domain, label, arrival: arrival.as_ref(), keys: &app.keys };
    let mut headers = visitor.headers(&head.method, head.version, &head.headers);
    if let Some(upgrade) = &upgrade {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
    }
    head.headers = headers;
    let upload = Upload::new(body, u64::MAX, app.metrics.bytes_to_agents());
    let (said, active) = tokio::select! {
        answer = ask(app, label, visit, (&head, &upload)) => answer?,
        () = visit.ended() => {
            let engine = app.engine().await.map_err(|failure| failure.0)?;
            return Err(nothing(&engine.find_preview(label)));
        }
    };
    let ended = visit.ended();
    let lease = Box::pin(async move {
        let _held = (active, held);
        ended.await;
    });
    if said.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(switch) = switch.filter(|_| upgrade.is_some()) else {
            return Err(no_service(label, "changed its protocol unasked"));
        };
        return switched(app, label, said, &switch, lease).await;
    }
    Ok(answer(app, label, said, lease))
}

/// Sends the request, again if nothing can have come of it ([`Patience`]), and waits for the answer's
/// head.
async fn ask(
    app: &App,
    label: &PreviewLabel,
    visit: &Visit,
    (head, upload): (&Parts, &Upload),
) -> Result<(http::Response<Incoming>, Active), ApiError> {
    let engine = app.engine().await.map_err(|failure| failure.0)?;
    let mut patience = Patience::default();
    loop {
        let active = engine.visit(visit).await;
        app.metrics.lifecycle(Lifecycle::Activate, active.is_ok());
        let active = active?;
        let sent = app.links.send_to_port(active.jail.0, label.port().get(), build(head, upload)?);
        let answer = tokio::select! {
            answer = sent => answer,
            () = upload.silence(HEAD_DEADLINE, false) => {
                return Err(no_service(label, "did not answer in time"));
            }
        };
        let error = match answer {
            Ok(said) => return Ok((said, active)),
            Err(error) => error,
        };
        if let Some(fault) = upload.fault() {
            return Err(broken_upload(fault));
        }
        // RFC 9110, section 9.2.2: a safe request may be sent again; a connection that had waited may
        // have been closed by the program just then. The same goes for one that has not been sent.
        let may_repeat = may_repeat(&head.method, upload);
        // A program that breaks connections is no agent that has ended.
        let outlived = async {
            let is_gone = matches!(error, LinkError::Gone(_));
            if is_gone {
                active.outlived().await;
            }
            is_gone
        };
        if !patience.allows(&error, may_repeat, outlived).await {
            return Err(no_answer(label, &error));
        }
    }
}

fn build(head: &Parts, upload: &Upload) -> Result<http::Request<link::Body>, ApiError> {
    let mut request = http::Request::new(link::Body::new(upload.lend()));
    let target = head.uri.path_and_query().cloned();
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.headers_mut() = head.headers.clone();
    Ok(request)
}

/// The answer as the visitor gets it.
fn answer(
    app: &App,
    label: &PreviewLabel,
    said: http::Response<Incoming>,
    lease: Lease,
) -> Response {
    let (head, body) = said.into_parts();
    let mut answer = Response::new(Leased::body(Body::new(body), lease, HIDDEN));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = response::headers(&head.headers, &app.previews.domain, label);
    answer
}

/// The answer to a visitor that changes to another protocol with the program.
async fn switched(
    app: &App,
    label: &PreviewLabel,
    mut said: http::Response<Incoming>,
    switch: &Switch,
    lease: Lease,
) -> Result<Response, ApiError> {
    let upgraded = hyper::upgrade::on(&mut said)
        .await
        .map_err(|error| no_answer(label, &LinkError::Unreachable(error.into())))?;
    switch.set_service(TokioIo::new(upgraded), lease);
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response::headers(said.headers(), &app.previews.domain, label);
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    if let Some(protocol) = said.headers().get(header::UPGRADE) {
        headers.insert(header::UPGRADE, protocol.clone());
    }
    Ok(answer)
}

fn broken_upload(fault: UploadFault) -> ApiError {
    match fault {
        UploadFault::TooLarge => ApiError::new(ErrorCode::PayloadTooLarge, "the body is too large"),
        UploadFault::Stalled => ApiError::new(ErrorCode::Timeout, "the body stopped arriving"),
        UploadFault::Broken => ApiError::new(ErrorCode::ValidationFailed, "the body broke off"),
    }
}

fn no_answer(label: &PreviewLabel, error: &LinkError) -> ApiError {
    match error {
        LinkError::Refused => no_service(label, "is not there: nothing listens"),
        LinkError::Full => {
            let text = "too many connections to this sandbox are open";
            ApiError::new(ErrorCode::TooManyRequests, text)
        }
        error @ (LinkError::Gone(_) | LinkError::Unreachable(_) | LinkError::Silent) => {
            tracing::debug!(sandbox_id = %label.id(), port = %label.port(),
                cause = log::chain(error), "a program gave no answer");
            no_service(label, "broke the connection, or answered something that is no HTTP")
        }
    }
}

fn no_service(label: &PreviewLabel, what: &str) -> ApiError {
    let port = label.port();
    let text = format!("the program on port {port} of the sandbox {what}");
    ApiError::new(ErrorCode::ServiceNotResponding, text).with("port", port.get())
}
