//! The process tree of one command: how it is killed whole.
//!
//! With a v2 cgroup per command, one write kills every process in it at once, whatever it did to
//! hide. Without one, the agent looks for the command's session and descendants in /proc, stops
//! them so that they cannot fork, and kills them; a process that made a session of its own *and*
//! let its parent die is not found then.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::{CStr, CString},
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sys::{
    SysError, errno,
    file::{self, How},
    pidfd,
    signal::{self, SIGCONT, SIGKILL, SIGSTOP},
};

use super::{Kill, pump::KILL_WAIT};
use crate::{init::Agent, reaper::Reaper};

/// Left-over cgroups looked at in one [`Forest::sweep`]: bounds the work per reaped orphan. A few
/// more than can be added between two sweeps, so the list drains.
const SWEEP_CGROUPS: usize = 16;

/// Looks at /proc in one kill without a cgroup: each finds what the one before let escape, and a
/// stopped process cannot fork, so two are usual.
const SCANS: usize = 16;

/// Where the cgroups of commands are.
#[derive(Debug)]
pub(crate) struct Forest {
    dir: Option<OwnedFd>,
    next: AtomicU64,
    /// Cgroups of commands that ended and left processes behind.
    left: Mutex<VecDeque<CString>>,
}

/// The cgroup of one command.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) name: CString,
    pub(crate) dir: OwnedFd,
}

impl Forest {
    /// Commands get cgroups below `dir`, or none without it.
    pub(crate) fn new(dir: Option<OwnedFd>) -> Self {
        Self { dir, next: AtomicU64::new(0), left: Mutex::default() }
    }

    /// Makes a cgroup for a command.
    pub(crate) fn plant(&self) -> Result<Option<Cgroup>, SysError> {
        let Some(forest) = &self.dir else { return Ok(None) };
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = file::c_name(format!("exec-{number}"))?;
            match file::make_dir(forest.as_fd(), &name, 0o755) {
                // An earlier agent of the same cgroup left it.
                Err(SysError { errno: errno::EEXIST, .. }) => continue,
                made => made?,
            }
            let how = How::new(file::O_RDONLY | file::O_DIRECTORY);
            let dir = file::open(forest.as_fd(), &name, how)?;
            return Ok(Some(Cgroup { name, dir }));
        }
    }

    /// Removes the cgroup of a command that is over, now or when its last process has ended. In the
    /// second case its name is returned.
    pub(crate) fn fell(&self, cgroup: &Cgroup) -> Option<CString> {
        if self.remove(&cgroup.name) {
            return None;
        }
        let name = cgroup.name.clone();
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push_back(name.clone());
        Some(name)
    }

    /// The cgroup of this name, if it is still there. A name is not given twice.
    pub(crate) fn find(&self, name: &CStr) -> Option<Cgroup> {
        let how = How::new(file::O_RDONLY | file::O_DIRECTORY);
        let dir = file::open(self.dir.as_ref()?.as_fd(), name, how).ok()?;
        Some(Cgroup { name: name.to_owned(), dir })
    }

    /// Removes left-over cgroups that have emptied.
    pub(crate) fn sweep(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..left.len().min(SWEEP_CGROUPS) {
            if let Some(name) = left.pop_front()
                && !self.remove(&name)
            {
                left.push_back(name);
            }
        }
    }

    fn remove(&self, name: &CString) -> bool {
        let Some(forest) = &self.dir else { return true };
        match file::remove_dir(forest.as_fd(), name) {
            Ok(()) | Err(SysError { errno: errno::ENOENT, .. }) => true,
            Err(_) => false,
        }
    }
}

impl Cgroup {
    /// Its list of processes: read from the start at each look, written with a process id to take
    /// that process in.
    pub(crate) fn procs(&self) -> Result<File, SysError> {
        let how = How::new(file::O_RDWR);
        file::open(self.dir.as_fd(), c"cgroup.procs", how).map(File::from)
    }

    /// The processes in it that have not ended. Source: `cgroup.procs`, cgroups v2.
    pub(crate) fn members(&self) -> Vec<i32> {
        let procs = file::open(self.dir.as_fd(), c"cgroup.procs", How::new(file::O_RDONLY));
        let text = procs.ok().and_then(|procs| io::read_to_string(File::from(procs)).ok());
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills every process in it. Source: `cgroup.kill`, cgroups v2, Linux 5.14.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let kill = file::open(self.dir.as_fd(), c"cgroup.kill", How::new(file::O_WRONLY))?;
        File::from(kill).write_all(b"1")
    }
}

/// A command's processes.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) leader: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Tree {
    /// Kills every process of the command. Call it only while the leader has not been waited for,
    /// so that its number still means it.
    pub(crate) fn kill(&self) {
        let killed = self.cgroup.as_ref().is_some_and(|cgroup| cgroup.kill().is_ok());
        if !killed {
            kill_family(self.leader, true);
            // ESRCH: it has ended by itself.
            signal::send(self.pidfd.as_fd(), SIGKILL).unwrap_or(());
        }
    }

    /// Kills what outlived the leader. Without a cgroup that cannot be told from others any more.
    pub(crate) fn kill_rest(&self) {
        if let Some(cgroup) = &self.cgroup {
            // An error means that nothing is left.
            cgroup.kill().unwrap_or(());
        }
    }

    /// Sends a signal to each of them.
    pub(super) fn signal(&self, signal: i32) {
        match &self.cgroup {
            Some(cgroup) => cgroup.signal(signal),
            // Once the leader has been waited for, its number may be another's.
            None if signal::send(self.pidfd.as_fd(), 0).is_ok() => {
                signal_each(family_of(self.leader), signal);
            }
            None => {}
        }
    }

    /// Sends a signal to those of them that are in the leader's process group, as a terminal does:
    /// what was put into the background with a group of its own does not get it.
    pub(crate) fn signal_group(&self, signal: i32) {
        let members = match &self.cgroup {
            Some(cgroup) => cgroup.members(),
            None => family_of(self.leader),
        };
        let is_of_group = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            stat.is_some_and(|stat| group_of(&stat) == Some(self.leader))
        };
        signal_each(members.into_iter().filter(is_of_group), signal);
    }

    /// True when nothing runs that [`Tree::kill_rest`] could kill.
    pub(super) fn is_empty(&self) -> bool {
        self.cgroup.as_ref().is_none_or(|cgroup| cgroup.members().is_empty())
    }
}

impl Cgroup {
    fn signal(&self, signal: i32) {
        signal_each(self.members(), signal);
    }

    /// Returns when it has no process, or after `patience`; true when it has none.
    async fn emptied(&self, reaper: &Reaper, patience: Duration) -> bool {
        let wait = async {
            // The last process of a cgroup is an orphan, or was its leader.
            while !self.members().is_empty() {
                reaper.reaped().await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }
}

/// Ends what a command that has ended left in the cgroup `name`.
pub(crate) async fn end_rest(agent: &Agent, name: &CStr, kill: Kill) {
    let Some(cgroup) = agent.forest.find(name) else { return };
    if !kill.is_forced() {
        cgroup.signal(kill.signal);
        cgroup.signal(SIGCONT);
        if cgroup.emptied(&agent.reaper, kill.grace).await {
            return;
        }
    }
    // An error means that nothing is left.
    cgroup.kill().unwrap_or(());
    cgroup.emptied(&agent.reaper, KILL_WAIT).await;
}

fn signal_each(pids: impl IntoIterator<Item = i32>, signal: i32) {
    for pid in pids {
        // An error means that it has ended.
        if let Ok(process) = pidfd::open(pid) {
            signal::send(process.as_fd(), signal).unwrap_or(());
        }
    }
}

/// The processes that `leader` started, itself included, as far as they can be found without a
/// cgroup.
pub(crate) fn family_of(leader: i32) -> Vec<i32> {
    family(leader, &processes()).into_iter().collect()
}

/// Kills the family of `leader`, with or without `leader` itself.
pub(crate) fn kill_family(leader: i32, with_leader: bool) {
    let mut stopped: HashMap<i32, OwnedFd> = HashMap::new();
    for _ in 0..SCANS {
        let found = family(leader, &processes());
        let mut is_new = false;
        for pid in found {
            if stopped.contains_key(&pid) || (pid == leader && !with_leader) {
                continue;
            }
            if let Ok(process) = pidfd::open(pid) {
                // An error means that it has ended.
                signal::send(process.as_fd(), SIGSTOP).unwrap_or(());
                stopped.insert(pid, process);
                is_new = true;
            }
        }
        if !is_new {
            break;
        }
    }
    for process in stopped.values() {
        signal::send(process.as_fd(), SIGKILL).unwrap_or(());
    }
}

/// A line of /proc/PID/stat, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kin {
    pid: i32,
    parent: i32,
    session: i32,
}

fn processes() -> Vec<Kin> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        })
        .collect()
}

/// Source: `proc_pid_stat(5)`; the name in parentheses may itself hold parentheses and spaces.
fn parse_stat(pid: i32, stat: &str) -> Option<Kin> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Kin { pid, parent, session })
}

/// The process group in a line of /proc/PID/stat.
fn group_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(2)?.parse().ok()
}

/// The leader, its session and all their descendants.
fn family(leader: i32, processes: &[Kin]) -> HashSet<i32> {
    let mut family: HashSet<i32> = processes
        .iter()
        .filter(|kin| kin.pid == leader || kin.session == leader)
        .map(|kin| kin.pid)
        .collect();
    loop {
        let before = family.len();
        let children = processes.iter().filter(|kin| family.contains(&kin.parent));
        let children: Vec<i32> = children.map(|kin| kin.pid).collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_the_session_and_all_descendants() {
        let kin = |pid, parent, session| Kin { pid, parent, session };
        let processes = [
            kin(1, 0, 1),
            kin(10, 1, 10),
            kin(12, 11, 10), // in the session, its parent gone
            kin(20, 12, 20), // a session of its own, below one of the family
            kin(21, 20, 20),
            kin(30, 1, 30),
        ];
        assert_eq!(family(10, &processes), HashSet::from([10, 12, 20, 21]));
    }

    #[test]
    fn a_stat_line_is_read_past_a_strange_name() {
        let line = "7 (a) b (c) S 3 7 5 0 -1 4194304";
        assert_eq!(parse_stat(7, line), Some(Kin { pid: 7, parent: 3, session: 5 }));
        assert_eq!(parse_stat(7, ""), None);
        assert_eq!((group_of("7 (a) b (c) S 3 8 5 0"), group_of("7")), (Some(8), None));
    }
}
