//! Descriptors of processes: unlike a number, they never come to mean another process.

use std::os::fd::OwnedFd;

use crate::{
    error::{SysError, check_small},
    fd::own,
};

/// Opens the process `pid`; the descriptor is readable once the process has ended.
///
/// # Errors
/// `ESRCH` when there is no such process, `EINVAL` when `pid` is not positive or names a thread
/// that leads no group.
///
/// Source: `pidfd_open(2)`, Linux 5.3.
pub fn open(pid: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: the call takes two integers and touches no memory of ours; flags 0 is always valid,
    // and the descriptor is close-on-exec by itself (man page, NOTES).
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check_small("pidfd_open", ret).map(own)
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, process::Command};

    use super::*;
    use crate::poll::wait_readable;

    #[test]
    fn a_pidfd_turns_readable_when_its_process_ends() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!wait_readable(pidfd.as_fd(), 0).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(wait_readable(pidfd.as_fd(), 0).unwrap());
    }

    #[test]
    fn no_process_has_a_negative_id() {
        assert_eq!(open(-1).unwrap_err().errno, libc::EINVAL);
    }
}
