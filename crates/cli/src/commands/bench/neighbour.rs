//! What a sandbox feels of a neighbour that uses up its share of something: execs of `true`, in turns
//! with the neighbour quiet and at work, so that what else the machine does meets both.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context as _;
use api::{
    exec::Command,
    file::WriteFile,
    id::SandboxId,
    process::{KillProcess, ProcessStdin, Signal, StartProcess, WaitProcess, WaitUntil},
    sandbox::{CreateSandbox, Resources},
};
use client::ClientError;

use super::{measure::Bench, samples::Samples};

/// The loads, in `attacks/load.py`, with the limit that each of them reaches.
const LOADS: [(&str, &str); 12] = [
    ("processors", "CPU time"),
    ("calls", "CPU time, in the kernel"),
    ("processes", "processes"),
    ("memory", "memory"),
    ("disk", "bytes on disk"),
    ("files", "the disk's bookkeeping"),
    ("pipes", "room for pipes"),
    ("watches", "watches"),
    ("packets", "packets on the loopback"),
    ("connections", "connections that are refused"),
    ("names", "questions for names"),
    ("output", "log bytes"),
];

/// Loads that need a limit of bytes on disk: without one they would fill the node's.
const ON_DISK: [&str; 2] = ["disk", "files"];

/// The program of the loads, and where it is put.
const PROGRAM: &str = include_str!("../../../../../attacks/load.py");
const PLACE: &str = "/tmp/load.py";

/// What the abuser may use: half of a machine with two processors.
const LIMITS: Resources = Resources {
    memory_bytes: Some(256 << 20),
    pids: Some(128),
    cpu_millis: Some(1000),
    cpu_weight: None,
    disk_bytes: Some(1 << 30),
};

/// Turns of quiet and load.
const ROUNDS: usize = 10;

/// Execs after each change that are not counted: what one turn left behind is not the next one's.
const SETTLE: usize = 5;

/// One load, and what its neighbour felt.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) load: &'static str,
    pub(super) limit: &'static str,
    pub(super) quiet: Samples,
    pub(super) loaded: Samples,
}

impl Neighbour {
    /// How many times its quiet value a percentile is under load. None without samples.
    pub(super) fn ratio(&self, of: fn(&super::samples::Summary) -> f64) -> Option<f64> {
        Some(of(&self.loaded.summary()?) / of(&self.quiet.summary()?))
    }
}

impl Bench {
    /// The latencies of one sandbox beside another under each load.
    pub(super) async fn neighbours(&self) -> anyhow::Result<Vec<Neighbour>> {
        let (victim, abuser) = (self.id("victim", 0)?, self.id("abuser", 0)?);
        self.create(&victim).await?;
        let has_disk_limit = self.create_abuser(&abuser).await?;
        let written =
            self.client.write_file(&abuser, PLACE, &WriteFile::default(), PROGRAM.as_bytes()).await;
        written.context("could not write the loads")?;
        let mut measured = Vec::new();
        for (load, limit) in LOADS {
            if has_disk_limit || !ON_DISK.contains(&load) {
                let (quiet, loaded) = self.beside(&victim, &abuser, load).await?;
                measured.push(Neighbour { load, limit, quiet, loaded });
            }
        }
        self.client.destroy_sandbox(&abuser).await?;
        self.client.destroy_sandbox(&victim).await?;
        Ok(measured)
    }

    /// True when its bytes on disk are limited.
    async fn create_abuser(&self, id: &SandboxId) -> anyhow::Result<bool> {
        let request = |resources| CreateSandbox { resources, ..self.request(id) };
        match self.client.create_sandbox(&request(LIMITS)).await {
            Ok(_) => return Ok(true),
            // The node cannot limit them.
            Err(ClientError::Api { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let unlimited = Resources { disk_bytes: None, ..LIMITS };
        self.client.create_sandbox(&request(unlimited)).await?;
        Ok(false)
    }

    async fn beside(
        &self,
        victim: &SandboxId,
        abuser: &SandboxId,
        load: &str,
    ) -> anyhow::Result<(Samples, Samples)> {
        let (mut quiet, mut loaded) = (Samples::new("quiet"), Samples::new("loaded"));
        let each = self.runs.div_ceil(ROUNDS);
        let bar = self.progress(load, 2 * each * ROUNDS);
        for _round in 0..ROUNDS {
            self.feel(victim, each, &mut quiet).await?;
            let process = self.begin(abuser, load).await?;
            self.feel(victim, each, &mut loaded).await?;
            let kill = KillProcess { signal: Signal::KILL, ..KillProcess::default() };
            self.client.kill_process(abuser, &process, kill).await?;
            let end = WaitProcess { until: WaitUntil::Exit {}, timeout_ms: None };
            self.client.wait_process(abuser, &process, &end).await?;
            bar.inc(u64::try_from(2 * each).unwrap_or(0));
        }
        bar.finish_and_clear();
        Ok((quiet, loaded))
    }

    /// Starts a load and returns its process when it has begun.
    async fn begin(&self, abuser: &SandboxId, load: &str) -> anyhow::Result<String> {
        let command = ["python3", PLACE, load].map(str::to_owned).to_vec();
        let request = StartProcess {
            command: Command::Program(command),
            id: None,
            session: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout_ms: None,
            stdin: ProcessStdin::Closed,
            // Its end is waited for, and what is forgotten has none.
            auto_cleanup: false,
        };
        let process = self.client.start_process(abuser, &request).await?.id.to_string();
        let text = Some("begun".to_owned());
        let until = WaitUntil::Log { text, pattern: None, stream: None };
        let begun = WaitProcess { until, timeout_ms: None };
        self.client.wait_process(abuser, &process, &begun).await?;
        Ok(process)
    }

    async fn feel(
        &self,
        victim: &SandboxId,
        count: usize,
        samples: &mut Samples,
    ) -> anyhow::Result<()> {
        for _exec in 0..SETTLE {
            self.run_true(victim).await?;
        }
        for _exec in 0..count {
            let begin = Instant::now();
            samples.record(begin, self.run_true(victim).await);
        }
        Ok(())
    }
}
