//! Permission bits.

use std::{
    fs::{self, Permissions},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::PermissionsExt,
    },
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{ChangeMode, FileEntry},
};
use axum::{Json, extract::State};
use sys::file;

use super::{
    base, blocking, entry,
    fault::{fault, io_fault},
    path,
};
use crate::{extract, init::Agent, refusal::Refusal};

const CHANGE: &str = "change the mode of";

/// Permission bits that a request may set: nothing that lends an identity.
pub(super) const SETTABLE: u32 = 0o777;

/// Changes the permission bits of a file or a directory.
#[utoipa::path(post, path = "/files:chmod", operation_id = "changeMode", tag = "files", request_body = ChangeMode,
    responses(
        (status = 200, description = "Changed", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn change_mode(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<ChangeMode>,
) -> Result<Json<FileEntry>, Refusal> {
    let path = path::absolute(&base(&agent, request.session.as_ref())?, &request.path)?;
    let mode = parse(&request.mode)?;
    let changed = blocking(move || {
        let refuse = |error| fault(CHANGE, &path, error);
        let file = path::open(file::cwd(), path.as_c_str(), file::O_PATH).map_err(refuse)?;
        // By way of /proc, because fchmod(2) takes no descriptor that opened nothing, and opening
        // a device or a pipe does something.
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(by_number, Permissions::from_mode(mode))
            .map_err(|error| io_fault(CHANGE, &path, &error))?;
        entry::tagged(file.as_fd(), c"", path.trimmed().as_bytes()).map_err(refuse)
    });
    Ok(Json(changed.await?))
}

/// Permission bits of a request's text.
pub(super) fn parse(text: &str) -> Result<u32, ApiError> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= SETTABLE => Ok(mode),
        _ => {
            let text = "mode is permission bits in octal, from 0 to 777";
            Err(ApiError::new(ErrorCode::ValidationFailed, text).with("field", "mode"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_lends_no_identity() {
        assert_eq!(parse("644").unwrap(), 0o644);
        assert_eq!(parse("0777").unwrap(), 0o777);
        for bad in ["", "8", "1000", "4755", "+7", "-1", "rwx", "77777777777"] {
            assert_eq!(parse(bad).unwrap_err().code, ErrorCode::ValidationFailed, "{bad}");
        }
    }
}
