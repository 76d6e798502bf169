//! Making, naming, signalling and ending processes.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check, check_small},
    fd::own,
};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child's process id, in the parent's pid namespace.
        pid: i32,
        /// A handle to the child; readable when it has ended.
        pidfd: OwnedFd,
    },
}

/// Forks. With `cgroup`, the child starts in that cgroup v2 directory. With `sibling`, the child
/// becomes a child of the caller's parent. *After fork.*
///
/// Only for single-threaded processes, or for a child that does nothing but *after fork* calls.
///
/// # Errors
/// As clone3(2) with `CLONE_PIDFD` and `CLONE_INTO_CGROUP` (Linux 5.7).
pub fn fork(cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> Result<Fork, SysError> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = libc::CLONE_PIDFD.cast_unsigned().into();
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if sibling {
        flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    }
    // With CLONE_PARENT the exit signal is the caller's own, and must be given as zero.
    let exit_signal = if sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) };
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and with no stack given this is fork: the child runs on a copy of
    // this memory and returns from this same call. `args` is a clone_args of the size passed, and
    // its pidfd field points at a live c_int that the kernel writes in the parent.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check_small("clone3", ret)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid, pidfd: own(pidfd) }),
    }
}

/// clone3(2): start the child in the cgroup given by descriptor. Over 32 bits, so not an `int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends the process at once: no destructors, no buffers flushed. *After fork.*
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// A handle to the process `pid`; readable when it has ended.
///
/// # Errors
/// `ESRCH` when there is none; else as `pidfd_open(2)`.
pub fn open(pid: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: pidfd_open takes two numbers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check_small("pidfd_open", ret).map(own)
}

/// Sends `signal` to the process behind `pidfd`.
///
/// # Errors
/// `ESRCH` when it has ended; else as `pidfd_send_signal(2)`.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), SysError> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is documented to mean "as kill(2)"; the rest are numbers.
    let ret = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0)
    };
    check_small("pidfd_send_signal", ret).map(drop)
}

/// `SIGKILL`, signal(7).
pub const SIGKILL: i32 = libc::SIGKILL;
/// `SIGTERM`, signal(7).
pub const SIGTERM: i32 = libc::SIGTERM;

/// Lets the kernel reap this process's children by itself.
///
/// # Errors
/// As signal(2).
pub fn ignore_children() -> Result<(), SysError> {
    // SAFETY: SIG_IGN is a valid disposition and installs no handler code.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if old == libc::SIG_ERR { Err(SysError::last("signal(SIGCHLD)")) } else { Ok(()) }
}

/// Gives SIGCHLD its default disposition again, so that children can be waited for. *After fork.*
///
/// # Errors
/// As signal(2).
pub fn default_children() -> Result<(), SysError> {
    // SAFETY: SIG_DFL is a valid disposition and installs no handler code.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if old == libc::SIG_ERR { Err(SysError::last("signal(SIGCHLD)")) } else { Ok(()) }
}

/// Starts a session of its own, away from the caller's terminal. *After fork.*
///
/// # Errors
/// As setsid(2).
pub fn new_session() -> Result<(), SysError> {
    // SAFETY: setsid takes nothing.
    let ret = unsafe { libc::setsid() };
    check("setsid", ret).map(drop)
}

/// Has the kernel kill this process when its parent ends.
///
/// # Errors
/// As prctl(2), `PR_SET_PDEATHSIG`.
pub fn die_with_parent() -> Result<(), SysError> {
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    let ret = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    check("prctl(PR_SET_PDEATHSIG)", ret).map(drop)
}

/// Replaces the process's program by the file behind `program`. Returns only on failure.
/// *After fork.*
///
/// `argv` and `envp` are arrays of pointers to C strings that end with a null pointer, made by
/// [`pointers`].
pub fn exec(
    program: BorrowedFd<'_>,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> SysError {
    debug_assert!(argv.last().is_some_and(|end| end.is_null()));
    debug_assert!(envp.last().is_some_and(|end| end.is_null()));
    // SAFETY: both arrays come from `pointers`, which borrows the strings they point to for as
    // long as the arrays live and ends them with null; the empty path with AT_EMPTY_PATH names
    // the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    SysError::last("execveat")
}

/// The null-terminated pointer array that [`exec`] takes. Allocates: call it before fork.
#[must_use]
pub fn pointers<'a>(strings: &'a [&'a CStr]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}
