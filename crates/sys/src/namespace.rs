//! Namespaces.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::error::{SysError, check};

/// A set of namespaces, as `CLONE_NEW*` flags. namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    /// User and group ids, and the owner of all others.
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// Mounts, cgroup root, host name, System V IPC and message queues, network, process ids and
    /// clocks. The last two take effect for children only.
    pub const ALL_BUT_USER: Self = Self(
        libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWTIME,
    );
}

/// Moves the calling process into new namespaces. *After fork.*
///
/// # Errors
/// As unshare(2); time namespaces need Linux 5.6.
pub fn unshare(namespaces: Namespaces) -> Result<(), SysError> {
    // SAFETY: unshare takes flags; none of those above share or unshare memory.
    let ret = unsafe { libc::unshare(namespaces.0) };
    check("unshare", ret).map(drop)
}

/// Moves the calling thread into the network namespace that `namespace` refers to.
///
/// # Errors
/// As setns(2): `EINVAL` for a descriptor of something else, `EPERM` without privilege over it.
pub fn join_network(namespace: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: setns takes a descriptor, which is open, and a number.
    let ret = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    check("setns", ret).map(drop)
}

/// Moves the calling thread into the uts namespace, which has a host name, that `namespace` refers to.
///
/// # Errors
/// As [`join_network`].
pub fn join_uts(namespace: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: setns takes a descriptor, which is open, and a number.
    let ret = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUTS) };
    check("setns", ret).map(drop)
}

/// Sets the host name of the calling process's uts namespace. *After fork.*
///
/// # Errors
/// As sethostname(2).
pub fn set_hostname(name: &CStr) -> Result<(), SysError> {
    // SAFETY: the pointer and the length are those of `name`.
    let ret = unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) };
    check("sethostname", ret).map(drop)
}
