//! Where in the tree of files a thread may change something; landlock(7).
//!
//! Owns: the calls. Does not know whom to confine, nor to what.

use std::{
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use crate::{
    error::{SysError, check_small},
    fd::own,
};

/// Every way to change what is in files and directories, and to run a file: linux/landlock.h. Not
/// to read, which stays as it was.
const CHANGES: u64 = EXECUTE
    | 1 << 1 // write a file
    | 1 << 4 // remove a directory
    | 1 << 5 // remove a file
    | 0x1fc0; // make nodes of each of the seven kinds

/// As bit 0 of the rights.
const EXECUTE: u64 = 1;

/// Move and link files between directories; without it, that is refused everywhere.
const REFER: u64 = 1 << 13;

/// Cut a file. From version 3 on.
const TRUNCATE: u64 = 1 << 14;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;

/// `LANDLOCK_RULE_PATH_BENEATH`.
const BENEATH: libc::c_int = 1;

/// `struct landlock_ruleset_attr` as of version 1.
#[repr(C)]
struct Ruleset {
    handled: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The version of landlock that the kernel has.
///
/// # Errors
/// `ENOSYS` before Linux 5.13, `EOPNOTSUPP` where it is switched off.
pub fn version() -> Result<i32, SysError> {
    let none: *const Ruleset = ptr::null();
    // SAFETY: with this flag the pointer and the size must be zero, and are.
    let ret =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, ASK_VERSION) };
    check_small("landlock_create_ruleset(version)", ret)
}

/// A set of rules that lets nobody change or run anything, until places are added.
///
/// # Errors
/// As [`version`]; `EINVAL` for a kernel with a lower version than it said.
pub fn nothing_changes(version: i32) -> Result<OwnedFd, SysError> {
    let rules = Ruleset { handled: rights(version) };
    // SAFETY: the kernel reads a landlock_ruleset_attr of the size passed, which `rules` begins.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const rules,
            size_of_val(&rules),
            0_u32,
        )
    };
    check_small("landlock_create_ruleset", ret).map(own)
}

/// Lets everything below the directory `place` be changed, and none of it be run.
///
/// # Errors
/// `EBADFD` when `place` cannot be a place of rules.
pub fn except_below(
    rules: BorrowedFd<'_>,
    version: i32,
    place: BorrowedFd<'_>,
) -> Result<(), SysError> {
    let beneath = PathBeneath { allowed: rights(version) & !EXECUTE, parent: place.as_raw_fd() };
    // SAFETY: the kernel reads a landlock_path_beneath_attr, which `beneath` is; both descriptors are
    // open while borrowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            BENEATH,
            &raw const beneath,
            0_u32,
        )
    };
    check_small("landlock_add_rule", ret).map(drop)
}

/// Puts the calling thread, and all it starts from now on, under these rules, for ever.
///
/// # Errors
/// `EPERM` without `no_new_privs` and without `CAP_SYS_ADMIN`; `E2BIG` for the seventeenth set.
pub fn restrict(rules: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: the call takes a descriptor and flags, and touches no memory of ours.
    let ret = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) };
    check_small("landlock_restrict_self", ret).map(drop)
}

/// What a kernel of this version can refuse.
fn rights(version: i32) -> u64 {
    let refer = if version >= 2 { REFER } else { 0 };
    let truncate = if version >= 3 { TRUNCATE } else { 0 };
    CHANGES | refer | truncate
}

const _: () = assert!(size_of::<PathBeneath>() == 12);

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd, process::Command, thread};

    use super::*;
    use crate::credentials::set_no_new_privileges;

    #[test]
    fn a_confined_thread_changes_one_place_only_and_runs_nothing() {
        let Ok(version) = version() else { return };
        let own = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("there"), "as it was").unwrap();
        let (inside, outside) = (own.path().to_owned(), other.path().to_owned());
        thread::spawn(move || {
            let rules = nothing_changes(version).unwrap();
            let place = fs::File::open(&inside).unwrap();
            except_below(rules.as_fd(), version, place.as_fd()).unwrap();
            set_no_new_privileges().unwrap();
            restrict(rules.as_fd()).unwrap();

            fs::create_dir(inside.join("a")).unwrap();
            fs::write(inside.join("a/b"), "x").unwrap();
            fs::rename(inside.join("a/b"), inside.join("c")).unwrap();
            fs::remove_file(inside.join("c")).unwrap();
            assert_eq!(fs::read_to_string(outside.join("there")).unwrap(), "as it was");
            for refused in [
                fs::write(outside.join("new"), "x"),
                fs::write(outside.join("there"), "x"),
                fs::remove_file(outside.join("there")),
                fs::create_dir(outside.join("d")),
                Command::new("/bin/true").status().map(drop),
            ] {
                assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EACCES));
            }
        })
        .join()
        .unwrap();
        assert_eq!(fs::read_to_string(other.path().join("there")).unwrap(), "as it was");
    }
}
