//! The only crate that calls the kernel directly, and so the only one with `unsafe` code.
//!
//! Rules: one kernel call per function and one `unsafe` block per call; descriptors are borrowed
//! and owned, never raw numbers, and close on exec; no policy, no loops over business data, no
//! logging. A function exists here because `std` lacks it.
//!
//! Functions marked *after fork* neither allocate nor lock, so they may run between fork and exec.

#![warn(missing_docs)]
#![expect(unsafe_code, reason = "the only crate that calls the kernel")]

pub mod bpf;
pub mod btrfs;
pub mod clock;
pub mod cpu;
pub mod credentials;
pub mod error;
pub mod fd;
pub mod file;
pub mod file_system;
pub mod inotify;
pub mod landlock;
pub mod large_pages;
pub mod limits;
pub mod loop_device;
pub mod malloc;
pub mod memfd;
pub mod memory_map;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod pty;
pub mod resume;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod wait;

pub use error::SysError;

/// Error numbers, errno(3), for callers that decide by them.
pub mod errno {
    pub use libc::{
        E2BIG, EACCES, EAFNOSUPPORT, EAGAIN, EBADF, EBUSY, ECHILD, EDQUOT, EEXIST, EFBIG, EINVAL,
        EIO, EISDIR, ELOOP, EMFILE, EMSGSIZE, ENAMETOOLONG, ENFILE, ENOBUFS, ENODATA, ENODEV,
        ENOENT, ENOEXEC, ENOMEM, ENOSPC, ENOSYS, ENOTDIR, ENOTEMPTY, ENOTTY, ENXIO, EOPNOTSUPP,
        EPERM, EROFS, ESRCH, ETXTBSY, EXDEV,
    };
}
