//! Mounts, made with descriptors (Linux 5.2) so that no path can be swapped under them.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check, check_small},
    fd::own,
};

/// Attributes of a mount, `mount_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountFlags(u64);

impl MountFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// No writing.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-user-id bits and file capabilities have no effect.
    pub const NO_SUID: Self = Self(0x2);
    /// Device nodes do not open.
    pub const NO_DEVICES: Self = Self(0x4);
    /// Programs do not execute.
    pub const NO_EXEC: Self = Self(0x8);
    /// Reading a file is not written down in it.
    pub const NO_ACCESS_TIMES: Self = Self(0x10);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A new context for making a file system of type `kind`. *After fork.*
///
/// # Errors
/// `ENODEV` when the kernel lacks it; else as fsopen(2).
pub fn new_filesystem(kind: &CStr) -> Result<OwnedFd, SysError> {
    // SAFETY: `kind` is a valid C string.
    let ret = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    check_small("fsopen", ret).map(own)
}

/// Sets an option of a file system in the making. *After fork.*
///
/// # Errors
/// `EINVAL` for an option or value it does not take.
pub fn set_option(context: BorrowedFd<'_>, name: &CStr, value: &CStr) -> Result<(), SysError> {
    // SAFETY: both are valid C strings; FSCONFIG_SET_STRING ignores the last argument.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_STRING,
            name.as_ptr(),
            value.as_ptr(),
            0,
        )
    };
    check_small("fsconfig", ret).map(drop)
}

/// Makes the file system and a mount of it that is attached nowhere. *After fork.*
///
/// # Errors
/// As fsconfig(2) `FSCONFIG_CMD_CREATE` and fsmount(2).
pub fn make_mount(context: BorrowedFd<'_>, flags: MountFlags) -> Result<OwnedFd, SysError> {
    create_filesystem(context)?;
    // SAFETY: fsmount takes a descriptor and two numbers.
    let ret =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, flags.0) };
    check_small("fsmount", ret).map(own)
}

fn create_filesystem(context: BorrowedFd<'_>) -> Result<(), SysError> {
    let none: *const libc::c_char = std::ptr::null();
    // SAFETY: FSCONFIG_CMD_CREATE requires null for name and value.
    let ret = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    };
    check_small("fsconfig(create)", ret).map(drop)
}

/// A copy, attached nowhere, of the mount at `path` below `dir`; with `recursive`, of the mounts
/// below it too. An empty path names `dir` itself. *After fork.*
///
/// # Errors
/// As `open_tree(2)`.
pub fn clone_mount(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, SysError> {
    let mut flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: `path` is a valid C string; the rest are numbers.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    check_small("open_tree", ret).map(own)
}

/// Shows what is at `source` at `target` too, with the flags of its mount and without what is mounted
/// below it: [`clone_mount`] and [`attach`] in one call. Both paths lead through links. *After fork.*
///
/// # Errors
/// `ENOENT` when one of them is not there; else as mount(2).
pub fn bind(source: &CStr, target: &CStr) -> Result<(), SysError> {
    let none = std::ptr::null();
    // SAFETY: both paths are valid C strings; MS_BIND ignores type and data.
    let ret =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, libc::MS_BIND, none.cast()) };
    check("mount", ret).map(drop)
}

/// Attaches a detached mount at `path` below `dir`. *After fork.*
///
/// # Errors
/// As `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &CStr) -> Result<(), SysError> {
    // SAFETY: both paths are valid C strings; the empty one with F_EMPTY_PATH names `mount`.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check_small("move_mount", ret).map(drop)
}

/// Adds attributes to a mount and, with `recursive`, to those below it. *After fork.*
///
/// # Errors
/// As `mount_setattr(2)`, Linux 5.12.
pub fn add_flags(
    mount: BorrowedFd<'_>,
    flags: MountFlags,
    recursive: bool,
) -> Result<(), SysError> {
    set_attributes(
        mount,
        &MountAttributes { set: flags.0, ..MountAttributes::default() },
        recursive,
    )
}

/// Shows the files of a detached mount with their ids shifted as user namespace `user` maps them.
///
/// # Errors
/// `EINVAL` when the file system does not support it; else as `mount_setattr(2)`.
pub fn map_ids(mount: BorrowedFd<'_>, user: BorrowedFd<'_>) -> Result<(), SysError> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        user_namespace: u64::from(user.as_raw_fd().cast_unsigned()),
        ..MountAttributes::default()
    };
    set_attributes(mount, &attributes, true)
}

/// Keeps the mounts of this namespace from being propagated to others, and theirs to it.
/// *After fork.*
///
/// # Errors
/// As `mount_setattr(2)`.
pub fn make_private(root: BorrowedFd<'_>) -> Result<(), SysError> {
    let attributes =
        MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    set_attributes(root, &attributes, true)
}

/// Keeps the mounts of this namespace from being propagated to others; what others mount and
/// unmount still comes here.
///
/// # Errors
/// As `mount_setattr(2)`.
pub fn make_dependent(root: BorrowedFd<'_>) -> Result<(), SysError> {
    let attributes = MountAttributes { propagation: libc::MS_SLAVE, ..MountAttributes::default() };
    set_attributes(root, &attributes, true)
}

/// `struct mount_attr`, linux/mount.h.
#[repr(C)]
#[derive(Debug, Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &MountAttributes,
    recursive: bool,
) -> Result<(), SysError> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path with AT_EMPTY_PATH names `mount`; `attributes` is a mount_attr of the
    // size passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    check_small("mount_setattr", ret).map(drop)
}

/// Makes the working directory, which must be the root of a mount, the root of this namespace;
/// the old root is then mounted on top of it. *After fork.*
///
/// # Errors
/// As `pivot_root(2)`; the trick of giving `.` twice is described there.
pub fn pivot_to_working_directory() -> Result<(), SysError> {
    // SAFETY: both are valid C strings.
    let ret = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check_small("pivot_root", ret).map(drop)
}

/// Detaches the mount at `path` and all below it; it goes when its last user does. *After fork.*
///
/// # Errors
/// As umount2(2).
pub fn detach(path: &CStr) -> Result<(), SysError> {
    // SAFETY: `path` is a valid C string.
    let ret = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    check("umount2", ret).map(drop)
}

// linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 0x1;
const FSMOUNT_CLOEXEC: libc::c_uint = 0x1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
