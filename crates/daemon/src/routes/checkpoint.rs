//! Checkpoints of sandboxes: made, listed, removed, restored, forked from.

use std::sync::Arc;

use api::{
    checkpoint::{
        Checkpoint, CheckpointCreated, CheckpointImported, CheckpointList, CreateCheckpoint,
        ExportCheckpoint, ForkSandbox, Forks, ImportCheckpoint, RestoreCheckpoint,
    },
    error::{ApiError, ErrorBody, ErrorCode},
    id::CheckpointId,
    limit::JSON_BODY_BYTES,
    sandbox::Sandbox,
};
use axum::{
    Extension,
    body::to_bytes,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use engine::Key;
use http::{Method, StatusCode, request::Parts};

use crate::{
    app::App,
    extract::{Json, Query, SANDBOXES, SandboxPath, split},
    forward::{self, Forward, Once},
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

/// Export a checkpoint.
///
/// The files of a checkpoint that are the sandbox's own, as one stream: a layer of an image as in the
/// OCI image specification, with whiteouts for what is deleted. It begins with what it is and which image
/// it lies over, by digest, and is imported into any sandbox of that image, on this node or another.
/// Owners, permission bits, times, further names, pipes and attributes of users are in it; sockets,
/// capabilities of files, access lists, and names that begin with `.wh.` are not, and are told in the
/// last entry, as in an archive, and by the import. An export that breaks off ends the connection before
/// the end of the body; so does one of more than 64 GiB of files, holes counted, or 2,000,000 names.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/checkpoints/{checkpoint}/export", operation_id = "exportCheckpoint", tag = "checkpoint",
    params(
        ("id" = String, Path, description = "The sandbox", example = "my-sandbox"),
        ("checkpoint" = String, Path, description = "The checkpoint", example = "before-tests"),
        ExportCheckpoint,
    ),
    responses(
        (status = 200, description = "The export", content(
            ([u8] = "application/x-tar"),
            ([u8] = "application/zstd"))),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 413, description = "`TREE_TOO_LARGE`: it is larger than can be exported", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: enough is being compared, exported and imported on this node or for this key", body = ErrorBody),
        (status = 501, description = "`CHECKPOINTS_NOT_AVAILABLE`: this node has no volumes", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn export(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    CheckpointPath(checkpoint): CheckpointPath,
    Query(query): Query<ExportCheckpoint>,
    request: Request,
) -> Result<Response, Failure> {
    let engine = app.engine().await?;
    let (reader, about) = engine.export_checkpoint(&id, &checkpoint, &key).await?;
    let about = serde_json::to_vec(&about).map_err(|_unfit| unwritten())?;
    let about = BASE64_URL_SAFE_NO_PAD.encode(about);
    let target = format!("{SANDBOXES}{id}/layer?format={}&about={about}", query.format.as_str());
    let request = redirected(request, &target)?;
    let jail = reader.jail();
    let reader = Arc::new(reader);
    let started = || async { Ok((jail, Once(Arc::clone(&reader)))) };
    forward::relay(Forward::new(false, false), started, &app.links, &app.metrics, request).await
}

/// Import a checkpoint.
///
/// Takes the export of a checkpoint as its body and makes a checkpoint of this sandbox of it, to go back
/// to or to fork. The sandbox must have begun from the image that the export says. What was deleted
/// stays deleted. The import has the sandbox's limit of disk space and the limits of archives; one that
/// fails or breaks off leaves nothing.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/checkpoints:import", operation_id = "importCheckpoint", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox"), ImportCheckpoint),
    request_body(content(([u8] = "application/x-tar"), ([u8] = "application/zstd"))),
    responses(
        (status = 201, description = "Made, and on disk", body = CheckpointImported),
        (status = 400, description = "`INVALID_ARCHIVE`, `VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`IMAGE_MISMATCH`, `CHECKPOINT_EXISTS`", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: the sandbox has its limit of checkpoints, or enough is being compared, exported and imported on this node or for this key", body = ErrorBody),
        (status = 501, description = "`CHECKPOINTS_NOT_AVAILABLE`: this node has no volumes", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn import(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<ImportCheckpoint>,
    request: Request,
) -> Result<Response, Failure> {
    let engine = app.engine().await?;
    let import = engine.import_checkpoint(&id, query.checkpoint, &key).await?;
    let image = import.image_digest();
    let target = format!("{SANDBOXES}{id}/layer?format={}&image={image}", query.format.as_str());
    let mut request = redirected(request, &target)?;
    *request.method_mut() = Method::PUT;
    let jail = import.jail();
    let started = || async { Ok((jail, Once(()))) };
    let how = Forward::new(false, false);
    let answer = forward::relay(how, started, &app.links, &app.metrics, request).await?;
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let answer = to_bytes(answer.into_body(), JSON_BODY_BYTES).await.ok();
    let unpacked = answer.and_then(|answer| serde_json::from_slice(&answer).ok());
    let unpacked = unpacked.ok_or_else(|| {
        Failure::new(ErrorCode::AgentUnreachable, "whoever unpacked it did not say what came")
    })?;
    let made = import.finish(&key).await;
    app.metrics.lifecycle(Lifecycle::Checkpoint, made.is_ok());
    let imported = CheckpointImported { checkpoint: made?, unpacked };
    Ok((StatusCode::CREATED, axum::Json(imported)).into_response())
}

/// The request for another route of the agent's.
fn redirected(mut request: Request, target: &str) -> Result<Request, Failure> {
    *request.uri_mut() = target.parse().map_err(|_unfit| unwritten())?;
    Ok(request)
}

fn unwritten() -> Failure {
    Failure::new(ErrorCode::InternalError, "the request to the reader cannot be written")
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
        let checkpoint = checkpoint.strip_suffix("/export").unwrap_or(checkpoint);
        checkpoint.parse().map(Self).map_err(|error| {
            let text = format!("{error}");
            ApiError::new(ErrorCode::ValidationFailed, text).with("field", "checkpoint").into()
        })
    }
}
