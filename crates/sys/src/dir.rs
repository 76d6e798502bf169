//! Files by name, relative to a directory's descriptor: std knows only paths from the root.

use std::{
    ffi::{CStr, CString, OsString},
    fs::File,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
};

use crate::SysError;

pub use libc::{
    AT_FDCWD, O_CREAT, O_DIRECTORY, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
    O_WRONLY, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
    S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
};

/// Bytes for names read in one call of [`Names::next_batch`]: some 1,000 usual names.
const NAMES_BUFFER_BYTES: usize = 32 * 1024;

/// How [`open`] opens.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// `O_*` flags; `O_CLOEXEC` is added.
    pub flags: i32,
    /// Permission bits of a file made by `O_CREAT`, 0 without it.
    pub mode: u32,
    /// `RESOLVE_*` flags: what the path may go through.
    pub resolve: u64,
}

/// Opens `path` relative to `dir`, or to the working directory.
///
/// # Errors
/// Those of `openat2(2)`: `ELOOP` also for a link of /proc that `RESOLVE_NO_MAGICLINKS` refuses,
/// `EXDEV` for a way out that `RESOLVE_BENEATH` refuses.
///
/// Source: `openat2(2)`, Linux 5.6.
pub fn open(dir: Option<BorrowedFd<'_>>, path: &CStr, how: How) -> Result<OwnedFd, SysError> {
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    // SAFETY: open_how is three integers, of which zero is a value, and must be zero where unused.
    let mut open_how = unsafe { MaybeUninit::<libc::open_how>::zeroed().assume_init() };
    open_how.flags = u64::from((how.flags | libc::O_CLOEXEC).cast_unsigned());
    open_how.mode = u64::from(how.mode);
    open_how.resolve = how.resolve;
    let open_how: *const libc::open_how = &raw const open_how;
    // SAFETY: the path ends in a zero, the structure has the size given, both live across the
    // call and are only read; the directory is open while borrowed.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), open_how, size_of::<libc::open_how>())
    };
    let Ok(fd @ 0..) = RawFd::try_from(fd) else {
        return Err(SysError::last("openat2"));
    };
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the directory `name` in `dir`.
///
/// # Errors
/// Those of `mkdirat(2)`.
pub fn make(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), SysError> {
    // SAFETY: the name ends in a zero and is only read; `dir` is open while borrowed.
    let made = unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) };
    if made == -1 { Err(SysError::last("mkdirat")) } else { Ok(()) }
}

/// Removes the file `name` from `dir`; a symbolic link itself, not what it names.
///
/// # Errors
/// Those of `unlinkat(2)`; `EISDIR` for a directory.
pub fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    // SAFETY: as in `make`.
    let done = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) };
    if done == -1 { Err(SysError::last("unlinkat")) } else { Ok(()) }
}

/// Removes the empty directory `name` from `dir`.
///
/// # Errors
/// Those of `unlinkat(2)`; `ENOTEMPTY`, `ENOTDIR`; `EBUSY` for a cgroup with processes.
pub fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    // SAFETY: as in `make`.
    let done = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) };
    if done == -1 { Err(SysError::last("unlinkat")) } else { Ok(()) }
}

/// Renames `from` to `to` within `dir`, replacing a file that is there.
///
/// # Errors
/// Those of `renameat(2)`.
pub fn rename(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<(), SysError> {
    let dir = dir.as_raw_fd();
    // SAFETY: as in `make`, for two names.
    let done = unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) };
    if done == -1 { Err(SysError::last("renameat")) } else { Ok(()) }
}

/// Where the symbolic link `name` in `dir` points.
///
/// # Errors
/// Those of `readlinkat(2)`; `EINVAL` for something that is not a link.
pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<OsString, SysError> {
    let mut target = vec![0_u8; libc::PATH_MAX.cast_unsigned() as usize];
    // SAFETY: the buffer is writable for the length given, the name ends in a zero, `dir` is open.
    let length = unsafe {
        libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
    };
    let Ok(length) = usize::try_from(length) else {
        return Err(SysError::last("readlinkat"));
    };
    target.truncate(length);
    Ok(OsString::from_vec(target))
}

/// What `lstat(2)` says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970-01-01 UTC of the last change of the content.
    pub modified_ms: i64,
}

/// Looks at `name` in `dir`; at a symbolic link itself.
///
/// # Errors
/// Those of `fstatat(2)`.
pub fn stat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, SysError> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is writable, the name ends in a zero, `dir` is open while borrowed.
    let done = unsafe {
        libc::fstatat(dir.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    };
    if done == -1 {
        return Err(SysError::last("fstatat"));
    }
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified_ms: stat.st_mtime * 1000 + stat.st_mtime_nsec / 1_000_000,
    })
}

/// Facts of the file system of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// True for procfs.
    pub is_proc: bool,
    /// True when an unprivileged process can get no block, or nobody an inode.
    pub is_full: bool,
}

/// Asks for the file system of `fd`.
///
/// # Errors
/// Those of `fstatfs(2)`.
pub fn file_system(fd: BorrowedFd<'_>) -> Result<FileSystem, SysError> {
    let mut statfs = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the structure is writable and lives across the call; `fd` is open while borrowed.
    let done = unsafe { libc::fstatfs(fd.as_raw_fd(), statfs.as_mut_ptr()) };
    if done == -1 {
        return Err(SysError::last("fstatfs"));
    }
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    let statfs = unsafe { statfs.assume_init() };
    Ok(FileSystem {
        is_proc: statfs.f_type == libc::PROC_SUPER_MAGIC,
        // File systems without such a count say 0 of 0.
        is_full: (statfs.f_blocks > 0 && statfs.f_bavail == 0)
            || (statfs.f_files > 0 && statfs.f_ffree == 0),
    })
}

/// The names in a directory, in the kernel's order, in constant memory.
#[derive(Debug)]
pub struct Names {
    dir: File,
    buffer: Vec<u8>,
}

impl Names {
    /// Reads `dir`, opened with `O_RDONLY | O_DIRECTORY`, from where its position is.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir: dir.into(), buffer: vec![0; NAMES_BUFFER_BYTES] }
    }

    /// Calls `each` with the next names, `.` and `..` left out; false at the end.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn next_batch(&mut self, mut each: impl FnMut(&CStr)) -> Result<bool, SysError> {
        // SAFETY: the buffer is writable for the length given; `dir` is open while owned.
        let filled = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.dir.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        let Ok(filled) = usize::try_from(filled) else {
            return Err(SysError::last("getdents64"));
        };
        let mut rest = self.buffer.get(..filled).unwrap_or_default();
        // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with its zero.
        while let Some(&[low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).map(CStr::from_bytes_until_nul);
            if let Some(Ok(name)) = name
                && name != c"."
                && name != c".."
            {
                each(name);
            }
            let Some(next) = rest.get(length.max(1)..) else { break };
            rest = next;
        }
        Ok(filled > 0)
    }
}

/// `name` as the kernel takes it.
///
/// # Errors
/// `EINVAL` when it holds a zero byte.
pub fn c_name(name: impl Into<Vec<u8>>) -> Result<CString, SysError> {
    CString::new(name).map_err(|_zero| SysError { call: "path", errno: libc::EINVAL })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const DIRECTORY: How = How { flags: O_RDONLY | O_DIRECTORY, mode: 0, resolve: 0 };

    fn scratch(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("sys-dir-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let c_path = c_name(path.clone().into_os_string().into_vec()).unwrap();
        let dir = open(None, &c_path, DIRECTORY).unwrap();
        (path, dir)
    }

    #[test]
    fn names_come_once_each() {
        let (path, dir) = scratch("names");
        for number in 0..3000 {
            std::fs::write(path.join(format!("file with a longer name {number}")), "").unwrap();
        }

        let mut names = Names::new(dir);
        let mut seen = std::collections::BTreeSet::new();
        while names
            .next_batch(|name| assert!(seen.insert(name.to_owned()), "{name:?} twice"))
            .unwrap()
        {}

        assert_eq!(seen.len(), 3000);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn files_are_made_looked_at_renamed_and_removed() {
        let (path, dir) = scratch("files");
        let dir = dir.as_fd();
        let new = How { flags: O_WRONLY | O_CREAT | O_EXCL, mode: 0o600, resolve: 0 };
        open(Some(dir), c"a", new).unwrap();
        assert_eq!(open(Some(dir), c"a", new).unwrap_err().errno, libc::EEXIST);
        rename(dir, c"a", c"b").unwrap();
        assert_eq!(stat(dir, c"b").unwrap().mode, S_IFREG | 0o600);
        assert_eq!(stat(dir, c"a").unwrap_err().errno, libc::ENOENT);
        make(dir, c"d", 0o700).unwrap();
        assert_eq!(unlink(dir, c"d").unwrap_err().errno, libc::EISDIR);
        assert_eq!(remove(dir, c"b").unwrap_err().errno, libc::ENOTDIR);
        remove(dir, c"d").unwrap();
        unlink(dir, c"b").unwrap();
        std::os::unix::fs::symlink("/nowhere", path.join("l")).unwrap();
        assert_eq!(read_link(dir, c"l").unwrap(), "/nowhere");
        assert_eq!(read_link(dir, c"b").unwrap_err().errno, libc::ENOENT);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn magic_links_are_refused() {
        let how = How { flags: O_PATH, mode: 0, resolve: RESOLVE_NO_MAGICLINKS };
        assert_eq!(open(None, c"/proc/self/exe", how).unwrap_err().errno, libc::ELOOP);
        let status = open(None, c"/proc/self/status", how).unwrap();
        assert!(file_system(status.as_fd()).unwrap().is_proc);
    }
}
