//! Writing a file: beside the target, then in its place. And making directories.

use std::{
    ffi::CString,
    fs::{DirBuilder, File, Permissions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown},
    },
    sync::atomic::{AtomicU64, Ordering},
};

use api::{
    error::{ApiError, ErrorCode},
    file::FileEntry,
};
use axum::body::Body;
use http_body_util::BodyExt;
use sys::{
    SysError, errno,
    file::{self, How},
};

use super::{
    blocking,
    fault::{fault, io_fault},
    path::{FilePath, Target, open},
};

const WRITE: &str = "write";

/// Bytes gathered before they are written: see the reading side.
const PIECE_BYTES: usize = 256 * 1024;

/// Bytes below which a part of a body is copied out of the buffer it came in.
const SMALL_BYTES: usize = 16 * 1024;

/// Bytes of memory that a part of a body takes at least.
const SMALL_COST_BYTES: usize = 64;

/// Permission bits of a new file, and of a new directory.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Permission bits that a request may set: nothing that lends an identity.
const SETTABLE: u32 = 0o777;

/// Other names to try when the temporary one is taken, by the rest of an upload that died with
/// its sandbox.
const NAMES: usize = 100;

/// Numbers the temporary files.
static UPLOADS: AtomicU64 = AtomicU64::new(0);

/// Permission bits of a request's text.
pub(super) fn mode(text: &str) -> Result<u32, ApiError> {
    let is_octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= SETTABLE => Ok(mode),
        _ => {
            let text = "mode is permission bits in octal, from 0 to 777";
            Err(ApiError::new(ErrorCode::ValidationFailed, text).with("field", "mode"))
        }
    }
}

/// Writes `body` to `path`.
///
/// Cancel safety: dropping the future removes the temporary file and leaves the target.
pub(super) async fn write(
    path: FilePath,
    mode: Option<u32>,
    mut body: Body,
) -> Result<FileEntry, ApiError> {
    let mut upload: Option<Upload> = None;
    loop {
        let (piece, is_last) = gather(&mut body).await?;
        let path = path.clone();
        let step = blocking(move || {
            let mut upload = match upload {
                Some(upload) => upload,
                None => Upload::begin(&path)?,
            };
            for bytes in &piece {
                upload.file.write_all(bytes).map_err(|error| io_fault(WRITE, &path, &error))?;
            }
            if is_last {
                return upload.finish(mode).map(|entry| (None, Some(entry)));
            }
            Ok((Some(upload), None))
        });
        match step.await? {
            (_, Some(entry)) => return Ok(entry),
            (next, None) => upload = next,
        }
    }
}

/// The next bytes of the body, some [`PIECE_BYTES`], and whether they are its last.
pub(super) async fn gather(body: &mut Body) -> Result<(Vec<bytes::Bytes>, bool), ApiError> {
    let mut piece = Vec::new();
    let mut length = 0;
    while length < PIECE_BYTES {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                let text = "the upload broke off; nothing was changed";
                return Err(ApiError::new(ErrorCode::ValidationFailed, text));
            }
            None => return Ok((piece, true)),
        };
        // Trailers are no content.
        if let Ok(bytes) = frame.into_data() {
            length += bytes.len().max(SMALL_COST_BYTES);
            // A small part of a connection's buffer would keep the whole of it.
            let is_small = bytes.len() < SMALL_BYTES;
            piece.push(if is_small { bytes::Bytes::copy_from_slice(&bytes) } else { bytes });
        }
    }
    Ok((piece, false))
}

/// A file being written under a temporary name. Dropping it removes that.
#[derive(Debug)]
struct Upload {
    target: Target,
    temporary: CString,
    file: File,
    /// Permission bits and owner of the file that is replaced.
    old: Option<(u32, u32, u32)>,
    is_done: bool,
}

impl Upload {
    fn begin(path: &FilePath) -> Result<Self, ApiError> {
        let target = open_target(path)?;
        let refuse = |error| fault(WRITE, path, error);
        if matches!(target.name.as_bytes(), b"." | b"..") {
            return Err(refuse(SysError { call: "open", errno: errno::EISDIR }));
        }
        let old = look_at(&target).map_err(refuse)?;
        let (temporary, file) = temporary(&target).map_err(refuse)?;
        Ok(Self { target, temporary, file: file.into(), old, is_done: false })
    }

    fn finish(mut self, mode: Option<u32>) -> Result<FileEntry, ApiError> {
        self.put_in_place(mode).map_err(|error| io_fault(WRITE, &self.target.path, &error))?;
        self.is_done = true;
        self.target.entry(WRITE)
    }

    /// Owner before mode, because a change of owner takes bits away; both before the name.
    fn put_in_place(&self, mode: Option<u32>) -> io::Result<()> {
        let made = self.file.metadata()?;
        if let Some((_, uid, gid)) = self.old
            && (uid, gid) != (made.uid(), made.gid())
        {
            fchown(&self.file, Some(uid), Some(gid))?;
        }
        let mode = mode.or(self.old.map(|(mode, ..)| mode)).unwrap_or(FILE_MODE);
        self.file.set_permissions(Permissions::from_mode(mode))?;
        file::rename(self.target.parent.as_fd(), &self.temporary, &self.target.name)
            .map_err(|error| io::Error::from_raw_os_error(error.errno))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_done {
            // Best effort: the directory may be gone, and with it the file.
            file::remove(self.target.parent.as_fd(), &self.temporary).unwrap_or(());
        }
    }
}

/// Opens the directory of the file that `path` means, and makes it when it is missing.
fn open_target(path: &FilePath) -> Result<Target, ApiError> {
    match Target::follow(WRITE, path) {
        Err(error) if error.code == ErrorCode::FileNotFound => {}
        target => return target,
    }
    if let Some(parent) = path.as_path().parent() {
        make_directories(parent).map_err(|error| io_fault(WRITE, path, &error))?;
    }
    Target::follow(WRITE, path)
}

/// Permission bits and owner of the file that is there, if it may be written.
fn look_at(target: &Target) -> Result<Option<(u32, u32, u32)>, SysError> {
    let to_sys = |error: io::Error| SysError {
        call: "fstat",
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    };
    let flags = file::O_WRONLY | file::O_NOFOLLOW;
    // Opened for writing, because a rename asks only for rights on the directory.
    let old = match open(target.parent.as_fd(), &target.name, flags) {
        Ok(old) => File::from(old),
        // A running program cannot be written, but its name can be given to another file.
        Err(SysError { errno: errno::ETXTBSY, .. }) => {
            let flags = file::O_PATH | file::O_NOFOLLOW;
            File::from(open(target.parent.as_fd(), &target.name, flags)?)
        }
        Err(SysError { errno: errno::ENOENT, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = old.metadata().map_err(to_sys)?;
    if !metadata.is_file() {
        return Err(SysError { call: "open", errno: errno::ENODEV });
    }
    Ok(Some((metadata.mode() & SETTABLE, metadata.uid(), metadata.gid())))
}

fn temporary(target: &Target) -> Result<(CString, OwnedFd), SysError> {
    let how = How {
        flags: file::O_WRONLY | file::O_CREAT | file::O_EXCL | file::O_NOFOLLOW,
        mode: 0o600,
        resolve: file::RESOLVE_NO_MAGICLINKS,
    };
    let mut taken = SysError { call: "openat2", errno: errno::EEXIST };
    for _ in 0..NAMES {
        let number = UPLOADS.fetch_add(1, Ordering::Relaxed);
        let name = file::c_name(format!(".sandbar-upload-{number}"))?;
        match file::open(target.parent.as_fd(), &name, how) {
            Ok(file) => return Ok((name, file)),
            Err(error) if error.errno == errno::EEXIST => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn make_directories(path: &std::path::Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes a directory; with `recursive` its parents too, and it may be there already.
pub(super) fn make_directory(path: &FilePath, recursive: bool) -> Result<(), ApiError> {
    let made = if recursive {
        make_directories(path.as_path())
    } else {
        DirBuilder::new().mode(DIRECTORY_MODE).create(path.as_path())
    };
    made.map_err(|error| io_fault("make the directory", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_lends_no_identity() {
        assert_eq!(mode("644").unwrap(), 0o644);
        assert_eq!(mode("0777").unwrap(), 0o777);
        for bad in ["", "8", "1000", "4755", "+7", "-1", "rwx", "77777777777"] {
            assert_eq!(mode(bad).unwrap_err().code, ErrorCode::ValidationFailed, "{bad}");
        }
    }
}
