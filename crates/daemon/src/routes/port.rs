//! Ports of sandboxes: exposed, listed, hidden.

use std::{sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    id::SandboxId,
    port::{
        ExposePort, ExposedPort, ListeningPort, ListeningPorts, PortList, PortNumber, PortStatus,
        PortTokenValidity, RotatePort, ValidatePortToken,
    },
};
use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, State},
};
use engine::{Active, Exposure, Key};
use http::{Request, StatusCode, Uri, request::Parts};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::time::timeout;

use crate::{
    app::App,
    extract::{AskedFirstUse, Json, SandboxPath, split},
    reply::Failure,
};

/// How long an agent may take to say what listens; it reads two short tables.
const LISTENING_DEADLINE: Duration = Duration::from_secs(2);

/// Bytes of its answer: [`api::limit::LISTENING_PORTS`] with the longest addresses.
const LISTENING_BYTES: usize = 512 * 1024;

/// Expose a port.
///
/// Gives a port of the sandbox a URL under which others reach it, over HTTP and WebSocket; nothing
/// need listen on it yet. The URL is the same each time the port is exposed, until it is rotated.
/// The sandbox is created with the node's defaults if it does not exist.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/ports", operation_id = "exposePort", tag = "port",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("x-sandbar-first-use" = Option<String>, Header, description = "`refused`: of a sandbox that exists, or not at all"),
    ),
    request_body = ExposePort,
    responses(
        (status = 201, description = "Exposed", body = ExposedPort),
        (status = 400, description = "`INVALID_PORT`, `VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`: its first use is refused", body = ErrorBody),
        (status = 409, description = "`PORT_ALREADY_EXPOSED`: `details.url` has its URL", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: the sandbox has its limit of ports", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`", body = ErrorBody),
    )
)]
pub(super) async fn expose(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    AskedFirstUse(first_use): AskedFirstUse,
    Json(request): Json<ExposePort>,
) -> Result<(StatusCode, axum::Json<ExposedPort>), Failure> {
    let engine = app.engine().await?;
    let exposed = match engine.expose_port(&id, first_use, request, &key).await {
        Ok(exposed) => exposed,
        Err(error) => return Err(with_url(&app, &engine, &id, error).into()),
    };
    let (_, active) = engine.ports(&id)?;
    let listening = listening(&app, active).await;
    Ok((StatusCode::CREATED, axum::Json(describe(&app, exposed, &listening))))
}

/// List ports.
///
/// The exposed ports, and what listens in the sandbox, exposed or not. Never creates or starts it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports", operation_id = "listPorts", tag = "port",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "All of them", body = PortList),
        (status = 400, description = "`INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<PortList>, Failure> {
    let (exposed, active) = app.engine().await?.ports(&id)?;
    let listening = listening(&app, active).await;
    let ports = exposed.into_iter().map(|one| describe(&app, one, &listening)).collect();
    Ok(axum::Json(PortList { ports, listening }))
}

/// Inspect an exposed port.
///
/// Never creates or starts the sandbox.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports/{port}", operation_id = "getPort", tag = "port",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("port" = u16, Path, description = "The port inside the sandbox", example = 8080),
    ),
    responses(
        (status = 200, description = "It is exposed", body = ExposedPort),
        (status = 400, description = "`INVALID_PORT`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`PORT_NOT_EXPOSED`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
    PortPath(port): PortPath,
) -> Result<axum::Json<ExposedPort>, Failure> {
    let (exposed, active) = app.engine().await?.ports(&id)?;
    let one = exposed.into_iter().find(|one| one.label.port() == port).ok_or_else(|| {
        let text = format!("port {port} is not exposed");
        ApiError::new(ErrorCode::PortNotExposed, text).with("port", port.get())
    })?;
    Ok(axum::Json(describe(&app, one, &listening(&app, active).await)))
}

/// Hide a port.
///
/// Its URL is refused from now on. Exposing the port again brings the same URL back.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/ports/{port}", operation_id = "unexposePort", tag = "port",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("port" = u16, Path, description = "The port inside the sandbox", example = 8080),
    ),
    responses(
        (status = 204, description = "It is hidden"),
        (status = 400, description = "`INVALID_PORT`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`PORT_NOT_EXPOSED`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn hide(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
    PortPath(port): PortPath,
) -> Result<StatusCode, Failure> {
    app.engine().await?.hide_port(&id, port).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate a port's token.
///
/// The port has another URL from now on; the old one is unknown for ever.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/ports/{port}/rotate", operation_id = "rotatePort", tag = "port",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("port" = u16, Path, description = "The port inside the sandbox", example = 8080),
    ),
    request_body = RotatePort,
    responses(
        (status = 200, description = "It has another URL", body = ExposedPort),
        (status = 400, description = "`VALIDATION_FAILED`: it is public, or another port has the token; `INVALID_PORT`", body = ErrorBody),
        (status = 404, description = "`PORT_NOT_EXPOSED`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn rotate(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
    PortPath(port): PortPath,
    Json(request): Json<RotatePort>,
) -> Result<axum::Json<ExposedPort>, Failure> {
    let engine = app.engine().await?;
    let exposed = engine.rotate_port(&id, port, request).await?;
    let (_, active) = engine.ports(&id)?;
    Ok(axum::Json(describe(&app, exposed, &listening(&app, active).await)))
}

/// Check a port's token.
///
/// For applications that let visitors in by themselves.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/ports/{port}/validate-token", operation_id = "validatePortToken", tag = "port",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("port" = u16, Path, description = "The port inside the sandbox", example = 8080),
    ),
    request_body = ValidatePortToken,
    responses(
        (status = 200, description = "Whether it is the token", body = PortTokenValidity),
        (status = 400, description = "`INVALID_PORT`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn validate_token(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
    PortPath(port): PortPath,
    Json(request): Json<ValidatePortToken>,
) -> Result<axum::Json<PortTokenValidity>, Failure> {
    let valid = app.engine().await?.is_port_token(&id, port, &request.token)?;
    Ok(axum::Json(PortTokenValidity { valid }))
}

/// The port that a path names, after the sandbox.
#[derive(Debug)]
pub(super) struct PortPath(PortNumber);

impl<S: Sync> FromRequestParts<S> for PortPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let rest = split(parts.uri.path()).map(|(_, rest)| rest).unwrap_or_default();
        let port = rest.strip_prefix("/ports/").and_then(|rest| rest.split('/').next());
        port.and_then(PortNumber::parse).map(Self).ok_or_else(|| {
            let text = "an exposed port is a number from 1024 to 65535";
            ApiError::new(ErrorCode::InvalidPort, text).with("field", "port").into()
        })
    }
}

fn describe(app: &App, exposed: Exposure, listening: &[ListeningPort]) -> ExposedPort {
    let Exposure { label, name, exposed_at_ms } = exposed;
    let port = label.port().get();
    let is_active = listening.iter().any(|listener| listener.port == port);
    ExposedPort {
        port,
        url: app.previews.domain.url(&label),
        name,
        public: label.token().is_none(),
        exposed_at_ms,
        status: if is_active { PortStatus::Active } else { PortStatus::Inactive },
    }
}

/// Tells the URL to who wanted to expose a port twice.
fn with_url(app: &App, engine: &engine::Engine, id: &SandboxId, error: ApiError) -> ApiError {
    if error.code != ErrorCode::PortAlreadyExposed {
        return error;
    }
    let port = error.details.get("port").and_then(serde_json::Value::as_u64);
    let found = engine.ports(id).ok().and_then(|(exposed, _)| {
        exposed.into_iter().find(|one| Some(u64::from(one.label.port().get())) == port)
    });
    match found {
        Some(exposed) => error.with("url", app.previews.domain.url(&exposed.label)),
        None => error,
    }
}

/// What listens in a sandbox, as its agent has it. Nothing when it does not run, or says nothing
/// that could be understood: an agent may be its tenant's.
async fn listening(app: &App, active: Option<Active>) -> Vec<ListeningPort> {
    let Some(active) = active else { return Vec::new() };
    let body = link::Body::new(Empty::new().map_err(|never| match never {}));
    let mut request = Request::new(body);
    *request.uri_mut() = Uri::from_static("/listening");
    let asked = async {
        let answer = app.links.send(active.jail.0, request).await.ok()?;
        let body = Limited::new(Body::new(answer.into_body()), LISTENING_BYTES);
        let bytes = body.collect().await.ok()?.to_bytes();
        serde_json::from_slice::<ListeningPorts>(&bytes).ok()
    };
    let said = timeout(LISTENING_DEADLINE, asked).await.ok().flatten();
    said.map(|said| said.listening).unwrap_or_default()
}
