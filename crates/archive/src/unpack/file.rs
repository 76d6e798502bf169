//! A file being written beside its place.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write},
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use sys::{
    SysError, errno,
    file::{self, How},
};

use super::tree::{Attributes, Dir};

/// Other names to try when the temporary one is taken, by the rest of an archive that died with its
/// agent.
const NAMES: usize = 100;

/// Numbers the temporary names.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Makes something under a name in `dir` that nobody has.
pub(super) fn make_temporary<T>(
    mut make: impl FnMut(&CStr) -> Result<T, SysError>,
) -> Result<(CString, T), SysError> {
    let mut taken = SysError { call: "openat2", errno: errno::EEXIST };
    for _ in 0..NAMES {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = file::c_name(format!(".sandbar-{}-{number}", std::process::id()))?;
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(error) if error.errno == errno::EEXIST => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// Opens a file that is not there yet.
fn create(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd, SysError> {
    let how = How {
        flags: file::O_WRONLY | file::O_CREAT | file::O_EXCL | file::O_NOFOLLOW,
        mode,
        resolve: file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS,
    };
    file::open(dir, name, how)
}

/// Makes the file `name` in a directory with all of its content.
///
/// A new file is written under its name, which saves a third of the time that a small one takes; a
/// process that is killed in the middle of that leaves it short. In place of what is there it comes
/// whole.
pub(super) fn make_small(
    within: &Dir,
    name: &CStr,
    content: &[u8],
    attributes: Attributes,
) -> Result<(), SysError> {
    let (umask, dir) = (within.umask, within.fd());
    let fd = match create(dir, name, attributes.mode) {
        Err(SysError { errno: errno::EEXIST, .. }) => {
            let mut file = NewFile::create(dir, name, attributes)?;
            return match file.write(content) {
                Ok(()) => file.keep(within),
                Err(error) => {
                    file.remove(dir);
                    Err(error)
                }
            };
        }
        opened => opened?,
    };
    let mut file = File::from(fd);
    let made = file
        .write_all(content)
        .map_err(|error| system("write", &error))
        .and_then(|()| umask.set(&file, attributes, attributes.mode));
    if made.is_err() {
        file::remove(dir, name).unwrap_or(());
    }
    made
}

/// A file that has no name of its own yet.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    temporary: CString,
    name: CString,
    attributes: Attributes,
}

impl NewFile {
    /// Begins the file `name` in `dir`.
    pub(super) fn create(
        dir: BorrowedFd<'_>,
        name: &CStr,
        attributes: Attributes,
    ) -> Result<Self, SysError> {
        let (temporary, fd) = make_temporary(|temporary| create(dir, temporary, attributes.mode))?;
        Ok(Self { file: fd.into(), temporary, name: name.to_owned(), attributes })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SysError> {
        self.file.write_all(bytes).map_err(|error| system("write", &error))
    }

    /// Gives the file its bits, owner and time, and its name in `dir`.
    pub(super) fn keep(self, dir: &Dir) -> Result<(), SysError> {
        let (umask, dir) = (dir.umask, dir.fd());
        let kept = umask
            .set(&self.file, self.attributes, self.attributes.mode)
            .and_then(|()| file::rename((dir, &self.temporary), (dir, &self.name), false));
        if kept.is_err() {
            self.remove(dir);
        }
        kept
    }

    /// Takes the file away.
    pub(super) fn remove(self, dir: BorrowedFd<'_>) {
        // Best effort: the directory may be gone, and with it the file.
        file::remove(dir, &self.temporary).unwrap_or(());
    }
}

pub(super) fn system(call: &'static str, error: &io::Error) -> SysError {
    SysError { call, errno: error.raw_os_error().unwrap_or(errno::EIO) }
}
