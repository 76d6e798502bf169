//! Attributes of the calling process.

use crate::SysError;

fn set(option: libc::c_int, value: libc::c_ulong, call: &'static str) -> Result<(), SysError> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used below take integers only, and unused arguments are zero as prctl(2)
    // demands.
    match unsafe { libc::prctl(option, value, none, none, none) } {
        -1 => Err(SysError::last(call)),
        _ => Ok(()),
    }
}

/// Closes `/proc/PID/{mem,fd,environ,...}` of this process to others of the same user, and stops
/// core dumps and ptrace.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_DUMPABLE(2const)`.
pub fn not_dumpable() -> Result<(), SysError> {
    set(libc::PR_SET_DUMPABLE, 0, "prctl(PR_SET_DUMPABLE)")
}

/// Gives this process the orphans among its descendants, as PID 1 of a pid namespace has them
/// anyway.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_CHILD_SUBREAPER(2const)`, Linux 3.4.
pub fn adopt_orphans() -> Result<(), SysError> {
    set(libc::PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")
}

/// No exec of this process and its descendants ever gives privileges; cannot be undone.
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_NO_NEW_PRIVS(2const)`, Linux 3.5.
pub fn no_new_privileges() -> Result<(), SysError> {
    set(libc::PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")
}

/// Sets which permission bits new files do not get.
///
/// Source: `umask(2)`; the call cannot fail.
pub fn set_umask(mask: u32) {
    // SAFETY: an integer in, an integer out, no memory.
    unsafe { libc::umask(mask) };
}
