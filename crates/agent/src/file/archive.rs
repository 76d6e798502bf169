//! Archives: a directory as one tar stream, out and in.
//!
//! Packing and unpacking are the crate `archive`'s; here is their way to the wire: piece by piece, each
//! on a thread that may wait for the disk, nothing in between. A caller that goes away is met at the
//! next piece.

mod read;
mod write;

use std::sync::Arc;

use api::{
    archive::{ArchiveFormat, ReadArchive, Unpacked, WriteArchive},
    error::{ApiError, ErrorBody, ErrorCode},
    limit::ARCHIVES_AT_ONCE,
};
use axum::{Json, body::Body, extract::State, response::Response};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::IntoParams;

use super::{blocking, path, pattern::patterns};
use crate::{extract::Query, init::Agent, refusal::Refusal};

/// Archives that may still begin.
static PLACES: Semaphore = Semaphore::const_new(ARCHIVES_AT_ONCE);

/// A place among the archives that are made and unpacked, until it is dropped.
fn place() -> Result<SemaphorePermit<'static>, ApiError> {
    PLACES.try_acquire().map_err(|_full| {
        let text = format!(
            "{ARCHIVES_AT_ONCE} archives are being made or unpacked in this sandbox; try again \
             when one of them is done"
        );
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", ARCHIVES_AT_ONCE)
    })
}

/// Packs a directory into an archive.
///
/// A tar stream of what is in the directory: regular files, directories, symbolic links, further
/// names of files, with permission bits, owner ids as they are inside, and times to the nanosecond.
/// Names are below the directory, which itself is the first entry, `./`. Of a regular file the
/// archive has this file alone.
///
/// Sockets, pipes and devices, what may not be read, what is mounted below, and what lies deeper than
/// 256 directories are left out. If anything was, or if a file changed its size while it was read,
/// then the last entry is `./` once more, with a pax record `comment`: `{"leftOutCount": 1,
/// "partial": false, "leftOut": [{"path": "run/socket", "reason": "special"}]}`. Programs that unpack
/// ignore it. An archive of one file that becomes shorter than it says breaks off.
///
/// An archive that breaks off ends the connection before the end of the body.
#[utoipa::path(get, path = "/archive", operation_id = "readArchive", tag = "files", params(ReadArchive),
    responses(
        (status = 200, description = "The archive", content(
            ([u8] = "application/x-tar"),
            ([u8] = "application/zstd"))),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn read(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let query: ReadArchive = read::query(query)?;
    let exclude = patterns("exclude", &query.exclude)?;
    let path = path::absolute(&agent.workdir, &query.path)?;
    let place = place()?;
    let packing = blocking(move || read::Packing::begin(&path, exclude, query.format)).await?;
    Ok(read::respond(packing, query.format, place))
}

/// Unpacks an archive into a directory.
///
/// The directory is made when it is missing, and is then as the archive has it. Directories are
/// merged: those that are there keep their bits, owner and time. A file replaces a file or a link
/// when it is whole, never what a link names; nothing replaces a directory, and nothing goes through
/// a link. Names are taken from the top of the directory, also absolute ones; `..` is refused.
/// Devices, pipes and sockets are left out and told. Set-user-id, set-group-id and sticky bits,
/// extended attributes and access times are not taken; sparse archives are refused.
///
/// The first error ends it: `details` has the entry's `path`, and `entries` and `bytes` that were
/// written before and stay. A broken upload too: each file is the old one or the new one.
#[utoipa::path(put, path = "/archive", operation_id = "writeArchive", tag = "files", params(WriteArchive),
    request_body(content(([u8] = "application/x-tar"), ([u8] = "application/zstd"))),
    responses(
        (status = 200, description = "Unpacked", body = Unpacked),
        (status = 400, description = "INVALID_ARCHIVE, VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: the file that a hard link of the archive names", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn write(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<WriteArchive>,
    body: Body,
) -> Result<Json<Unpacked>, Refusal> {
    let path = path::absolute(&agent.workdir, &query.path)?;
    let _place = place()?;
    Ok(Json(write::unpack(path, query, body).await?))
}

/// Query of `GET /layer`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadLayer {
    #[param(inline)]
    format: ArchiveFormat,
    /// What the layer says about itself, in base64.
    about: String,
}

/// Query of `PUT /layer`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriteLayer {
    #[param(inline)]
    format: ArchiveFormat,
    /// Digest of the image that it has to be of.
    image: String,
}

/// Packs a volume's own files into the layer of an image.
///
/// For a jail that has views of them; asked by the engine alone.
#[utoipa::path(get, path = "/layer", operation_id = "readLayer", tag = "checkpoint", params(ReadLayer),
    responses(
        (status = 200, description = "The layer", content(
            ([u8] = "application/x-tar"),
            ([u8] = "application/zstd"))),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "TREE_TOO_LARGE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn read_layer(Query(query): Query<ReadLayer>) -> Result<Response, Refusal> {
    let about = BASE64_URL_SAFE_NO_PAD.decode(&query.about).map_err(|fault| {
        ApiError::new(ErrorCode::ValidationFailed, format!("`about` is no base64: {fault}"))
    })?;
    let place = place()?;
    read::weigh().await?;
    let packing = blocking(move || read::Packing::begin_layer(about, query.format)).await?;
    Ok(read::respond(packing, query.format, place))
}

/// Unpacks such a layer into the root.
///
/// For a jail that is there for nothing else; asked by the engine alone.
#[utoipa::path(put, path = "/layer", operation_id = "writeLayer", tag = "checkpoint", params(WriteLayer),
    request_body(content(([u8] = "application/x-tar"), ([u8] = "application/zstd"))),
    responses(
        (status = 200, description = "Unpacked", body = Unpacked),
        (status = 400, description = "INVALID_ARCHIVE, VALIDATION_FAILED", body = ErrorBody),
        (status = 409, description = "IMAGE_MISMATCH", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn write_layer(
    Query(query): Query<WriteLayer>,
    body: Body,
) -> Result<Json<Unpacked>, Refusal> {
    let _place = place()?;
    Ok(Json(write::unpack_layer(query.format, query.image, body).await?))
}
