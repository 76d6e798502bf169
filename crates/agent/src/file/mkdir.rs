//! Making directories.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorBody},
    file::{FileEntry, MakeDirectory},
};
use axum::{Json, extract::State};
use sys::{SysError, errno, file};

use super::{
    base, blocking, entry,
    fault::fault,
    path::{self, FilePath, Target},
};
use crate::{extract, init::Agent, refusal::Refusal};

const MAKE: &str = "make the directory";

/// Permission bits of a new directory.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// Makes a directory.
#[utoipa::path(post, path = "/files:mkdir", operation_id = "makeDirectory", tag = "files", request_body = MakeDirectory,
    responses(
        (status = 200, description = "Made, or with `recursive` there already", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
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
    let base = base(&agent, request.session.as_ref())?;
    // Without its trailing slashes, the path's last component is the directory's name.
    let path = path::absolute(&base, &request.path)?.trimmed();
    let made = blocking(move || {
        let refuse = |error| fault(MAKE, &path, error);
        if request.recursive {
            let dir = directories(&path).map_err(refuse)?;
            return entry::entry(dir.as_fd(), c"", path.as_bytes()).map_err(refuse);
        }
        let target = Target::open(MAKE, &path)?;
        let (parent, name) = target.place();
        file::make_dir(parent, name, DIRECTORY_MODE).map_err(refuse)?;
        target.entry(MAKE)
    });
    Ok(Json(made.await?))
}

/// Makes the directory at the absolute path `text`, and its parents, as far as they are missing.
pub(crate) fn make_directories(text: &str) -> Result<(), ApiError> {
    let path = path::absolute("/", text)?;
    directories(&path).map(drop).map_err(|error| fault(MAKE, &path, error))
}

/// Opens a directory, and makes it and its parents as far as they are missing. Links on the way are
/// followed, those of /proc that are no paths are not.
pub(super) fn directories(path: &FilePath) -> Result<OwnedFd, SysError> {
    directories_telling(path, |_made| {})
}

/// The same, and tells which it makes, outermost first, also when it fails in the end.
pub(super) fn directories_telling(
    path: &FilePath,
    mut made: impl FnMut(FilePath),
) -> Result<OwnedFd, SysError> {
    const DIRECTORY: i32 = file::O_PATH | file::O_DIRECTORY;
    match path::open(file::cwd(), path.as_c_str(), DIRECTORY) {
        Err(SysError { errno: errno::ENOENT, .. }) => {}
        // As mkdir(2) says it.
        Err(SysError { errno: errno::ENOTDIR, call }) if is_there(path) => {
            return Err(SysError { call, errno: errno::EEXIST });
        }
        opened => return opened,
    }
    let mut dir = path::open(file::cwd(), c"/", DIRECTORY)?;
    let mut prefix = Vec::new();
    for component in path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let name = CString::new(component).unwrap_or_default();
        prefix.push(b'/');
        prefix.extend_from_slice(component);
        match path::open(dir.as_fd(), &name, DIRECTORY) {
            Err(SysError { errno: errno::ENOENT, .. }) => {
                match file::make_dir(dir.as_fd(), &name, DIRECTORY_MODE) {
                    Ok(()) => FilePath::new(prefix.clone()).map_or((), &mut made),
                    // Made by somebody else meanwhile, or a link that leads nowhere: opening tells.
                    Err(SysError { errno: errno::EEXIST, .. }) => {}
                    Err(error) => return Err(error),
                }
                dir = path::open(dir.as_fd(), &name, DIRECTORY)?;
            }
            opened => dir = opened?,
        }
    }
    Ok(dir)
}

/// Removes directories that were made, given outermost first, for what came to nothing.
pub(super) fn remove_made(made: &[FilePath]) {
    for path in made.iter().rev() {
        let Ok(target) = Target::open(MAKE, path) else { continue };
        let (parent, name) = target.place();
        // One that somebody has put something into stays, and those above it with it.
        file::remove_dir(parent, name).ok();
    }
}

/// True when the last component itself is what is no directory, and not one before it.
fn is_there(path: &FilePath) -> bool {
    Target::open(MAKE, path).is_ok()
}
