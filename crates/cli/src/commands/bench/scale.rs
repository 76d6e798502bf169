//! What the number of sandboxes costs: memory, and calls of the API beside so many of them.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use api::{
    id::SandboxId,
    sandbox::{ListSandboxes, SandboxState},
};
use clap::ValueEnum;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::process::Command;

use super::{
    machine::cores,
    measure::{Bench, PAUSE},
    samples::{Samples, table},
};
use crate::{output::escape_control, units::format_bytes};

/// Sandboxes on one page of the list that is timed: what a person looks at.
const PAGE: usize = 100;

/// How long a server that was started again may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks whether it answers.
const LOOK: Duration = Duration::from_millis(5);

/// What the sandboxes are, of which there are so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// They run, and do nothing.
    Idle,
    /// They have files and settings.
    Stopped,
}

/// Everything about one kind, for rising numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scale {
    kind: Kind,
    levels: Vec<Level>,
}

/// What was measured beside so many.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    sandboxes: usize,
    /// Sandboxes that could not be made.
    failures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// What each takes away from the machine's memory. None when the server is not on it.
    bytes_per_sandbox: Option<u64>,
    /// Milliseconds from the beginning of the restart to the first answer about sandboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_ms: Option<f64>,
    measures: Vec<Samples>,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }

    fn state(self) -> SandboxState {
        match self {
            Self::Idle => SandboxState::Running,
            Self::Stopped => SandboxState::Stopped,
        }
    }
}

impl Bench {
    /// Makes up to each of `counts`, which rise, and measures beside them. `restart` is a command that
    /// starts the server again.
    pub(super) async fn scale(
        &self,
        kind: Kind,
        counts: &[u32],
        restart: Option<&str>,
    ) -> anyhow::Result<Scale> {
        let before = self.free_memory().await?;
        let mut made: Vec<SandboxId> = Vec::new();
        let mut levels = Vec::new();
        for count in counts {
            let count = usize::try_from(*count)?;
            let failures = self.grow(kind, count, &mut made).await?;
            let bytes_per_sandbox = match (before, self.free_memory().await?) {
                (Some(before), Some(now)) => {
                    before.saturating_sub(now).checked_div(u64::try_from(made.len())?)
                }
                _ => None,
            };
            let mut level = Level {
                sandboxes: made.len(),
                failures: failures.len(),
                first_failure: failures.first().cloned(),
                bytes_per_sandbox,
                restart_ms: None,
                measures: self.calls_beside(kind, &made).await?,
            };
            if let Some(restart) = restart {
                level.restart_ms = Some(self.restart(restart, kind, made.len()).await?);
            }
            levels.push(level);
            if !failures.is_empty() {
                // More would be refused as well.
                break;
            }
        }
        self.destroy_all(made).await;
        Ok(Scale { kind, levels })
    }

    /// Makes sandboxes until there are `count`, and says why some could not be made.
    async fn grow(
        &self,
        kind: Kind,
        count: usize,
        made: &mut Vec<SandboxId>,
    ) -> anyhow::Result<Vec<String>> {
        let bar = self.progress(kind.name(), count - made.len().min(count));
        let results: Vec<anyhow::Result<SandboxId>> = stream::iter(made.len()..count)
            .map(|index| async move {
                let id = self.id(kind.name(), index)?;
                self.create(&id).await?;
                if kind == Kind::Stopped {
                    self.client.stop_sandbox(&id).await?;
                }
                Ok(id)
            })
            .buffer_unordered(cores())
            .inspect(|_result| bar.inc(1))
            .collect()
            .await;
        bar.finish_and_clear();
        let mut failures = Vec::new();
        for result in results {
            match result {
                Ok(id) => made.push(id),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        Ok(failures)
    }

    /// The calls whose time must not depend on how many sandboxes there are, and a list of all.
    async fn calls_beside(&self, kind: Kind, made: &[SandboxId]) -> anyhow::Result<Vec<Samples>> {
        let name = |what: &str| Samples::new(format!("{what}, {} {}", made.len(), kind.name()));
        let [mut exec, mut inspect, mut page, mut all, mut metrics, mut first, mut destroy] = [
            "exec true in one",
            "inspect one",
            "list a page of 100",
            "list all",
            "metrics",
            "create to first exec result",
            "destroy",
        ]
        .map(name);
        let query = ListSandboxes { limit: Some(PAGE), ..ListSandboxes::default() };
        let bar = self.progress("calls beside them", self.runs);
        for (index, id) in (0..self.runs).zip(made.iter().cycle()) {
            if kind == Kind::Idle {
                let begin = Instant::now();
                exec.record(begin, self.run_true(id).await);
            }
            let begin = Instant::now();
            inspect.record(begin, self.client.sandbox(id).await);
            let begin = Instant::now();
            page.record(begin, self.client.list_sandboxes(&query).await);
            let begin = Instant::now();
            all.record(begin, self.client.all_sandboxes(None).await);
            let begin = Instant::now();
            metrics.record(begin, self.client.metrics().await);
            let another = self.id("beside", made.len() * self.runs + index)?;
            let begin = Instant::now();
            let result = async {
                self.create(&another).await?;
                self.run_true(&another).await
            };
            first.record(begin, result.await);
            let begin = Instant::now();
            destroy.record(begin, self.client.destroy_sandbox(&another).await);
            // What goes on behind that reply, and the next sandbox made ahead, are no call's time.
            tokio::time::sleep(PAUSE).await;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let measures = [exec, inspect, page, all, metrics, first, destroy];
        Ok(measures.into_iter().filter(|one| one.attempts() > 0).collect())
    }

    /// Starts the server again and returns the milliseconds until it tells of its sandboxes, which
    /// must all be what they were.
    async fn restart(&self, command: &str, kind: Kind, count: usize) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let status = Command::new("sh").args(["-c", command]).kill_on_drop(true).status().await;
        let status = status.with_context(|| format!("could not run {command:?}"))?;
        anyhow::ensure!(status.success(), "{command:?}: {status}");
        let query = ListSandboxes { limit: Some(1), ..ListSandboxes::default() };
        while let Err(error) = self.client.list_sandboxes(&query).await {
            let waited = begin.elapsed() > PATIENCE;
            anyhow::ensure!(!waited, "the server that was started again: {error}");
            tokio::time::sleep(LOOK).await;
        }
        let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
        let found = self.client.all_sandboxes(Some(self.label())).await?;
        let same = found.iter().filter(|sandbox| sandbox.state == kind.state()).count();
        anyhow::ensure!(same == count, "of {count} sandboxes, {same} outlived the restart");
        Ok(milliseconds)
    }

    /// None when the server's memory is another machine's.
    async fn free_memory(&self) -> anyhow::Result<Option<u64>> {
        if self.client.is_local() { self.settled_memory().await.map(Some) } else { Ok(None) }
    }
}

impl Scale {
    pub(super) fn has_failures(&self) -> bool {
        let failed = |level: &Level| {
            level.failures > 0 || level.measures.iter().any(|one| one.failures() > 0)
        };
        self.levels.iter().any(failed)
    }

    pub(super) fn title(&self) -> String {
        format!("Beside {} sandboxes", self.kind.name())
    }

    /// All measures, with all numbers of one call next to each other.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Samples> {
        let calls = self.levels.iter().map(|level| level.measures.len()).max().unwrap_or(0);
        (0..calls)
            .flat_map(|call| self.levels.iter().filter_map(move |level| level.measures.get(call)))
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        writeln!(f, "{}", table(&format!("beside {kind} sandboxes, ms"), self.rows()))?;
        for level in &self.levels {
            let Level { sandboxes, failures, first_failure, bytes_per_sandbox, restart_ms, .. } =
                level;
            write!(f, "{sandboxes} {kind}, {failures} failed")?;
            if let Some(bytes) = bytes_per_sandbox {
                write!(f, "; {} each", format_bytes(*bytes))?;
            }
            if let Some(milliseconds) = restart_ms {
                write!(f, "; back {milliseconds:.0} ms after a restart began")?;
            }
            if let Some(failure) = first_failure {
                write!(f, "; first failure: {}", escape_control(failure))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
