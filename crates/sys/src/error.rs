//! A kernel call that failed.

/// A kernel call and the kernel's answer; made of integers and constants, so that it can be made
/// and passed on after fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct SysError {
    /// Which call.
    pub call: &'static str,
    /// The kernel's answer, errno(3).
    pub errno: i32,
}

impl SysError {
    /// The error of the call that this thread made last.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self { call, errno }
    }
}
