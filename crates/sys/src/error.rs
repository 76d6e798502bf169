//! The error of every kernel call.

/// A kernel call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct SysError {
    /// The call.
    pub call: &'static str,
    /// The kernel's answer.
    pub errno: i32,
}

impl SysError {
    /// The calling thread's errno, left there by `call`, which has just failed.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Self { call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or_default() }
    }
}
