//! Making symbolic links.

use std::{ffi::CString, os::fd::AsFd, sync::Arc};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{FileEntry, MakeSymlink},
    limit::PATH_BYTES,
};
use axum::{Json, extract::State};
use sys::{SysError, errno, file};

use super::{
    base, blocking,
    fault::fault,
    path::{self, Target},
    temporary,
};
use crate::{extract, init::Agent, refusal::Refusal};

const LINK: &str = "make the link";

/// Makes a symbolic link.
#[utoipa::path(post, path = "/files:symlink", operation_id = "makeSymlink", tag = "files", request_body = MakeSymlink,
    responses(
        (status = 200, description = "Made", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY (with `replace`), NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: the parent", body = ErrorBody),
        (status = 409, description = "FILE_EXISTS", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn make_symlink(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<MakeSymlink>,
) -> Result<Json<FileEntry>, Refusal> {
    let path = path::absolute(&base(&agent, request.session.as_ref())?, &request.path)?;
    let points_to = points_to(&request.target)?;
    let made = blocking(move || {
        let target = Target::open(LINK, &path)?;
        make(&target, &points_to, request.replace).map_err(|error| fault(LINK, &path, error))?;
        target.entry(LINK)
    });
    Ok(Json(made.await?))
}

/// Without `replace` the kernel refuses a name that is taken; with it the link is made beside the
/// name and put in its place, so that there is always something.
fn make(target: &Target, points_to: &CString, replace: bool) -> Result<(), SysError> {
    let (parent, name) = target.place();
    match file::make_link(points_to, parent, name) {
        Err(SysError { errno: errno::EEXIST, .. }) if replace && !target.is_nameless() => {}
        made => return made,
    }
    let (temporary, ()) = temporary::make(target, |target, name| {
        file::make_link(points_to, target.parent.as_fd(), name)
    })?;
    file::rename((parent, &temporary), (parent, name), false).inspect_err(|_refused| {
        // Nothing more can be done about a name that does not go away.
        file::remove(parent, &temporary).unwrap_or(());
    })
}

fn points_to(text: &str) -> Result<CString, ApiError> {
    let fits = (1..=PATH_BYTES).contains(&text.len());
    let text = CString::new(text).ok().filter(|_| fits);
    text.ok_or_else(|| {
        let text = format!("target has 1 to {PATH_BYTES} bytes and no NUL");
        ApiError::new(ErrorCode::ValidationFailed, text).with("field", "target")
    })
}
