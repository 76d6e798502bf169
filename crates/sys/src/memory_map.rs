//! What lies where in a process's memory.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{SysError, check};

/// A stretch of a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address, and the first behind it.
    pub addresses: (u64, u64),
    /// Whether its process may write to it.
    pub is_writable: bool,
}

/// `struct procmap_query`, linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    found_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_and_build_id_bytes: [u32; 2],
    name_and_build_id: [u64; 2],
}

/// `PROCMAP_QUERY_VMA_WRITABLE`.
const WRITABLE: u64 = 1 << 1;

/// `PROCMAP_QUERY`: `_IOWR('f', 17, struct procmap_query)`.
#[expect(clippy::cast_possible_truncation, reason = "104 bytes")]
const QUERY: libc::Ioctl =
    ((3 << 30) | ((size_of::<Query>() as u32) << 16) | ((b'f' as u32) << 8) | 17) as libc::Ioctl;

/// What has `address` in the memory that `maps` tells of, `/proc/PID/maps`; none when nothing has.
///
/// # Errors
/// `ENOTTY` before Linux 6.11; `ESRCH` when the process is gone.
pub fn at(maps: BorrowedFd<'_>, address: u64) -> Result<Option<Mapping>, SysError> {
    let mut query = Query { size: size_of::<Query>() as u64, address, ..Query::default() };
    // SAFETY: the ioctl reads and writes one procmap_query, which `query` is, as long as it says; with
    // lengths of zero it writes neither name nor build id.
    let ret = unsafe { libc::ioctl(maps.as_raw_fd(), QUERY, &raw mut query) };
    match check("ioctl(PROCMAP_QUERY)", ret) {
        Err(SysError { errno: libc::ENOENT, .. }) => return Ok(None),
        other => other?,
    };
    let is_writable = query.found_flags & WRITABLE != 0;
    Ok(Some(Mapping { addresses: (query.start, query.end), is_writable }))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    /// Read-only: in the program's constants.
    static CONSTANT: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn memory_is_told_apart() {
        assert_eq!(size_of::<Query>(), 104);
        let maps = File::open("/proc/self/maps").unwrap();
        let own = [0_u8; 8];
        let found = [own.as_ptr(), CONSTANT.as_ptr()].map(|at_address| {
            let address = at_address.addr() as u64;
            at(maps.as_fd(), address).map(|found| {
                let found = found.expect("it is mapped");
                let (start, end) = found.addresses;
                assert!((start..end).contains(&address));
                found.is_writable
            })
        });
        match found {
            [Err(before), _] => assert_eq!(before.errno, libc::ENOTTY),
            found => {
                assert_eq!(found, [Ok(true), Ok(false)]);
                assert_eq!(at(maps.as_fd(), 0), Ok(None));
            }
        }
    }
}
