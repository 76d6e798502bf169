//! Descriptors: their numbers, and which of them cross an exec.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{SysError, check, check_small};

/// Takes ownership of a descriptor the kernel has just returned.
pub(crate) fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: every caller passes the non-negative result of a call that makes a new descriptor,
    // which nothing else knows yet.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Takes ownership of an inherited descriptor and makes it close-on-exec.
///
/// What crossed an exec is not close-on-exec, and everything that std and this crate open is; so
/// a descriptor somebody in this process owns already, one adopted before included, is refused.
///
/// # Errors
/// `EBADF` when the number is not open, `EBUSY` when it was not inherited.
pub fn adopt(fd: RawFd) -> Result<OwnedFd, SysError> {
    if flags(fd)? & libc::FD_CLOEXEC != 0 {
        return Err(SysError { call: "adopt", errno: libc::EBUSY });
    }
    set_flags(fd, libc::FD_CLOEXEC)?;
    // SAFETY: the number is open (F_GETFD answered), and nobody in this process owns it: it was not
    // close-on-exec until the line above, so it was neither opened here nor adopted before.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets `fd` cross the next exec, and returns its number.
///
/// # Errors
/// None that an open descriptor can cause.
pub fn leave_open(fd: BorrowedFd<'_>) -> Result<RawFd, SysError> {
    set_flags(fd.as_raw_fd(), 0)?;
    Ok(fd.as_raw_fd())
}

fn flags(fd: RawFd) -> Result<i32, SysError> {
    // SAFETY: F_GETFD takes no argument and reads the flags of a number; a number that is not open
    // is answered with EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    check("fcntl(F_GETFD)", flags)
}

fn set_flags(fd: RawFd, flags: i32) -> Result<(), SysError> {
    // SAFETY: F_SETFD takes an integer and changes the flags of a number, no memory.
    let ret = unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    check("fcntl(F_SETFD)", ret).map(drop)
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

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd, os::fd::IntoRawFd};

    use super::*;

    /// The kernel gives out the lowest free number, so no other test gets one this high.
    const OUT_OF_THE_WAY: RawFd = 900;

    #[test]
    fn only_an_inherited_descriptor_is_adopted_and_only_once() {
        let file = File::open("/dev/null").unwrap();
        let fd = duplicate_above(file.as_fd(), OUT_OF_THE_WAY).unwrap();
        assert_eq!(adopt(fd.as_raw_fd()).unwrap_err().errno, libc::EBUSY);

        leave_open(fd.as_fd()).unwrap();
        let number = fd.into_raw_fd();
        let owned = adopt(number).unwrap();
        assert_eq!(adopt(number).unwrap_err().errno, libc::EBUSY);

        drop(owned);
        assert_eq!(adopt(number).unwrap_err().errno, libc::EBADF);
    }
}
