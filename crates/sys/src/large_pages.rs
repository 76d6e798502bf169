//! Large pages for files that exist in memory only.

use std::{
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::error::{SysError, check};

/// Bytes of a large page where an ordinary one has 4 KiB, which all processors have that this runs on.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Moves the first `bytes` of `file` to large pages, whatever the machine's setting for files in memory
/// is. Of each large page something has to be there. What is written later is written in them.
///
/// Source: `madvise(2)`, `MADV_COLLAPSE`; Linux 6.1.
///
/// # Errors
/// `EINVAL` for older kernels, for parts in which nothing is, and where large pages have another size;
/// `EAGAIN` and `ENOMEM` where none is left. The file is as it was.
pub fn collapse(file: BorrowedFd<'_>, bytes: u64) -> Result<(), SysError> {
    let overflow = SysError { call: "mmap", errno: libc::EOVERFLOW };
    let size = |bytes: Option<u64>| bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let large = size(Some(LARGE_PAGE)).ok_or(overflow)?;
    let length = size(bytes.checked_next_multiple_of(LARGE_PAGE)).ok_or(overflow)?;
    // One more: the kernel does not begin mappings where large pages begin.
    let reserved = Reserved::new(length.checked_add(large).ok_or(overflow)?)?;
    let begin = reserved.address.map_addr(|address| address.next_multiple_of(large));
    show(file, begin, length)?;
    // SAFETY: it changes which pages the file is in, and no byte of it; the range is a mapping of the
    // file, of which this function alone knows.
    check("madvise", unsafe { libc::madvise(begin, length, libc::MADV_COLLAPSE) }).map(drop)
}

/// Addresses at which nothing else is put. Nobody may use what is there, until it is shown.
struct Reserved {
    address: *mut c_void,
    length: usize,
}

impl Reserved {
    fn new(length: usize) -> Result<Self, SysError> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED it is put where no memory of this program is.
        let address = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        Ok(Self { address, length })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and no reference into it was ever made.
        let done = unsafe { libc::munmap(self.address, self.length) };
        debug_assert_eq!(done, 0, "the range is a mapping");
    }
}

/// Puts the file's beginning, to be read, at an address that is reserved. Private, because a sealed file
/// is refused else by kernels before 6.7.
fn show(file: BorrowedFd<'_>, begin: *mut c_void, length: usize) -> Result<(), SysError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the caller has reserved the range, so no memory that this program uses is there.
    let shown = unsafe { libc::mmap(begin, length, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
    if shown == libc::MAP_FAILED { Err(SysError::last("mmap")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::{fd::AsFd, unix::fs::FileExt},
    };

    use super::*;
    use crate::memfd;

    #[test]
    fn what_is_in_large_pages_is_what_was_written() {
        let file = File::from(memfd::create(c"large", false).unwrap());
        for page in [0, LARGE_PAGE] {
            file.write_all_at(b"first", page).unwrap();
        }
        let before = mappings();
        match collapse(file.as_fd(), 2 * LARGE_PAGE) {
            Ok(()) => {}
            // A kernel before 6.1, or none left: the file is as it was.
            Err(error) => {
                assert!(
                    [libc::EINVAL, libc::EAGAIN, libc::ENOMEM].contains(&error.errno),
                    "{error}"
                );
            }
        }
        assert_eq!(mappings(), before);
        file.write_all_at(b"then", LARGE_PAGE + 3).unwrap();
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, LARGE_PAGE).unwrap();
        assert_eq!(&bytes, b"firthen");
    }

    #[test]
    fn nothing_is_not_kept_in_large_pages() {
        // Not the name by which mappings are counted beside this.
        let file = File::from(memfd::create(c"nothing", false).unwrap());
        assert_eq!(collapse(file.as_fd(), LARGE_PAGE).unwrap_err().errno, libc::EINVAL);
    }

    fn mappings() -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("memfd:large")).count()
    }
}
