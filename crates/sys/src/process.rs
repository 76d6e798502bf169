//! Making processes, what they are, and how they end or become a program.

use std::{
    ffi::CStr,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
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
/// As clone3(2) with `CLONE_PIDFD` and `CLONE_INTO_CGROUP` (Linux 5.7): `EAGAIN` at the pids limit,
/// `EBADF`, `EACCES`, `EBUSY` or `EOPNOTSUPP` when the cgroup may not be joined.
pub fn fork(cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> Result<Fork, SysError> {
    clone(if sibling { CLONE_PARENT } else { 0 }, cgroup)
}

/// As [`fork`] without `sibling`; every handler of this process is gone in the child, because one
/// that ran there would act on what the two share, a runtime's signal pipe for instance.
pub(crate) fn fork_without_handlers(cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, SysError> {
    clone(CLONE_CLEAR_SIGHAND, cgroup)
}

fn clone(how: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, SysError> {
    let mut pidfd: RawFd = -1;
    let mut flags = CLONE_PIDFD | how;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // With CLONE_PARENT the exit signal is the caller's own, and must be given as zero.
    let exit_signal =
        if how & CLONE_PARENT == 0 { u64::from(libc::SIGCHLD.cast_unsigned()) } else { 0 };
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

// linux/sched.h. The last two do not fit libc's `int`.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
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

/// Starts a session of its own, away from the caller's terminal. *After fork.*
///
/// # Errors
/// As setsid(2).
pub fn new_session() -> Result<(), SysError> {
    // SAFETY: setsid takes nothing.
    let ret = unsafe { libc::setsid() };
    check("setsid", ret).map(drop)
}

/// Makes the directory behind `dir` the working directory. *After fork.*
///
/// # Errors
/// As fchdir(2).
pub fn enter(dir: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: fchdir takes a descriptor.
    let ret = unsafe { libc::fchdir(dir.as_raw_fd()) };
    check("fchdir", ret).map(drop)
}

/// Makes `path` the working directory. *After fork.*
///
/// # Errors
/// As chdir(2).
pub fn change_directory(path: &CStr) -> Result<(), SysError> {
    // SAFETY: `path` is a valid C string.
    let ret = unsafe { libc::chdir(path.as_ptr()) };
    check("chdir", ret).map(drop)
}

/// Closes `/proc/PID/{mem,fd,environ,...}` of this process to others of the same user, and stops
/// core dumps and ptrace.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_DUMPABLE(2const)`.
pub fn not_dumpable() -> Result<(), SysError> {
    let off: libc::c_ulong = 0;
    // SAFETY: PR_SET_DUMPABLE takes a number.
    let ret = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, off) };
    check("prctl(PR_SET_DUMPABLE)", ret).map(drop)
}

/// Has this process killed when the thread that started it ends. Not inherited by its children.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_PDEATHSIG(2const)`, Linux 2.1.57.
pub fn end_with_parent() -> Result<(), SysError> {
    let signal: libc::c_ulong = 9;
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    let ret = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    check("prctl(PR_SET_PDEATHSIG)", ret).map(drop)
}

/// Gives this process the orphans among its descendants, as PID 1 of a pid namespace has them
/// anyway.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_CHILD_SUBREAPER(2const)`, Linux 3.4.
pub fn adopt_orphans() -> Result<(), SysError> {
    let on: libc::c_ulong = 1;
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a number.
    let ret = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) };
    check("prctl(PR_SET_CHILD_SUBREAPER)", ret).map(drop)
}

/// Sets which permission bits new files do not get.
///
/// Source: `umask(2)`; the call cannot fail.
pub fn set_umask(mask: u32) {
    // SAFETY: an integer in, an integer out, no memory.
    unsafe { libc::umask(mask) };
}

/// Strings as an exec takes them: an array of pointers, with a null pointer at its end.
#[derive(Debug)]
pub struct Strings<'a> {
    pointers: Vec<*const libc::c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Strings<'a> {
    /// Allocates, so it is made before fork.
    #[must_use]
    pub fn new<S: AsRef<CStr>>(strings: &'a [S]) -> Self {
        let pointers = strings.iter().map(|text| text.as_ref().as_ptr());
        Self { pointers: pointers.chain([std::ptr::null()]).collect(), strings: PhantomData }
    }
}

/// Replaces the process's program by the file behind `program`. Returns only on failure.
/// *After fork.*
pub fn exec(program: BorrowedFd<'_>, argv: &Strings<'_>, envp: &Strings<'_>) -> SysError {
    // SAFETY: both arrays end with null, and the strings they point to are borrowed for as long as
    // the arrays live; the empty path with AT_EMPTY_PATH names the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    SysError::last("execveat")
}

/// As [`exec`], with the file at `path`.
pub(crate) fn exec_path(path: &CStr, argv: &Strings<'_>, envp: &Strings<'_>) -> SysError {
    // SAFETY: as for `exec`; `path` is a valid C string.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    SysError::last("execve")
}
