//! Step: how many things the kernel counts per user namespace this jail may have. *After fork.*
//!
//! The namespace belongs to the jail's own host id (see [`super`]), so what is counted here is the
//! jail's alone. The files are `/proc/sys/user` of the writer's user namespace, namespaces(7); inside
//! they are read-only, and nothing there may raise them.

use std::{ffi::CStr, os::fd::BorrowedFd};

use sys::errno;

use super::{Failure, in_step, write_setting};

/// The counters, with the reason for each value.
const COUNTERS: [(&CStr, &[u8]); 9] = [
    // No namespace inside a jail: the lock behind seccomp's, and it works without it (ENOSPC). The
    // one of mounts is left out: the mounts that the next steps make are each in one for a while.
    (c"sys/user/max_user_namespaces", b"0"),
    (c"sys/user/max_pid_namespaces", b"0"),
    (c"sys/user/max_net_namespaces", b"0"),
    (c"sys/user/max_ipc_namespaces", b"0"),
    (c"sys/user/max_uts_namespaces", b"0"),
    (c"sys/user/max_cgroup_namespaces", b"0"),
    (c"sys/user/max_time_namespaces", b"0"),
    // What a user has by default; inotify_init(2) then says EMFILE.
    (c"sys/user/max_inotify_instances", b"128"),
    // Four times what the agent watches at most: what it has given up counts until the kernel has let
    // go of it, and programs have watches of their own. inotify_add_watch(2) then says ENOSPC.
    (c"sys/user/max_inotify_watches", b"262144"),
];

/// Writes the counters through `proc`. A kernel that does not count something has no file for it.
pub(super) fn set(proc: BorrowedFd<'_>) -> Result<(), Failure> {
    for (path, value) in COUNTERS {
        match write_setting(proc, path, value) {
            Err(error) if error.errno == errno::ENOENT => {}
            other => in_step("counters", other)?,
        }
    }
    Ok(())
}
