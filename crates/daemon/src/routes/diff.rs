//! What differs between two states of a sandbox's files.

use std::sync::Arc;

use api::{
    diff::{DiffFiles, FileDiff},
    error::ErrorBody,
};
use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use engine::Key;

use crate::{
    app::App,
    extract::{Query, SandboxPath},
    forward::{self, Forward, Once},
    reply::Failure,
};

/// Compare files.
///
/// What differs between the files of a sandbox and those of one of its checkpoints, or of the image
/// that it began from; or between two of its checkpoints. What is in memory (`/run`, `/dev/shm`) is
/// not compared. Only what was written since the image is read, and of that only what is not obviously
/// the same. The processes of a sandbox whose present files are compared stand still for some
/// milliseconds, as for a checkpoint; one that does not run is not started.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/diff", operation_id = "diffFiles", tag = "checkpoint",
    params(("id" = String, Path, description = "The sandbox", example = "my-sandbox"), DiffFiles),
    responses(
        (status = 200, description = "One page", body = FileDiff),
        (status = 400, description = "`VALIDATION_FAILED`, `INVALID_SANDBOX_ID`", body = ErrorBody),
        (status = 404, description = "`CHECKPOINT_NOT_FOUND`, `SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 413, description = "`TREE_TOO_LARGE`: a directory has more names than can be compared", body = ErrorBody),
        (status = 429, description = "`TOO_MANY_REQUESTS`: enough is being compared, exported and imported on this node or for this key", body = ErrorBody),
        (status = 500, description = "`SANDBOX_FAILED`: processes do not come to rest; `FILESYSTEM_ERROR`", body = ErrorBody),
        (status = 501, description = "`CHECKPOINTS_NOT_AVAILABLE`: this node has no volumes", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`", body = ErrorBody),
        (status = 507, description = "`NO_SPACE`", body = ErrorBody),
    )
)]
pub(super) async fn diff(
    State(app): State<App>,
    Extension(key): Extension<Arc<Key>>,
    SandboxPath(id): SandboxPath,
    Query(query): Query<DiffFiles>,
    request: Request,
) -> Result<Response, Failure> {
    let engine = app.engine().await?;
    let start = || async {
        let reader = engine.diff(&id, query.against.clone(), query.of.clone(), &key).await?;
        Ok((reader.jail(), Once(reader)))
    };
    forward::relay(Forward::new(false, false), start, &app.links, &app.metrics, request).await
}
