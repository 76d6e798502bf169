//! How a command ended: a pure judgement of what is known.

use std::{fs::File, os::unix::fs::FileExt};

use api::exec::Ending;
use sys::{
    signal::{SIGKILL, SIGTERM},
    wait::Status,
};

/// Bytes of a counter file at most: a few short lines.
const COUNTER_FILE_BYTES: usize = 1024;

/// What a shell returns for a child that SIGKILL ended.
const SHELL_KILLED: i32 = 128 + SIGKILL;

/// Where the kernel counts how often the sandbox met its limits.
#[derive(Debug)]
pub(crate) struct Counters {
    memory: Option<File>,
    pids: Option<File>,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Processes killed for want of memory.
    pub(crate) oom_kills: u64,
    /// Forks refused for want of process ids.
    pub(crate) refused_forks: u64,
}

impl Counters {
    pub(crate) fn new(memory: Option<File>, pids: Option<File>) -> Self {
        Self { memory, pids }
    }

    /// Reads the counts; a file that is missing or unreadable counts nothing.
    pub(crate) fn read(&self) -> Counts {
        Counts {
            oom_kills: self.memory.as_ref().map_or(0, |file| read_count(file, "oom_kill")),
            refused_forks: self.pids.as_ref().map_or(0, |file| read_count(file, "max")),
        }
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
    let Evidence { cause, status, before, after } = evidence;
    match (cause, status) {
        (Some(Cause::Timeout), _) => return Ending::Timeout,
        (Some(Cause::CallerGone | Cause::Requested), _) => {
            let signal = match status {
                Some(Status::Signaled(signal)) => signal,
                // It was asked first, and ended by itself.
                Some(Status::Exited(_)) => SIGTERM,
                None => SIGKILL,
            };
            return Ending::Killed { signal };
        }
        (None, None) => return Ending::Lost,
        (None, Some(Status::Exited(0))) => return Ending::Exited { code: 0 },
        (None, Some(_)) => {}
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
    use super::*;

    fn judge(cause: Option<Cause>, status: Option<Status>, oom: u64, forks: u64) -> Ending {
        let after = Counts { oom_kills: oom, refused_forks: forks };
        ending(Evidence { cause, status, before: Counts::default(), after }, || false)
    }

    #[test]
    fn an_ending_says_why() {
        let exited = |code| Some(Status::Exited(code));
        let killed = Some(Status::Signaled(SIGKILL));
        for (cause, status, oom, forks, expected) in [
            (None, exited(0), 0, 0, Ending::Exited { code: 0 }),
            (None, exited(0), 1, 1, Ending::Exited { code: 0 }),
            (None, exited(3), 1, 0, Ending::Exited { code: 3 }),
            (None, exited(137), 1, 0, Ending::OutOfMemory),
            (None, exited(137), 0, 0, Ending::Exited { code: 137 }),
            (None, exited(254), 0, 1, Ending::PidsLimit),
            (None, killed, 1, 0, Ending::OutOfMemory),
            (None, killed, 0, 1, Ending::Signaled { signal: 9 }),
            (None, Some(Status::Signaled(11)), 1, 0, Ending::Signaled { signal: 11 }),
            (Some(Cause::Timeout), killed, 1, 1, Ending::Timeout),
            (Some(Cause::Timeout), None, 0, 0, Ending::Timeout),
            (Some(Cause::CallerGone), killed, 1, 1, Ending::Killed { signal: 9 }),
            (Some(Cause::Requested), exited(0), 0, 0, Ending::Killed { signal: 15 }),
            (Some(Cause::Requested), None, 0, 0, Ending::Killed { signal: 9 }),
            (None, None, 0, 0, Ending::Lost),
        ] {
            assert_eq!(judge(cause, status, oom, forks), expected, "{cause:?} {status:?}");
        }
    }

    #[test]
    fn a_full_disk_explains_a_failure_that_nothing_else_does() {
        let evidence = |code| Evidence {
            cause: None,
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
