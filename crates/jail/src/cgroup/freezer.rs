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

use sys::poll;

use super::{Controller, Layout, NodeCgroups, STEP, if_present, jail_dir, set, wait};
use crate::{error::JailError, spec::JailId};

/// How long the processes of a jail may take to come to rest. A process that waits for a disk holds
/// it up; one that takes longer than this will for a while, and the freeze is taken back.
const FREEZE_DEADLINE: Duration = Duration::from_secs(2);

/// Between looks at a v1 freezer, which tells nobody when it is done.
const V1_LOOK: Duration = Duration::from_micros(200);

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
        Freezer::V2(dir) => Ok(fs::read_to_string(dir.join("cgroup.freeze"))?.trim() == "1"),
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
        let (file, value) = match self.freezer(jail)? {
            Freezer::V2(dir) => (dir.join("cgroup.freeze"), "0"),
            Freezer::V1(dir) => (dir.join("freezer.state"), "THAWED"),
        };
        if_present(&file, fs::write(&file, value)).map(drop)
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

fn freeze_v2(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    let events = dir.join("cgroup.events");
    let events = fs::File::open(&events)
        .map_err(|error| JailError::io(STEP, format!("open {}", events.display()), &error))?;
    set(&dir.join("cgroup.freeze"), "1")?;
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
    set(&dir.join("freezer.state"), "FROZEN")?;
    let state = || v1_state(dir).map_err(|error| JailError::io(STEP, "read freezer.state", &error));
    while state()? != "FROZEN" {
        if Instant::now() >= deadline {
            let error = io::ErrorKind::TimedOut.into();
            return Err(JailError::io(STEP, format!("freeze {}", dir.display()), &error));
        }
        thread::sleep(V1_LOOK);
    }
    Ok(())
}
