//! The only unsafe code of Sandbar: one kernel call per function, nothing else.
//!
//! Knows no sandboxes and no policy. Descriptors are owned or borrowed types; every descriptor
//! made here is close-on-exec; an error names the call.

#![expect(unsafe_code, reason = "kernel calls without a safe wrapper in std live here")]

pub mod dir;
pub mod error;
pub mod inherit;
pub mod malloc;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod prctl;
pub mod signal;
pub mod spawn;
pub mod wait;

pub use error::SysError;

/// Error numbers, errno(3), for callers that decide by them.
pub mod errno {
    pub use libc::{
        E2BIG, EACCES, EAGAIN, EBADF, EBUSY, EDQUOT, EEXIST, EFBIG, EINVAL, EIO, EISDIR, ELOOP,
        EMFILE, ENAMETOOLONG, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOEXEC, ENOMEM, ENOSPC, ENOSYS,
        ENOTDIR, ENOTEMPTY, ENXIO, EPERM, EROFS, ESRCH, ETXTBSY, EXDEV,
    };
}
