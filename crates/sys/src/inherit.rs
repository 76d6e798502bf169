//! Descriptors that cross an exec.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::SysError;

fn flags(fd: RawFd) -> Result<i32, SysError> {
    // SAFETY: F_GETFD takes no argument and reads the flags of a number; a number that is not open
    // is answered with EBADF.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(SysError::last("fcntl(F_GETFD)")),
        flags => Ok(flags),
    }
}

fn set_flags(fd: RawFd, flags: i32) -> Result<(), SysError> {
    // SAFETY: F_SETFD takes an integer and changes the flags of a number, no memory.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } {
        -1 => Err(SysError::last("fcntl(F_SETFD)")),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd, os::fd::IntoRawFd};

    use super::*;

    #[test]
    fn only_an_inherited_descriptor_is_adopted_and_only_once() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(adopt(file.as_raw_fd()).unwrap_err().errno, libc::EBUSY);

        leave_open(file.as_fd()).unwrap();
        let number = file.into_raw_fd();
        let owned = adopt(number).unwrap();
        assert_eq!(adopt(number).unwrap_err().errno, libc::EBUSY);

        drop(owned);
        assert_eq!(adopt(number).unwrap_err().errno, libc::EBADF);
    }
}
