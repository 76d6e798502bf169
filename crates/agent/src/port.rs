//! Ports of the sandbox, seen from inside: what listens, when it is ready, and connections to it.
//!
//! ```text
//! daemon ─GET /ports/8080/connect, Upgrade: tcp─► 101 ─► bytes ⇄ 127.0.0.1:8080 or [::1]:8080
//!                                  Upgrade: websocket ─► binary messages ⇄ the same
//! ```
//!
//! Owns: the connections to ports. Does not: know which ports are exposed, look into what goes over
//! a connection, or connect to anything but this sandbox's loopback.

mod listening;
mod socket;
pub(crate) mod target;

use std::{sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    limit::{PORT_CONNECTIONS, WAIT_TIMEOUT_MS, WAITS_PER_SANDBOX},
    port::{HttpCheck, ListeningPorts, PortReady, WaitPort},
};
use axum::{
    Json,
    body::Body,
    extract::{
        Path, Request, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use self::target::{Target, invalid};
use crate::{extract, init::Agent, refusal::Refusal};

/// Time for the daemon to close a connection whose other end has gone.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Lists the TCP ports on which something listens.
#[utoipa::path(get, path = "/listening", operation_id = "listListeningPorts", tag = "ports",
    responses((status = 200, description = "All of them", body = ListeningPorts)))]
pub(crate) async fn listening() -> Json<ListeningPorts> {
    Json(ListeningPorts { listening: listening::look() })
}

/// Waits until something listens on a port, or an HTTP server there answers as it should.
///
/// The answer comes when that is so; at once if it was so already. The port need not be exposed.
#[utoipa::path(post, path = "/ports/{port}/wait", operation_id = "waitForPort", tag = "ports",
    params(("port" = u16, Path, description = "The TCP port inside the sandbox")),
    request_body = WaitPort,
    responses(
        (status = 200, description = "It is so", body = PortReady),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PORT", body = ErrorBody),
        (status = 408, description = "PROCESS_READY_TIMEOUT: not within `timeoutMs`", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many wait", body = ErrorBody),
    ))]
pub(crate) async fn wait(
    State(agent): State<Arc<Agent>>,
    Path(port): Path<String>,
    extract::Json(request): extract::Json<WaitPort>,
) -> Result<Json<PortReady>, Refusal> {
    let port = parse(&port)?;
    let timeout_ms = request.timeout_ms.unwrap_or(WAIT_TIMEOUT_MS);
    if !(1..=WAIT_TIMEOUT_MS).contains(&timeout_ms) {
        let text = format!("timeoutMs is from 1 to {WAIT_TIMEOUT_MS}");
        return Err(invalid("timeoutMs", text).with("limit", WAIT_TIMEOUT_MS).into());
    }
    let target = match request.http {
        None => Target::port(port)?,
        Some(HttpCheck { path, status_min, status_max }) => {
            Target::page(port, path, status_min..=status_max)?
        }
    };
    let _place = agent.waits.try_acquire().map_err(|_full| {
        let text = format!("{WAITS_PER_SANDBOX} requests wait for something in this sandbox");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", WAITS_PER_SANDBOX)
    })?;
    let limit = Duration::from_millis(timeout_ms);
    let reached = target::poll(&target, std::future::pending());
    match tokio::time::timeout(limit, reached).await {
        Ok(Some(reached)) => Ok(Json(PortReady { port, status: reached.status })),
        Ok(None) | Err(_) => {
            let text = format!("not within {timeout_ms} ms: {target}");
            let error = ApiError::new(ErrorCode::ProcessReadyTimeout, text);
            let error = error.with("condition", target.to_string()).with("port", port);
            Err(error.with("timeout", timeout_ms).into())
        }
    }
}

/// Connects to a port, over WebSocket.
///
/// Each binary message, whatever its bounds, is bytes for what listens on the port of the sandbox's
/// loopback, and the other way round; an empty one says that nothing more comes from the caller. When
/// what listens has ended its side, the connection is closed; a text message closes it too (code
/// 1003). The port need not be exposed. Pings come every 15 s; who says nothing
/// for 60 s, pongs included, is dropped.
#[utoipa::path(get, path = "/ports/{port}/connect", operation_id = "connectToPort", tag = "ports",
    params(("port" = u16, Path, description = "The TCP port inside the sandbox")),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on"),
        (status = 400, description = "VALIDATION_FAILED: no request for a WebSocket; INVALID_PORT", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many connections", body = ErrorBody),
        (status = 502, description = "SERVICE_NOT_RESPONDING: nothing listens there", body = ErrorBody),
    ))]
pub(crate) async fn connect(
    State(agent): State<Arc<Agent>>,
    Path(port): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let port = parse(&port)?;
    let is_raw = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes() == link::TCP.as_bytes());
    let raw = request.extensions_mut().remove::<OnUpgrade>().filter(|_| is_raw);
    let upgrade = match (raw, upgrade) {
        (Some(raw), _) => Err(raw),
        (None, Ok(upgrade)) => Ok(upgrade),
        (None, Err(fault)) => {
            let text = format!("this is no request for a WebSocket: {}", fault.body_text());
            return Err(ApiError::new(ErrorCode::ValidationFailed, text).into());
        }
    };
    let place = Arc::clone(&agent.port_connections).try_acquire_owned().map_err(|_full| {
        let text = format!("{PORT_CONNECTIONS} connections to ports of this sandbox are open");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", PORT_CONNECTIONS)
    })?;
    let stream = target::connect(port).await.map_err(|error| {
        let text = format!("nothing answers on port {port} of the sandbox: {error}");
        ApiError::new(ErrorCode::ServiceNotResponding, text).with("port", port)
    })?;
    // What comes in pieces was sent in pieces on purpose.
    stream.set_nodelay(true).unwrap_or_default();
    match upgrade {
        Ok(upgrade) => Ok(socket::attend(upgrade, stream, place)),
        Err(raw) => {
            agent.tasks.spawn(relay(raw, stream, place));
            let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
            *response.body_mut() = Body::empty();
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(link::TCP));
            Ok(response)
        }
    }
}

/// Carries bytes both ways until both sides are done or one breaks.
async fn relay(raw: OnUpgrade, mut service: TcpStream, _place: OwnedSemaphorePermit) {
    let Ok(upgraded) = raw.await else { return };
    // Every connection of this server is one.
    let Ok(parts) = upgraded.downcast::<TokioIo<link::Stream>>() else { return };
    let mut daemon = parts.io.into_inner();
    // The daemon may have begun to speak in the same piece as its request.
    link::relay(&mut daemon, &mut service, parts.read_buf).await;
    drop(service);
    // Closing with unread bytes would cut off what the daemon has not read yet. It closes soon.
    let mut nowhere = tokio::io::sink();
    let forgotten = tokio::io::copy(&mut daemon, &mut nowhere);
    drop(tokio::time::timeout(CLOSE_WAIT, forgotten).await);
}

/// The port in a path. Any but 0: a wait or a connection is not an exposure.
fn parse(text: &str) -> Result<u16, ApiError> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        let text = "a port is a number from 1 to 65535";
        ApiError::new(ErrorCode::InvalidPort, text).with("field", "port")
    })
}
