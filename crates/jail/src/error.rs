//! Why a jail could not be built or taken apart.

use std::io;

use sys::SysError;

/// Why a jail could not be built or taken apart: the step, the call and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JailError {
    /// A step failed; everything done before it has been undone.
    #[error("{step}: {call}: {}", io::Error::from_raw_os_error(*errno))]
    Step {
        /// Which step.
        step: String,
        /// Which kernel call, and on what.
        call: String,
        /// The kernel's answer, errno(3).
        errno: i32,
    },
    /// The spec was refused before anything was touched.
    #[error("the specification was refused: {0}")]
    Refused(String),
    /// A process of the new jail died, hung or spoke out of turn; everything has been undone.
    #[error("entering the jail failed: {0}")]
    Entry(String),
    /// The launcher process is gone or answered nonsense.
    #[error("the launcher process is lost: {0}")]
    Lost(String),
}

impl JailError {
    /// A kernel call that failed in `step`.
    pub(crate) fn step(step: &str, error: SysError) -> Self {
        Self::Step { step: step.to_owned(), call: error.call.to_owned(), errno: error.errno }
    }

    /// A file operation that failed in `step`; an error without a number counts as `EIO`.
    pub(crate) fn io(step: &str, call: impl Into<String>, error: &io::Error) -> Self {
        /// errno(3), "input/output error": the stand-in for errors that are not the kernel's.
        const EIO: i32 = 5;
        Self::Step {
            step: step.to_owned(),
            call: call.into(),
            errno: error.raw_os_error().unwrap_or(EIO),
        }
    }
}

/// Gives kernel and file errors the step they happened in.
pub(crate) trait InStep<T> {
    /// `self`, with the name of the step.
    fn in_step(self, step: &str) -> Result<T, JailError>;
}

impl<T> InStep<T> for Result<T, SysError> {
    fn in_step(self, step: &str) -> Result<T, JailError> {
        self.map_err(|error| JailError::step(step, error))
    }
}
