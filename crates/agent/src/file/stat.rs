//! Looking at one file.

use std::{os::fd::AsFd, sync::Arc};

use api::{
    error::ErrorBody,
    file::{FileEntry, StatFile},
};
use axum::{Json, extract::State};
use sys::file;

use super::{base, blocking, entry, fault::fault, path, path::Target};
use crate::{extract::Query, init::Agent, refusal::Refusal};

const STAT: &str = "look at";

/// Looks at a file: type, size, times, mode, owner.
///
/// What does not exist is `FILE_NOT_FOUND`; a path through something that is no directory is
/// `NOT_DIRECTORY`.
#[utoipa::path(get, path = "/files:stat", operation_id = "statFile", tag = "files", params(StatFile),
    responses(
        (status = 200, description = "What is there", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn stat(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<StatFile>,
) -> Result<Json<FileEntry>, Refusal> {
    let path = path::absolute(&base(&agent, query.session.as_ref())?, &query.path)?;
    let found = blocking(move || {
        if !query.follow {
            return Target::open(STAT, &path)?.entry(STAT);
        }
        let refuse = |error| fault(STAT, &path, error);
        let file = path::open(file::cwd(), path.as_c_str(), file::O_PATH).map_err(refuse)?;
        entry::tagged(file.as_fd(), c"", path.trimmed().as_bytes()).map_err(refuse)
    });
    Ok(Json(found.await?))
}
