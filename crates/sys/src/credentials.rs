//! Who a process is and what it may do.

use crate::error::{SysError, check, check_small};

/// Takes one user id and one group id, real, effective and saved, and no further groups.
/// *After fork.*
///
/// # Errors
/// As setgroups(2), setresgid(2), setresuid(2).
pub fn become_user(uid: u32, gid: u32) -> Result<(), SysError> {
    drop_groups()?;
    set_gid(gid)?;
    set_uid(uid)
}

fn drop_groups() -> Result<(), SysError> {
    // SAFETY: a count of zero makes the kernel ignore the pointer.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) };
    check_small("setgroups", ret).map(drop)
}

fn set_gid(gid: u32) -> Result<(), SysError> {
    // SAFETY: the raw call takes three numbers and affects this thread alone, which is the whole
    // process here; glibc's wrapper would signal other threads, after fork needlessly.
    let ret = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check_small("setresgid", ret).map(drop)
}

fn set_uid(uid: u32) -> Result<(), SysError> {
    // SAFETY: as for setresgid.
    let ret = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check_small("setresuid", ret).map(drop)
}

/// Takes a user id and a group id for access to files only; capabilities over files go with them
/// when `uid` is not 0, see [`set_capabilities`].
pub fn set_file_identity(uid: u32, gid: u32) {
    // SAFETY: setfsgid takes a number and reports no errors.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: setfsuid takes a number and reports no errors.
    unsafe { libc::setfsuid(uid) };
}

/// The three capability sets of a thread, as bit masks; capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force now.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept across exec of programs with file capabilities.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const CAP_VERSION: u32 = 0x2008_0522;

/// The calling thread's capabilities.
///
/// # Errors
/// As capget(2).
pub fn capabilities() -> Result<Capabilities, SysError> {
    let mut header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(), CapData::default()];
    // SAFETY: version 3 makes the kernel write exactly two CapData, which `data` has.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check_small("capget", ret)?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(Capabilities {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Sets the calling thread's capabilities. *After fork.*
///
/// # Errors
/// `EPERM` when a set would gain what is not permitted.
pub fn set_capabilities(wanted: Capabilities) -> Result<(), SysError> {
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let half = |mask: u64, shift: u32| {
        u32::try_from((mask >> shift) & u64::from(u32::MAX)).unwrap_or_default()
    };
    let data = [0, 32].map(|shift| CapData {
        effective: half(wanted.effective, shift),
        permitted: half(wanted.permitted, shift),
        inheritable: half(wanted.inheritable, shift),
    });
    // SAFETY: version 3 makes the kernel read exactly two CapData, which `data` has.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check_small("capset", ret).map(drop)
}

/// The highest number that a capability can have: a set is 64 bits.
pub const LAST_CAPABILITY: u32 = 63;

/// Takes one capability out of the bounding set for ever; a number the kernel does not know is
/// no error. *After fork.*
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn drop_from_bounding_set(capability: u32) -> Result<(), SysError> {
    // SAFETY: PR_CAPBSET_DROP takes a number.
    let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) };
    match check("prctl(PR_CAPBSET_DROP)", ret) {
        Err(error) if error.errno == libc::EINVAL => Ok(()),
        other => other.map(drop),
    }
}

/// No exec of the calling thread and of what it starts ever gives privileges; cannot be undone.
/// *After fork.*
///
/// # Errors
/// None on any supported kernel.
///
/// Source: `PR_SET_NO_NEW_PRIVS(2const)`, Linux 3.5.
pub fn set_no_new_privileges() -> Result<(), SysError> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes 1 and three zeros.
    let ret = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) };
    check("prctl(PR_SET_NO_NEW_PRIVS)", ret).map(drop)
}
