//! Moving, which is renaming: another name for the same thing, at once where the kernel can.

use std::{os::fd::AsFd, sync::Arc};

use api::{
    error::{ApiError, ErrorBody},
    file::{FileEntry, MoveFile},
};
use axum::{Json, extract::State};
use sys::{SysError, errno, file};

use super::{
    base, blocking,
    copy::{self, Copying, Source},
    fault::fault,
    path::{self, Target},
    remove::remove_all,
};
use crate::{extract, init::Agent, refusal::Refusal};

const MOVE: &str = "move";

/// Moves or renames a file, a link, or a directory.
///
/// Within a file system the new name takes effect at once. To another one, and for a directory that
/// comes from the image, everything is copied with its owners, modes and times, the copy takes the
/// new name at once, and then what was copied is deleted. Such a copy has no extended attributes, and
/// several names of one file become a file each. What is neither file, directory nor link can only be
/// renamed.
#[utoipa::path(post, path = "/files:move", operation_id = "moveFile", tag = "files", request_body = MoveFile,
    responses(
        (status = 200, description = "Moved: what has the new name", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH (a directory into itself), IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: what is moved, or the directory it goes to", body = ErrorBody),
        (status = 409, description = "FILE_EXISTS, DIRECTORY_NOT_EMPTY; RESOURCE_BUSY: something is mounted there", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn move_file(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<MoveFile>,
) -> Result<Json<FileEntry>, Refusal> {
    let base = base(&agent, request.session.as_ref())?;
    let from = path::absolute(&base, &request.from)?;
    let to = path::absolute(&base, &request.to)?;
    let exclusive = request.exclusive;
    let renamed = blocking(move || {
        let paths = [&from, &to];
        let [from, to] = paths.map(|path| named(Target::open(MOVE, &path.trimmed())?));
        let (from, to) = (from?, to?);
        let moved = from.look(MOVE)?;
        for path in paths {
            path.check_slash(MOVE, moved.as_ref())?;
        }
        match file::rename(from.place(), to.place(), exclusive) {
            Ok(()) => {
                forget_twin(&from, &to)?;
                to.entry(MOVE).map(Renamed::Done)
            }
            Err(SysError { errno: errno::EXDEV, .. }) => Ok(Renamed::Elsewhere(from, to)),
            Err(error) => Err(refused(&from, &to, error)),
        }
    });
    let (from, to) = match renamed.await? {
        Renamed::Done(entry) => return Ok(Json(entry)),
        Renamed::Elsewhere(from, to) => (from, to),
    };
    let copying = blocking(move || {
        if exclusive && to.look(MOVE)?.is_some() {
            return Err(fault(MOVE, &to.path, SysError { call: "rename", errno: errno::EEXIST }));
        }
        let source = Source::itself(MOVE, &from)?;
        Ok((from, Copying::begin(MOVE, source, to, exclusive)?))
    });
    let (from, copying) = copying.await?;
    let entry = copy::carry_out(copying).await?;
    let gone = blocking(move || {
        remove_all(from.parent.as_fd(), &from.name).map_err(|error| fault(MOVE, &from.path, error))
    });
    gone.await?;
    Ok(Json(entry))
}

enum Renamed {
    Done(FileEntry),
    /// To another file system.
    Elsewhere(Target, Target),
}

/// Refuses what is no name: `/`, `.` and `..`.
fn named(target: Target) -> Result<Target, ApiError> {
    if target.is_nameless() {
        return Err(fault(MOVE, &target.path, SysError { call: "rename", errno: errno::EBUSY }));
    }
    Ok(target)
}

/// Takes the old name away where both were names of one file, which rename(2) leaves as they are.
fn forget_twin(from: &Target, to: &Target) -> Result<(), ApiError> {
    let Some(left) = from.look(MOVE)? else { return Ok(()) };
    let is_one = to.look(MOVE)?.is_some_and(|moved| moved.identity == left.identity);
    let dir = |target: &Target| file::stat(target.parent.as_fd(), c"").map(|dir| dir.identity);
    let refuse = |error| fault(MOVE, &from.path, error);
    let is_same_name =
        from.name == to.name && dir(from).map_err(refuse)? == dir(to).map_err(refuse)?;
    if !is_one || is_same_name {
        return Ok(());
    }
    remove_all(from.parent.as_fd(), &from.name).map_err(refuse)
}

/// Which of the two paths is at fault.
fn refused(from: &Target, to: &Target, error: SysError) -> ApiError {
    let refusal = match error.errno {
        errno::EINVAL => copy::into_itself(MOVE, &to.path),
        errno::EEXIST | errno::ENOTEMPTY | errno::EISDIR | errno::ENOTDIR => {
            fault(MOVE, &to.path, error)
        }
        _ => fault(MOVE, &from.path, error),
    };
    refusal.with("from", from.path.shown()).with("to", to.path.shown())
}
