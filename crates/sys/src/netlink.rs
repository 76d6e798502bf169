//! Netlink sockets, netlink(7): bytes in, bytes out.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// A part of the kernel that speaks netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family(libc::c_int);

impl Family {
    /// Links, addresses and routes, rtnetlink(7).
    pub const ROUTE: Self = Self(libc::NETLINK_ROUTE);
    /// Firewall rules and tracked connections.
    pub const NETFILTER: Self = Self(libc::NETLINK_NETFILTER);
}

/// A socket to this part of the kernel, about the calling process's network namespace. *After fork.*
///
/// # Errors
/// As socket(2); `EPROTONOSUPPORT` when the kernel has no such part.
pub fn open(family: Family) -> Result<OwnedFd, SysError> {
    // SAFETY: socket takes three numbers.
    let ret =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, family.0) };
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

/// As [`receive`], and does not wait.
///
/// # Errors
/// As recv(2): `EAGAIN` when there is nothing, `ENOBUFS` once when some was lost for want of room.
pub fn receive_now(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize, SysError> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the pointer and length describe `bytes`, which the kernel may write.
    let ret =
        unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) };
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
