//! Files by descriptor and name, for trees in which a path must not be trusted.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// The working directory, as a place for the `*at` calls to start from.
#[must_use]
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor but a constant that every `*at` call accepts in place
    // of one; it never closes.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Opens `name` below `dir` with `flags` (`O_CLOEXEC` is added). *After fork.*
///
/// # Errors
/// As openat(2).
pub fn open(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: `name` is a valid C string; no flag here makes the call read a mode argument.
    let ret = unsafe {
        libc::openat(
            dir.as_raw_fd(),
            name.as_ptr(),
            (flags & !(libc::O_CREAT | libc::O_TMPFILE)) | libc::O_CLOEXEC,
        )
    };
    check("openat", ret).map(own)
}

/// Creates or truncates `name` below `dir` for writing. *After fork.*
///
/// # Errors
/// As openat(2).
pub fn create(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd, SysError> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` is a valid C string, and O_CREAT is given its mode.
    let ret = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) };
    check("openat(O_CREAT)", ret).map(own)
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

/// Makes a symbolic link `name` that points to `target`. *After fork.*
///
/// # Errors
/// As symlinkat(2).
pub fn make_link(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    // SAFETY: both are valid C strings.
    let ret = unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) };
    check("symlinkat", ret).map(drop)
}

/// Gives `name` below `dir` (not what it links to) to a user and group.
///
/// # Errors
/// As fchownat(2).
pub fn change_owner(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<(), SysError> {
    // SAFETY: `name` is a valid C string; the rest are numbers.
    let ret = unsafe {
        libc::fchownat(dir.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)
    };
    check("fchownat", ret).map(drop)
}

/// Removes a file, or with `directory` an empty directory, without following links.
///
/// # Errors
/// As unlinkat(2).
pub fn remove(dir: BorrowedFd<'_>, name: &CStr, directory: bool) -> Result<(), SysError> {
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: `name` is a valid C string.
    let ret = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) };
    check("unlinkat", ret).map(drop)
}

/// Sets the calling process's file mode mask to none, so that modes are what the code says.
pub fn clear_umask() {
    // SAFETY: umask takes a number, cannot fail, and affects only this process.
    unsafe { libc::umask(0) };
}

/// open(2): for writing only.
pub const WRITE_ONLY: i32 = libc::O_WRONLY;
/// open(2): for reading and writing.
pub const READ_WRITE: i32 = libc::O_RDWR;
/// open(2): a place in the tree, not its content.
pub const PATH_ONLY: i32 = libc::O_PATH;
