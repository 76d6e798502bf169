//! What the kernel refused.

use std::io;

/// A kernel call that failed. Made of a static text and a number, so that it can be made and
/// reported after fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", io::Error::from_raw_os_error(*errno))]
pub struct SysError {
    /// The call, and what it was made on where that is not plain.
    pub call: &'static str,
    /// The kernel's answer, errno(3).
    pub errno: i32,
}

impl SysError {
    /// The failure the calling thread just met in `call`.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Self { call, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }
}

impl From<SysError> for io::Error {
    fn from(error: SysError) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}

/// Turns the kernel's "negative means errno" into a result.
pub(crate) fn check<T: PartialOrd + Default>(call: &'static str, ret: T) -> Result<T, SysError> {
    if ret < T::default() { Err(SysError::last(call)) } else { Ok(ret) }
}

/// The same for the variadic `syscall`, whose results are descriptors, ids or zero.
pub(crate) fn check_small(call: &'static str, ret: libc::c_long) -> Result<i32, SysError> {
    check(call, ret).map(|value| i32::try_from(value).unwrap_or(i32::MAX))
}
