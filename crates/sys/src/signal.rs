//! Signals: sending them, and what this process does when they come.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::error::{SysError, check, check_small};

pub use libc::{SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM};

/// Highest signal number, signal(7).
pub(crate) const LAST: i32 = 64;

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
    check_small("pidfd_send_signal", sent).map(drop)
}

/// Lets the kernel reap this process's children by itself.
///
/// # Errors
/// As signal(2).
pub fn ignore_children() -> Result<(), SysError> {
    // SAFETY: SIG_IGN is a valid disposition and installs no handler code.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if old == libc::SIG_ERR { Err(SysError::last("signal(SIGCHLD)")) } else { Ok(()) }
}

/// Gives `signal` its default disposition again: ignored signals stay ignored across exec, and
/// Rust ignores SIGPIPE. *After fork.*
///
/// # Errors
/// `EINVAL` for KILL and STOP, which have no other, and for what is no signal.
pub fn default_action(signal: i32) -> Result<(), SysError> {
    // The kernel's struct sigaction: handler, flags, restorer, mask; all zero is SIG_DFL. The bare
    // call, because the C library refuses signals 32 and 33.
    let default = [0_u64; 4];
    let none: *const u64 = ptr::null();
    let mask_bytes: libc::size_t = 8;
    // SAFETY: the action is readable and of the kernel's size on 64-bit machines, and installs no
    // handler code; the old action is not asked for.
    let ret = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, mask_bytes)
    };
    check_small("rt_sigaction", ret).map(drop)
}

/// Lets every signal through to the calling thread. *After fork.*
///
/// # Errors
/// None but those a wrong call would cause.
pub(crate) fn unblock_all() -> Result<(), SysError> {
    // SAFETY: a signal set is integers; zero is the empty set on Linux.
    let none = unsafe { MaybeUninit::<libc::sigset_t>::zeroed().assume_init() };
    // SAFETY: the set is readable; no old set is asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
    check("sigprocmask", ret).map(drop)
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
