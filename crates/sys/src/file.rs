//! Files by name, relative to a directory's descriptor, for trees in which a path must not be
//! trusted: std knows only paths from the root.

use std::{
    ffi::{CStr, CString, OsString},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use crate::{
    error::{SysError, check, check_small},
    fd::own,
};

mod names;

pub use libc::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH,
    O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, RESOLVE_BENEATH, RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
};
pub use names::{Kind, Name, Names};

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

impl How {
    /// With these flags, making nothing, going through everything.
    #[must_use]
    pub const fn new(flags: i32) -> Self {
        Self { flags, mode: 0, resolve: 0 }
    }
}

/// The working directory, as a place for the `*at` calls to start from.
#[must_use]
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor but a constant that every `*at` call accepts in place
    // of one; it never closes.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Opens `path` relative to `dir`. *After fork.*
///
/// # Errors
/// Those of `openat2(2)`: `ELOOP` also for a link of /proc that `RESOLVE_NO_MAGICLINKS` refuses,
/// `EXDEV` for a way out that `RESOLVE_BENEATH` refuses.
///
/// Source: `openat2(2)`, Linux 5.6.
pub fn open(dir: BorrowedFd<'_>, path: &CStr, how: How) -> Result<OwnedFd, SysError> {
    // SAFETY: open_how is three integers, of which zero is a value, and must be zero where unused.
    let mut open_how = unsafe { MaybeUninit::<libc::open_how>::zeroed().assume_init() };
    open_how.flags = u64::from((how.flags | libc::O_CLOEXEC).cast_unsigned());
    open_how.mode = u64::from(how.mode);
    open_how.resolve = how.resolve;
    let (how, bytes): (*const libc::open_how, _) = (&raw const open_how, size_of_val(&open_how));
    // SAFETY: `path` is a valid C string, the structure has the size given, both live through the
    // call and are only read; the directory is open while borrowed.
    let ret =
        unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), how, bytes) };
    check_small("openat2", ret).map(own)
}

/// Writes `bytes` in one call and expects the kernel to take all of them. *After fork.*
///
/// # Errors
/// As write(2); a short write is `EIO`.
pub fn write_all(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), SysError> {
    // SAFETY: the pointer and length describe `bytes`, which lives through the call.
    let ret = unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    let written = check("write", ret)?;
    if usize::try_from(written) == Ok(bytes.len()) {
        Ok(())
    } else {
        Err(SysError { call: "write (short)", errno: libc::EIO })
    }
}

/// Has the kernel begin to write to the disk what was written into `file`, and forget what of it is
/// there already. Does not wait.
///
/// An overlay passes it on to the file system below, which it does not do with `sync_file_range(2)`.
///
/// # Errors
/// As `posix_fadvise(2)`; nothing has happened then, and nothing need be done.
pub fn begin_writing_out(file: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: numbers only; the descriptor is open while borrowed.
    let errno = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if errno == 0 { Ok(()) } else { Err(SysError { call: "posix_fadvise", errno }) }
}

/// Makes a directory. *After fork.*
///
/// # Errors
/// As mkdirat(2).
pub fn make_dir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), SysError> {
    // SAFETY: `name` is a valid C string.
    let ret = unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) };
    check("mkdirat", ret).map(drop)
}

/// Makes a character device node. *After fork.*
///
/// # Errors
/// As mknodat(2).
pub fn make_character_device(
    dir: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    (major, minor): (u32, u32),
) -> Result<(), SysError> {
    // SAFETY: `name` is a valid C string; the rest are numbers.
    let ret = unsafe {
        libc::mknodat(
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::S_IFCHR | mode,
            libc::makedev(major, minor),
        )
    };
    check("mknodat", ret).map(drop)
}

/// Makes a named pipe.
///
/// # Errors
/// As mknodat(2).
pub fn make_pipe(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), SysError> {
    // SAFETY: `name` is a valid C string; `dir` is open while borrowed.
    let ret = unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), libc::S_IFIFO | mode, 0) };
    check("mknodat", ret).map(drop)
}

/// Makes a symbolic link `name` that points to `target`. *After fork.*
///
/// # Errors
/// As symlinkat(2).
pub fn make_link(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    // SAFETY: both are valid C strings.
    let ret = unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) };
    check("symlinkat", ret).map(drop)
}

/// Removes the file `name` from `dir`; a symbolic link itself, not what it names.
///
/// # Errors
/// As unlinkat(2); `EISDIR` for a directory.
pub fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    unlink(dir, name, 0)
}

/// Removes the empty directory `name` from `dir`.
///
/// # Errors
/// As unlinkat(2); `ENOTEMPTY`, `ENOTDIR`; `EBUSY` for a cgroup with processes.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    unlink(dir, name, libc::AT_REMOVEDIR)
}

fn unlink(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<(), SysError> {
    // SAFETY: `name` is a valid C string; `dir` is open while borrowed.
    let ret = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) };
    check("unlinkat", ret).map(drop)
}

/// Renames `from` in `from_dir` to `to` in `to_dir`. What is there is replaced, as far as the kernel
/// replaces it, unless `is_exclusive`.
///
/// # Errors
/// Those of `renameat2(2)`: `EXDEV` for another file system, and on overlayfs for a directory of a
/// lower layer; `EEXIST` when `is_exclusive`; `EINVAL` for a directory into itself.
///
/// Source: `renameat2(2)`, Linux 3.15.
pub fn rename(
    (from_dir, from): (BorrowedFd<'_>, &CStr),
    (to_dir, to): (BorrowedFd<'_>, &CStr),
    is_exclusive: bool,
) -> Result<(), SysError> {
    let flags = if is_exclusive { libc::RENAME_NOREPLACE } else { 0 };
    let (from_dir, to_dir) = (from_dir.as_raw_fd(), to_dir.as_raw_fd());
    // SAFETY: both names are valid C strings; the directories are open while borrowed.
    let done = unsafe { libc::renameat2(from_dir, from.as_ptr(), to_dir, to.as_ptr(), flags) };
    check("renameat2", done).map(drop)
}

/// Where data begins at or after `from`: a hole of a sparse file lies before it. None when there
/// is a hole up to the end. Moves the file's position.
///
/// # Errors
/// Those of `lseek(2)`; `EINVAL` for a file that has no positions.
pub fn seek_data(file: BorrowedFd<'_>, from: u64) -> Result<Option<u64>, SysError> {
    seek(file, from, libc::SEEK_DATA)
}

/// Where data that begins at `from` ends: at a hole or at the end of the file. None when `from` is
/// not in the file. Moves the file's position.
///
/// # Errors
/// As [`seek_data`].
pub fn seek_hole(file: BorrowedFd<'_>, from: u64) -> Result<Option<u64>, SysError> {
    seek(file, from, libc::SEEK_HOLE)
}

fn seek(file: BorrowedFd<'_>, from: u64, whence: i32) -> Result<Option<u64>, SysError> {
    let Ok(from) = i64::try_from(from) else { return Ok(None) };
    // SAFETY: integers only; the file is open while borrowed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match check("lseek", found) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(SysError { errno: libc::ENXIO, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the file `from` in `from_dir` the further name `to` in `to_dir`; a symbolic link is not
/// followed.
///
/// # Errors
/// Those of `linkat(2)`; `EEXIST` when `to` is there.
pub fn hard_link(
    from_dir: BorrowedFd<'_>,
    from: &CStr,
    to_dir: BorrowedFd<'_>,
    to: &CStr,
) -> Result<(), SysError> {
    let (from_dir, to_dir) = (from_dir.as_raw_fd(), to_dir.as_raw_fd());
    // SAFETY: both names are valid C strings; both directories are open while borrowed.
    let done = unsafe { libc::linkat(from_dir, from.as_ptr(), to_dir, to.as_ptr(), 0) };
    check("linkat", done).map(drop)
}

/// Gives the symbolic link `name` itself another owner.
///
/// # Errors
/// Those of `fchownat(2)`; `EINVAL` for an id that is not mapped in this user namespace.
pub fn set_link_owner(
    dir: BorrowedFd<'_>,
    name: &CStr,
    (uid, gid): (u32, u32),
) -> Result<(), SysError> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `name` is a valid C string; `dir` is open while borrowed; the rest are numbers.
    let done = unsafe { libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, flags) };
    check("fchownat", done).map(drop)
}

/// Sets when the symbolic link `name` itself last changed: seconds since 1970-01-01 UTC, and
/// nanoseconds from 0 to 999,999,999.
///
/// # Errors
/// Those of `utimensat(2)`.
pub fn set_link_modified(
    dir: BorrowedFd<'_>,
    name: &CStr,
    (seconds, nanoseconds): (i64, u32),
) -> Result<(), SysError> {
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
    ];
    let (dir, flags) = (dir.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: `name` is a valid C string, `times` are the two times that the call reads, and both
    // live through it; `dir` is open while borrowed.
    let done = unsafe { libc::utimensat(dir, name.as_ptr(), times.as_ptr(), flags) };
    check("utimensat", done).map(drop)
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

/// Bytes of an extended attribute, and of all names of a file's, at most; xattr(7).
const ATTRIBUTE_BYTES: usize = 64 * 1024;

/// What `lstat(2)` says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device and inode: which file it is.
    pub identity: (u64, u64),
    /// Nanoseconds since 1970-01-01 UTC of the last change of the content.
    pub modified_ns: i64,
    /// The same of the last read.
    pub accessed_ns: i64,
    /// The same of the last change of content or inode.
    pub changed_ns: i64,
}

/// Looks at `name` in `dir`; at a symbolic link itself. With an empty name at `dir`, which need not
/// be a directory.
///
/// # Errors
/// Those of `fstatat(2)`.
pub fn stat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, SysError> {
    const FLAGS: i32 = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is writable, the name ends in a zero, `dir` is open while borrowed.
    let done = unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), FLAGS) };
    check("fstatat", done)?;
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    let stat = unsafe { stat.assume_init() };
    let time = |seconds: i64, nanoseconds: i64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
    };
    Ok(Stat {
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        identity: (stat.st_dev, stat.st_ino),
        modified_ns: time(stat.st_mtime, stat.st_mtime_nsec),
        accessed_ns: time(stat.st_atime, stat.st_atime_nsec),
        changed_ns: time(stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// Sets an extended attribute of the file at `path`. setxattr(2).
///
/// # Errors
/// `ENOTSUP` where the file system keeps none; `EPERM` for a name that needs more privilege.
pub fn set_attribute(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), SysError> {
    let (start, bytes) = (value.as_ptr().cast(), value.len());
    // SAFETY: both strings end with a zero byte and the kernel reads `bytes` bytes from the start
    // of the borrowed `value`; it keeps no pointer.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), start, bytes, 0) };
    check("setxattr", result).map(drop)
}

/// The names of the extended attributes of an open file that the caller may see, each with its zero.
/// flistxattr(2).
///
/// # Errors
/// `ENOTSUP` where the file system keeps none; `EBADF` for a descriptor that was opened with
/// `O_PATH`.
pub fn attributes(file: BorrowedFd<'_>) -> Result<Vec<u8>, SysError> {
    let mut names = vec![0_u8; ATTRIBUTE_BYTES];
    // SAFETY: the kernel writes at most the buffer's length into it; `file` is open while borrowed.
    let read =
        unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let read = check("flistxattr", read)?;
    names.truncate(usize::try_from(read).unwrap_or_default());
    Ok(names)
}

/// The value of an extended attribute of an open file. fgetxattr(2).
///
/// # Errors
/// `ENODATA` when it has none of this name.
pub fn attribute(file: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, SysError> {
    let mut value = vec![0_u8; ATTRIBUTE_BYTES];
    // SAFETY: the name ends with a zero byte, the kernel writes at most the buffer's length into it,
    // and `file` is open while borrowed.
    let read = unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let read = check("fgetxattr", read)?;
    value.truncate(usize::try_from(read).unwrap_or_default());
    Ok(value)
}

/// Sets an extended attribute of an open file. fsetxattr(2).
///
/// # Errors
/// `ENOTSUP` where the file system keeps none; `EPERM` for a name that needs more privilege.
pub fn set_attribute_of(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), SysError> {
    let (start, bytes) = (value.as_ptr().cast(), value.len());
    // SAFETY: the name ends with a zero byte and the kernel reads `bytes` bytes from the start of
    // the borrowed `value`; it keeps no pointer. `file` is open while borrowed.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), start, bytes, 0) };
    check("fsetxattr", result).map(drop)
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

    #[test]
    fn files_are_made_looked_at_renamed_and_removed() {
        let path = std::env::temp_dir().join(format!("sys-file-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let dir = c_name(path.as_os_str().as_encoded_bytes()).unwrap();
        let dir = open(cwd(), &dir, How::new(O_RDONLY | O_DIRECTORY)).unwrap();
        let dir = dir.as_fd();
        let new = How { flags: O_WRONLY | O_CREAT | O_EXCL, mode: 0o600, resolve: 0 };
        open(dir, c"a", new).unwrap();
        assert_eq!(open(dir, c"a", new).unwrap_err().errno, libc::EEXIST);
        make_dir(dir, c"d", 0o700).unwrap();
        rename((dir, c"a"), (dir, c"b"), true).unwrap();
        let taken = rename((dir, c"b"), (dir, c"d"), true).unwrap_err();
        assert_eq!(taken.errno, libc::EEXIST);
        let within = open(dir, c"d", How::new(O_RDONLY | O_DIRECTORY)).unwrap();
        let into_itself = rename((dir, c"d"), (within.as_fd(), c"d"), false).unwrap_err();
        assert_eq!(into_itself.errno, libc::EINVAL);
        assert_eq!(stat(dir, c"b").unwrap().mode, S_IFREG | 0o600);
        assert_eq!(stat(dir, c"a").unwrap_err().errno, libc::ENOENT);
        assert_eq!(stat(within.as_fd(), c"").unwrap(), stat(dir, c"d").unwrap());
        make_pipe(dir, c"p", 0o600).unwrap();
        assert_eq!(make_pipe(dir, c"p", 0o600).unwrap_err().errno, libc::EEXIST);
        assert_eq!(stat(dir, c"p").unwrap().mode, libc::S_IFIFO | 0o600);
        assert_eq!(remove(dir, c"d").unwrap_err().errno, libc::EISDIR);
        assert_eq!(remove_dir(dir, c"b").unwrap_err().errno, libc::ENOTDIR);
        remove_dir(dir, c"d").unwrap();
        remove(dir, c"b").unwrap();
        std::os::unix::fs::symlink("/nowhere", path.join("l")).unwrap();
        assert_eq!(read_link(dir, c"l").unwrap(), "/nowhere");
        assert_eq!(read_link(dir, c"b").unwrap_err().errno, libc::ENOENT);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn links_have_owners_and_times_of_their_own_and_files_further_names() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("sys-links-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let dir = std::fs::File::open(&path).unwrap();
        let dir = dir.as_fd();
        std::fs::write(path.join("a"), "x").unwrap();
        std::os::unix::fs::symlink("a", path.join("l")).unwrap();

        hard_link(dir, c"a", dir, c"b").unwrap();
        hard_link(dir, c"l", dir, c"m").unwrap();
        set_link_modified(dir, c"l", (-5, 7)).unwrap();
        // Needs no privilege: they are its own.
        let link = std::fs::symlink_metadata(path.join("l")).unwrap();
        set_link_owner(dir, c"l", (link.uid(), link.gid())).unwrap();

        assert_eq!(hard_link(dir, c"a", dir, c"b").unwrap_err().errno, libc::EEXIST);
        assert_eq!(set_link_owner(dir, c"none", (0, 0)).unwrap_err().errno, libc::ENOENT);
        assert_eq!(set_link_modified(dir, c"none", (0, 0)).unwrap_err().errno, libc::ENOENT);
        assert_eq!(std::fs::metadata(path.join("b")).unwrap().nlink(), 2);
        assert!(std::fs::metadata(path.join("a")).unwrap().mtime() > 0);
        let moved = std::fs::symlink_metadata(path.join("m")).unwrap();
        assert_eq!((moved.mtime(), moved.mtime_nsec()), (-5, 7));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn magic_links_are_refused() {
        let how = How { resolve: RESOLVE_NO_MAGICLINKS, ..How::new(O_PATH) };
        assert_eq!(open(cwd(), c"/proc/self/exe", how).unwrap_err().errno, libc::ELOOP);
        open(cwd(), c"/proc/self/status", how).unwrap();
    }

    #[test]
    fn holes_are_told_from_data() {
        use std::os::unix::fs::FileExt;
        let file = tempfile();
        file.set_len(1 << 20).unwrap();
        assert_eq!(seek_data(file.as_fd(), 0), Ok(None));
        file.write_all_at(b"x", 1 << 19).unwrap();
        let data = seek_data(file.as_fd(), 0).unwrap().unwrap();
        assert!(data > 0 && data <= 1 << 19, "{data}");
        let end = seek_hole(file.as_fd(), data).unwrap().unwrap();
        assert!(end > 1 << 19 && end < 1 << 20, "{end}");
        assert_eq!(seek_hole(file.as_fd(), 1 << 20), Ok(None));
        assert_eq!(seek_data(file.as_fd(), u64::MAX), Ok(None));
    }

    /// A file without a name.
    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("sys-file-sparse-{}", std::process::id()));
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn attributes_are_refused_where_there_are_none() {
        let answer = set_attribute(c"/proc/self/status", c"user.sandbar", b"1");
        assert!(answer.is_err());
    }
}
