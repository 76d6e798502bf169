//! Stopping and going on with everything in a jail: `cgroup.freeze` of the v2 tree wherever one is
//! mounted, with or without controllers; else the v1 freezer. cgroups(7).
//!
//! The kernel is the record: whether a jail is frozen is what its group says, also after a crash.

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sys::{pidfd, poll, signal};

use super::{Controller, Layout, NodeCgroups, STEP, if_present, jail_dir, members, set, wait};
use crate::{error::JailError, spec::JailId};

/// How long the processes of a jail may take to come to rest. A process that waits for a disk holds
/// it up; one that takes longer than this will for a while, and the freeze is taken back.
const FREEZE_DEADLINE: Duration = Duration::from_secs(2);

/// Between looks at a v1 freezer, which tells nobody when it is done.
const V1_LOOK: Duration = Duration::from_micros(200);

/// After which a v1 freezer lets everything go on for a moment: a process that waits for the agent's
/// answer (see [`sys::seccomp::listener`]) comes to rest with it only, and the agent may have come to
/// rest before. Longer than most freezes take; each time twice the one before.
const V1_AGAIN: Duration = Duration::from_millis(20);

/// What freezes a v2 group.
const FREEZE: &str = "cgroup.freeze";

/// Where a jail is frozen.
enum Freezer {
    /// `cgroup.freeze` and `cgroup.events`.
    V2(PathBuf),
    /// `freezer.state`.
    V1(PathBuf),
}

/// True when the jail is frozen, or on its way there. Needs no privilege and no launcher.
///
/// # Errors
/// When the jail has no cgroup (it does not run), or the host cannot freeze.
pub fn is_frozen(node_name: &str, jail: JailId) -> io::Result<bool> {
    let layout = Layout::detect()?;
    match find(&layout, node_name, jail).ok_or(io::ErrorKind::Unsupported)? {
        Freezer::V2(dir) => {
            let is_set =
                |file: PathBuf| Ok::<_, io::Error>(fs::read_to_string(file)?.trim() == "1");
            Ok(is_set(dir.join(FREEZE))? || is_set(dir.join("user").join(FREEZE))?)
        }
        Freezer::V1(dir) => Ok(v1_state(&dir)? != "THAWED"),
    }
}

fn find(layout: &Layout, node_name: &str, jail: JailId) -> Option<Freezer> {
    if let Some(unified) = &layout.unified {
        return Some(Freezer::V2(jail_dir(unified, node_name, jail)));
    }
    let tree = layout.tree(Controller::Freezer)?;
    Some(Freezer::V1(jail_dir(&tree.path, node_name, jail)))
}

fn v1_state(dir: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(dir.join("freezer.state"))?.trim().to_owned())
}

impl NodeCgroups {
    /// Stops every process of the jail and waits until none runs. Safe to repeat. After an error
    /// the jail is not frozen.
    pub(crate) fn freeze(&self, jail: JailId) -> Result<(), JailError> {
        let deadline = Instant::now() + FREEZE_DEADLINE;
        let frozen = match self.freezer(jail)? {
            Freezer::V2(dir) => freeze_v2(&dir, deadline),
            Freezer::V1(dir) => freeze_v1(&dir, deadline),
        };
        frozen.inspect_err(|_| drop(self.thaw(jail)))
    }

    /// Lets the processes of the jail go on. Safe to repeat, also for a jail that is gone.
    pub(crate) fn thaw(&self, jail: JailId) -> Result<(), JailError> {
        // Where nothing can be frozen, nothing is.
        let Some(freezer) = find(&self.layout, &self.name, jail) else { return Ok(()) };
        let (files, value) = match freezer {
            // The second is set if a launcher ended while it froze the jail.
            Freezer::V2(dir) => (vec![dir.join(FREEZE), dir.join("user").join(FREEZE)], "0"),
            Freezer::V1(dir) => (vec![dir.join("freezer.state")], "THAWED"),
        };
        files.iter().try_for_each(|file| if_present(file, fs::write(file, value)).map(drop))
    }

    /// Tells every process of the tenant's that it is to end: by TERM, by HUP those that ignore TERM,
    /// as shells at work do, and by CONT those that are stopped. Whoever comes later hears nothing.
    pub(crate) fn notify(&self, jail: JailId) -> Result<(), JailError> {
        let Some(tree) = self.layout.tree(Controller::Memory) else { return Ok(()) };
        notify_group(&jail_dir(&tree.path, &self.name, jail).join("user"))
    }

    /// Pushes out the memory of the jail's user code.
    pub(crate) fn reclaim(&self, jail: JailId) -> Result<(), JailError> {
        let Some(tree) = self.layout.tree(Controller::Memory) else { return Ok(()) };
        let dir = jail_dir(&tree.path, &self.name, jail).join("user");
        // v1 takes as much as goes, v2 as much as is asked for. `memory.reclaim` is in 5.19.
        let (file, value) = if tree.v2 {
            let all = fs::read_to_string(dir.join("memory.current"));
            let Some(all) = if_present(&dir, all)? else { return Ok(()) };
            (dir.join("memory.reclaim"), all.trim().to_owned())
        } else {
            (dir.join("memory.force_empty"), "0".to_owned())
        };
        match fs::write(&file, value) {
            // Less went than there is, or somebody just left.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::ResourceBusy
                        | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            other => other
                .map_err(|error| JailError::io(STEP, format!("write {}", file.display()), &error)),
        }
    }

    /// Has signals of a jail that is to end delivered: unlike a v2 group, a frozen v1 group holds
    /// them back.
    pub(super) fn thaw_to_kill(&self, jail: JailId) -> Result<(), JailError> {
        let frozen_v1 =
            self.layout.unified.is_none() && self.layout.tree(Controller::Freezer).is_some();
        if frozen_v1 { self.thaw(jail) } else { Ok(()) }
    }

    fn freezer(&self, jail: JailId) -> Result<Freezer, JailError> {
        find(&self.layout, &self.name, jail).ok_or_else(|| {
            JailError::Refused(
                "neither a v2 cgroup tree nor the v1 freezer is mounted; `sandbar doctor` says \
                 how to get one"
                    .to_owned(),
            )
        })
    }
}

fn notify_group(dir: &Path) -> Result<(), JailError> {
    let procs = dir.join("cgroup.procs");
    for pid in members(&procs)? {
        let Ok(pidfd) = pidfd::open(pid) else { continue };
        // Its number may have become another's before the handle was made.
        if members(&procs)?.contains(&pid) {
            let notice = if ignores_term(pid) { signal::SIGHUP } else { signal::SIGTERM };
            for number in [notice, signal::SIGCONT] {
                // An error means that it is dead already.
                signal::send(pidfd.as_fd(), number).unwrap_or_default();
            }
        }
    }
    let Some(entries) = if_present(dir, fs::read_dir(dir))? else { return Ok(()) };
    let groups = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    groups.map(|group| group.path()).try_for_each(|group| notify_group(&group))
}

/// By the kernel's word: `SigIgn` in `proc_pid_status(5)`, a mask in which signal 1 is the lowest bit.
fn ignores_term(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal::SIGTERM - 1)) != 0
}

/// Freezes the tenant's processes before the agent: those that wait for its answer (see
/// [`sys::seccomp::listener`]) come to rest with it only. At the end the jail's own group is set and
/// no other.
fn freeze_v2(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    let user = dir.join("user");
    freeze_group(&user, deadline)?;
    freeze_group(dir, deadline)?;
    set(&user.join(FREEZE), "0")
}

fn freeze_group(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    let events = dir.join("cgroup.events");
    let events = fs::File::open(&events)
        .map_err(|error| JailError::io(STEP, format!("open {}", events.display()), &error))?;
    set(&dir.join(FREEZE), "1")?;
    // Read through the descriptor that is waited on: what has been read through it is no news.
    while !says_frozen(&events)? {
        wait(|ms| poll::wait_priority(events.as_fd(), ms), deadline, dir)?;
    }
    Ok(())
}

fn says_frozen(events: &fs::File) -> Result<bool, JailError> {
    let mut text = [0; 128];
    let length = events
        .read_at(&mut text, 0)
        .map_err(|error| JailError::io(STEP, "read cgroup.events", &error))?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    Ok(text.lines().any(|line| line == "frozen 1"))
}

fn freeze_v1(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    let file = dir.join("freezer.state");
    set(&file, "FROZEN")?;
    let state = || v1_state(dir).map_err(|error| JailError::io(STEP, "read freezer.state", &error));
    let mut pause = V1_AGAIN;
    let mut again = Instant::now() + pause;
    while state()? != "FROZEN" {
        let now = Instant::now();
        if now >= again {
            set(&file, "THAWED")?;
            set(&file, "FROZEN")?;
            // A large tree takes longer, and so does a busy machine.
            pause *= 2;
            again = now + pause;
        }
        if now >= deadline {
            let error = io::ErrorKind::TimedOut.into();
            return Err(JailError::io(STEP, format!("freeze {}", dir.display()), &error));
        }
        thread::sleep(V1_LOOK);
    }
    Ok(())
}
