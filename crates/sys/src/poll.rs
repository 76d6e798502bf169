//! Waiting until something happens to a descriptor.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use crate::error::{SysError, check};

/// Waits until `fd` is readable (or its peer is gone) or `timeout_ms` have passed, 0 for not
/// waiting and -1 for ever; true when it is. Signals do not shorten the wait.
///
/// # Errors
/// As poll(2), but for `EINTR`.
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
    let limit = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0);
    let deadline = limit.map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut left_ms = timeout_ms;
    loop {
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        // SAFETY: `entry` is one valid pollfd that lives through the call, and the count is 1.
        let ret = unsafe { libc::poll(&raw mut entry, 1, left_ms) };
        match check("poll", ret) {
            Err(error) if error.errno == libc::EINTR => {}
            ready => return Ok(ready? > 0),
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            left_ms = i32::try_from(left).unwrap_or(timeout_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::{fd::AsFd, unix::net::UnixStream, unix::thread::JoinHandleExt},
        sync::{
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    #[test]
    fn a_signal_does_not_end_the_wait() {
        static IS_HANDLED: AtomicBool = AtomicBool::new(false);
        extern "C" fn handle(_: libc::c_int) {
            IS_HANDLED.store(true, Ordering::Relaxed);
        }
        let handler = handle as extern "C" fn(libc::c_int);
        // SAFETY: the handler stores to an atomic, which it may at any time.
        unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            // SAFETY: gettid takes nothing.
            tell.send(unsafe { libc::gettid() }).unwrap();
            wait_readable(ours.as_fd(), 60_000)
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
        while !fs::read_to_string(&stat).unwrap().contains(") S ") {
            thread::yield_now();
        }
        // SAFETY: the thread has not been joined.
        unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR2) };
        while !IS_HANDLED.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        theirs.write_all(b"x").unwrap();
        assert!(waiting.join().unwrap().unwrap());
    }

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
