//! Questions to the kernel that only a look at what the machine can do asks.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::error::{SysError, check};

/// A file system, as far as its use as a state directory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Which kind: a number from linux/magic.h.
    pub magic: u64,
    /// Bytes that may still be written without what is kept for root.
    pub free_bytes: u64,
    /// Files that may still be made; 0 also where the file system does not count them.
    pub free_files: u64,
    /// Files there can be in all; 0 where the file system does not count them.
    pub files: u64,
}

/// The file system that `path` lies on. statfs(2).
///
/// # Errors
/// As statfs(2).
pub fn file_system(path: &CStr) -> Result<FileSystem, SysError> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` ends with a zero byte; the kernel writes one `struct statfs` to `answer`,
    // which is live, aligned and of exactly that type.
    let result = unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) };
    check("statfs", result)?;
    // SAFETY: `struct statfs` is integers only, so the zeroes it was made of are a value of it,
    // whatever the kernel wrote over them.
    let answer = unsafe { answer.assume_init() };
    Ok(FileSystem {
        magic: answer.f_type.cast_unsigned(),
        free_bytes: answer.f_bavail.saturating_mul(answer.f_bsize.cast_unsigned()),
        free_files: answer.f_ffree,
        files: answer.f_files,
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

/// Waits until the child behind `pidfd` has ended, and reaps it. waitid(2) with `P_PIDFD`.
///
/// # Errors
/// `ECHILD` for a process that is not, or no longer, a child of this one.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = pidfd.as_raw_fd().cast_unsigned();
    // SAFETY: the kernel writes one `siginfo_t` to `info`, which is live and of that type; it is
    // never read. Only this child is reaped, which nobody else holds a handle to wait on.
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), libc::WEXITED) };
    check("waitid", result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::process::{self, Fork};

    /// `PROC_SUPER_MAGIC`, linux/magic.h.
    const PROC: u64 = 0x9fa0;

    #[test]
    fn a_file_system_is_known_by_its_number() {
        assert_eq!(file_system(c"/proc").map(|answer| answer.magic), Ok(PROC));
        assert_eq!(file_system(c"/none/such").map_err(|error| error.errno), Err(libc::ENOENT));
    }

    #[test]
    fn attributes_are_refused_where_there_are_none() {
        let answer = set_attribute(c"/proc/self/status", c"user.sandbar", b"1");
        assert!(answer.is_err());
    }

    #[test]
    fn a_child_is_reaped_once() {
        match process::fork(None, false).expect("a process more") {
            Fork::Child => process::exit(0),
            Fork::Parent { pid: _, pidfd } => {
                assert_eq!(reap(pidfd.as_fd()), Ok(()));
                assert_eq!(reap(pidfd.as_fd()).map_err(|error| error.errno), Err(libc::ECHILD));
            }
        }
    }
}
