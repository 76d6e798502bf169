//! Step: privileges. *After fork.*

use sys::credentials::{
    Capabilities, drop_from_bounding_set, set_capabilities, set_no_new_privileges,
};

use super::{Failure, in_step};

/// What root inside a jail keeps, by bit, with what needs it. Each acts on the jail's own ids,
/// files and processes only, because the jail's user namespace owns them. Everything else is
/// gone for good, `SYS_ADMIN`, `SYS_PTRACE`, `NET_ADMIN`, `NET_RAW` and `MKNOD` among it.
const KEPT: [(u32, &str); 11] = [
    (0, "CHOWN: package managers give files to other users"),
    (1, "DAC_OVERRIDE: root reads what others own"),
    (3, "FOWNER: chmod and utimes on files of others"),
    (4, "FSETID: set-group-id directories survive writes"),
    (5, "KILL: root ends processes of other users"),
    (6, "SETGID: daemons drop to their group"),
    (7, "SETUID: daemons drop to their user"),
    (8, "SETPCAP: programs drop capabilities themselves"),
    (10, "NET_BIND_SERVICE: servers on low ports"),
    (18, "SYS_CHROOT: package managers and daemons use chroot"),
    (31, "SETFCAP: unpacking files that carry capabilities, which have no effect"),
];

/// One past the highest capability any kernel has (64 bits).
const CAPABILITIES: u32 = 64;

pub(super) fn drop_privileges() -> Result<(), Failure> {
    const STEP: &str = "credentials";
    let kept = KEPT.iter().fold(0, |mask: u64, (bit, _)| mask | 1 << bit);
    for capability in (0..CAPABILITIES).filter(|bit| kept >> bit & 1 == 0) {
        in_step(STEP, drop_from_bounding_set(capability))?;
    }
    let wanted = Capabilities { effective: kept, permitted: kept, inheritable: 0 };
    in_step(STEP, set_capabilities(wanted))?;
    in_step(STEP, set_no_new_privileges())
}
