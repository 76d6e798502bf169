//! Subvolumes of btrfs: trees of files that are made, copied and removed whole, each with a limit.
//!
//! Sources: btrfs-ioctl(2), linux/btrfs.h, `linux/btrfs_tree.h`.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::error::{SysError, check};

/// How bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// To the subvolume that wrote them, for as long as any subvolume has them. Linux 6.7.
    Simple,
    /// To every subvolume that has them.
    Shared,
}

/// What a subvolume is charged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Bytes on disk, data and metadata, as of the last transaction.
    pub bytes: u64,
}

/// Bytes of a name in the kernel's structures, its closing zero not included.
const NAME_BYTES: usize = 4039;

/// Length of `struct btrfs_ioctl_vol_args_v2` and of `struct btrfs_ioctl_vol_args`.
const ARGS_BYTES: usize = 4096;

/// `struct btrfs_ioctl_vol_args`; the name ends with zero.
#[repr(C)]
struct Args {
    fd: i64,
    name: [u8; ARGS_BYTES - 8],
}

/// `struct btrfs_ioctl_vol_args_v2`; the name ends with zero.
#[repr(C)]
struct SnapshotArgs {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; NAME_BYTES + 1],
}

const SUBVOL_RDONLY: u64 = 1 << 1;

impl Args {
    fn named(name: &CStr) -> Result<Self, SysError> {
        let mut args = Self { fd: 0, name: [0; ARGS_BYTES - 8] };
        copy_name(&mut args.name, name)?;
        Ok(args)
    }
}

fn copy_name(to: &mut [u8], name: &CStr) -> Result<(), SysError> {
    let bytes = name.to_bytes();
    let too_long = SysError { call: "name of a subvolume", errno: libc::ENAMETOOLONG };
    let room = to.get_mut(..bytes.len()).filter(|_| bytes.len() <= NAME_BYTES).ok_or(too_long)?;
    room.copy_from_slice(bytes);
    Ok(())
}

/// Makes an empty subvolume `name` in `dir`. Costs no transaction; it outlives a power cut from the
/// next one on, or from the first fsync(2) of a file in it.
///
/// # Errors
/// `ENOTTY` when `dir` is not on btrfs; `EEXIST`.
pub fn create(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    let args = Args::named(name)?;
    // SAFETY: the ioctl reads a btrfs_ioctl_vol_args, which `args` is; the name ends with zero.
    let ret = unsafe { libc::ioctl(dir.as_raw_fd(), SUBVOL_CREATE, &raw const args) };
    check("ioctl(BTRFS_IOC_SUBVOL_CREATE)", ret).map(drop)
}

/// Makes `name` in `dir` a copy of the subvolume `source`, which shares all its bytes. What was
/// written to `source` before is in it and on disk at return, and so is the copy itself.
///
/// # Errors
/// `EINVAL` when `source` is not the root of a subvolume, `EXDEV` when it is on another file system.
pub fn snapshot(
    dir: BorrowedFd<'_>,
    name: &CStr,
    source: BorrowedFd<'_>,
    is_read_only: bool,
) -> Result<(), SysError> {
    let mut args = SnapshotArgs {
        fd: source.as_raw_fd().into(),
        transaction: 0,
        flags: if is_read_only { SUBVOL_RDONLY } else { 0 },
        unused: [0; 4],
        name: [0; NAME_BYTES + 1],
    };
    copy_name(&mut args.name, name)?;
    // SAFETY: the ioctl reads a btrfs_ioctl_vol_args_v2, which `args` is; `source` is open while
    // borrowed.
    let ret = unsafe { libc::ioctl(dir.as_raw_fd(), SNAP_CREATE_V2, &raw const args) };
    check("ioctl(BTRFS_IOC_SNAP_CREATE_V2)", ret).map(drop)
}

/// Removes the subvolume `name` from `dir`, with everything in it. Its bytes come back in the
/// background.
///
/// # Errors
/// `ENOENT`; `EINVAL` or `ENOTTY` when it is no subvolume; `ENOTEMPTY` when another lies in it.
pub fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    let args = Args::named(name)?;
    // SAFETY: as for `create`.
    let ret = unsafe { libc::ioctl(dir.as_raw_fd(), SNAP_DESTROY, &raw const args) };
    check("ioctl(BTRFS_IOC_SNAP_DESTROY)", ret).map(drop)
}

/// Begins to count the bytes of subvolumes on the file system of `root`. Nothing where that has
/// begun before, in either way.
///
/// # Errors
/// `EINVAL` for a way this kernel does not know.
pub fn count_bytes(root: BorrowedFd<'_>, quota: Quota) -> Result<(), SysError> {
    let mut args = QuotaArgs {
        command: match quota {
            Quota::Shared => 1,
            Quota::Simple => 4,
        },
        status: 0,
    };
    // SAFETY: the ioctl reads and writes a btrfs_ioctl_quota_ctl_args, which `args` is.
    let ret = unsafe { libc::ioctl(root.as_raw_fd(), QUOTA_CTL, &raw mut args) };
    check("ioctl(BTRFS_IOC_QUOTA_CTL)", ret).map(drop)
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaArgs {
    command: u64,
    status: u64,
}

/// Limits what the subvolume of `file` may be charged with; none takes the limit away. Past it,
/// writes fail with `EDQUOT`.
///
/// # Errors
/// `ENOTCONN` when bytes are not counted.
pub fn set_limit(file: BorrowedFd<'_>, bytes: Option<u64>) -> Result<(), SysError> {
    // All ones take the limit away; a group of 0 is that of the file's subvolume.
    let args = LimitArgs {
        group: 0,
        flags: LIMIT_MAX_REFERENCED,
        max_referenced: bytes.unwrap_or(u64::MAX),
        others: [0; 3],
    };
    // SAFETY: the ioctl reads a btrfs_ioctl_qgroup_limit_args, which `args` is.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), QGROUP_LIMIT, &raw const args) };
    check("ioctl(BTRFS_IOC_QGROUP_LIMIT)", ret).map(drop)
}

/// `struct btrfs_ioctl_qgroup_limit_args` with `struct btrfs_qgroup_limit` in it.
#[repr(C)]
struct LimitArgs {
    group: u64,
    flags: u64,
    max_referenced: u64,
    /// `max_exclusive`, `rsv_referenced`, `rsv_exclusive`.
    others: [u64; 3],
}

const LIMIT_MAX_REFERENCED: u64 = 1;

/// The number of the subvolume that `file` lies in.
///
/// # Errors
/// `ENOTTY` when it is not on btrfs.
pub fn subvolume(file: BorrowedFd<'_>) -> Result<u64, SysError> {
    let mut args = LookupArgs { tree: 0, object: FIRST_FREE_OBJECT, name: [0; 4080] };
    // SAFETY: the ioctl reads and writes a btrfs_ioctl_ino_lookup_args, which `args` is.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), INO_LOOKUP, &raw mut args) };
    check("ioctl(BTRFS_IOC_INO_LOOKUP)", ret).map(|_| args.tree)
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct LookupArgs {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// The number of the file system that `file` lies on: what the kernel calls it by.
///
/// # Errors
/// `ENOTTY` when it is not btrfs.
pub fn id(file: BorrowedFd<'_>) -> Result<[u8; 16], SysError> {
    let mut args = InfoArgs { numbers: [0; 2], id: [0; 16], others: [0; 992] };
    // SAFETY: the ioctl reads and writes a btrfs_ioctl_fs_info_args, which `args` is.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), FS_INFO, &raw mut args) };
    check("ioctl(BTRFS_IOC_FS_INFO)", ret).map(|_| args.id)
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct InfoArgs {
    numbers: [u64; 2],
    id: [u8; 16],
    others: [u8; 992],
}

/// The object that is the root directory of every subvolume.
const FIRST_FREE_OBJECT: u64 = 256;

/// What subvolume number `subvolume` of the file system of `root` is charged with; none when its
/// bytes are not counted.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn charge(root: BorrowedFd<'_>, subvolume: u64) -> Result<Option<Charge>, SysError> {
    let mut args = SearchArgs {
        tree: QUOTA_TREE,
        objects: [0, 0],
        offsets: [subvolume, subvolume],
        transactions: [0, u64::MAX],
        types: [QGROUP_INFO, QGROUP_INFO],
        items: 1,
        unused: [0; 9],
        buffer: [0; SEARCH_BYTES],
    };
    // SAFETY: the ioctl reads and writes a btrfs_ioctl_search_args, which `args` is; it writes no
    // further than the buffer at its end.
    let ret = unsafe { libc::ioctl(root.as_raw_fd(), TREE_SEARCH, &raw mut args) };
    match check("ioctl(BTRFS_IOC_TREE_SEARCH)", ret) {
        Ok(_) if args.items == 0 => Ok(None),
        Ok(_) => {
            let item = args.buffer.get(ITEM_HEADER_BYTES + 8..).and_then(|item| item.first_chunk());
            Ok(item.map(|bytes| Charge { bytes: u64::from_le_bytes(*bytes) }))
        }
        // There is no quota tree.
        Err(SysError { errno: libc::ENOENT, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `struct btrfs_ioctl_search_args`: a `struct btrfs_ioctl_search_key` and its buffer.
#[repr(C)]
struct SearchArgs {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    types: [u32; 2],
    items: u32,
    unused: [u32; 9],
    buffer: [u8; SEARCH_BYTES],
}

const SEARCH_BYTES: usize = ARGS_BYTES - 104;
/// `struct btrfs_ioctl_search_header`, before each item; the item's second field is the bytes.
const ITEM_HEADER_BYTES: usize = 32;
const QUOTA_TREE: u64 = 8;
const QGROUP_INFO: u32 = 242;

/// The number of a btrfs ioctl: direction, bytes of its argument, `0x94`, number.
const fn ioctl_number(direction: u32, bytes: usize, number: u32) -> libc::Ioctl {
    #[expect(clippy::cast_possible_truncation, reason = "at most 4096")]
    let bytes = bytes as u32;
    ((direction << 30) | (bytes << 16) | (0x94 << 8) | number) as libc::Ioctl
}

const WRITE: u32 = 1;
const READ: u32 = 2;
const SUBVOL_CREATE: libc::Ioctl = ioctl_number(WRITE, size_of::<Args>(), 14);
const SNAP_DESTROY: libc::Ioctl = ioctl_number(WRITE, size_of::<Args>(), 15);
const TREE_SEARCH: libc::Ioctl = ioctl_number(READ | WRITE, size_of::<SearchArgs>(), 17);
const INO_LOOKUP: libc::Ioctl = ioctl_number(READ | WRITE, size_of::<LookupArgs>(), 18);
const SNAP_CREATE_V2: libc::Ioctl = ioctl_number(WRITE, size_of::<SnapshotArgs>(), 23);
const FS_INFO: libc::Ioctl = ioctl_number(READ, size_of::<InfoArgs>(), 31);
const QUOTA_CTL: libc::Ioctl = ioctl_number(READ | WRITE, size_of::<QuotaArgs>(), 40);
const QGROUP_LIMIT: libc::Ioctl = ioctl_number(READ, size_of::<LimitArgs>(), 43);

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Args>(), 4096);
        assert_eq!(size_of::<SnapshotArgs>(), 4096);
        assert_eq!(size_of::<LookupArgs>(), 4096);
        assert_eq!(size_of::<SearchArgs>(), 4096);
        assert_eq!(std::mem::offset_of!(SearchArgs, buffer), 104);
        assert_eq!(size_of::<QuotaArgs>(), 16);
        assert_eq!(size_of::<InfoArgs>(), 1024);
        assert_eq!(size_of::<LimitArgs>(), 48);
    }

    #[test]
    fn other_file_systems_refuse() {
        let proc = File::open("/proc").unwrap();
        for refused in [
            create(proc.as_fd(), c"a"),
            remove(proc.as_fd(), c"a"),
            snapshot(proc.as_fd(), c"a", proc.as_fd(), true),
            set_limit(proc.as_fd(), Some(1)),
            subvolume(proc.as_fd()).map(drop),
            id(proc.as_fd()).map(drop),
            count_bytes(proc.as_fd(), Quota::Simple),
        ] {
            assert_eq!(refused.unwrap_err().errno, libc::ENOTTY);
        }
        let long = std::ffi::CString::new("x".repeat(NAME_BYTES + 1)).unwrap();
        assert_eq!(create(proc.as_fd(), &long).unwrap_err().errno, libc::ENAMETOOLONG);
    }
}
