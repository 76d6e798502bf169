//! The state of a descriptor, now.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::SysError;

/// True when `fd` has nothing to read and its peer has not hung up. Does not wait.
///
/// # Errors
/// `ENOMEM`; `EINTR` cannot happen, because nothing is waited for.
///
/// Source: `poll(2)`.
pub fn is_quiet(fd: BorrowedFd<'_>) -> Result<bool, SysError> {
    let mut poll =
        libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
    // SAFETY: the pointer is to exactly one pollfd that outlives the call, as the count says; the
    // descriptor is open while borrowed.
    match unsafe { libc::poll(&raw mut poll, 1, 0) } {
        0 => Ok(true),
        1.. => Ok(false),
        _ => Err(SysError::last("poll")),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn data_and_a_hang_up_both_end_the_quiet() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_quiet(ours.as_fd()).unwrap());
        theirs.write_all(b"x").unwrap();
        assert!(!is_quiet(ours.as_fd()).unwrap());

        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(!is_quiet(ours.as_fd()).unwrap());
    }
}
