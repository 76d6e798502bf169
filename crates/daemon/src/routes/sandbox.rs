//! Sandboxes: create, find, list, change, freeze, thaw, stop, start, destroy.

use std::sync::Arc;

use api::{
    error::ErrorBody,
    sandbox::{CreateSandbox, ListSandboxes, Sandbox, SandboxList, UpdateSandbox},
};
use axum::{Extension, extract::State};
use engine::Key;
use http::StatusCode;

use crate::{
    app::App,
    extract::{Json, Query, SandboxPath},
    metrics::Lifecycle,
    reply::Failure,
};

/// Create a sandbox.
///
/// Creating an id that exists with the same settings returns it (200); a new one is 201. Most callers
/// never need this: the first request to `/v1/sandboxes/{id}/...` creates the sandbox with the node's
/// defaults. A generated id begins with the prefix of the caller's key, if it has one.
#[utoipa::path(
    post, path = "/v1/sandboxes", operation_id = "createSandbox", tag = "sandbox",
    request_body = CreateSandbox,
    responses(
        (status = 201, description = "Created", body = Sandbox),
        (status = 200, description = "It existed already, with these settings", body = Sandbox),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
        (status = 404, description = "`IMAGE_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_EXISTS`: with other settings", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`: the key is for ids with another beginning; `QUOTA_EXCEEDED`: it has as many as it may", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: too many creations under way for this key", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`: all sandboxes there may be, or too many creations under way", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    Json(request): Json<CreateSandbox>,
) -> Result<(StatusCode, axum::Json<Sandbox>), Failure> {
    let created = app.engine().await?.create(request, &key).await;
    app.metrics.lifecycle(Lifecycle::Create, created.is_ok());
    let (sandbox, is_new) = created?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(sandbox)))
}

/// List sandboxes.
///
/// Sorted by id, in pages: pass `nextCursor` of one page as `cursor` of the next. A key with a prefix
/// sees only its own.
#[utoipa::path(
    get, path = "/v1/sandboxes", operation_id = "listSandboxes", tag = "sandbox",
    params(ListSandboxes),
    responses(
        (status = 200, description = "One page", body = SandboxList),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    Query(query): Query<ListSandboxes>,
) -> Result<axum::Json<SandboxList>, Failure> {
    Ok(axum::Json(app.engine().await?.list(&query, key.scope().prefix()).await?))
}

/// Inspect a sandbox.
///
/// Its settings, its state, and what it uses now. Never creates it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}", operation_id = "getSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 400, description = "`INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<Sandbox>, Failure> {
    Ok(axum::Json(app.engine().await?.get(&id).await?))
}

/// Change a sandbox.
///
/// What is not given stays as it is, and so does what runs in it. The change is in force, and survives
/// restarts of sandbox and server, when this answers. Never creates a sandbox.
#[utoipa::path(
    patch, path = "/v1/sandboxes/{id}", operation_id = "updateSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    request_body = UpdateSandbox,
    responses(
        (status = 200, description = "The sandbox as it is now, without `usage`", body = Sandbox),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`: recorded but not in force; ask again", body = ErrorBody),
    )
)]
pub(super) async fn update(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Json(request): Json<UpdateSandbox>,
) -> Result<axum::Json<Sandbox>, Failure> {
    Ok(axum::Json(app.engine().await?.update(&id, request, &key).await?))
}

/// Freeze a sandbox.
///
/// Stops its processes where they are, once no request to it is under way: waits up to 10 seconds for
/// that. Frozen, it uses no CPU and loses nothing; the next request to it, or to a preview of it, lets
/// it go on by itself. One that does not run stays as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/freeze", operation_id = "freezeSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`RESOURCE_BUSY`: requests were under way all the time", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`: processes do not come to rest", body = ErrorBody),
    )
)]
pub(super) async fn freeze(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<Sandbox>, Failure> {
    let frozen = app.engine().await?.freeze(&id, &key).await;
    app.metrics.lifecycle(Lifecycle::Freeze, frozen.is_ok());
    Ok(axum::Json(frozen?))
}

/// Thaw a sandbox.
///
/// Lets a frozen one go on. No request needs this: they thaw it by themselves. One that is not frozen
/// stays as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/thaw", operation_id = "thawSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn thaw(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<Sandbox>, Failure> {
    let thawed = app.engine().await?.thaw(&id, &key).await;
    app.metrics.lifecycle(Lifecycle::Thaw, thawed.is_ok());
    Ok(axum::Json(thawed?))
}

/// Stop a sandbox.
///
/// Ends its processes: they get SIGTERM (those that ignore it, as shells do, SIGHUP) and 5 seconds,
/// then they are killed.
/// Its files and settings stay, and the next request starts it again.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/stop", operation_id = "stopSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn stop(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<Sandbox>, Failure> {
    let stopped = app.engine().await?.stop(&id, &key).await;
    app.metrics.lifecycle(Lifecycle::Stop, stopped.is_ok());
    Ok(axum::Json(stopped?))
}

/// Start a sandbox.
///
/// Has an existing one run: thaws it, or starts it again with the files it has. No request needs
/// this: they start it by themselves.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/start", operation_id = "startSandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`", body = ErrorBody),
    )
)]
pub(super) async fn start(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<Sandbox>, Failure> {
    let started = app.engine().await?.start(&id, &key).await;
    app.metrics.lifecycle(Lifecycle::Start, started.is_ok());
    Ok(axum::Json(started?))
}

/// Destroy a sandbox.
///
/// Ends its processes and forgets its files and settings. Final; the id can be used again, for a new
/// sandbox.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}", operation_id = "destroySandbox", tag = "sandbox",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "`INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn destroy(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
) -> Result<StatusCode, Failure> {
    let destroyed = app.engine().await?.destroy(&id, &key).await;
    app.metrics.lifecycle(Lifecycle::Destroy, destroyed.is_ok());
    destroyed?;
    Ok(StatusCode::NO_CONTENT)
}
