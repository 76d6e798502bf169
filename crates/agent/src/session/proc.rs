//! What /proc says of a shell. Source: `proc_pid_stat(5)`, `proc_pid_status(5)`.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Clock ticks per second in /proc/PID/stat, `sysconf(_SC_CLK_TCK)`: the same on every machine that
/// this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Bytes of /proc/PID/stat: some fifty numbers.
const STAT_BYTES: usize = 1024;

/// Descriptors of a shell that are looked at.
const DESCRIPTORS: usize = 4096;

fn stat(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// The fields after the name, which may itself hold parentheses and spaces.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// `R`, `S`, `T`, ...; none when there is no such process.
pub(super) fn state(pid: i32) -> Option<char> {
    fields(&stat(pid)?).next()?.chars().next()
}

/// Time that a process and its waited-for children had on a CPU.
#[derive(Debug)]
pub(super) struct Cpu {
    /// Open, because it is read after every command.
    stat: Option<File>,
    before: Duration,
}

impl Cpu {
    pub(super) fn of(pid: i32) -> Self {
        Self { stat: File::open(format!("/proc/{pid}/stat")).ok(), before: Duration::ZERO }
    }

    /// Since the last look.
    pub(super) fn lap(&mut self) -> Duration {
        let mut buffer = [0; STAT_BYTES];
        let length = self.stat.as_ref().and_then(|stat| stat.read_at(&mut buffer, 0).ok());
        let text = buffer.get(..length.unwrap_or(0)).unwrap_or_default();
        let now = parse_cpu(&String::from_utf8_lossy(text)).max(self.before);
        now - std::mem::replace(&mut self.before, now)
    }
}

fn parse_cpu(stat: &str) -> Duration {
    // Fields 14 to 17: utime, stime, cutime, cstime.
    let ticks: u64 =
        fields(stat).skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// True when the process has a handler for `signal`.
pub(super) fn catches(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_caught(&status).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn parse_caught(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Its current directory, by the path that it had where it was removed; none when it has ended.
pub(super) fn cwd(pid: i32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    // That may also be the end of a name.
    let had = path.as_os_str().as_bytes().strip_suffix(b" (deleted)").filter(|_| !path.is_dir());
    Some(had.map_or_else(|| path.clone(), |had| OsStr::from_bytes(had).into()))
}

/// True when its current directory is the one at `path`.
pub(super) fn is_at(pid: i32, path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let here = identity(format!("/proc/{pid}/cwd").as_ref());
    here.is_some() && here == identity(path)
}

/// The file behind one of its descriptors.
pub(super) fn descriptor(pid: i32, number: i32) -> Option<fs::Metadata> {
    fs::metadata(format!("/proc/{pid}/fd/{number}")).ok()
}

/// Its descriptors with the files behind them.
pub(super) fn descriptors(pid: i32) -> Vec<(i32, fs::Metadata)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .take(DESCRIPTORS)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::metadata(entry.path()).ok()?))
        })
        .collect()
}

/// A path's bytes.
pub(super) fn bytes(path: PathBuf) -> Vec<u8> {
    OsString::from(path).into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_handlers_are_read() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 1 2 3 4 20 0 1";
        assert_eq!(parse_cpu(stat), Duration::from_millis(100));
        assert_eq!(fields(stat).next(), Some("S"));
        assert_eq!(parse_caught("Name:\tx\nSigCgt:\t8000000000000002\n"), Some(1 << 63 | 2));
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(state(own).is_some());
        assert_eq!(cwd(own), std::env::current_dir().ok());
        assert!(descriptors(own).iter().any(|(number, _)| *number == 2));
        assert_eq!(state(-1), None);
    }
}
