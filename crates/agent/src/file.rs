//! Files: read, write, delete, list, make directories.
//!
//! All of it is done by the agent inside the sandbox, so a path can only name the sandbox's own
//! things. Symbolic links are followed, also in the last component, except where a link itself is
//! meant: deleting and listing. The links of /proc that are no paths (`/proc/PID/{exe,cwd,fd/N}`)
//! are refused, and so is everything in /proc that belongs to the agent. Only regular files are
//! read and written.
//!
//! Owns: nothing between requests.
//! Does not: promise durability; the disk's own write-back does.

mod entry;
mod fault;
mod list;
mod path;
mod range;
mod read;
mod remove;
pub(crate) mod watch;
mod write;

use std::{os::fd::AsFd, sync::Arc};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{DeleteFile, FileEntry, FileList, ListFiles, MakeDirectory, WriteFile},
    id::SessionId,
};
use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};

use crate::{
    extract::{self, Query},
    init::Agent,
    refusal::Refusal,
};

use path::Target;
pub(crate) use path::open_directory;

/// Where the relative paths of a request begin.
pub(crate) fn base(agent: &Agent, _session: Option<&SessionId>) -> Result<String, ApiError> {
    Ok(agent.workdir.clone())
}

/// Runs file work on a thread that may wait for the disk.
async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_stopped| {
        Err(ApiError::new(ErrorCode::InternalError, "the file operation was given up"))
    })
}

/// True when the file system of `workdir` has no room; false also when that is not known.
pub(crate) fn is_disk_full(workdir: &str) -> bool {
    let Ok(dir) = std::fs::File::open(workdir) else { return false };
    sys::file_system::of(dir.as_fd()).is_ok_and(|file_system| file_system.is_full())
}

/// Reads a file.
///
/// The body is the content, byte for byte; `{path}` is the absolute path without its leading slash,
/// percent-encoded. `Range: bytes=a-b`, `a-` or `-n` gives a part. A file that shrinks while it is
/// sent ends the connection before the promised length; one that grows is sent as long as it was.
#[utoipa::path(method(get, head), path = "/files/{*path}", operation_id = "readFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"),
        ("range" = Option<String>, Header, description = "One range of bytes, RFC 9110 section 14.2")),
    responses(
        (status = 200, description = "The content", content_type = "application/octet-stream", body = [u8],
            headers(("x-sandbar-mode" = String, description = "Permission bits in octal"),
                ("x-sandbar-modified-ms" = i64, description = "Last change, milliseconds since 1970"))),
        (status = 206, description = "The range", content_type = "application/octet-stream", body = [u8]),
        (status = 400, description = "INVALID_PATH, IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 416, description = "RANGE_NOT_SATISFIABLE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn read(
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let path = path::of_url(uri.path())?;
    let range = range::of(&headers);
    let opened = blocking(move || read::open(&path, range)).await?;
    Ok(read::respond(opened, method == Method::HEAD))
}

/// Writes a file whole.
///
/// The content is written beside the file and takes its place at the end, so a reader sees the old
/// content or the new, and a broken upload changes nothing. Missing parent directories are made. An
/// existing file keeps its permission bits and its owner; a symbolic link is followed; of a file
/// with several names only this name changes.
#[utoipa::path(put, path = "/files/{*path}", operation_id = "writeFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"), WriteFile),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Written", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn write(
    OriginalUri(uri): OriginalUri,
    Query(query): Query<WriteFile>,
    body: Body,
) -> Result<Json<FileEntry>, Refusal> {
    let path = path::of_url(uri.path())?;
    let mode = query.mode.map(|mode| write::mode(&mode)).transpose()?;
    Ok(Json(write::write(path, mode, body).await?))
}

/// Deletes a file, a symbolic link or a directory.
#[utoipa::path(delete, path = "/files/{*path}", operation_id = "deleteFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"), DeleteFile),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY (without `recursive`), NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 409, description = "RESOURCE_BUSY: something is mounted there; DIRECTORY_NOT_EMPTY: it fills faster than it is emptied", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    OriginalUri(uri): OriginalUri,
    Query(query): Query<DeleteFile>,
) -> Result<StatusCode, Refusal> {
    let path = path::of_url(uri.path())?;
    blocking(move || remove::remove(&path, query.recursive)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a directory, a page at a time.
///
/// Entries are sorted by path; a directory comes right before its content. Names that are not UTF-8
/// are shown with U+FFFD and have `encodedPath`. A page is a look at the directory at that moment:
/// what is made or removed between two pages may or may not appear.
#[utoipa::path(get, path = "/files:list", operation_id = "listFiles", tag = "files", params(ListFiles),
    responses(
        (status = 200, description = "One page", body = FileList),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn list(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<ListFiles>,
) -> Result<Json<FileList>, Refusal> {
    let page = list::check(&agent.workdir, &query)?;
    Ok(Json(blocking(move || list::list(&page)).await?))
}

/// Makes a directory.
#[utoipa::path(post, path = "/files:mkdir", operation_id = "makeDirectory", tag = "files", request_body = MakeDirectory,
    responses(
        (status = 200, description = "Made, or with `recursive` there already", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: the parent, without `recursive`", body = ErrorBody),
        (status = 409, description = "FILE_EXISTS", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn make_directory(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<MakeDirectory>,
) -> Result<Json<FileEntry>, Refusal> {
    let path = path::absolute(&agent.workdir, &request.path)?;
    let made = blocking(move || {
        write::make_directory(&path, request.recursive)?;
        let attempt = "make the directory";
        // Without its trailing slashes, the path's last component is the directory's name.
        let target = Target::open(attempt, &path.trimmed())?;
        target.entry(attempt)
    });
    Ok(Json(made.await?))
}
