//! Checkpoints of sandboxes: made, listed, removed, restored, forked from.

use std::sync::Arc;

use api::{
    checkpoint::{
        Checkpoint, CheckpointCreated, CheckpointList, CreateCheckpoint, ForkSandbox, Forks,
        RestoreCheckpoint,
    },
    error::{ApiError, ErrorBody, ErrorCode},
    id::CheckpointId,
    sandbox::Sandbox,
};
use axum::{
    Extension,
    extract::{FromRequestParts, State},
};
use engine::Key;
use http::{StatusCode, request::Parts};

use crate::{
    app::App,
    extract::{Json, SandboxPath, split},
    metrics::Lifecycle,
    reply::Failure,
};

/// Make a checkpoint.
///
/// Keeps the files of the sandbox as they are now, to go back to or to fork. Its processes stand still
/// for some milliseconds, whatever the size, and go on; they are not in the checkpoint, nor is what
/// lies in memory (`/run`, `/dev/shm`). A sandbox that does not run is not started.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/checkpoints", operation_id = "createCheckpoint", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    request_body = CreateCheckpoint,
    responses(
        (status = 201, description = "Made, and on disk", body = CheckpointCreated),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`CHECKPOINT_EXISTS`", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: the sandbox has its limit of checkpoints", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`: processes do not come to rest", body = ErrorBody),
        (status = 501, description = "`CHECKPOINTS_NOT_AVAILABLE`: this node has no volumes", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Json(request): Json<CreateCheckpoint>,
) -> Result<(StatusCode, axum::Json<CheckpointCreated>), Failure> {
    let created = app.engine().await?.create_checkpoint(&id, request, &key).await;
    app.metrics.lifecycle(Lifecycle::Checkpoint, created.is_ok());
    Ok((StatusCode::CREATED, axum::Json(created?)))
}

/// List checkpoints.
///
/// Oldest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/checkpoints", operation_id = "listCheckpoints", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    responses(
        (status = 200, description = "All of them", body = CheckpointList),
        (status = 400, description = "`INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
) -> Result<axum::Json<CheckpointList>, Failure> {
    let checkpoints = app.engine().await?.checkpoints(&id)?;
    Ok(axum::Json(CheckpointList { checkpoints }))
}

/// Inspect a checkpoint.
///
/// What is known of it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/checkpoints/{checkpoint}", operation_id = "getCheckpoint", tag = "checkpoint",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("checkpoint" = String, Path, description = "The checkpoint", example = "before-tests"),
    ),
    responses(
        (status = 200, description = "The checkpoint", body = Checkpoint),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<App>,
    SandboxPath(id): SandboxPath,
    CheckpointPath(checkpoint): CheckpointPath,
) -> Result<axum::Json<Checkpoint>, Failure> {
    Ok(axum::Json(app.engine().await?.checkpoint(&id, &checkpoint)?))
}

/// Remove a checkpoint.
///
/// Sandboxes that were forked from it, and the one that was restored to it, keep their files.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/checkpoints/{checkpoint}", operation_id = "removeCheckpoint", tag = "checkpoint",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("checkpoint" = String, Path, description = "The checkpoint", example = "before-tests"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    CheckpointPath(checkpoint): CheckpointPath,
) -> Result<StatusCode, Failure> {
    app.engine().await?.remove_checkpoint(&id, &checkpoint, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a checkpoint.
///
/// Ends the sandbox's processes and gives it back the files of the checkpoint, whatever it has written
/// since. It is stopped then; the next request starts it, with these files and without processes.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/restore", operation_id = "restoreCheckpoint", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    request_body = RestoreCheckpoint,
    responses(
        (status = 200, description = "The sandbox, stopped", body = Sandbox),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn restore(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Json(request): Json<RestoreCheckpoint>,
) -> Result<axum::Json<Sandbox>, Failure> {
    let restored = app.engine().await?.restore_checkpoint(&id, request, &key).await;
    app.metrics.lifecycle(Lifecycle::Restore, restored.is_ok());
    Ok(axum::Json(restored?))
}

/// Fork a sandbox.
///
/// Makes sandboxes with its files, or those of one of its checkpoints, and its settings. The time does
/// not depend on the size of the files, which are shared until somebody overwrites them. Forks start
/// with files only: no processes, sessions, ports or checkpoints. All of them are made, or none.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/fork", operation_id = "forkSandbox", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox")),
    request_body = ForkSandbox,
    responses(
        (status = 201, description = "The forks, running", body = Forks),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`: the key is for ids with another beginning", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_EXISTS`: one of the ids is taken", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: too many creations under way for this key", body = ErrorBody),
        (status = 501, description = "`CHECKPOINTS_NOT_AVAILABLE`: this node has no volumes", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn fork(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Json(request): Json<ForkSandbox>,
) -> Result<(StatusCode, axum::Json<Forks>), Failure> {
    let forked = app.engine().await?.fork(&id, request, &key).await;
    app.metrics.lifecycle(Lifecycle::Fork, forked.is_ok());
    Ok((StatusCode::CREATED, axum::Json(Forks { sandboxes: forked? })))
}

/// The checkpoint that a path names, after the sandbox, as it is written there: all characters of an
/// id may stand in a path.
#[derive(Debug)]
pub(super) struct CheckpointPath(CheckpointId);

impl<S: Sync> FromRequestParts<S> for CheckpointPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let rest = split(parts.uri.path()).map(|(_, rest)| rest).unwrap_or_default();
        let checkpoint = rest.strip_prefix("/checkpoints/").unwrap_or_default();
        checkpoint.parse().map(Self).map_err(|error| {
            let text = format!("{error}");
            ApiError::new(ErrorCode::ValidationFailed, text).with("field", "checkpoint").into()
        })
    }
}
