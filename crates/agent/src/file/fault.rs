//! Errors of the file system as errors of the API.

use api::error::{ApiError, ErrorCode};
use sys::{SysError, errno};

use super::path::FilePath;

/// Says that `attempt` ("read", "delete") failed at `path`, by its errno.
pub(super) fn fault(attempt: &str, path: &FilePath, error: SysError) -> ApiError {
    let code = code(error.errno);
    let cause = std::io::Error::from_raw_os_error(error.errno);
    let shown = path.shown();
    let text = match code {
        ErrorCode::NotRegularFile => {
            format!("cannot {attempt} {shown}: it is not a regular file")
        }
        _ => format!("cannot {attempt} {shown}: {cause}"),
    };
    ApiError::new(code, text).with("path", shown).with("errno", error.errno)
}

/// The same for an error of std.
pub(super) fn io_fault(attempt: &str, path: &FilePath, error: &std::io::Error) -> ApiError {
    let errno = error.raw_os_error().unwrap_or(errno::EIO);
    fault(attempt, path, SysError { call: "file", errno })
}

fn code(errno: i32) -> ErrorCode {
    match errno {
        errno::ENOENT => ErrorCode::FileNotFound,
        errno::EISDIR => ErrorCode::IsDirectory,
        errno::ENOTDIR => ErrorCode::NotDirectory,
        errno::EACCES | errno::EPERM => ErrorCode::PermissionDenied,
        errno::EROFS => ErrorCode::ReadOnly,
        errno::ENOSPC | errno::EDQUOT => ErrorCode::NoSpace,
        errno::ENAMETOOLONG => ErrorCode::NameTooLong,
        errno::EEXIST => ErrorCode::FileExists,
        errno::ENOTEMPTY => ErrorCode::DirectoryNotEmpty,
        errno::EBUSY => ErrorCode::ResourceBusy,
        errno::ELOOP => ErrorCode::TooManyLinks,
        // Opening a socket, or a device without a driver, open(2).
        errno::ENXIO | errno::ENODEV => ErrorCode::NotRegularFile,
        _ => ErrorCode::FilesystemError,
    }
}
