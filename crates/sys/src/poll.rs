//! Waiting until something happens to a descriptor.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{SysError, check};

/// Waits until `fd` is readable (or its peer is gone) or `timeout_ms` have passed, 0 for not
/// waiting and -1 for ever; true when it is.
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

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn data_and_a_hang_up_both_make_readable() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!wait_readable(ours.as_fd(), 0).unwrap());
        theirs.write_all(b"x").unwrap();
        assert!(wait_readable(ours.as_fd(), 0).unwrap());

        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(wait_readable(ours.as_fd(), 0).unwrap());
    }
}
