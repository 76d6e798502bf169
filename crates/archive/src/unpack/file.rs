//! A file being written beside its place.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use sys::{
    SysError, errno,
    file::{self, How},
};

use super::{
    layer,
    tree::{Attributes, Dir},
};
use crate::header::Said;

/// Other names to try when the temporary one is taken, by the rest of an archive that died with its
/// agent.
const NAMES: usize = 100;

/// Bytes of content that btrfs keeps beside a file's name (`max_inline`, btrfs(5)). Until such a file is
/// written out, room is held for whole paths of the tree; with some ten thousand of them the kernel
/// has those who make more wait. So each is written out as soon as it is made, into the tree in
/// memory. A larger one is better written to the disk together with others.
const INLINE_BYTES: usize = 2048;

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
    match &made {
        Ok(()) if within.keeps_files_in_trees && content.len() <= INLINE_BYTES => {
            // Nothing depends on it.
            file::begin_writing_out(file.as_fd()).unwrap_or(());
        }
        Ok(()) => {}
        Err(_) => file::remove(dir, name).unwrap_or(()),
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
    /// Of content, holes included.
    bytes: u64,
    /// Some: zeros are passed over, and whether the last bytes were.
    holes: Option<bool>,
}

impl NewFile {
    /// Begins the file `name` in `dir`.
    pub(super) fn create(
        dir: BorrowedFd<'_>,
        name: &CStr,
        attributes: Attributes,
    ) -> Result<Self, SysError> {
        let (temporary, fd) = make_temporary(|temporary| create(dir, temporary, attributes.mode))?;
        let name = name.to_owned();
        Ok(Self { file: fd.into(), temporary, name, attributes, bytes: 0, holes: None })
    }

    /// Leaves holes where it is zeros, and gives it extended attributes.
    pub(super) fn as_in_layer(&mut self, attributes: &[Said]) -> Result<(), SysError> {
        self.holes = Some(false);
        layer::set_attributes(self.file.as_fd(), attributes)
    }

    /// Bytes of content that were written, holes included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SysError> {
        self.bytes += bytes.len() as u64;
        if let Some(is_hole) = &mut self.holes {
            *is_hole = bytes.iter().all(|byte| *byte == 0);
            if *is_hole {
                let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
                let passed = self.file.seek(SeekFrom::Current(length));
                return passed.map(drop).map_err(|error| system("lseek", &error));
            }
        }
        self.file.write_all(bytes).map_err(|error| system("write", &error))
    }

    /// Gives the file its bits, owner and time, and its name in `dir`.
    pub(super) fn keep(mut self, dir: &Dir) -> Result<(), SysError> {
        let (umask, dir) = (dir.umask, dir.fd());
        let kept = self
            .end_hole()
            .and_then(|()| umask.set(&self.file, self.attributes, self.attributes.mode))
            .and_then(|()| file::rename((dir, &self.temporary), (dir, &self.name), false));
        if kept.is_err() {
            self.remove(dir);
        }
        kept
    }

    /// Zeros at the end are part of it.
    fn end_hole(&mut self) -> Result<(), SysError> {
        if self.holes != Some(true) {
            return Ok(());
        }
        let length = self.file.stream_position().and_then(|length| self.file.set_len(length));
        length.map_err(|error| system("ftruncate", &error))
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
