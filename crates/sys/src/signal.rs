//! Signals to processes.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::SysError;

pub use libc::{SIGKILL, SIGSTOP, SIGTERM};

/// Sends `signal` to the process of a pidfd.
///
/// # Errors
/// `ESRCH` when it has ended and was waited for, `EPERM` when this process may not.
///
/// Source: `pidfd_send_signal(2)`, Linux 5.1.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), SysError> {
    let info: *const libc::siginfo_t = ptr::null();
    // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does; the rest are integers;
    // the pidfd is open while borrowed.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0_u32)
    };
    if sent == -1 { Err(SysError::last("pidfd_send_signal")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, os::unix::process::ExitStatusExt, process::Command};

    use super::*;
    use crate::pidfd;

    #[test]
    fn a_signal_reaches_its_process_and_none_after_its_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();

        send(pidfd.as_fd(), SIGTERM).unwrap();

        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        assert_eq!(send(pidfd.as_fd(), SIGTERM).unwrap_err().errno, libc::ESRCH);
    }
}
