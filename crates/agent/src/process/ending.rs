//! How a command ended: a pure judgement of what is known.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use api::exec::{Ending, Refused};
use sys::{signal::SIGKILL, wait::Status};

use super::refused::{Refusals, Tally};

/// Bytes of a counter file at most: a few short lines.
const COUNTER_FILE_BYTES: usize = 1024;

/// What a shell returns for a child that SIGKILL ended.
const SHELL_KILLED: i32 = 128 + SIGKILL;

/// Where the kernel counts how often the sandbox met its limits.
#[derive(Debug)]
pub(crate) struct Counters {
    memory: Option<File>,
    pids: Option<File>,
    refusals: Refusals,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Processes killed for want of memory.
    pub(crate) oom_kills: u64,
    /// Forks refused for want of process ids.
    pub(crate) refused_forks: u64,
    /// Packets and names that the network refused.
    pub(crate) refused: Tally,
}

impl Counters {
    pub(crate) fn new(memory: Option<File>, pids: Option<File>, refusals: Option<OwnedFd>) -> Self {
        Self { memory, pids, refusals: Refusals::new(refusals) }
    }

    /// Reads the counts; a file that is missing or unreadable counts nothing.
    pub(crate) fn read(&self) -> Counts {
        Counts {
            oom_kills: self.memory.as_ref().map_or(0, |file| read_count(file, "oom_kill")),
            refused_forks: self.pids.as_ref().map_or(0, |file| read_count(file, "max")),
            refused: self.refusals.tally(),
        }
    }

    /// What the network refused to the sandbox while a command ran that ended like this: nothing
    /// where it succeeded, because then it did not fail for that.
    pub(crate) fn refused(&self, before: Counts, ending: Ending) -> Option<Refused> {
        let has_failed = ending != Ending::Exited { code: 0 };
        has_failed.then(|| self.refusals.since(before.refused)).flatten()
    }
}

fn read_count(file: &File, name: &str) -> u64 {
    let mut buffer = [0; COUNTER_FILE_BYTES];
    let length = file.read_at(&mut buffer, 0).unwrap_or(0);
    let text = buffer.get(..length).unwrap_or_default();
    parse_count(std::str::from_utf8(text).unwrap_or_default(), name)
}

fn parse_count(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Why the agent killed a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its time was over.
    Timeout,
    /// Nobody waits for it any more.
    CallerGone,
    /// Somebody asked for it.
    Requested,
}

/// All that is known when a command is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// Why the agent killed it, if it did.
    pub(crate) cause: Option<Cause>,
    /// The signal that it got for that.
    pub(crate) signal: i32,
    /// What the kernel says of it; none when it would not end.
    pub(crate) status: Option<Status>,
    pub(crate) before: Counts,
    pub(crate) after: Counts,
}

/// Judges. `is_disk_full` is asked only when nothing else explains a failure.
///
/// The counts are the sandbox's, so a limit that a neighbour command met at the same time can
/// explain a failure that had another reason; a success is never explained away.
pub(crate) fn ending(evidence: Evidence, is_disk_full: impl FnOnce() -> bool) -> Ending {
    let Evidence { cause, signal, status, before, after } = evidence;
    match (cause, status) {
        (Some(Cause::Timeout), None | Some(Status::Signaled(SIGKILL))) => return Ending::Timeout,
        (Some(_), None) => return Ending::Killed { signal: SIGKILL },
        (Some(_), Some(Status::Signaled(by))) if by == SIGKILL || by == signal => {
            return Ending::Killed { signal: by };
        }
        // It obeyed in its own way.
        (Some(Cause::Requested), Some(_)) if signal != SIGKILL => {
            return Ending::Killed { signal };
        }
        (None, None) => return Ending::Lost,
        (_, Some(Status::Exited(0))) => return Ending::Exited { code: 0 },
        // Nothing gets to return or to fail once SIGKILL is sent: the command was faster.
        (_, Some(_)) => {}
    }
    let was_killed =
        matches!(status, Some(Status::Signaled(SIGKILL) | Status::Exited(SHELL_KILLED)));
    if was_killed && after.oom_kills > before.oom_kills {
        return Ending::OutOfMemory;
    }
    match status {
        Some(Status::Signaled(signal)) => Ending::Signaled { signal },
        _ if after.refused_forks > before.refused_forks => Ending::PidsLimit,
        _ if is_disk_full() => Ending::DiskFull,
        Some(Status::Exited(code)) => Ending::Exited { code },
        None => Ending::Lost,
    }
}

#[cfg(test)]
mod tests {
    use sys::signal::SIGTERM;

    use super::*;

    fn judge(
        (cause, signal): (Option<Cause>, i32),
        status: Option<Status>,
        oom: u64,
        forks: u64,
    ) -> Ending {
        let after = Counts { oom_kills: oom, refused_forks: forks, ..Counts::default() };
        ending(Evidence { cause, signal, status, before: Counts::default(), after }, || false)
    }

    #[test]
    fn an_ending_says_why() {
        let exited = |code| Some(Status::Exited(code));
        let killed = Some(Status::Signaled(SIGKILL));
        let terminated = Some(Status::Signaled(SIGTERM));
        let crashed = Some(Status::Signaled(11));
        let none = (None, SIGKILL);
        let timeout = (Some(Cause::Timeout), SIGKILL);
        let gone = (Some(Cause::CallerGone), SIGKILL);
        let requested = |signal| (Some(Cause::Requested), signal);
        for (cause, status, oom, forks, expected) in [
            (none, exited(0), 0, 0, Ending::Exited { code: 0 }),
            (none, exited(0), 1, 1, Ending::Exited { code: 0 }),
            (none, exited(3), 1, 0, Ending::Exited { code: 3 }),
            (none, exited(137), 1, 0, Ending::OutOfMemory),
            (none, exited(137), 0, 0, Ending::Exited { code: 137 }),
            (none, exited(254), 0, 1, Ending::PidsLimit),
            (none, killed, 1, 0, Ending::OutOfMemory),
            (none, killed, 0, 1, Ending::Signaled { signal: 9 }),
            (none, crashed, 1, 0, Ending::Signaled { signal: 11 }),
            (none, None, 0, 0, Ending::Lost),
            (timeout, killed, 1, 1, Ending::Timeout),
            (timeout, None, 0, 0, Ending::Timeout),
            // It ended in the moment in which its time did.
            (timeout, exited(0), 0, 0, Ending::Exited { code: 0 }),
            (timeout, exited(3), 0, 0, Ending::Exited { code: 3 }),
            (timeout, crashed, 0, 0, Ending::Signaled { signal: 11 }),
            (gone, killed, 1, 1, Ending::Killed { signal: 9 }),
            (gone, exited(0), 0, 0, Ending::Exited { code: 0 }),
            (requested(SIGTERM), terminated, 0, 0, Ending::Killed { signal: 15 }),
            (requested(SIGTERM), killed, 0, 0, Ending::Killed { signal: 9 }),
            (requested(SIGTERM), exited(0), 0, 0, Ending::Killed { signal: 15 }),
            (requested(SIGTERM), exited(143), 0, 1, Ending::Killed { signal: 15 }),
            (requested(2), exited(130), 0, 0, Ending::Killed { signal: 2 }),
            (requested(SIGTERM), None, 0, 0, Ending::Killed { signal: 9 }),
            (requested(SIGKILL), killed, 0, 0, Ending::Killed { signal: 9 }),
            (requested(SIGKILL), exited(1), 0, 0, Ending::Exited { code: 1 }),
        ] {
            assert_eq!(judge(cause, status, oom, forks), expected, "{cause:?} {status:?}");
        }
    }

    #[test]
    fn a_full_disk_explains_a_failure_that_nothing_else_does() {
        let evidence = |code| Evidence {
            cause: None,
            signal: SIGKILL,
            status: Some(Status::Exited(code)),
            before: Counts::default(),
            after: Counts::default(),
        };
        assert_eq!(ending(evidence(1), || true), Ending::DiskFull);
        assert_eq!(ending(evidence(0), || true), Ending::Exited { code: 0 });
    }

    #[test]
    fn counts_are_read_from_both_kinds_of_cgroup() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        let v2 = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 0\n";
        assert_eq!(parse_count(v1, "oom_kill"), 7);
        assert_eq!(parse_count(v2, "oom_kill"), 7);
        assert_eq!(parse_count("max 12\n", "max"), 12);
        assert_eq!(parse_count("", "max"), 0);
    }
}
