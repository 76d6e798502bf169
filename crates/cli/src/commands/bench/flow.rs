//! The measures of processes and of what they write: how soon it comes, and how much of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, Encoding, ExecEvent, ExecRequest},
    file::WriteFile,
    id::SandboxId,
    process::{ProcessStdin, StartProcess},
};
use client::decode_output;
use futures_util::{StreamExt as _, future::join_all};

use super::{measure::Bench, report::Flow, samples::Samples};

/// Bytes of output per run in the measure of one stream: 300 MB in all by default.
const STREAM_BYTES_PER_RUN: usize = 1_000_000;

/// Streams at once in the measure of many.
const STREAMS: usize = 100;

/// Bytes of output per run of each of them: 10 MB in all by default.
const MANY_BYTES_PER_RUN: usize = 34_000;

/// The file that is written out again and again, and its bytes.
const FILE: &str = "/tmp/bench-text";
const FILE_BYTES: usize = 200_000;

impl Bench {
    /// Start of a process, to its process id.
    pub(super) async fn start(&self) -> anyhow::Result<Samples> {
        let id = self.create_for("start").await?;
        let mut samples = Samples::new("process start");
        let bar = self.progress("process start", self.runs);
        let request = StartProcess {
            command: Command::Program(vec!["true".to_owned()]),
            id: None,
            session: None,
            cwd: None,
            env: std::collections::BTreeMap::new(),
            timeout_ms: None,
            stdin: ProcessStdin::Closed,
            auto_cleanup: true,
        };
        for _index in 0..self.runs {
            let begin = Instant::now();
            samples.record(begin, self.client.start_process(&id, &request).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(samples)
    }

    /// From the moment in which a streamed command writes to the moment in which that is here: the
    /// command writes the time, which is the same inside.
    pub(super) async fn first_byte(&self) -> anyhow::Result<Samples> {
        let id = self.create_for("first").await?;
        let mut samples = Samples::new("first byte of a stream");
        let bar = self.progress("first byte", self.runs);
        // The pause lets the stream begin first.
        let script = "sleep 0.01; echo $EPOCHREALTIME";
        let words = ["bash", "-c", script].map(str::to_owned);
        let request = ExecRequest::new(Command::Program(words.into()));
        for _index in 0..self.runs {
            let begin = Instant::now();
            match self.delay(&id, &request).await {
                Ok(delay) => samples.push(delay),
                Err(error) => drop(samples.record(begin, Err::<(), _>(error))),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(samples)
    }

    /// How long ago a command wrote the time that it wrote.
    async fn delay(&self, id: &SandboxId, request: &ExecRequest) -> anyhow::Result<Duration> {
        let mut events = self.client.exec_stream(id, request).await?;
        while let Some(event) = events.next().await {
            let ExecEvent::Stdout { data, .. } = event? else { continue };
            let now = SystemTime::now();
            return Ok(now.duration_since(moment(&data)?).unwrap_or_default());
        }
        bail!("the command wrote nothing")
    }

    /// Output of one streamed command per second, in each encoding, and of many at once.
    pub(super) async fn flows(&self) -> anyhow::Result<Vec<Flow>> {
        let id = self.create_for("flow").await?;
        let line = b"The quick brown fox jumps over the lazy dog 0123456789\n";
        let text: Vec<u8> = line.iter().copied().cycle().take(FILE_BYTES).collect();
        self.client.write_file(&id, FILE, &WriteFile::default(), text).await?;
        let bar = self.progress("streams", 3);
        let mut flows = Vec::new();
        for (name, encoding, streams, bytes) in [
            ("stream, utf8", Encoding::Utf8, 1, STREAM_BYTES_PER_RUN),
            ("stream, base64", Encoding::Base64, 1, STREAM_BYTES_PER_RUN),
            ("100 streams", Encoding::Utf8, STREAMS, MANY_BYTES_PER_RUN),
        ] {
            let files = (bytes * self.runs).div_ceil(FILE_BYTES);
            let mut words = vec!["cat".to_owned()];
            words.resize(files + 1, FILE.to_owned());
            let request = ExecRequest { encoding, ..ExecRequest::new(Command::Program(words)) };
            let begin = Instant::now();
            let each = join_all((0..streams).map(|_| self.drain(&id, &request))).await;
            let mut flow = Flow::new(name, begin.elapsed());
            for one in each {
                flow.record(one, files * FILE_BYTES);
            }
            flow.agent_peak_bytes = self.agent_peak_bytes(&id).await;
            flows.push(flow);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(flows)
    }

    /// Reads a streamed command to its end: bytes, time to the first of them and to the last.
    async fn drain(
        &self,
        id: &SandboxId,
        request: &ExecRequest,
    ) -> anyhow::Result<(usize, Duration, Duration)> {
        let begin = Instant::now();
        let (mut bytes, mut first) = (0, None);
        let mut events = self.client.exec_stream(id, request).await?;
        while let Some(event) = events.next().await {
            match event? {
                ExecEvent::Stdout { data, .. } => {
                    first.get_or_insert_with(|| begin.elapsed());
                    bytes += match request.encoding {
                        Encoding::Utf8 => data.len(),
                        Encoding::Base64 => decode_output(&data, Encoding::Base64)?.len(),
                    };
                }
                ExecEvent::Dropped { bytes } => bail!("{bytes} bytes were dropped"),
                _ => {}
            }
        }
        Ok((bytes, first.unwrap_or_default(), begin.elapsed()))
    }

    /// The most memory the sandbox's agent, PID 1 inside, ever had, less the pages of the program that it
    /// shares with all others. None where that is not told.
    pub(super) async fn agent_peak_bytes(&self, id: &SandboxId) -> Option<u64> {
        let status = self.agent_status(id).await.ok()?;
        let field = |name| status_bytes(&status, name);
        Some(field("VmHWM:")?.saturating_sub(field("RssShmem:")?))
    }

    /// What /proc/PID/status says of the sandbox's agent.
    pub(super) async fn agent_status(&self, id: &SandboxId) -> anyhow::Result<String> {
        let words = ["cat", "/proc/1/status"].map(str::to_owned);
        let request = ExecRequest::new(Command::Program(words.into()));
        Ok(self.client.exec(id, &request).await?.stdout)
    }

    async fn create_for(&self, measure: &str) -> anyhow::Result<SandboxId> {
        let id = self.id(measure, 0)?;
        self.create(&id).await?;
        // The first command pays for what the sandbox does once.
        self.run_true(&id).await?;
        Ok(id)
    }
}

/// A line of a /proc/PID/status that says so many KiB, in bytes.
pub(super) fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The moment that bash writes as seconds with a fraction, in the notation of its locale.
fn moment(text: &str) -> anyhow::Result<SystemTime> {
    let text = text.trim();
    let micros = text.split_once(['.', ',']).and_then(|(seconds, fraction)| {
        let seconds: u64 = seconds.parse().ok()?;
        Some(Duration::from_secs(seconds) + Duration::from_micros(fraction.parse().ok()?))
    });
    let since = micros.with_context(|| format!("{text:?} is no time: is the shell bash?"))?;
    Ok(UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_s_time_is_read() {
        let expected = UNIX_EPOCH + Duration::from_micros(12_000_345);
        assert_eq!(moment("12.000345\n").unwrap(), expected);
        assert_eq!(moment("12,000345").unwrap(), expected);
        assert!(moment("\n").is_err());
    }
}
