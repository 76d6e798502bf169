//! The figures of `/proc` about the machine, as they are for one jail: files in a directory of its own,
//! which cover the kernel's.
//!
//! The launcher makes the files before anything runs; the agent keeps those up to date that change,
//! through a descriptor that nobody else has. What user code sees is read-only.

use std::{
    ffi::CStr,
    fs,
    os::fd::{AsFd, BorrowedFd},
};

use sys::{
    SysError,
    cpu::{self, Cpus},
    file::{self, How},
};

use crate::{
    error::{InStep, JailError},
    spec::{JailId, Limits},
};

/// `/proc/vmstat`: the kernel counts for the whole machine only. Without these lines vmstat(8) does
/// not start.
const VMSTAT: &str = "pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n";

/// What covers what: names in the directory, where that is for a moment, and paths below `/proc`.
pub(crate) const COVERS: [(&CStr, &CStr, &CStr); 6] = [
    (c"meminfo", c"/sys/figures/meminfo", c"/proc/meminfo"),
    (c"stat", c"/sys/figures/stat", c"/proc/stat"),
    (c"loadavg", c"/sys/figures/loadavg", c"/proc/loadavg"),
    (c"cpuinfo", c"/sys/figures/cpuinfo", c"/proc/cpuinfo"),
    (c"vmstat", c"/sys/figures/vmstat", c"/proc/vmstat"),
    (c"boot_id", c"/sys/figures/boot_id", c"/proc/sys/kernel/random/boot_id"),
];

/// The figures of one jail, as text.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Processors that its programs are told to use.
    pub(crate) cpus: Cpus,
    /// In the order of [`COVERS`].
    contents: [String; 6],
}

/// What a jail's figures are made from, read once.
#[derive(Debug)]
pub(crate) struct Machine {
    cpus: Vec<usize>,
    /// The description of each processor, from `/proc/cpuinfo`.
    descriptions: Vec<String>,
}

impl Machine {
    pub(crate) fn look() -> Result<Self, JailError> {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let descriptions = text.split("\n\n").map(str::to_owned).filter(|one| !one.is_empty());
        let cpus = cpu::allowed().in_step("figures")?.numbers();
        Ok(Self { cpus, descriptions: descriptions.collect() })
    }

    /// The figures of jail `jail` before anything has run in it.
    ///
    /// Of the machine's processors it gets as many as its quota fills, and not the same ones as the
    /// jail made before it.
    pub(crate) fn figures(&self, jail: JailId, limits: Limits) -> Figures {
        let wanted = usize::try_from(limits.cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX);
        let count = wanted.clamp(1, self.cpus.len().max(1));
        let first = usize::try_from(jail.0).unwrap_or(0).wrapping_mul(count);
        let all = self.cpus.len().max(1);
        let mine = (0..count).filter_map(|n| self.cpus.get(first.wrapping_add(n) % all).copied());
        let mut mine: Vec<usize> = mine.collect();
        mine.sort_unstable();
        let now = Now { cpus: count, memory_bytes: limits.memory_bytes, ..Now::default() };
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let contents = [
            now.meminfo(),
            now.stat(),
            now.loadavg(),
            self.cpuinfo(&mine),
            VMSTAT.to_owned(),
            boot_id,
        ];
        Figures { cpus: Cpus::of(&mine), contents }
    }

    fn cpuinfo(&self, cpus: &[usize]) -> String {
        let description = |number: &usize| self.descriptions.get(*number).map(String::as_str);
        cpus.iter().filter_map(description).map(|one| format!("{one}\n\n")).collect()
    }
}

impl Figures {
    /// Makes the files in `dir`, as root of the jail (see [`crate::rootfs`]).
    pub(crate) fn write(&self, dir: BorrowedFd<'_>) -> Result<(), SysError> {
        for ((name, _, _), content) in COVERS.iter().zip(&self.contents) {
            let flags = file::O_WRONLY | file::O_CREAT | file::O_EXCL;
            let how = How { mode: 0o444, ..How::new(flags) };
            let made = file::open(dir, name, how)?;
            file::write_all(made.as_fd(), content.as_bytes())?;
        }
        Ok(())
    }
}

/// What a sandbox has and uses at one moment, and how `/proc` tells it, proc(5).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Now {
    /// Processors that its programs are told to use.
    pub cpus: usize,
    /// Bytes of memory it may have.
    pub memory_bytes: u64,
    /// Bytes of memory that belong to no file.
    pub anonymous_bytes: u64,
    /// Bytes of memory with contents of files, those in memory alone included.
    pub file_bytes: u64,
    /// Bytes of files that are in memory alone.
    pub shared_bytes: u64,
    /// Bytes of contents of files that were not used lately.
    pub inactive_file_bytes: u64,
    /// Microseconds of CPU in programs.
    pub user_us: u64,
    /// Microseconds of CPU in the kernel.
    pub system_us: u64,
    /// Seconds since the sandbox was started.
    pub uptime_s: u64,
    /// Unix time of the sandbox's start, seconds.
    pub started_at: u64,
    /// CPUs in use, on average over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Processes.
    pub processes: usize,
}

/// Microseconds of a tick, the unit of `/proc/stat` (`sysconf(_SC_CLK_TCK)` is 100 everywhere).
const TICK_US: u64 = 10_000;

impl Now {
    /// `/proc/meminfo`.
    #[must_use]
    pub fn meminfo(&self) -> String {
        let used = self.anonymous_bytes.saturating_add(self.file_bytes);
        let free = self.memory_bytes.saturating_sub(used);
        let cached = self.file_bytes.saturating_sub(self.shared_bytes);
        let active_file = cached.saturating_sub(self.inactive_file_bytes);
        let lines = [
            ("MemTotal", self.memory_bytes),
            ("MemFree", free),
            ("MemAvailable", free.saturating_add(cached)),
            ("Buffers", 0),
            ("Cached", self.file_bytes),
            ("SwapCached", 0),
            ("Active", self.anonymous_bytes.saturating_add(active_file)),
            ("Inactive", self.inactive_file_bytes),
            ("Active(anon)", self.anonymous_bytes),
            ("Inactive(anon)", 0),
            ("Active(file)", active_file),
            ("Inactive(file)", self.inactive_file_bytes),
            ("Unevictable", 0),
            ("Mlocked", 0),
            ("SwapTotal", 0),
            ("SwapFree", 0),
            ("Dirty", 0),
            ("Writeback", 0),
            ("AnonPages", self.anonymous_bytes),
            ("Mapped", 0),
            ("Shmem", self.shared_bytes),
            ("KReclaimable", 0),
            ("Slab", 0),
            ("SReclaimable", 0),
            ("SUnreclaim", 0),
            ("CommitLimit", self.memory_bytes),
            ("Committed_AS", used),
        ];
        lines
            .iter()
            .map(|(name, bytes)| format!("{:<15} {:>8} kB\n", format!("{name}:"), bytes / 1024))
            .collect()
    }

    /// `/proc/stat`. The time of all CPUs is shared out evenly among them.
    #[must_use]
    pub fn stat(&self) -> String {
        let cpus = u64::try_from(self.cpus.max(1)).unwrap_or(1);
        let times = |share: u64| {
            let (user, system) = (self.user_us / TICK_US / share, self.system_us / TICK_US / share);
            let passed = self.uptime_s.saturating_mul(100).saturating_mul(cpus) / share;
            let idle = passed.saturating_sub(user.saturating_add(system));
            format!("{user} 0 {system} {idle} 0 0 0 0 0 0")
        };
        let mut text = format!("cpu  {}\n", times(1));
        for number in 0..cpus {
            text.push_str(&format!("cpu{number} {}\n", times(cpus)));
        }
        let Self { started_at, processes, .. } = self;
        text.push_str(&format!(
            "intr 0\nctxt 0\nbtime {started_at}\nprocesses {processes}\nprocs_running 1\n\
             procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
        ));
        text
    }

    /// `/proc/loadavg`.
    #[must_use]
    pub fn loadavg(&self) -> String {
        let [one, five, fifteen] = self.load;
        format!("{one:.2} {five:.2} {fifteen:.2} 1/{} 1\n", self.processes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize) -> Machine {
        let describe = |number| format!("processor\t: {number}\nmodel name\t: some");
        Machine { cpus: (0..cpus).collect(), descriptions: (0..cpus).map(describe).collect() }
    }

    #[test]
    fn a_jail_has_the_processors_its_quota_fills_and_others_than_the_one_before() {
        let limits = |cpu_millis| Limits {
            memory_bytes: 1 << 30,
            pids: 64,
            cpu_millis,
            cpu_weight: 100,
            disk_bytes: None,
        };
        let machine = machine(4);
        for (millis, jail, wanted) in [
            (100, 0, vec![0]),
            (1000, 1, vec![1]),
            (1001, 1, vec![2, 3]),
            (3000, 1, vec![0, 1, 3]),
            (9000, 7, vec![0, 1, 2, 3]),
        ] {
            let figures = machine.figures(JailId(jail), limits(millis));
            assert_eq!(figures.cpus.numbers(), wanted, "{millis}");
            assert_eq!(figures.contents[3].matches("processor").count(), wanted.len());
        }
    }

    #[test]
    fn figures_read_as_the_kernel_s_do() {
        let now = Now {
            cpus: 2,
            memory_bytes: 256 << 20,
            anonymous_bytes: 64 << 20,
            file_bytes: 32 << 20,
            shared_bytes: 8 << 20,
            inactive_file_bytes: 4 << 20,
            user_us: 3_000_000,
            system_us: 1_000_000,
            uptime_s: 10,
            started_at: 1_700_000_000,
            load: [0.5, 0.25, 0.125],
            processes: 3,
        };
        let meminfo = now.meminfo();
        assert!(
            meminfo.starts_with("MemTotal:         262144 kB\nMemFree:          163840 kB\n"),
            "{meminfo}"
        );
        assert!(meminfo.contains("MemAvailable:     188416 kB\n"), "{meminfo}");
        let stat = now.stat();
        assert!(stat.starts_with("cpu  300 0 100 1600 0"), "{stat}");
        assert!(stat.contains("\ncpu1 150 0 50 800 0") && !stat.contains("cpu2"), "{stat}");
        assert_eq!(now.loadavg(), "0.50 0.25 0.12 1/3 1\n");
    }
}
