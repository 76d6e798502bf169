//! Files that exist in memory only and, once sealed, change no more.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// An empty memory file that can be sealed and, with `executable`, run.
///
/// # Errors
/// As `memfd_create`(2); `EACCES` where `vm.memfd_noexec` forbids executable memory files.
pub fn create(name: &CStr, executable: bool) -> Result<OwnedFd, SysError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    if executable {
        // Linux 6.3 wants the intention said; older kernels do not know the flag.
        match create_with(name, flags | MFD_EXEC) {
            Err(error) if error.errno == libc::EINVAL => {}
            other => return other,
        }
    }
    create_with(name, flags)
}

fn create_with(name: &CStr, flags: libc::c_uint) -> Result<OwnedFd, SysError> {
    // SAFETY: `name` is a valid C string for the length of the call.
    let ret = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    check("memfd_create", ret).map(own)
}

/// linux/memfd.h
const MFD_EXEC: libc::c_uint = 0x10;

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

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_sealed_file_refuses_change() {
        let mut file = File::from(create(c"test", false).unwrap());
        file.write_all(b"content").unwrap();
        seal(file.as_fd()).unwrap();
        assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(seal(file.as_fd()).unwrap_err().errno, libc::EPERM);
    }

    #[test]
    fn only_a_memory_file_can_be_sealed() {
        let device = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(seal(device.as_fd()).unwrap_err().errno, libc::EINVAL);
    }
}
