//! What the agent inherits: the descriptors that the launcher leaves open across its exec.
//!
//! Written as one argument, `listen=3,config=4,...`, because an argument survives exec and needs
//! no file. Everything not named here is closed before the agent starts.

use std::{fmt, os::fd::RawFd, str::FromStr};

/// Numbers of the agent's inherited descriptors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handoff {
    /// A listening unix stream socket: the agent's HTTP server.
    pub listen: RawFd,
    /// A socket on which the agent gets its configuration, see `link::AgentConfig::receive`.
    pub config: RawFd,
    /// Directory of the sandbox's user cgroup in a v2 tree, delegated to the sandbox's root: a
    /// directory made below it is the cgroup of one process tree, with `cgroup.kill`.
    pub cgroup: Option<RawFd>,
    /// `tasks` files of the user cgroup, one per v1 controller: a single-threaded process that
    /// writes `0` to each has joined. On a pure v2 host this is empty; the tree's own cgroup below
    /// `cgroup` is joined with `CLONE_INTO_CGROUP`.
    pub tasks: Vec<RawFd>,
    /// File with a line `oom_kill N`, read from the start at each look: `memory.oom_control` on
    /// v1, `memory.events` on v2.
    pub memory_events: Option<RawFd>,
    /// `pids.events`: a line `max N`, the number of refused forks.
    pub pids_events: Option<RawFd>,
    /// Directory with the files that stand for those of `/proc` about the machine; see
    /// [`crate::figures`].
    pub figures: Option<RawFd>,
    /// `memory.stat` of user code.
    pub memory_stat: Option<RawFd>,
    /// CPU time of the sandbox: `cpu.stat` of a v2 tree, else `cpuacct.stat`.
    pub cpu_stat: Option<RawFd>,
    /// A socket that is shown what the network refuses, see [`crate::network::refusal`].
    pub refusals: Option<RawFd>,
    /// What the agent tells programs about the room on their disk; none where the kernel does.
    pub room: Option<Room>,
}

/// What it takes to answer statfs(2) for the sandbox's own files. Where it could not all be had, the
/// descriptors are of `/dev/null`, and the kernel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// A file with the bytes that the volume is charged with.
    pub charged: RawFd,
    /// A file with the bytes of data that wait to be written to it, and are not among those.
    pub waiting: RawFd,
    /// The listener for which calls wait, see [`sys::seccomp::listener`].
    pub listener: RawFd,
    /// Bytes that the volume may be charged with.
    pub limit_bytes: u64,
    /// Bytes in it that are charged to others, and not limited by that.
    pub inherited_bytes: u64,
}

impl fmt::Display for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen={},config={}", self.listen, self.config)?;
        for (name, fd) in [
            ("cgroup", self.cgroup),
            ("memory_events", self.memory_events),
            ("pids_events", self.pids_events),
            ("figures", self.figures),
            ("memory_stat", self.memory_stat),
            ("cpu_stat", self.cpu_stat),
            ("refusals", self.refusals),
        ] {
            if let Some(fd) = fd {
                write!(f, ",{name}={fd}")?;
            }
        }
        if let Some(Room { charged, waiting, listener, limit_bytes, inherited_bytes }) = self.room {
            write!(f, ",charged={charged},waiting={waiting},listener={listener}")?;
            write!(f, ",limit={limit_bytes},inherited={inherited_bytes}")?;
        }
        self.tasks.iter().try_for_each(|fd| write!(f, ",tasks={fd}"))
    }
}

/// A handoff argument that does not parse: launcher and agent are of different versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the launcher's handoff argument is malformed")]
pub struct InvalidHandoff;

impl FromStr for Handoff {
    type Err = InvalidHandoff;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut handoff = Self { listen: -1, config: -1, ..Self::default() };
        let (mut charged, mut waiting, mut listener) = (None, None, None);
        let (mut limit, mut inherited) = (None, None);
        for pair in text.split(',') {
            let (name, fd) = pair.split_once('=').ok_or(InvalidHandoff)?;
            if let "limit" | "inherited" = name {
                let number: u64 = fd.parse().map_err(|_not_a_number| InvalidHandoff)?;
                *if name == "limit" { &mut limit } else { &mut inherited } = Some(number);
                continue;
            }
            let fd: RawFd = fd.parse().ok().filter(|fd| *fd > 2).ok_or(InvalidHandoff)?;
            match name {
                "listen" => handoff.listen = fd,
                "config" => handoff.config = fd,
                "cgroup" => handoff.cgroup = Some(fd),
                "memory_events" => handoff.memory_events = Some(fd),
                "pids_events" => handoff.pids_events = Some(fd),
                "figures" => handoff.figures = Some(fd),
                "memory_stat" => handoff.memory_stat = Some(fd),
                "cpu_stat" => handoff.cpu_stat = Some(fd),
                "refusals" => handoff.refusals = Some(fd),
                "tasks" => handoff.tasks.push(fd),
                "charged" => charged = Some(fd),
                "waiting" => waiting = Some(fd),
                "listener" => listener = Some(fd),
                _ => return Err(InvalidHandoff),
            }
        }
        if handoff.listen < 0 || handoff.config < 0 {
            return Err(InvalidHandoff);
        }
        handoff.room = match (charged, waiting, listener, limit, inherited) {
            (Some(charged), Some(waiting), Some(listener), Some(limit), Some(inherited)) => {
                let (limit_bytes, inherited_bytes) = (limit, inherited);
                Some(Room { charged, waiting, listener, limit_bytes, inherited_bytes })
            }
            (None, None, None, None, None) => None,
            _ => return Err(InvalidHandoff),
        };
        Ok(handoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handoff_prints_as_it_parses() {
        let full = Handoff {
            listen: 3,
            config: 4,
            cgroup: Some(5),
            tasks: vec![6, 7],
            memory_events: Some(8),
            pids_events: None,
            figures: Some(10),
            memory_stat: Some(11),
            cpu_stat: None,
            refusals: Some(12),
            room: Some(Room {
                charged: 13,
                waiting: 14,
                listener: 15,
                limit_bytes: u64::MAX,
                inherited_bytes: 0,
            }),
        };
        assert_eq!(full.to_string().parse(), Ok(full));
        for bad in [
            "",
            "listen=3",
            "listen=3,config=1",
            "listen=3,config=x",
            "a=3,listen=4,config=5",
            "listen=3,config=4,limit=5",
        ] {
            assert_eq!(bad.parse::<Handoff>(), Err(InvalidHandoff), "{bad}");
        }
    }

    #[test]
    fn hostile_handoffs_are_refused_or_read_in_one_way() {
        let examples = [
            "listen=3,config=4,cgroup=5,tasks=6,tasks=7,memory_events=8",
            "listen=3,config=4",
            "listen=3,config=4,charged=5,waiting=6,listener=7,limit=80000000000,inherited=0",
        ];
        hostile::text(&examples, |text| {
            if let Ok(handoff) = text.parse::<Handoff>() {
                assert_eq!(handoff.to_string().parse(), Ok(handoff));
            }
        });
    }
}
