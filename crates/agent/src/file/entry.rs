//! One file, as it is shown to callers.

use std::{ffi::CStr, fmt::Write, os::fd::BorrowedFd, os::unix::ffi::OsStrExt};

use api::file::{FileEntry, FileType};
use sys::{
    SysError, errno,
    file::{self, Stat},
};

/// Permission bits of a mode, with set-user-id, set-group-id and sticky.
pub(super) const PERMISSIONS: u32 = 0o7777;

/// Looks at what has one of two kinds in turn, before it counts as broken.
const LOOKS: usize = 16;

const NS_PER_MS: i64 = 1_000_000;

/// Looks at `name` in `dir` and shows it under `path`; `dir` itself when the name is empty.
pub(super) fn entry(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<FileEntry, SysError> {
    let mut looks = 1..=LOOKS;
    loop {
        let mut entry = of_stat(&file::stat(dir, name)?, path);
        if entry.file_type == FileType::Symlink {
            let target = match file::read_link(dir, name) {
                // Something else has taken its place.
                Err(SysError { errno: errno::EINVAL, .. }) if looks.next().is_some() => continue,
                target => target?,
            };
            entry.link_target = Some(String::from_utf8_lossy(target.as_bytes()).into_owned());
        }
        return Ok(entry);
    }
}

/// The same with the tag of a regular file's content: for an answer about one file.
pub(super) fn tagged(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<FileEntry, SysError> {
    let stat = file::stat(dir, name)?;
    match file_type(&stat) {
        FileType::Symlink => entry(dir, name, path),
        FileType::File => Ok(FileEntry { etag: Some(etag(&stat)), ..of_stat(&stat, path) }),
        FileType::Directory | FileType::Other => Ok(of_stat(&stat, path)),
    }
}

/// What `stat` says, under `path`.
pub(crate) fn of_stat(stat: &Stat, path: &[u8]) -> FileEntry {
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    FileEntry {
        name: String::from_utf8_lossy(last).into_owned(),
        path: String::from_utf8_lossy(path).into_owned(),
        file_type: file_type(stat),
        size: stat.size,
        mode: stat.mode & PERMISSIONS,
        uid: stat.uid,
        gid: stat.gid,
        modified_ms: modified_ms(stat),
        accessed_ms: stat.accessed_ns.div_euclid(NS_PER_MS),
        changed_ms: stat.changed_ns.div_euclid(NS_PER_MS),
        link_target: None,
        encoded_path: std::str::from_utf8(path).is_err().then(|| encode(path)),
        etag: None,
        unlisted: false,
    }
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    match stat.mode & file::S_IFMT {
        file::S_IFREG => FileType::File,
        file::S_IFDIR => FileType::Directory,
        file::S_IFLNK => FileType::Symlink,
        _ => FileType::Other,
    }
}

pub(super) fn modified_ms(stat: &Stat) -> i64 {
    stat.modified_ns.div_euclid(NS_PER_MS)
}

/// Names the content of a file: another inode, size or time of change is another content. A name or
/// mode that changes leaves it.
pub(super) fn etag(stat: &Stat) -> String {
    let (_, inode) = stat.identity;
    format!("\"{inode:x}-{:x}-{:x}\"", stat.size, stat.modified_ns)
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
