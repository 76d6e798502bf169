//! Limits of one process, getrlimit(2).

use crate::error::{SysError, check};

/// A limit of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of a core file.
    CoreBytes,
    /// Open descriptors.
    OpenFiles,
    /// Signals and POSIX timers that wait, of all processes of the user.
    PendingSignals,
    /// Bytes locked into memory.
    LockedBytes,
    /// Bytes of POSIX message queues of the user.
    QueueBytes,
}

/// Lowers (or, below the hard limit, sets) both the soft and the hard value. A value over the
/// present hard limit becomes that limit, because raising it takes `CAP_SYS_RESOURCE`.
/// *After fork.*
///
/// # Errors
/// As prlimit(2).
pub fn set_limit(limit: Limit, value: u64) -> Result<(), SysError> {
    let resource = match limit {
        Limit::CoreBytes => libc::RLIMIT_CORE,
        Limit::OpenFiles => libc::RLIMIT_NOFILE,
        Limit::PendingSignals => libc::RLIMIT_SIGPENDING,
        Limit::LockedBytes => libc::RLIMIT_MEMLOCK,
        Limit::QueueBytes => libc::RLIMIT_MSGQUEUE,
    };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` is a valid rlimit for the kernel to write.
    let ret = unsafe { libc::getrlimit(resource, &raw mut now) };
    check("getrlimit", ret)?;
    let value = value.min(now.rlim_max);
    let wanted = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `wanted` is a valid rlimit for the kernel to read.
    let ret = unsafe { libc::setrlimit(resource, &raw const wanted) };
    check("setrlimit", ret).map(drop)
}

/// Raises this process's soft limit of open files to its hard limit, and returns it.
///
/// # Errors
/// As prlimit(2).
pub fn raise_open_files() -> Result<u64, SysError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to write.
    let ret = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    check("getrlimit", ret)?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit for the kernel to read.
    let ret = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    check("setrlimit", ret).map(|_| limit.rlim_max)
}
