//! Clocks that count from the machine's start. `clock_gettime(2)`.

use crate::error::{SysError, check};

/// A clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Counts while the machine is awake.
    Monotonic,
    /// Counts also while it sleeps.
    BootTime,
}

/// Whole seconds that `clock` shows in the caller's time namespace.
///
/// # Errors
/// Never on Linux, which has both.
pub fn seconds(clock: Clock) -> Result<i64, SysError> {
    let id = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::BootTime => libc::CLOCK_BOOTTIME,
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the kernel to write.
    let ret = unsafe { libc::clock_gettime(id, &raw mut now) };
    check("clock_gettime", ret).map(|_| now.tv_sec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_up_for_longer_than_it_was_awake() {
        let awake = seconds(Clock::Monotonic).unwrap();
        assert!(awake > 0 && awake <= seconds(Clock::BootTime).unwrap());
    }
}
