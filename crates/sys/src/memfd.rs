//! Files that live in memory only, and seals on them.

use std::{
    ffi::CStr,
    fs::File,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd},
};

use crate::SysError;

/// Makes an empty anonymous file that can be sealed. `name` appears in /proc only.
///
/// # Errors
/// `ENOMEM`, `EMFILE`, `ENFILE`.
///
/// Source: `memfd_create(2)`, Linux 3.17.
pub fn create(name: &CStr) -> Result<File, SysError> {
    // SAFETY: `name` is a valid NUL-terminated string for the whole call, which only reads it.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(SysError::last("memfd_create"));
    }
    // SAFETY: the kernel has just returned this descriptor to us; nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Makes the content and size of a memfd final, for everybody and for ever, seals included.
///
/// # Errors
/// `EBUSY` when a writable mapping exists, `EPERM` when seals are sealed already or `fd` is not
/// open for writing, `EINVAL` when it is not a memfd.
///
/// Source: `fcntl(2)`, `F_ADD_SEALS`, Linux 3.17.
pub fn seal(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: `fd` is open while borrowed, and F_ADD_SEALS takes an int, as passed; it touches no
    // memory of ours.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(SysError::last("fcntl(F_ADD_SEALS)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_sealed_file_refuses_change() {
        let mut file = create(c"test").unwrap();
        file.write_all(b"content").unwrap();
        seal(file.as_fd()).unwrap();
        assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(seal(file.as_fd()).unwrap_err().errno, libc::EPERM);
    }

    #[test]
    fn only_a_memfd_can_be_sealed() {
        let device = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(seal(device.as_fd()).unwrap_err().errno, libc::EINVAL);
    }
}
