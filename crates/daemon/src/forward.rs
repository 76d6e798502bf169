//! The straight line: from a request for a sandbox to its agent and back.
//!
//! ```text
//! route matched ─► engine.activate(id) ─► agent path = path less /v1/sandboxes/{id} ─► link ─► agent
//!                                          caller ◄─ checked head, streamed body ◄──────────────┘
//! ```
//!
//! Owns: what crosses the boundary in both directions (`header.rs`, `body.rs`) and how long it may
//! take. Does not know what any route means: which there are, and which carry JSON, is read from the
//! agent's own document.
//!
//! A route whose document has the answer 101 may turn into a tunnel, see [`crate::server::tunnel`]:
//! after that head nothing is looked at any more, in either direction.
//!
//! The agent is hostile. Its head is bounded by the link, its status and headers pass a list, its
//! body is bytes. A body that breaks off breaks the caller's connection: an answer that is not whole
//! never looks whole.

pub(crate) mod body;
pub(crate) mod header;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use std::time::Duration;

use api::{
    error::{ApiError, ErrorCode},
    limit::JSON_BODY_BYTES,
};
use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    response::Response,
};
use engine::{Active, Key};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use link::{LinkError, Links};
use tokio::time::{Instant, timeout_at};
use tokio_util::io::ReaderStream;

use self::body::{Download, Upload, UploadFault};
use crate::{
    app::App,
    extract::{AskedFirstUse, SandboxPath, require_json, require_length, split, too_large},
    log,
    metrics::{Lifecycle, Metrics},
    reply::Failure,
    server::tunnel::{PIECE_BYTES, Switch, Upstream},
};

/// Silence an agent may keep before its head, counted from the last byte of the request it took.
/// Deleting or listing a huge tree takes seconds; an agent that is stopped or mad takes for ever.
const HEAD_DEADLINE: Duration = Duration::from_secs(120);

/// Pause between questions to an agent whose answer may take for ever.
const HEALTH_EVERY: Duration = Duration::from_secs(4);

/// Questions in a row that stay without an answer, [`link::Links::health`] waiting 2 s each, before
/// such an agent counts as stopped: about 18 s, which a sandbox without any CPU left does not reach.
const UNANSWERED: u32 = 3;

/// How long a request of which nothing was sent waits, all in all, until the engine has noticed that
/// the agent it was for has ended. That takes the kernel as long as it takes to end every process of
/// the sandbox: 30 ms of a few, a second of thousands that are large.
pub(crate) const END_DEADLINE: Duration = Duration::from_secs(5);

/// What is held while an agent answers.
pub(crate) trait Guard: Send + 'static {
    /// Ends when it is known that the agent is gone. False: there will be no other.
    fn outlived(&self) -> impl Future<Output = bool> + Send;
}

impl Guard for Active {
    async fn outlived(&self) -> bool {
        Self::outlived(self).await;
        true
    }
}

/// A jail that is there for one request alone.
#[derive(Debug)]
pub(crate) struct Once<G>(pub(crate) G);

impl<G: Send + Sync + 'static> Guard for Once<G> {
    async fn outlived(&self) -> bool {
        false
    }
}

/// How one route is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Its body is JSON: declared as such and at most [`JSON_BODY_BYTES`], or refused before a
    /// sandbox is touched.
    pub(crate) is_json: bool,
    /// Its answer may take as long as the work it asks for. The jail's end ends the connection.
    pub(crate) is_endless: bool,
    /// Its caller may change to WebSocket; everything after the agent's 101 is between the two.
    pub(crate) may_switch: bool,
    /// How long an agent may be silent otherwise; [`HEAD_DEADLINE`] but in tests.
    pub(crate) head_deadline: Duration,
}

impl Forward {
    pub(crate) fn new(is_json: bool, is_endless: bool) -> Self {
        Self { is_json, is_endless, may_switch: false, head_deadline: HEAD_DEADLINE }
    }
}

/// The handler of every forwarded route.
pub(crate) async fn forward(
    State(app): State<App>,
    axum::Extension(route): axum::Extension<Forward>,
    axum::Extension(key): axum::Extension<std::sync::Arc<Key>>,
    SandboxPath(id): SandboxPath,
    AskedFirstUse(first_use): AskedFirstUse,
    request: Request,
) -> Result<Response, Failure> {
    admit(route, &request)?;
    let engine = app.engine().await?;
    let activate = || async {
        let active = engine.activate(&id, first_use, &key).await;
        app.metrics.lifecycle(Lifecycle::Activate, active.is_ok());
        active.map(|active| (active.jail.0, active))
    };
    relay(route, activate, &app.links, &app.metrics, request).await
}

/// What can be refused without a sandbox.
fn admit(route: Forward, request: &Request) -> Result<(), Failure> {
    if !route.is_json {
        return Ok(());
    }
    require_json(request.headers())?;
    require_length(request.body())
}

/// Sends `request` to the agent that `activate` names and streams its answer back. What `activate`
/// returns beside the jail's number is held until the answer's last byte.
///
/// An agent that died a moment ago, behind the engine's back, is not the caller's concern: as long
/// as no byte of the request went out, the sandbox is activated once more when the engine has noticed.
///
/// # Cancel safety
/// Dropping the future or the answer's body drops the request to the agent.
pub(crate) async fn relay<A, F, G>(
    route: Forward,
    activate: A,
    links: &Links,
    metrics: &Metrics,
    request: Request,
) -> Result<Response, Failure>
where
    A: Fn() -> F,
    F: Future<Output = Result<(u64, G), ApiError>>,
    G: Guard,
{
    let target = agent_target(request.uri())?;
    let (mut head, body) = request.into_parts();
    let switch = head.extensions.remove::<Switch>().filter(|_| {
        route.may_switch && body.is_end_stream() && header::asks_for_websocket(&head.headers)
    });
    let limit = if route.is_json { JSON_BODY_BYTES as u64 } else { u64::MAX };
    let upload = Upload::new(body, limit, metrics.bytes_to_agents());
    let mut patience = Patience::default();
    loop {
        let (jail, guard) = activate().await?;
        let mut request = agent_request(&head.method, &target, &head.headers, &upload);
        if switch.is_some() {
            header::add_switch(request.headers_mut(), &head.headers);
        }
        let answer = answer_in_time(route, links.send(jail, request), &upload, (links, jail));
        let error = match (answer.await?, &switch) {
            (Ok(response), Some(switch))
                if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
            {
                return switched_response(response, switch, guard, metrics).await;
            }
            (Ok(response), _) => return caller_response(response, guard, metrics),
            (Err(error), _) => error,
        };
        if let Some(fault) = upload.fault() {
            return Err(broken_upload(fault));
        }
        let may_repeat = may_repeat(&head.method, &upload);
        if !patience.allows(&error, may_repeat, guard.outlived()).await {
            return Err(unreachable_agent(&error));
        }
    }
}

/// A request may be sent again when nothing of it can have been acted on: its body was not touched,
/// and it has one to miss or changes nothing anyway.
pub(crate) fn may_repeat(method: &Method, upload: &Upload) -> bool {
    upload.is_untouched() && (!upload.is_empty() || method.is_safe())
}

/// What one request has been waiting for already.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    is_retry: bool,
    /// Of [`END_DEADLINE`], since it was first told that an agent is gone.
    until: Option<Instant>,
}

impl Patience {
    /// Whether a request that ended with `error` is to be sent again, once that has a point: at once
    /// when its connection broke, the first time; else, and when the agent is gone, when `outlived`
    /// says that another can be asked for. `may_repeat`: it may be, though it was sent.
    pub(crate) async fn allows(
        &mut self,
        error: &LinkError,
        may_repeat: bool,
        outlived: impl Future<Output = bool>,
    ) -> bool {
        match error {
            LinkError::Gone(_) => {}
            LinkError::Unreachable(_) if !may_repeat => return false,
            LinkError::Unreachable(_) if !self.is_retry => {
                self.is_retry = true;
                return true;
            }
            LinkError::Unreachable(_) => {}
            LinkError::Silent | LinkError::Refused | LinkError::Full => return false,
        }
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + END_DEADLINE);
        now < until && timeout_at(until, outlived).await.unwrap_or(false)
    }
}

/// The agent's path and query: the public ones less `/v1/sandboxes/{id}`, byte for byte. Decoding is
/// the agent's business, once; a path that was decoded here could match another route there.
pub(crate) fn agent_target(uri: &Uri) -> Result<Uri, Failure> {
    let rewritten = split(uri.path()).and_then(|(_, rest)| {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        rest.starts_with('/').then(|| format!("{rest}{query}").parse::<Uri>().ok())?
    });
    rewritten.ok_or_else(|| {
        Failure::new(ErrorCode::RouteNotFound, "the path names no route of a sandbox")
    })
}

fn agent_request(
    method: &Method,
    target: &Uri,
    headers: &HeaderMap,
    upload: &Upload,
) -> http::Request<link::Body> {
    let mut request = http::Request::new(link::Body::new(upload.lend()));
    *request.method_mut() = method.clone();
    *request.uri_mut() = target.clone();
    *request.headers_mut() = header::to_agent(headers);
    request
}

/// The agent's answer, unless it keeps silent for too long.
async fn answer_in_time<T>(
    route: Forward,
    answer: impl Future<Output = T>,
    upload: &Upload,
    (links, jail): (&Links, u64),
) -> Result<T, Failure> {
    tokio::select! {
        answer = answer => Ok(answer),
        () = upload.silence(route.head_deadline, route.is_endless) => Err(Failure::new(
            ErrorCode::Timeout,
            format!("the sandbox gave no answer within {} s", route.head_deadline.as_secs()),
        )),
        () = stopped(links, jail), if route.is_endless => Err(Failure::new(
            ErrorCode::AgentUnreachable,
            "the sandbox's agent is stopped or stuck: it answers nothing any more, so whether the \
             command still runs is unknown; destroy the sandbox if it stays so",
        )),
    }
}

/// Ends when an agent answers nothing at all. One that is merely busy with what it was asked says so.
async fn stopped(links: &Links, jail: u64) {
    let mut unanswered = 0;
    while unanswered < UNANSWERED {
        tokio::time::sleep(HEALTH_EVERY).await;
        unanswered = if links.health(jail).await.is_ok() { 0 } else { unanswered + 1 };
    }
}

/// The answer as the caller gets it.
fn caller_response<G: Send + 'static>(
    response: http::Response<Incoming>,
    guard: G,
    metrics: &Metrics,
) -> Result<Response, Failure> {
    let (head, body) = response.into_parts();
    if !header::is_passable(head.status) {
        return Err(wrong_answer(&format!("the status {}", head.status.as_u16())));
    }
    let mut response =
        Response::new(Body::new(Download::new(body, guard, metrics.bytes_from_agents())));
    *response.status_mut() = head.status;
    *response.headers_mut() = header::to_caller(&head.headers);
    Ok(response)
}

/// The answer to a caller that changes to another protocol with the agent. Its body is what comes
/// back from then on; where the caller's bytes go is left in `switch`.
async fn switched_response<G: Send + 'static>(
    mut response: http::Response<Incoming>,
    switch: &Switch,
    guard: G,
    metrics: &Metrics,
) -> Result<Response, Failure> {
    let upgraded = hyper::upgrade::on(&mut response)
        .await
        .map_err(|error| unreachable_agent(&LinkError::Unreachable(error.into())))?;
    let (from_agent, agent) = tokio::io::split(TokioIo::new(upgraded));
    switch.set(Upstream { agent, sent: metrics.bytes_to_agents() });
    let pieces = ReaderStream::with_capacity(from_agent, PIECE_BYTES).map_ok(Frame::data);
    let body = Download::new(StreamBody::new(pieces), guard, metrics.bytes_from_agents());
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = header::to_caller(response.headers());
    header::add_switch(answer.headers_mut(), response.headers());
    Ok(answer)
}

/// The caller's own doing, though it shows as a link that broke.
fn broken_upload(fault: UploadFault) -> Failure {
    match fault {
        UploadFault::TooLarge => too_large(),
        UploadFault::Stalled => Failure::new(ErrorCode::Timeout, "the body stopped arriving"),
        UploadFault::Broken => Failure::new(ErrorCode::ValidationFailed, "the body broke off"),
    }
}

fn wrong_answer(what: &str) -> Failure {
    tracing::warn!(what, "an agent answered what no agent of ours answers");
    Failure::new(ErrorCode::AgentUnreachable, "the sandbox's agent gave an answer that is none")
}

/// The one place where a link's error becomes public: the cause stays in the log.
fn unreachable_agent(error: &LinkError) -> Failure {
    tracing::warn!(cause = log::chain(error), "an agent gave no answer");
    let text = match error {
        LinkError::Gone(_) => {
            "the sandbox's agent has ended, and its sandbox does not end; nothing was run; try again"
        }
        _ => {
            "the sandbox ended, or its agent broke the connection, before it answered; the command \
             may have been run"
        }
    };
    Failure::new(ErrorCode::AgentUnreachable, text)
}
