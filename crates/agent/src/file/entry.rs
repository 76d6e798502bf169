//! One file, as it is shown to callers.

use std::{ffi::CStr, fmt::Write, os::fd::BorrowedFd, os::unix::ffi::OsStrExt};

use api::file::{FileEntry, FileType};
use sys::{SysError, file};

/// Permission bits of a mode, with set-user-id, set-group-id and sticky.
const PERMISSIONS: u32 = 0o7777;

/// Looks at `name` in `dir` and shows it under `path`.
pub(super) fn entry(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<FileEntry, SysError> {
    let stat = file::stat(dir, name)?;
    let file_type = match stat.mode & file::S_IFMT {
        file::S_IFREG => FileType::File,
        file::S_IFDIR => FileType::Directory,
        file::S_IFLNK => FileType::Symlink,
        _ => FileType::Other,
    };
    let link_target = match file_type {
        FileType::Symlink => {
            let target = file::read_link(dir, name)?;
            Some(String::from_utf8_lossy(target.as_bytes()).into_owned())
        }
        FileType::File | FileType::Directory | FileType::Other => None,
    };
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Ok(FileEntry {
        name: String::from_utf8_lossy(last).into_owned(),
        path: String::from_utf8_lossy(path).into_owned(),
        file_type,
        size: stat.size,
        mode: stat.mode & PERMISSIONS,
        modified_ms: stat.modified_ms,
        link_target,
        encoded_path: std::str::from_utf8(path).is_err().then(|| encode(path)),
    })
}

/// `path` as it follows `/files/` in a URL.
pub(super) fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len() * 3);
    for byte in path.strip_prefix(b"/").unwrap_or(path) {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    text
}
