//! What the kernel says about a whole file system, statfs(2).
//!
//! The kernel says it to this process also where others are answered by
//! [`listener`](crate::seccomp::listener).

use std::{
    ffi::CStr,
    mem::offset_of,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::{
    error::{SysError, check},
    seccomp::listener::UNASKED,
};

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
}

/// Words of a [`Told`].
const WORDS: usize = 15;

/// What the kernel says, whole, in the form in which it says it: `struct statfs`, of which every field
/// fills a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told([u64; WORDS]);

const MAGIC: usize = 0;
const BLOCK_BYTES: usize = 1;
const BLOCKS: usize = 2;
const FREE: usize = 3;
const AVAILABLE: usize = 4;
const FILES: usize = 5;
const FREE_FILES: usize = 6;
const ID: usize = 7;

const _: () = {
    assert!(size_of::<libc::statfs>() == WORDS * 8);
    assert!(offset_of!(libc::statfs, f_type) == MAGIC * 8);
    assert!(offset_of!(libc::statfs, f_bsize) == BLOCK_BYTES * 8);
    assert!(offset_of!(libc::statfs, f_blocks) == BLOCKS * 8);
    assert!(offset_of!(libc::statfs, f_bfree) == FREE * 8);
    assert!(offset_of!(libc::statfs, f_bavail) == AVAILABLE * 8);
    assert!(offset_of!(libc::statfs, f_files) == FILES * 8);
    assert!(offset_of!(libc::statfs, f_ffree) == FREE_FILES * 8);
    assert!(offset_of!(libc::statfs, f_fsid) == ID * 8);
};

impl Told {
    /// Bytes of it.
    pub const BYTES: usize = WORDS * 8;

    /// Kind and number of the file system: two with the same are one.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.0[MAGIC], self.0[ID])
    }

    /// The same of a part that has `size` bytes in all, of which `left` are not used. What may be had
    /// of those is no more than of the whole.
    #[must_use]
    pub fn narrowed(mut self, size: u64, left: u64) -> Self {
        let blocks = |bytes: u64| bytes / self.0[BLOCK_BYTES].max(1);
        let (size, left) = (blocks(size), blocks(left));
        self.0[AVAILABLE] = self.0[AVAILABLE].min(left);
        (self.0[BLOCKS], self.0[FREE]) = (size, left);
        self
    }

    /// As a caller of statfs(2) finds it in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn summary(&self) -> FileSystem {
        let bytes = |blocks: u64| blocks.saturating_mul(self.0[BLOCK_BYTES]);
        FileSystem {
            magic: self.0[MAGIC],
            bytes: bytes(self.0[BLOCKS]),
            free_bytes: bytes(self.0[AVAILABLE]),
            files: self.0[FILES],
            free_files: self.0[FREE_FILES],
        }
    }
}

/// What the kernel says about the file system that the open file `fd` lies on.
///
/// # Errors
/// As fstatfs(2).
pub fn told(fd: BorrowedFd<'_>) -> Result<Told, SysError> {
    let mut words = [0; WORDS];
    let answer: *mut u64 = words.as_mut_ptr();
    // SAFETY: the kernel writes one statfs to the pointer, which is to that many bytes that live across
    // the call, aligned as its words are, and any bytes are integers; it does not look at the third
    // argument. `fd` is open while borrowed.
    let ret = unsafe { libc::syscall(libc::SYS_fstatfs, fd.as_raw_fd(), answer, UNASKED) };
    check("fstatfs", ret).map(|_| Told(words))
}

/// The file system that the open file `fd` lies on.
///
/// # Errors
/// As fstatfs(2).
pub fn of(fd: BorrowedFd<'_>) -> Result<FileSystem, SysError> {
    told(fd).map(|told| told.summary())
}

/// The file system that the file at `path` lies on.
///
/// # Errors
/// As statfs(2).
pub fn at(path: &CStr) -> Result<FileSystem, SysError> {
    let mut words = [0; WORDS];
    let answer: *mut u64 = words.as_mut_ptr();
    // SAFETY: `path` is a valid C string; the rest as in `told`.
    let ret = unsafe { libc::syscall(libc::SYS_statfs, path.as_ptr(), answer, UNASKED) };
    check("statfs", ret).map(|_| Told(words).summary())
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
    fn a_part_has_no_more_to_give_than_the_whole() {
        let root = File::open("/proc").unwrap();
        let mut whole = told(root.as_fd()).unwrap();
        (whole.0[BLOCK_BYTES], whole.0[AVAILABLE]) = (4096, 10);
        let part = whole.narrowed(100 * 4096 + 1, 30 * 4096 + 4095);
        assert_eq!((part.0[BLOCKS], part.0[FREE], part.0[AVAILABLE]), (100, 30, 10));
        assert_eq!(whole.narrowed(8192, 4096).0[AVAILABLE], 1);
        assert_eq!(part.identity(), whole.identity());
        assert_eq!(part.to_bytes()[16..24], 100_u64.to_ne_bytes());
        // A file system without blocks.
        whole.0[BLOCK_BYTES] = 0;
        assert_eq!(whole.narrowed(7, 7).0[BLOCKS], 7);
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
