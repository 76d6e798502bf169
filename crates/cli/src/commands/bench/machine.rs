//! What the figures were measured on.

use std::{fmt, fs, io, thread};

use anyhow::Context as _;
use serde::Serialize;

use crate::units::format_bytes;

/// The machine this program runs on, which is the server's unless `SANDBAR_URL` says otherwise.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    kernel: String,
    cores: usize,
    memory_bytes: u64,
}

impl Machine {
    pub(super) fn read() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            cores: cores(),
            memory_bytes: meminfo("MemTotal").unwrap_or(0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cores, memory_bytes } = self;
        write!(f, "Linux {kernel}, {cores} cores, {}", format_bytes(*memory_bytes))
    }
}

/// Cores this program may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory the kernel could give out now: `MemAvailable`, proc(5).
pub(super) fn available_memory() -> anyhow::Result<u64> {
    meminfo("MemAvailable").context("could not read MemAvailable from /proc/meminfo")
}

fn meminfo(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse_meminfo(&text, name).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_meminfo(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kib() {
        let text = "MemTotal:        8388608 kB\nMemFree:  5 kB\nHugePages_Total:  0\n";
        assert_eq!(parse_meminfo(text, "MemTotal"), Some(8 << 30));
        assert_eq!(parse_meminfo(text, "Mem"), None);
        assert_eq!(parse_meminfo(text, "HugePages_Total"), None);
    }
}
