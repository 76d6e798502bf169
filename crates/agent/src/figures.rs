//! Keeps the figures of `/proc` that change up to date: memory, CPU time, load. See [`jail::figures`],
//! which has their forms.
//!
//! They are written while something works, once a second, and with a request that comes after a pause; an
//! idle sandbox does nothing. What cannot be read is left as it was.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use jail::figures::Now;
use sys::{
    clock::{self, Clock},
    file::{self, How},
};
use tokio::{sync::Notify, time::Instant};

/// How old figures are at most while something works: `top` and `free -s` look as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// How old they are at most while programs only wait, which must cost nothing: it is come to in steps.
const LONGEST_INTERVAL: Duration = Duration::from_secs(32);

/// CPUs in use that count as work.
const WORK: f64 = 0.01;

/// Figures younger than this are not written again for a request.
const FRESH: Duration = Duration::from_millis(250);

/// Bytes of a file that is read: those of cgroups have less.
const READ_BYTES: usize = 8192;

/// Seconds of the three averages of the load.
const LOAD_SECONDS: [f64; 3] = [60.0, 300.0, 900.0];

/// The figures of this sandbox.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    files: Option<Files>,
    asked: Notify,
}

#[derive(Debug)]
struct Files {
    meminfo: File,
    stat: File,
    loadavg: File,
    memory_stat: File,
    cpu_stat: Option<File>,
    /// What does not change, and the load so far.
    start: Now,
}

/// What the last look found.
#[derive(Debug)]
struct Last {
    at: Instant,
    cpu_us: u64,
    /// CPUs in use since the look before.
    used: f64,
    load: [f64; 3],
}

impl Figures {
    /// Takes over the directory of the figures and what they are made from. None of them: the agent
    /// does not run in a jail, and there is nothing to keep.
    ///
    /// # Errors
    /// When the directory has not what the launcher put there.
    pub(crate) fn new(
        dir: Option<OwnedFd>,
        memory_stat: Option<OwnedFd>,
        cpu_stat: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let (Some(dir), Some(memory_stat)) = (dir, memory_stat) else { return Ok(Self::default()) };
        let open = |name| {
            file::open(dir.as_fd(), name, How::new(file::O_WRONLY))
                .map(File::from)
                .map_err(|error| io::Error::from_raw_os_error(error.errno))
        };
        let files = Files {
            meminfo: open(c"meminfo")?,
            stat: open(c"stat")?,
            loadavg: open(c"loadavg")?,
            memory_stat: memory_stat.into(),
            cpu_stat: cpu_stat.map(File::from),
            start: start()?,
        };
        Ok(Self { files: Some(files), asked: Notify::new() })
    }

    /// Somebody asks the sandbox for something: the figures may be looked at soon.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Keeps the figures, for ever.
    pub(crate) async fn keep(&self) -> std::convert::Infallible {
        let Some(files) = &self.files else { return std::future::pending().await };
        let mut last = Last { at: Instant::now(), cpu_us: 0, used: 0.0, load: [0.0; 3] };
        loop {
            self.asked.notified().await;
            // The request that asked goes first where it need not wait; then its program is there.
            tokio::task::yield_now().await;
            let mut pause = INTERVAL;
            while files.write(&mut last) {
                if last.used > WORK {
                    // However much is asked for meanwhile.
                    pause = INTERVAL;
                    tokio::time::sleep(pause).await;
                    continue;
                }
                pause = LONGEST_INTERVAL.min(pause * 2);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.asked.notified() => {
                        pause = INTERVAL;
                        tokio::time::sleep(FRESH).await;
                    }
                }
            }
            tokio::time::sleep(FRESH).await;
        }
    }
}

/// What the launcher wrote: memory and processors are as the files tell.
fn start() -> io::Result<Now> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    let stat = fs::read_to_string("/proc/stat")?;
    let is_one = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let started_at = now.map_or(0, |now| now.as_secs()).saturating_sub(uptime_s());
    Ok(Now {
        cpus: stat.lines().filter(is_one).count(),
        memory_bytes: total.unwrap_or_default() * 1024,
        started_at,
        ..Now::default()
    })
}

fn uptime_s() -> u64 {
    clock::seconds(Clock::BootTime).ok().and_then(|seconds| seconds.try_into().ok()).unwrap_or(0)
}

impl Files {
    /// Writes the figures of this moment; true when something but the agent runs.
    fn write(&self, last: &mut Last) -> bool {
        let processes = processes();
        let now = self.now(last, processes);
        rewrite(&self.meminfo, &now.meminfo());
        rewrite(&self.stat, &now.stat());
        rewrite(&self.loadavg, &now.loadavg());
        processes > 1
    }

    fn now(&self, last: &mut Last, processes: usize) -> Now {
        let memory = read(&self.memory_stat);
        let cpu = self.cpu_stat.as_ref().map(read).unwrap_or_default();
        // The names of v1, then of v2; cpuacct.stat counts ticks.
        let of = |names: [&str; 2]| names.iter().find_map(|name| field(&memory, name)).unwrap_or(0);
        let time = |name: &str, ticks: &str| {
            let ticks = || field(&cpu, ticks).map(|ticks| ticks.saturating_mul(10_000));
            field(&cpu, name).or_else(ticks).unwrap_or(0)
        };
        let (user_us, system_us) = (time("user_usec", "user"), time("system_usec", "system"));
        last.count(user_us.saturating_add(system_us));
        Now {
            anonymous_bytes: of(["rss", "anon"]),
            file_bytes: of(["cache", "file"]),
            shared_bytes: of(["shmem", "shmem"]),
            inactive_file_bytes: of(["inactive_file", "inactive_file"]),
            user_us,
            system_us,
            uptime_s: uptime_s(),
            load: last.load,
            processes,
            ..self.start
        }
    }
}

impl Last {
    /// Moves the averages on to now: the CPUs in use since the last look, weighed by its time.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a few minutes")]
    fn count(&mut self, cpu_us: u64) {
        let passed = self.at.elapsed().as_secs_f64().max(0.001);
        let used = cpu_us.saturating_sub(self.cpu_us) as f64 / 1_000_000.0 / passed;
        self.used = used;
        for (load, seconds) in self.load.iter_mut().zip(LOAD_SECONDS) {
            let kept = (-passed / seconds).exp();
            *load = load.mul_add(kept, used * (1.0 - kept));
        }
        (self.at, self.cpu_us) = (Instant::now(), cpu_us);
    }
}

/// How many processes the sandbox has.
fn processes() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_one = |name: &std::ffi::OsString| name.as_encoded_bytes()[0].is_ascii_digit();
    entries.map(|entry| entry.file_name()).filter(is_one).count()
}

/// A file from its start; empty when it cannot be read.
fn read(file: &File) -> String {
    let mut bytes = vec![0; READ_BYTES];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(length);
    String::from_utf8(bytes).unwrap_or_default()
}

/// The number behind `name` in lines of `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value?.trim().parse().ok()
}

/// Replaces the content. A reader in between may see an end of the old one: it is longer than the new
/// one only when a number has lost a digit.
fn rewrite(file: &File, content: &str) {
    let written = file.write_all_at(content.as_bytes(), 0);
    drop(written.and_then(|()| file.set_len(content.len().try_into().unwrap_or(u64::MAX))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "cache 12\nrss_huge 7\nrss 5\n";
        assert_eq!(field(text, "rss"), Some(5));
        assert_eq!(field(text, "anon"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_follows_the_cpus_in_use() {
        let mut last = Last { at: Instant::now(), cpu_us: 0, used: 0.0, load: [0.0; 3] };
        for second in 1..=600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            last.count(second * 2_000_000);
        }
        let [one, five, fifteen] = last.load;
        assert!(one > 1.99 && five > 1.7 && fifteen < 1.1, "{:?}", last.load);
    }
}
