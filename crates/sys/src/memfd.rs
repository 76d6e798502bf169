//! Files that exist in memory only and, once sealed, change no more.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// An empty memory file that can be sealed.
///
/// # Errors
/// As `memfd_create(2)`.
pub fn create(name: &CStr) -> Result<OwnedFd, SysError> {
    // SAFETY: `name` is a valid C string for the length of the call.
    let ret =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    check("memfd_create", ret).map(own)
}

/// Seals `file` for ever: no write, no change of size, no further seal.
///
/// # Errors
/// `EBUSY` while a writable mapping exists; else as fcntl(2), `F_ADD_SEALS`.
pub fn seal(file: BorrowedFd<'_>) -> Result<(), SysError> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: F_ADD_SEALS takes a descriptor and a number.
    let ret = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    check("fcntl(F_ADD_SEALS)", ret).map(drop)
}
