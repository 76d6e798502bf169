//! Descriptors.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{SysError, check, check_small};

/// Takes ownership of a descriptor the kernel has just returned.
pub(crate) fn own(raw: i32) -> OwnedFd {
    // SAFETY: every caller passes the non-negative result of a call that makes a new descriptor,
    // which nothing else knows yet.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Takes ownership of a descriptor inherited across exec, by its number.
///
/// # Errors
/// `EBADF` when nothing is open under that number.
///
/// # Safety contract of the caller
/// Called once per number, at process start, for numbers that the parent left open on purpose.
pub fn adopt(raw: RawFd) -> Result<OwnedFd, SysError> {
    // SAFETY: F_GETFD takes no pointer and changes nothing; a bad number is answered with EBADF.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    check("fcntl(F_GETFD) on an inherited descriptor", flags)?;
    Ok(own(raw))
}

/// Makes `target` refer to what `fd` refers to, open across exec. *After fork.*
///
/// # Errors
/// As dup3(2).
pub fn inherit_as(fd: BorrowedFd<'_>, target: RawFd) -> Result<(), SysError> {
    // SAFETY: dup2 takes two numbers. The caller runs between fork and exec, where no owned
    // descriptor object is used again after this, so replacing `target` invalidates nothing.
    let ret = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    check("dup2", ret).map(drop)
}

/// A duplicate of `fd` with a number of at least `least`, closed on exec. *After fork.*
///
/// # Errors
/// As fcntl(2), `F_DUPFD_CLOEXEC`.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd, SysError> {
    // SAFETY: F_DUPFD_CLOEXEC takes two numbers and makes a new descriptor.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    check("fcntl(F_DUPFD_CLOEXEC)", ret).map(own)
}

/// Marks every descriptor from `first` on as closed on exec. *After fork.*
///
/// # Errors
/// As `close_range(2)`, Linux 5.11.
pub fn close_on_exec_from(first: RawFd) -> Result<(), SysError> {
    // SAFETY: close_range with CLOEXEC closes nothing now, so no owned descriptor is invalidated.
    let ret = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    check_small("close_range", ret).map(drop)
}

/// Waits until `fd` is readable (or its peer is gone) or `timeout_ms` have passed; true when it is.
///
/// # Errors
/// As poll(2); an interruption counts as "not yet".
pub fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool, SysError> {
    poll(fd, libc::POLLIN, timeout_ms)
}

/// Waits for a change of a cgroup's event file (`POLLPRI`), as [`wait_readable`] does for data.
///
/// # Errors
/// As poll(2).
pub fn wait_priority(fd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool, SysError> {
    poll(fd, libc::POLLPRI, timeout_ms)
}

fn poll(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> Result<bool, SysError> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `entry` is one valid pollfd that lives through the call, and the count is 1.
    let ret = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    match check("poll", ret) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.errno == libc::EINTR => Ok(false),
        Err(error) => Err(error),
    }
}
