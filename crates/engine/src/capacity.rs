//! Whether the machine has room for the processes of one more sandbox.
//!
//! Limits of sandboxes are ceilings: together they may be more than the machine has. What keeps it
//! from being overloaded is that none is created or started while less is left than is kept for
//! everything else. Those that run go on.
//!
//! Owns: what is left, as the kernel counts it. Does not: reserve anything, or end anybody.

use std::{
    fs, io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{EngineError, error};

/// How long an answer of the kernel is good for: some dozen sandboxes are made meanwhile, each of a
/// few MiB at its start, which is little of what is kept.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// Processes and threads that are kept for the host's own programs, for agents, and for sandboxes
/// that run and have not reached their limits.
const KEPT_THREADS: u64 = 2048;

/// What the machine is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Memory that could be had without swapping.
    Memory,
    /// Process ids, or threads the kernel allows.
    Processes,
}

/// The machine's room for sandboxes.
#[derive(Debug)]
pub(crate) struct Capacity {
    kept_memory: u64,
    /// Its lock is held while the kernel is asked, which takes some 50 µs.
    last: Mutex<Option<(Instant, Option<Shortage>)>>,
}

/// What is left of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    memory_bytes: u64,
    threads: u64,
}

impl Capacity {
    /// `kept_memory`: bytes that sandboxes to come leave alone.
    pub(crate) fn new(kept_memory: u64) -> Self {
        Self { kept_memory, last: Mutex::new(None) }
    }

    /// Refuses when there is no room for one more sandbox.
    ///
    /// # Errors
    /// `CAPACITY_EXCEEDED` with `details.resource`.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.shortage(Instant::now(), look) {
            None => Ok(()),
            Some(Shortage::Memory) => Err(error::machine_is_full("memory")),
            Some(Shortage::Processes) => Err(error::machine_is_full("processes")),
        }
    }

    fn shortage(&self, now: Instant, look: impl FnOnce() -> io::Result<Left>) -> Option<Shortage> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, shortage)) = *last
            && now.saturating_duration_since(at) < GOOD_FOR
        {
            return shortage;
        }
        let before = last.and_then(|(_, shortage)| shortage);
        let shortage = match look() {
            Ok(left) => {
                let shortage = self.judge(left);
                if shortage != before {
                    let Left { memory_bytes, threads } = left;
                    let kept_bytes = self.kept_memory;
                    tracing::warn!(
                        ?shortage,
                        memory_bytes,
                        kept_bytes,
                        threads,
                        "room for sandboxes"
                    );
                }
                shortage
            }
            Err(error) => {
                // Better too many sandboxes than none on a host that tells nothing.
                tracing::warn!(%error, "what is left of the machine cannot be read");
                None
            }
        };
        *last = Some((now, shortage));
        shortage
    }

    fn judge(&self, left: Left) -> Option<Shortage> {
        if left.memory_bytes < self.kept_memory {
            Some(Shortage::Memory)
        } else if left.threads < KEPT_THREADS {
            Some(Shortage::Processes)
        } else {
            None
        }
    }
}

fn look() -> io::Result<Left> {
    let read = |path: &str| fs::read_to_string(path);
    let number = |path: &str| read(path)?.trim().parse::<u64>().map_err(io::Error::other);
    let odd = |what: &str| io::Error::other(format!("{what} is not as proc(5) says"));
    let memory = available(&read("/proc/meminfo")?).ok_or_else(|| odd("/proc/meminfo"))?;
    let most = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let taken = threads(&read("/proc/loadavg")?).ok_or_else(|| odd("/proc/loadavg"))?;
    Ok(Left { memory_bytes: memory, threads: most.saturating_sub(taken) })
}

/// The bytes in the line `MemAvailable:   12345 kB`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// All threads of `0.20 0.18 0.12 1/80 11206`.
fn threads(loadavg: &str) -> Option<u64> {
    loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Left = Left { memory_bytes: 1000, threads: KEPT_THREADS };

    #[test]
    fn room_ends_at_what_is_kept() {
        let capacity = Capacity::new(1000);
        assert_eq!(capacity.judge(LEFT), None);
        let less_memory = Left { memory_bytes: 999, ..LEFT };
        assert_eq!(capacity.judge(less_memory), Some(Shortage::Memory));
        let less_threads = Left { threads: KEPT_THREADS - 1, ..LEFT };
        assert_eq!(capacity.judge(less_threads), Some(Shortage::Processes));
    }

    #[test]
    fn the_kernel_is_asked_so_often_and_a_shortage_ends() {
        let capacity = Capacity::new(1000);
        let begin = Instant::now();
        let full = || Ok(Left { memory_bytes: 0, ..LEFT });
        assert_eq!(capacity.shortage(begin, full), Some(Shortage::Memory));
        let unasked = || panic!("the last answer is good");
        assert_eq!(capacity.shortage(begin + GOOD_FOR / 2, unasked), Some(Shortage::Memory));
        assert_eq!(capacity.shortage(begin + GOOD_FOR, || Ok(LEFT)), None);
        let nothing = || Err(io::ErrorKind::NotFound.into());
        assert_eq!(capacity.shortage(begin + 2 * GOOD_FOR, nothing), None);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let meminfo = "MemTotal:       16 kB\nMemFree:  1 kB\nMemAvailable:    12 kB\n";
        assert_eq!(available(meminfo), Some(12 * 1024));
        assert_eq!(available("MemTotal: 16 kB\n"), None);
        assert_eq!(threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(threads("0.20"), None);
        let left = look().unwrap();
        assert!(left.memory_bytes > 0 && left.threads > 0, "{left:?}");
    }
}
