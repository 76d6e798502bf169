//! Waiting for children.

use std::{mem::MaybeUninit, time::Duration};

use crate::error::{SysError, check};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It returned 0 to 255.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

/// A child that ended and has now been waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its process id, which may be another's from now on.
    pub pid: i32,
    /// How it ended.
    pub status: Status,
    /// Time on a CPU, user and system, its waited-for children included.
    pub cpu: Duration,
    /// Largest resident set of one process of those, in bytes.
    pub peak_memory_bytes: u64,
}

/// Waits for any child that has ended; none when no child has, or there is no child.
///
/// # Errors
/// None but those a wrong call would cause.
pub fn any() -> Result<Option<Ended>, SysError> {
    match wait4(-1, libc::WNOHANG) {
        Err(error) if error.errno == libc::ECHILD => Ok(None),
        other => other,
    }
}

/// Waits until the child `pid` has ended.
///
/// # Errors
/// `ECHILD` for a process that is not, or no longer, a child of this one; `EINTR` when a handler of
/// this process ran.
pub fn child(pid: i32) -> Result<Ended, SysError> {
    // Without WNOHANG, there is always an answer.
    wait4(pid, 0)?.ok_or(SysError { call: "wait4", errno: libc::ECHILD })
}

/// Source: `wait4(2)`.
fn wait4(pid: i32, options: i32) -> Result<Option<Ended>, SysError> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to writable places of the types the call fills, alive across it.
    let pid = unsafe { libc::wait4(pid, &raw mut status, options, usage.as_mut_ptr()) };
    let pid = check("wait4", pid)?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: rusage is integers only, so the zeroes it was made of are a value; the kernel has
    // overwritten them, since a child was waited for.
    let usage = unsafe { usage.assume_init() };
    let status = if libc::WIFSIGNALED(status) {
        Status::Signaled(libc::WTERMSIG(status))
    } else {
        Status::Exited(libc::WEXITSTATUS(status))
    };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_memory_bytes = u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024;
    Ok(Some(Ended { pid, status, cpu, peak_memory_bytes }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default())
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Fork};

    #[test]
    fn a_child_is_waited_for_once() {
        match process::fork(None, false).unwrap() {
            Fork::Child => process::exit(7),
            Fork::Parent { pid, pidfd: _ } => {
                let ended = child(pid).unwrap();
                assert_eq!((ended.pid, ended.status), (pid, Status::Exited(7)));
                assert_eq!(child(pid).unwrap_err().errno, libc::ECHILD);
            }
        }
    }
}
