//! What the kernel says about a whole file system, statfs(2).

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::error::{SysError, check};

/// A file system, as far as its use goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Which kind: a number from linux/magic.h.
    pub magic: u64,
    /// Bytes in all; 0 where the file system does not count them.
    pub bytes: u64,
    /// Bytes that may still be written without what is kept for root.
    pub free_bytes: u64,
    /// Files there can be in all; 0 where the file system does not count them.
    pub files: u64,
    /// Files that may still be made; 0 also where the file system does not count them.
    pub free_files: u64,
}

impl FileSystem {
    /// True for procfs.
    #[must_use]
    pub fn is_proc(&self) -> bool {
        self.magic == libc::PROC_SUPER_MAGIC.cast_unsigned()
    }

    /// True for btrfs.
    #[must_use]
    pub fn is_btrfs(&self) -> bool {
        self.magic == libc::BTRFS_SUPER_MAGIC.cast_unsigned()
    }

    /// True when an unprivileged process can get no block, or nobody an inode.
    #[must_use]
    pub fn is_full(&self) -> bool {
        (self.bytes > 0 && self.free_bytes == 0) || (self.files > 0 && self.free_files == 0)
    }

    fn of_answer(answer: &libc::statfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(answer.f_bsize.cast_unsigned());
        Self {
            magic: answer.f_type.cast_unsigned(),
            bytes: bytes(answer.f_blocks),
            free_bytes: bytes(answer.f_bavail),
            files: answer.f_files,
            free_files: answer.f_ffree,
        }
    }
}

/// The file system that the open file `fd` lies on.
///
/// # Errors
/// As fstatfs(2).
pub fn of(fd: BorrowedFd<'_>) -> Result<FileSystem, SysError> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the structure is writable and lives across the call; `fd` is open while borrowed.
    let ret = unsafe { libc::fstatfs(fd.as_raw_fd(), answer.as_mut_ptr()) };
    check("fstatfs", ret)?;
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    Ok(FileSystem::of_answer(&unsafe { answer.assume_init() }))
}

/// The file system that the file at `path` lies on.
///
/// # Errors
/// As statfs(2).
pub fn at(path: &CStr) -> Result<FileSystem, SysError> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` is a valid C string; the structure is writable and lives across the call.
    let ret = unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) };
    check("statfs", ret)?;
    // SAFETY: integers only; zeroed, and filled in by the call that succeeded.
    Ok(FileSystem::of_answer(&unsafe { answer.assume_init() }))
}

/// Waits until everything that was written to the file system of `fd` is on disk.
///
/// # Errors
/// As syncfs(2).
pub fn sync(fd: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: takes a descriptor.
    let ret = unsafe { libc::syncfs(fd.as_raw_fd()) };
    check("syncfs", ret).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_file_system_is_known_by_its_number() {
        let status = File::open("/proc/self/status").unwrap();
        assert!(of(status.as_fd()).unwrap().is_proc());
        assert!(at(c"/proc").unwrap().is_proc());
        assert!(!at(c"/proc/self/exe").unwrap().is_proc());
        assert_eq!(at(c"/none/such").unwrap_err().errno, libc::ENOENT);
    }

    #[test]
    fn what_is_not_counted_is_not_full() {
        let none = FileSystem { magic: 1, bytes: 0, free_bytes: 0, files: 0, free_files: 0 };
        assert!(!none.is_full());
        assert!(FileSystem { bytes: 1, ..none }.is_full());
        assert!(FileSystem { files: 1, ..none }.is_full());
        assert!(!FileSystem { files: 1, free_files: 1, ..none }.is_full());
    }
}
