//! A routing netlink socket, rtnetlink(7): bytes in, bytes out.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// A socket to the routing part of the calling process's network namespace. *After fork.*
///
/// # Errors
/// As socket(2).
pub fn open() -> Result<OwnedFd, SysError> {
    // SAFETY: socket takes three numbers.
    let ret = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    };
    check("socket(AF_NETLINK)", ret).map(own)
}

/// Sends messages to the kernel. *After fork.*
///
/// # Errors
/// As send(2).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), SysError> {
    // SAFETY: the pointer and length describe `bytes`.
    let ret = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    check("send(AF_NETLINK)", ret).map(drop)
}

/// Receives one datagram of answers. *After fork.*
///
/// # Errors
/// As recv(2).
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize, SysError> {
    // SAFETY: the pointer and length describe `bytes`, which the kernel may write.
    let ret = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    check("recv(AF_NETLINK)", ret).map(|n| usize::try_from(n).unwrap_or_default())
}

/// The index of the network link `name`.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn link_index(name: &CStr) -> Result<u32, SysError> {
    // SAFETY: `name` is a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(SysError::last("if_nametoindex")) } else { Ok(index) }
}
