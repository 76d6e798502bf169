//! Cgroups of jails, with one face for v1, v2 and hybrid hosts. cgroups(7).
//!
//! ```text
//! <tree>/sandbar-<node>/<jail>/          the jail: CPU quota and weight; v2: delegated, killed as a whole;
//!                                        v1: PID 1, and room for it beside the tenant's
//! <tree>/sandbar-<node>/<jail>/agent/    v2: PID 1, with a memory of its own
//! <tree>/sandbar-<node>/<jail>/user/     everything the tenant runs: memory, pids
//! ```
//!
//! Every tree that limits agent and user apart has the last, and the v2 tree has all three wherever
//! one is mounted, because its `cgroup.kill` and `cgroup.freeze` work without controllers. A v1 tree
//! for CPU time or for freezing alone has the first only. The agent is in none of the tenant's groups
//! so that user code that runs out of memory takes nobody along. Where a group may hold processes and
//! other groups both, in v1, it needs none of its own for that: a group costs a quarter of a millisecond
//! and, for memory, a map for every file system of the machine.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sys::{file, pidfd, poll, signal};

use crate::{
    error::{InStep, JailError},
    spec::{CPU_WEIGHT, JailId, Limits},
};

pub(crate) mod devices;
mod freezer;
mod layout;

pub use freezer::is_frozen;
pub(crate) use layout::{Controller, Layout, node_dir};

/// Bytes of memory for the agent itself: its buffers for the largest number of buffered execs that
/// are likely at once. Past it the kernel ends the agent, and with it this sandbox alone.
const AGENT_MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// Processes and threads of the agent itself.
const AGENT_PIDS: u32 = 64;

/// Cgroups that the agent may make below `user`: one per running command, and as many that are
/// empty and not yet removed.
const MOST_DESCENDANTS: u32 = 1024;

/// Microseconds of the CPU quota's period; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// How long a jail's processes may take to die. Longer means a process stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// What a jail uses now, read from its cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes charged to user code, page cache included.
    pub memory_bytes: u64,
    /// Processes and threads of user code.
    pub pids: u32,
    /// Milliseconds of CPU, agent included.
    pub cpu_ms: u64,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

/// Reads a jail's usage; needs no privilege and no launcher.
///
/// # Errors
/// When the jail has no cgroup (it does not run).
pub fn usage(node_name: &str, jail: JailId) -> io::Result<Usage> {
    let layout = Layout::detect()?;
    let tree = |controller| layout.tree(controller).ok_or(io::ErrorKind::NotFound);
    let user = |controller| {
        Ok::<_, io::Error>(jail_dir(&tree(controller)?.path, node_name, jail).join("user"))
    };
    let memory = user(Controller::Memory)?;
    let (current, events) = match tree(Controller::Memory)?.v2 {
        true => ("memory.current", "memory.events"),
        false => ("memory.usage_in_bytes", "memory.oom_control"),
    };
    Ok(Usage {
        memory_bytes: read_number(&memory.join(current))?,
        pids: read_number(&user(Controller::Pids)?.join("pids.current"))?.try_into().unwrap_or(0),
        cpu_ms: cpu_ms(&layout, node_name, jail)?,
        oom_kills: read_field(&memory.join(events), "oom_kill")?,
    })
}

fn cpu_ms(layout: &Layout, node_name: &str, jail: JailId) -> io::Result<u64> {
    if let Some(unified) = &layout.unified {
        let stat = jail_dir(unified, node_name, jail).join("cpu.stat");
        return Ok(read_field(&stat, "usage_usec")? / 1000);
    }
    let tree = layout.tree(Controller::CpuAccounting).ok_or(io::ErrorKind::NotFound)?;
    let nanoseconds = read_number(&jail_dir(&tree.path, node_name, jail).join("cpuacct.usage"))?;
    Ok(nanoseconds / 1_000_000)
}

fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(|_not_a_number| io::ErrorKind::InvalidData.into())
}

/// The number after `name` in a file of `name number` lines; 0 when there is no such line.
fn read_field(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}

/// The directory of jail `jail` in the tree mounted at `tree`.
fn jail_dir(tree: &Path, node_name: &str, jail: JailId) -> PathBuf {
    tree.join(node_dir(node_name)).join(jail.to_string())
}

/// The cgroups of one node.
#[derive(Debug)]
pub(crate) struct NodeCgroups {
    layout: Layout,
    name: String,
}

/// The cgroups of a jail being built: what its first processes need open.
#[derive(Debug)]
pub(crate) struct JailCgroups {
    /// v2: where the first process starts.
    pub(crate) top: Option<OwnedFd>,
    /// v2: where the agent starts.
    pub(crate) agent: Option<OwnedFd>,
    /// v2: where the agent puts commands; see [`crate::handoff::Handoff::cgroup`].
    pub(crate) user: Option<OwnedFd>,
    /// v1: files a process writes `0` to, to join the jail's own group, which is the agent's.
    pub(crate) top_tasks: Vec<OwnedFd>,
    /// v1: the same for the tenant's.
    pub(crate) user_tasks: Vec<OwnedFd>,
    /// See [`crate::handoff::Handoff::memory_events`].
    pub(crate) memory_events: OwnedFd,
    /// See [`crate::handoff::Handoff::pids_events`].
    pub(crate) pids_events: OwnedFd,
    /// See [`crate::handoff::Handoff::memory_stat`].
    pub(crate) memory_stat: OwnedFd,
    /// See [`crate::handoff::Handoff::cpu_stat`]; none where nothing counts it.
    pub(crate) cpu_stat: Option<OwnedFd>,
}

const STEP: &str = "cgroup";

impl NodeCgroups {
    /// Finds the trees and makes the node's directory in each.
    pub(crate) fn open(name: &str) -> Result<Self, JailError> {
        let layout = Layout::detect()
            .map_err(|error| JailError::io(STEP, "read /proc/self/mountinfo", &error))?;
        for needed in [Controller::Memory, Controller::Pids, Controller::Cpu] {
            if layout.tree(needed).is_none() {
                return Err(JailError::Refused(format!(
                    "no cgroup tree with the {needed} controller is mounted; \
                     `sandbar doctor` says how to get one"
                )));
            }
        }
        let node = Self { layout, name: name.to_owned() };
        for tree in node.layout.trees() {
            let dir = tree.join(node_dir(name));
            make_dir(&dir)?;
        }
        node.layout.delegate_controllers(name)?;
        node.lock_devices();
        Ok(node)
    }

    /// Has the kernel refuse devices that no jail has, wherever it can: `sandbar doctor` says where it
    /// cannot, and what the first lock is.
    fn lock_devices(&self) {
        let Some(unified) = &self.layout.unified else { return };
        if let Ok(directory) = open_directory(&unified.join(node_dir(&self.name))) {
            devices::lock(directory.as_fd()).unwrap_or_default();
        }
    }

    fn dirs(&self, jail: JailId) -> impl Iterator<Item = PathBuf> {
        self.layout.trees().map(move |tree| jail_dir(tree, &self.name, jail))
    }

    /// Makes the jail's groups and sets the limits that can be set before a process is in them.
    /// The v2 directories are given to user id `owner`, the jail's root.
    pub(crate) fn create(
        &self,
        jail: JailId,
        limits: Limits,
        owner: u32,
    ) -> Result<JailCgroups, JailError> {
        for tree in self.layout.trees() {
            let dir = jail_dir(tree, &self.name, jail);
            make_dir(&dir)?;
            for group in self.layout.groups(tree) {
                make_dir(&dir.join(group))?;
            }
        }
        if let Some(unified) = &self.layout.unified {
            delegate(&jail_dir(unified, &self.name, jail), owner)?;
        }
        self.set_cpu(jail, limits)?;
        let memory = limits.memory_bytes.saturating_add(AGENT_MEMORY_BYTES);
        for (tree, dir) in self.v1_dirs(jail) {
            tree.set_limits(&dir.join("user"), limits.memory_bytes, limits.pids)?;
            tree.set_limits(&dir, memory, limits.pids.saturating_add(AGENT_PIDS))?;
        }
        self.descriptors(jail)
    }

    /// Sets the limits of v2 controllers. They cannot be set earlier, because a v2 group with
    /// controllers for its children may hold no process, and the first process of a jail starts in
    /// the jail's own group, to make that its cgroup namespace's root. By now it has left.
    pub(crate) fn settle(&self, jail: JailId, limits: Limits) -> Result<(), JailError> {
        let Some(unified) = &self.layout.unified else { return Ok(()) };
        let dir = jail_dir(unified, &self.name, jail);
        self.layout.enable_for_children(&dir)?;
        for tree in self.layout.used().filter(|tree| tree.v2) {
            tree.set_limits(&dir.join("user"), limits.memory_bytes, limits.pids)?;
            tree.set_limits(&dir.join("agent"), AGENT_MEMORY_BYTES, AGENT_PIDS)?;
        }
        Ok(())
    }

    fn v1_dirs(&self, jail: JailId) -> impl Iterator<Item = (&layout::Tree, PathBuf)> {
        let v1 = self.layout.used().filter(|tree| !tree.v2);
        v1.map(move |tree| (tree, jail_dir(&tree.path, &self.name, jail)))
    }

    fn set_cpu(&self, jail: JailId, limits: Limits) -> Result<(), JailError> {
        let Some(tree) = self.layout.tree(Controller::Cpu) else { return Ok(()) };
        let dir = jail_dir(&tree.path, &self.name, jail);
        // Every group begins with the usual weight, and setting one takes the kernel a while.
        if limits.cpu_weight != CPU_WEIGHT {
            let (file, value) = match tree.v2 {
                true => ("cpu.weight", limits.cpu_weight),
                false => ("cpu.shares", shares(limits.cpu_weight)),
            };
            set(&dir.join(file), &value.to_string())?;
        }
        let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
        if tree.v2 {
            return set(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"));
        }
        set(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
        set(&dir.join("cpu.cfs_quota_us"), &quota.to_string())
    }

    fn descriptors(&self, jail: JailId) -> Result<JailCgroups, JailError> {
        let tasks = |group: &str| {
            let dirs = self.v1_dirs(jail);
            let dirs = dirs.filter(|(tree, _)| group.is_empty() || tree.has_groups());
            dirs.map(|(_, dir)| open_to_write(&dir.join(group).join("tasks")))
                .collect::<Result<Vec<_>, _>>()
        };
        let unified = self.layout.unified.as_ref();
        let unified = unified.map(|tree| jail_dir(tree, &self.name, jail));
        let directory =
            |group: &str| unified.as_ref().map(|dir| open_directory(&dir.join(group))).transpose();
        // A detached copy of the mount: for whoever holds it, `..` does not lead out.
        let user = match directory("user")? {
            Some(dir) => Some(sys::mount::clone_mount(dir.as_fd(), c"", false).in_step(STEP)?),
            None => None,
        };
        let events = |controller, v1: &str, v2: &str| {
            let tree = self.layout.tree(controller).ok_or_else(|| {
                JailError::Refused(format!("the {controller} controller is gone"))
            })?;
            let name = if tree.v2 { v2 } else { v1 };
            Ok::<_, JailError>(jail_dir(&tree.path, &self.name, jail).join("user").join(name))
        };
        let accounting = self.layout.tree(Controller::CpuAccounting);
        let cpu_stat = unified.as_ref().map(|dir| dir.join("cpu.stat")).or_else(|| {
            accounting.map(|tree| jail_dir(&tree.path, &self.name, jail).join("cpuacct.stat"))
        });
        Ok(JailCgroups {
            top: directory("")?,
            agent: directory("agent")?,
            user,
            top_tasks: tasks("")?,
            user_tasks: tasks("user")?,
            memory_events: open_events(&events(
                Controller::Memory,
                "memory.oom_control",
                "memory.events",
            )?)?,
            pids_events: open_events(&events(Controller::Pids, "pids.events", "pids.events")?)?,
            memory_stat: open_events(&events(Controller::Memory, "memory.stat", "memory.stat")?)?,
            cpu_stat: cpu_stat.as_deref().map(open_events).transpose()?,
        })
    }

    /// Ends every process of the jail. Safe to repeat.
    pub(crate) fn kill(&self, jail: JailId) -> Result<(), JailError> {
        let deadline = Instant::now() + KILL_DEADLINE;
        self.thaw_to_kill(jail)?;
        match &self.layout.unified {
            Some(unified) => kill_group(&jail_dir(unified, &self.name, jail), deadline),
            None => self.kill_members(jail, deadline),
        }
    }

    /// Ends every process of the jail and removes its groups. Safe to repeat.
    pub(crate) fn destroy(&self, jail: JailId) -> Result<(), JailError> {
        self.kill(jail)?;
        let deadline = Instant::now() + KILL_DEADLINE;
        self.dirs(jail).try_for_each(|dir| remove_group(&dir, deadline))
    }

    /// Without a v2 tree: kills whoever is in any group of the jail until nobody is. Most go with
    /// PID 1, but PID 1 can be anywhere: the agent may have moved itself to the tenant's groups.
    fn kill_members(&self, jail: JailId, deadline: Instant) -> Result<(), JailError> {
        let groups: Vec<_> = self
            .v1_dirs(jail)
            .flat_map(|(_, dir)| ["user", ""].map(|group| dir.join(group)))
            .map(|group| group.join("cgroup.procs"))
            .collect();
        let mut is_empty = false;
        while !is_empty {
            is_empty = true;
            for procs in &groups {
                for pid in members(procs)? {
                    is_empty = false;
                    kill_process(procs, pid, deadline)?;
                }
            }
        }
        Ok(())
    }

    /// True while PID 1 of the jail is alive.
    pub(crate) fn is_alive(&self, jail: JailId) -> bool {
        self.agent_pid(jail).is_some()
    }

    /// Jails from number `from` on that have groups, at most `most`, in order; with their agents'
    /// process ids, 0 for a dead one.
    pub(crate) fn jails(&self, from: JailId, most: usize) -> Result<Vec<(JailId, i32)>, JailError> {
        let mut jails: Vec<JailId> = Vec::new();
        for tree in self.layout.trees() {
            let dir = tree.join(node_dir(&self.name));
            let entries = match fs::read_dir(&dir) {
                // The node was torn down.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| {
                    JailError::io(STEP, format!("read {}", dir.display()), &error)
                })?,
            };
            jails.extend(
                entries
                    .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(JailId))
                    .filter(|jail| *jail >= from),
            );
        }
        jails.sort_unstable();
        jails.dedup();
        jails.truncate(most);
        Ok(jails.into_iter().map(|jail| (jail, self.agent_pid(jail).unwrap_or(0))).collect())
    }

    /// The process id of PID 1 of the jail, while it is alive.
    pub(crate) fn agent_pid(&self, jail: JailId) -> Option<i32> {
        let group = match &self.layout.unified {
            Some(unified) => jail_dir(unified, &self.name, jail).join("agent"),
            None => jail_dir(&self.layout.tree(Controller::Memory)?.path, &self.name, jail),
        };
        fs::read_to_string(group.join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
    }

    /// Removes the node's directories, which must be empty of jails.
    pub(crate) fn remove_node(&self) -> Result<(), JailError> {
        let deadline = Instant::now() + KILL_DEADLINE;
        let dirs = self.layout.trees().map(|tree| tree.join(node_dir(&self.name)));
        dirs.into_iter().try_for_each(|dir| remove_group(&dir, deadline))
    }
}

fn make_dir(dir: &Path) -> Result<(), JailError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(JailError::io(STEP, format!("mkdir {}", dir.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Writes a value to a file of a group.
fn set(path: &Path, value: &str) -> Result<(), JailError> {
    fs::write(path, value).map_err(|error| {
        JailError::io(STEP, format!("write {value} to {}", path.display()), &error)
    })
}

/// Lets user id `owner` start processes anywhere in the group and make groups below `user`, and
/// nothing else: limits stay ours.
fn delegate(dir: &Path, owner: u32) -> Result<(), JailError> {
    set(&dir.join("user/cgroup.max.descendants"), &MOST_DESCENDANTS.to_string())?;
    // One level, as many as commands need: deeper ones could have paths too long to be removed by.
    set(&dir.join("user/cgroup.max.depth"), "1")?;
    for name in ["cgroup.procs", "agent/cgroup.procs", "user", "user/cgroup.procs"] {
        std::os::unix::fs::chown(dir.join(name), Some(owner), Some(owner))
            .map_err(|error| JailError::io(STEP, format!("chown {name}"), &error))?;
    }
    Ok(())
}

fn open_to_write(path: &Path) -> Result<OwnedFd, JailError> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.map(Into::into)
        .map_err(|error| JailError::io(STEP, format!("open {}", path.display()), &error))
}

fn open_events(path: &Path) -> Result<OwnedFd, JailError> {
    fs::File::open(path)
        .map(Into::into)
        .map_err(|error| JailError::io(STEP, format!("open {}", path.display()), &error))
}

fn open_directory(path: &Path) -> Result<OwnedFd, JailError> {
    open_events(path)
}

/// What was opened in group `dir`; none when the group is not there, and only then.
fn if_present<T>(dir: &Path, opened: io::Result<T>) -> Result<Option<T>, JailError> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other
            .map(Some)
            .map_err(|error| JailError::io(STEP, format!("open {}", dir.display()), &error)),
    }
}

/// Kills a v2 group and waits until it is empty.
fn kill_group(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    let Some(events) = if_present(dir, fs::File::open(dir.join("cgroup.events")))? else {
        return Ok(());
    };
    // Nobody can come into an empty group: only who is in it could put somebody there.
    if !is_populated(&events)? {
        return Ok(());
    }
    set(&dir.join("cgroup.kill"), "1")?;
    // Read through the descriptor that is waited on: what has been read through it is no news.
    while is_populated(&events)? {
        wait(|ms| poll::wait_priority(events.as_fd(), ms), deadline, dir)?;
    }
    Ok(())
}

/// True while a process is in the group whose `cgroup.events` this is.
fn is_populated(events: &fs::File) -> Result<bool, JailError> {
    let mut text = [0; 128];
    let length = events
        .read_at(&mut text, 0)
        .map_err(|error| JailError::io(STEP, "read cgroup.events", &error))?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    Ok(text.lines().any(|line| line == "populated 1"))
}

/// Kills a process that is in the group whose `cgroup.procs` this is, and waits for its end.
fn kill_process(procs: &Path, pid: i32, deadline: Instant) -> Result<(), JailError> {
    let Ok(pidfd) = pidfd::open(pid) else { return Ok(()) };
    // Its number may have become another's before the handle was made; what the handle names now
    // keeps its number until it has been waited for.
    if !members(procs)?.contains(&pid) {
        return Ok(());
    }
    // An error means that it is dead already.
    signal::send(pidfd.as_fd(), signal::SIGKILL).unwrap_or_default();
    while !poll::wait_readable(pidfd.as_fd(), 0).in_step(STEP)? {
        wait(|ms| poll::wait_readable(pidfd.as_fd(), ms), deadline, procs)?;
    }
    Ok(())
}

/// Process ids in a group; none when the group is not there.
fn members(procs: &Path) -> Result<Vec<i32>, JailError> {
    let text = if_present(procs, fs::read_to_string(procs))?.unwrap_or_default();
    Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// Waits once, up to what is left until `deadline`; an error when nothing is.
fn wait(
    once: impl FnOnce(i32) -> Result<bool, sys::SysError>,
    deadline: Instant,
    what: &Path,
) -> Result<(), JailError> {
    /// Between looks, in case an event is missed.
    const LOOK_MS: u128 = 20;
    let left = deadline.saturating_duration_since(Instant::now()).as_millis().min(LOOK_MS);
    if left == 0 {
        let error = io::ErrorKind::TimedOut.into();
        return Err(JailError::io(STEP, format!("wait for {}", what.display()), &error));
    }
    once(i32::try_from(left).unwrap_or(1)).in_step(STEP).map(drop)
}

/// Removes a group and those below it, which hold no live process.
fn remove_group(dir: &Path, deadline: Instant) -> Result<(), JailError> {
    // The two that a jail has, first: mostly there are no others, and nothing need be listed.
    for known in ["agent", "user"] {
        drop(fs::remove_dir(dir.join(known)));
    }
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Whatever it is: it is told when it is still so below.
        Err(_in_use) => {}
    }
    let Some(entries) = if_present(dir, fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        remove_group(&entry.path(), deadline)?;
    }
    loop {
        match fs::remove_dir(dir) {
            // An ended process leaves its v1 groups a moment after its v2 group.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let procs = fs::File::open(dir.join("cgroup.procs"));
                let Ok(procs) = procs else { continue };
                wait(|ms| poll::wait_priority(procs.as_fd(), ms.min(1)), deadline, dir)?;
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(JailError::io(STEP, format!("rmdir {}", dir.display()), &error));
            }
            _ => return Ok(()),
        }
    }
}

/// `cpu.shares` of v1 for a weight on v2's scale: what the kernel itself makes of `cpu.weight`
/// (`sched_weight_from_cgroup` in kernel/sched/sched.h), so that the usual ones are the same.
fn shares(weight: u32) -> u32 {
    const USUAL: u32 = 1024;
    (weight * USUAL + CPU_WEIGHT / 2) / CPU_WEIGHT
}

/// Joins v1 groups: a single-threaded process that writes `0` moves itself, without the stall that
/// being moved by another process costs. *After fork.*
pub(crate) fn join(tasks: &[OwnedFd]) -> Result<(), sys::SysError> {
    tasks.iter().try_for_each(|tasks| file::write_all(tasks.as_fd(), b"0"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// As on a host without a v2 tree, of which this one has the v1 part.
    #[test]
    fn a_weight_is_as_many_shares_as_the_kernel_makes_of_it() {
        for (weight, expected) in [(1, 10), (50, 512), (CPU_WEIGHT, 1024), (10_000, 102_400)] {
            assert_eq!(shares(weight), expected, "{weight}");
        }
    }

    #[test]
    fn without_a_v2_tree_everybody_in_any_group_is_killed() {
        let layout = Layout::detect_v1().unwrap();
        if layout.used().all(|tree| tree.v2) {
            // A pure v2 host has no v1 part, and no use for this way of killing.
            return;
        }
        let node = NodeCgroups { layout, name: format!("u{}", std::process::id() % 1_000_000) };
        let nodes: Vec<_> =
            node.layout.trees().map(|tree| tree.join(node_dir(&node.name))).collect();
        nodes.iter().for_each(|dir| make_dir(dir).unwrap());
        let limits = Limits {
            memory_bytes: 1 << 26,
            pids: 16,
            cpu_millis: 1000,
            cpu_weight: 400,
            disk_bytes: None,
        };
        node.create(JailId(1), limits, 0x4000_0000).unwrap();
        let cpu = node.layout.tree(Controller::Cpu).unwrap();
        let shares = jail_dir(&cpu.path, &node.name, JailId(1)).join("cpu.shares");
        assert_eq!(fs::read_to_string(shares).unwrap(), "4096\n");
        let mut sleepers = ["", "user"].map(|group| {
            let sleeper = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
            for (tree, dir) in node.v1_dirs(JailId(1)) {
                let group = if tree.has_groups() { dir.join(group) } else { dir };
                set(&group.join("cgroup.procs"), &sleeper.id().to_string()).unwrap();
            }
            sleeper
        });
        // A frozen v1 group holds signals back.
        let freezer = node.layout.tree(Controller::Freezer).unwrap();
        let state = jail_dir(&freezer.path, &node.name, JailId(1)).join("freezer.state");
        node.freeze(JailId(1)).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "FROZEN\n");
        node.thaw(JailId(1)).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "THAWED\n");
        node.freeze(JailId(1)).unwrap();

        // Waited for by their parent here, where a jail's processes have one that need not wait.
        let waiter = std::thread::spawn(move || {
            sleepers.each_mut().map(|sleeper| sleeper.wait().unwrap().success())
        });
        node.destroy(JailId(1)).unwrap();

        assert_eq!(waiter.join().unwrap(), [false, false]);
        assert_eq!(node.jails(JailId(0), 10).unwrap(), []);
        node.remove_node().unwrap();
    }
}
