//! A file as memory, to ask the kernel about its pages.

use std::{
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::error::{SysError, check};

/// Bytes of a large page: what one entry of the second level of page tables maps, on x86-64 and, with
/// pages of 4 KiB, on aarch64.
pub const LARGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Addresses that nothing else uses, and what was put there. Nothing is read through it.
#[derive(Debug)]
pub struct View {
    address: *mut c_void,
    bytes: usize,
}

impl View {
    /// Addresses for a file of `bytes`, wherever its large pages have to begin.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn reserve(bytes: usize) -> Result<Self, SysError> {
        let bytes = bytes.saturating_add(LARGE_PAGE_BYTES);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel finds room changes no memory that is in use.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            Err(SysError::last("mmap"))
        } else {
            Ok(Self { address, bytes })
        }
    }

    /// Puts `file` here, so that its large pages are large pages of the addresses too.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn show(&mut self, file: BorrowedFd<'_>) -> Result<(), SysError> {
        let (address, bytes) = self.aligned();
        let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: the addresses are within a mapping of this value's, which nobody reads or writes.
        let mapped = unsafe { libc::mmap(address, bytes, access, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED { Err(SysError::last("mmap")) } else { Ok(()) }
    }

    /// Has the file's whole large pages be such, for all who map it. Takes a few milliseconds per MiB
    /// where memory is in pieces.
    ///
    /// Source: `madvise(2)`, `MADV_COLLAPSE`; Linux 6.1.
    ///
    /// # Errors
    /// `EINVAL` on older kernels and where the kernel knows no large pages, `ENOMEM` and `EAGAIN`
    /// where there is no whole one to have.
    pub fn collapse(&self) -> Result<(), SysError> {
        let (address, bytes) = self.aligned();
        // SAFETY: the advice changes how memory of this value's is kept, and not what is in it.
        let ret = unsafe { libc::madvise(address, bytes, libc::MADV_COLLAPSE) };
        check("madvise(MADV_COLLAPSE)", ret).map(drop)
    }

    fn aligned(&self) -> (*mut c_void, usize) {
        let skip = self.address.addr().next_multiple_of(LARGE_PAGE_BYTES) - self.address.addr();
        (self.address.wrapping_byte_add(skip), self.bytes - LARGE_PAGE_BYTES)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing refers to what is in it.
        let ret = unsafe { libc::munmap(self.address, self.bytes) };
        debug_assert_eq!(ret, 0, "a mapping of one's own can be taken away");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::fd::AsFd, os::unix::fs::FileExt};

    use super::*;
    use crate::memfd;

    /// Bytes of the process's memory that are shared and in large pages.
    fn large_kib() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = rollup.lines().find(|line| line.starts_with("ShmemPmdMapped:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_sealed_file_gets_large_pages_and_stays_what_it_was() {
        let content: Vec<u8> = (0..=250).cycle().take(LARGE_PAGE_BYTES * 2 + 1000).collect();
        let mut file = File::from(memfd::create(c"test", false).unwrap());
        file.write_all(&content).unwrap();
        memfd::seal(file.as_fd()).unwrap();

        let mut view = View::reserve(content.len()).unwrap();
        view.show(file.as_fd()).unwrap();
        view.collapse().unwrap();

        assert_eq!(large_kib(), 4096);
        let mut found = vec![0; content.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == content);
        drop(view);
        assert_eq!(large_kib(), 0);
    }
}
