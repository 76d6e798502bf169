//! Loop devices: files as block devices, loop(4).

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::error::{SysError, check};

/// Which file is behind a loop device: the device number of its file system, and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backing {
    /// As `st_dev` of stat(2).
    pub device: u64,
    /// As `st_ino` of stat(2).
    pub inode: u64,
}

/// The number of a loop device that nothing is behind; `control` is `/dev/loop-control`. Another
/// process may be faster to use it.
///
/// # Errors
/// `ENOSPC` when there are as many as can be.
pub fn free_number(control: BorrowedFd<'_>) -> Result<u32, SysError> {
    // SAFETY: takes no argument.
    let ret = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    check("ioctl(LOOP_CTL_GET_FREE)", ret).map(i32::cast_unsigned)
}

/// Puts `file` behind the loop device `device` until its last user closes it: a mount of it, a
/// process that has it open. Reads and writes go past the page cache where the file can.
///
/// # Errors
/// `EBUSY` when something is behind it.
///
/// Source: `LOOP_CONFIGURE` of loop(4), Linux 5.8.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: integers and bytes only, of which zero is a value.
    let mut config = unsafe { MaybeUninit::<Config>::zeroed().assume_init() };
    config.file = file.as_raw_fd().cast_unsigned();
    config.info.flags = FLAG_AUTOCLEAR | FLAG_DIRECT_IO;
    // SAFETY: the ioctl reads a loop_config, which `config` is; `file` is open while borrowed.
    let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    check("ioctl(LOOP_CONFIGURE)", ret).map(drop)
}

/// What is behind the loop device; none when nothing is.
///
/// # Errors
/// As ioctl(2).
pub fn backing(device: BorrowedFd<'_>) -> Result<Option<Backing>, SysError> {
    let mut info = MaybeUninit::<Info>::zeroed();
    // SAFETY: the ioctl writes a loop_info64, which `info` has room for.
    let ret = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) };
    match check("ioctl(LOOP_GET_STATUS64)", ret) {
        Err(SysError { errno: libc::ENXIO, .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => {
            // SAFETY: integers and bytes only; zeroed, and filled in by the call that succeeded.
            let info = unsafe { info.assume_init() };
            Ok(Some(Backing { device: info.device, inode: info.inode }))
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    number_of_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd, unix::fs::MetadataExt},
    };

    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }

    #[test]
    fn a_file_is_behind_a_device_until_that_is_closed() {
        let file = tempfile();
        file.set_len(1 << 20).unwrap();
        let control = File::open("/dev/loop-control").unwrap();
        let (number, device) = loop {
            let number = free_number(control.as_fd()).unwrap();
            let device = File::options().read(true).write(true).open(format!("/dev/loop{number}"));
            let device = device.unwrap();
            match configure(device.as_fd(), file.as_fd()) {
                Ok(()) => break (number, device),
                Err(error) => assert_eq!(error.errno, libc::EBUSY),
            }
        };
        let metadata = file.metadata().unwrap();
        let expected = Backing { device: metadata.dev(), inode: metadata.ino() };
        assert_eq!(backing(device.as_fd()).unwrap(), Some(expected));
        drop(device);
        let again = File::open(format!("/dev/loop{number}")).unwrap();
        assert_ne!(backing(again.as_fd()).unwrap(), Some(expected));
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("sandbar-loop-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}
