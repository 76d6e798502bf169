//! Step: the file systems that foreign code will see. *After fork.*

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
};

use sys::{
    SysError,
    file::{self, How},
    mount::{self, MountFlags},
    process,
};

use super::{Failure, Mounts, Plan, in_step};
use crate::figures::COVERS;

/// Files of `/proc` that tell about the host or steer it: they read as empty.
const MASKED_FILES: [&CStr; 28] = [
    c"/proc/buddyinfo",
    c"/proc/cmdline",
    c"/proc/config.gz",
    c"/proc/diskstats",
    c"/proc/interrupts",
    c"/proc/iomem",
    c"/proc/ioports",
    c"/proc/kallsyms",
    c"/proc/kcore",
    c"/proc/key-users",
    c"/proc/keys",
    c"/proc/kmsg",
    c"/proc/kpagecgroup",
    c"/proc/kpagecount",
    c"/proc/kpageflags",
    c"/proc/latency_stats",
    c"/proc/mdstat",
    c"/proc/modules",
    c"/proc/pagetypeinfo",
    c"/proc/partitions",
    c"/proc/sched_debug",
    c"/proc/schedstat",
    c"/proc/slabinfo",
    c"/proc/softirqs",
    c"/proc/swaps",
    c"/proc/timer_list",
    c"/proc/vmallocinfo",
    c"/proc/zoneinfo",
];

/// Directories of `/proc` that do the same: they are empty.
const MASKED_DIRECTORIES: [&CStr; 5] =
    [c"/proc/acpi", c"/proc/asound", c"/proc/driver", c"/proc/pressure", c"/proc/scsi"];

/// Parts of `/proc` that can be read but not written.
const READ_ONLY: [&CStr; 6] = [
    c"/proc/bus",
    c"/proc/dynamic_debug",
    c"/proc/fs",
    c"/proc/irq",
    c"/proc/sys",
    c"/proc/sysrq-trigger",
];

/// Bytes of `/dev/shm` at most; they count as the jail's memory.
const SHARED_MEMORY_BYTES: &CStr = c"256m";

/// Pseudoterminals of a jail, those of its programs included. The kernel has 4096 for all of its
/// machine by default (`kernel.pty.max`); one tenant must not be able to take them.
const TERMINALS: &CStr = c"128";

const PLAIN: MountFlags = MountFlags::NO_SUID.and(MountFlags::NO_DEVICES);
const QUIET: MountFlags = PLAIN.and(MountFlags::NO_EXEC);

/// A `/proc` of the process ids that the caller's are of, not attached yet.
pub(super) fn new_proc() -> Result<OwnedFd, Failure> {
    in_step("proc", filesystem(c"proc", &[], QUIET))
}

pub(super) fn enter(plan: &Plan<'_>, mounts: &Mounts, proc: &OwnedFd) -> Result<(), Failure> {
    const STEP: &str = "rootfs";
    let [root, memory, _, binds @ ..] = mounts;
    let missing = SysError { call: "take the launcher's mounts", errno: 71 };
    let (Some(root), Some(memory)) = (root, memory) else {
        return Err((STEP, missing));
    };
    let here = in_step(STEP, file::open(file::cwd(), c"/", How::new(file::O_PATH)))?;
    in_step(STEP, mount::make_private(here.as_fd()))?;
    // The new root goes over the old one, becomes the root, and the old one goes away.
    in_step(STEP, mount::attach(root.as_fd(), file::cwd(), c"/"))?;
    in_step(STEP, process::enter(root.as_fd()))?;
    in_step(STEP, mount::pivot_to_working_directory())?;
    in_step(STEP, mount::detach(c"."))?;
    in_step(STEP, process::change_directory(c"/"))?;
    in_step("proc", mount::attach(proc.as_fd(), file::cwd(), c"/proc"))?;
    let Parts { dev, run, empty, figures } = in_step("memory", Parts::of(memory))?;
    in_step("dev", mount_dev(&dev))?;
    in_step("run", mount::attach(run.as_fd(), file::cwd(), c"/run"))?;
    in_step("views", make_places(plan.views))?;
    for (bind, target) in binds.iter().flatten().zip(plan.binds) {
        in_step("bind", mount::attach(bind.as_fd(), file::cwd(), target))?;
    }
    in_step("mask", mask(&empty, &figures))
}

/// Makes the places of views, in the `/run` that is new.
fn make_places(views: &[&CStr]) -> Result<(), SysError> {
    /// The agent is root in the jail.
    const MODE: u32 = 0o700;
    if !views.is_empty() {
        file::make_dir(file::cwd(), c"/run/views", MODE)?;
    }
    views.iter().try_for_each(|place| file::make_dir(file::cwd(), place, MODE))
}

fn filesystem(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    flags: MountFlags,
) -> Result<OwnedFd, SysError> {
    let context = mount::new_filesystem(kind)?;
    options.iter().try_for_each(|(name, value)| mount::set_option(context.as_fd(), name, value))?;
    mount::make_mount(context.as_fd(), flags)
}

/// What lies in memory, see [`crate::rootfs`], each part for its place.
struct Parts {
    dev: OwnedFd,
    run: OwnedFd,
    empty: OwnedFd,
    /// In the order of [`COVERS`].
    figures: [Option<OwnedFd>; COVERS.len()],
}

impl Parts {
    /// A mount can be copied once it is attached (before Linux 6.15): the whole goes to `/sys`, where
    /// the empty directory will cover it.
    fn of(memory: &OwnedFd) -> Result<Self, SysError> {
        mount::attach(memory.as_fd(), file::cwd(), c"/sys")?;
        let part = |path, flags| {
            let part = mount::clone_mount(file::cwd(), path, false)?;
            mount::add_flags(part.as_fd(), flags, false)?;
            Ok(part)
        };
        let fixed = QUIET.and(MountFlags::READ_ONLY);
        let mut figures = [const { None }; COVERS.len()];
        for (slot, (_, source, _)) in figures.iter_mut().zip(COVERS) {
            *slot = Some(part(source, fixed)?);
        }
        let parts = Self {
            dev: part(c"/sys/dev", MountFlags::NO_SUID.and(MountFlags::NO_EXEC))?,
            run: part(c"/sys/run", PLAIN)?,
            empty: part(c"/sys/empty", fixed)?,
            figures,
        };
        // Nobody comes to the whole, and it has nothing to offer. The agent writes the figures there.
        mount::add_flags(memory.as_fd(), QUIET, false)?;
        Ok(parts)
    }
}

fn mount_dev(dev: &OwnedFd) -> Result<(), SysError> {
    mount::attach(dev.as_fd(), file::cwd(), c"/dev")?;
    // Group 5 is `tty` on every distribution; terminals of its own, so none of the host's.
    let options = [(c"ptmxmode", c"666"), (c"mode", c"620"), (c"gid", c"5"), (c"max", TERMINALS)];
    let terminals = filesystem(c"devpts", &options, MountFlags::NO_SUID.and(MountFlags::NO_EXEC))?;
    mount::attach(terminals.as_fd(), file::cwd(), c"/dev/pts")?;
    let options = [(c"mode", c"1777"), (c"size", SHARED_MEMORY_BYTES)];
    let shared = filesystem(c"tmpfs", &options, PLAIN)?;
    mount::attach(shared.as_fd(), file::cwd(), c"/dev/shm")
}

/// Hides and protects parts of `/proc`, and hides `/sys`. The covers are our own null device and
/// an empty directory, never something a tenant could have put in their place: nothing of the
/// tenant's runs yet, and `/dev` and `/proc` have just been mounted.
fn mask(empty: &OwnedFd, figures: &[Option<OwnedFd>]) -> Result<(), SysError> {
    mount::attach(empty.as_fd(), file::cwd(), c"/sys")?;
    // They are there: what is absent below is then what was to be covered.
    for cover in [c"/sys", c"/dev/null"] {
        drop(file::open(file::cwd(), cover, How::new(file::O_PATH))?);
    }
    for path in MASKED_DIRECTORIES {
        if_present(mount::bind(c"/sys", path))?;
    }
    for path in MASKED_FILES {
        if_present(mount::bind(c"/dev/null", path))?;
    }
    for path in READ_ONLY {
        let Some(part) = if_present(mount::clone_mount(file::cwd(), path, true))? else { continue };
        mount::add_flags(part.as_fd(), QUIET.and(MountFlags::READ_ONLY), true)?;
        mount::attach(part.as_fd(), file::cwd(), path)?;
    }
    for (figure, (_, _, path)) in figures.iter().flatten().zip(COVERS) {
        mount::attach(figure.as_fd(), file::cwd(), path)?;
    }
    Ok(())
}

/// Kernels differ in what they show: a path that is absent needs no cover.
fn if_present<T>(result: Result<T, SysError>) -> Result<Option<T>, SysError> {
    /// errno(3), "no such file or directory".
    const ENOENT: i32 = 2;
    match result {
        Err(error) if error.errno == ENOENT => Ok(None),
        other => other.map(Some),
    }
}
