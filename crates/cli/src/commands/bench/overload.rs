//! What becomes of a server that is asked for five times as much as it can do.
//!
//! Requests come at their own pace, whatever becomes of those before them: that of many callers who
//! know nothing of each other. A refusal with 429 or 503 is what the server is to do; anything else
//! that is not a success is a failure.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    id::SandboxId,
};
use client::ClientError;
use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream::FuturesUnordered,
};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::{
    measure::Bench,
    samples::{Samples, table},
};
use crate::output::escape_control;

/// How much more is asked for than can be done.
const TIMES: f64 = 5.0;

/// How long, and how long the capacity is measured before.
const LASTING: Duration = Duration::from_secs(10);
const QUICK_LASTING: Duration = Duration::from_secs(1);

/// Runs from which on it lasts long.
const LONG_FROM: usize = 100;

/// Callers at once while the capacity is measured: more make it no larger, they only wait.
const CALLERS: usize = 16;

/// Sandboxes whose commands overload the server.
const SANDBOXES: usize = 16;

/// Between two looks for what is due: some of the shortest calls.
const TICK: Duration = Duration::from_millis(1);

/// Calls that have not been answered at most, for the sake of this program's descriptors: more are not
/// made, and counted.
const IN_FLIGHT: usize = 5000;

/// How many times its quiet median a call may take once the server has recovered.
const RECOVERED_TIMES: u32 = 3;

/// Calls in a row that have to.
const RECOVERED_CALLS: usize = 5;

/// Calls that say what is usual.
const USUAL_CALLS: usize = 31;

/// How long a server may take to recover.
const PATIENCE: Duration = Duration::from_secs(120);

/// Before a refused destroy is asked for again: what the server says that callers wait.
const AGAIN: Duration = Duration::from_secs(1);

/// Between two calls of the one who uses a sandbox that is there.
const BESIDE_PAUSE: Duration = Duration::from_millis(20);

/// What happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overload {
    what: &'static str,
    capacity_per_second: f64,
    asked_per_second: f64,
    failures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
    /// Not made, because [`IN_FLIGHT`] had no answer.
    held_back: usize,
    /// Milliseconds from the last call until all are answered, and a call takes what it took before.
    recovery_ms: f64,
    /// Of what was accepted, of what was refused, and of one caller who uses a sandbox that is there.
    measures: [Samples; 3],
}

/// What became of one call.
enum Outcome {
    Accepted,
    Refused,
    Failed(String),
}

impl Outcome {
    fn of<T>(result: Result<T, ClientError>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(ClientError::Api { status: 429 | 503, .. }) => Self::Refused,
            Err(error) => Self::Failed(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

/// Counts of calls and their times.
struct Tally {
    accepted: Samples,
    refused: Samples,
    failures: usize,
    first_failure: Option<String>,
    held_back: usize,
    asked: usize,
}

impl Tally {
    fn count(&mut self, took: Duration, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => self.accepted.push(took),
            Outcome::Refused => self.refused.push(took),
            Outcome::Failed(failure) => {
                self.failures += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }
}

/// How long a call took, and what became of it.
async fn timed(call: impl Future<Output = Outcome>) -> (Duration, Outcome) {
    let begin = Instant::now();
    let outcome = call.await;
    (begin.elapsed(), outcome)
}

impl Bench {
    /// Too many creations, and too many commands.
    pub(super) async fn overloads(&self) -> anyhow::Result<[Overload; 2]> {
        let ids: Vec<SandboxId> =
            (0..SANDBOXES).map(|index| self.id("loaded", index)).collect::<Result<_, _>>()?;
        for id in &ids {
            self.create(id).await?;
        }
        let beside = self.id("beside-load", 0)?;
        self.create(&beside).await?;
        let create = |index| self.create_for_a_moment(index);
        let creations = self.overload("create and destroy", create, &beside).await?;
        let exec = |index: usize| self.exec_true(&ids[index % ids.len()]);
        let execs = self.overload("exec true", exec, &beside).await?;
        self.destroy_all(ids).await;
        self.client.destroy_sandbox(&beside).await?;
        Ok([creations, execs])
    }

    /// What was created is destroyed, whatever is refused meanwhile: that it exists was promised.
    async fn create_for_a_moment(&self, index: usize) -> Outcome {
        let id = match self.id("over", index) {
            Ok(id) => id,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let created = Outcome::of(self.create(&id).await);
        if !matches!(created, Outcome::Accepted) {
            return created;
        }
        loop {
            match Outcome::of(self.client.destroy_sandbox(&id).await) {
                Outcome::Refused => tokio::time::sleep(AGAIN).await,
                ended => return ended,
            }
        }
    }

    async fn exec_true(&self, id: &SandboxId) -> Outcome {
        let request = ExecRequest::new(Command::Program(vec!["true".to_owned()]));
        match self.client.exec(id, &request).await {
            Ok(result) if !result.success => Outcome::Failed(format!("{:?}", result.ending)),
            other => Outcome::of(other),
        }
    }

    async fn overload<F: Future<Output = Outcome>>(
        &self,
        what: &'static str,
        call: impl Fn(usize) -> F,
        beside: &SandboxId,
    ) -> anyhow::Result<Overload> {
        let lasting = if self.runs < LONG_FROM { QUICK_LASTING } else { LASTING };
        let numbers = Cell::new(0);
        let next = || call(numbers.replace(numbers.get() + 1));
        let usual = usual(&next).await?;
        let capacity = capacity(&next, lasting / 2).await;
        let bar = self.progress("overload", 1);
        let (begin, is_over) = (Instant::now(), Cell::new(false));
        let load = async {
            let tally = press(what, &next, capacity * TIMES, begin, lasting).await;
            is_over.set(true);
            tally
        };
        let samples = Samples::new(format!("{what}, exec true beside it"));
        let (tally, neighbour) = join(load, self.use_beside(beside, samples, &is_over)).await;
        let recovered = recovered(&next, usual).await?;
        bar.finish_and_clear();
        let Tally { accepted, refused, failures, first_failure, held_back, asked } = tally;
        let asked = u32::try_from(asked).map_or(f64::INFINITY, f64::from);
        Ok(Overload {
            what,
            capacity_per_second: capacity,
            asked_per_second: asked / lasting.as_secs_f64(),
            failures,
            first_failure,
            held_back,
            recovery_ms: recovered.saturating_duration_since(begin + lasting).as_secs_f64()
                * 1000.0,
            measures: [accepted, refused, neighbour],
        })
    }

    /// One caller who uses a sandbox that is there, until it is over.
    async fn use_beside(
        &self,
        id: &SandboxId,
        mut samples: Samples,
        is_over: &Cell<bool>,
    ) -> Samples {
        while !is_over.get() {
            match timed(self.exec_true(id)).await {
                (took, Outcome::Accepted) => samples.push(took),
                (_, Outcome::Refused) => {}
                (_, Outcome::Failed(failure)) => samples.take(Err(failure)),
            }
            tokio::time::sleep(BESIDE_PAUSE).await;
        }
        samples
    }
}

/// The median of calls one after the other.
async fn usual<F: Future<Output = Outcome>>(next: &impl Fn() -> F) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _call in 0..USUAL_CALLS {
        match timed(next()).await {
            (took, Outcome::Accepted) => times.push(took),
            (_, Outcome::Refused) => bail!("the server refuses one caller who waits for answers"),
            (_, Outcome::Failed(failure)) => bail!(failure),
        }
    }
    times.sort_unstable();
    times.get(USUAL_CALLS / 2).copied().context("nothing was called")
}

/// Calls per second by callers who wait for answers.
async fn capacity<F: Future<Output = Outcome>>(next: &impl Fn() -> F, lasting: Duration) -> f64 {
    let begin = Instant::now();
    let callers = (0..CALLERS).map(|_| async {
        let mut done = 0_u32;
        while begin.elapsed() < lasting {
            done += u32::from(matches!(next().await, Outcome::Accepted));
        }
        done
    });
    let done: u32 = join_all(callers).await.into_iter().sum();
    f64::from(done) / begin.elapsed().as_secs_f64()
}

/// Calls at a pace of its own, until all are answered.
async fn press<F: Future<Output = Outcome>>(
    what: &str,
    next: &impl Fn() -> F,
    per_second: f64,
    begin: Instant,
    lasting: Duration,
) -> Tally {
    let named = |outcome: &str| Samples::new(format!("{what}, {outcome}"));
    let (accepted, refused) = (named("accepted"), named("refused"));
    let (failures, first_failure, held_back, asked) = (0, None, 0, 0);
    let mut tally = Tally { accepted, refused, failures, first_failure, held_back, asked };
    let mut under_way = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let spacing = Duration::from_secs_f64(1.0 / per_second.max(1.0));
    let mut due = begin;
    loop {
        tokio::select! {
            Some((took, outcome)) = under_way.next() => tally.count(took, outcome),
            _ = ticks.tick(), if begin.elapsed() < lasting => {
                while due <= Instant::now() {
                    due += spacing;
                    tally.asked += 1;
                    if under_way.len() < IN_FLIGHT {
                        under_way.push(timed(next()));
                    } else {
                        tally.held_back += 1;
                    }
                }
            }
            else => return tally,
        }
    }
}

/// When calls took again what they usually take.
async fn recovered<F: Future<Output = Outcome>>(
    next: &impl Fn() -> F,
    usual: Duration,
) -> anyhow::Result<Instant> {
    let begin = Instant::now();
    let (mut since, mut in_a_row) = (begin, 0);
    while in_a_row < RECOVERED_CALLS {
        let call_begin = Instant::now();
        let (took, outcome) = timed(next()).await;
        let is_usual = matches!(outcome, Outcome::Accepted) && took <= usual * RECOVERED_TIMES;
        in_a_row = if is_usual { in_a_row + 1 } else { 0 };
        if in_a_row == 1 {
            since = call_begin;
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the server has not recovered");
    }
    Ok(since)
}

impl Overload {
    pub(super) fn has_failures(&self) -> bool {
        self.failures > 0 || self.measures.iter().any(|one| one.failures() > 0)
    }

    pub(super) fn title(&self) -> String {
        format!("{}, {TIMES} times too many", self.what)
    }

    pub(super) fn measures(&self) -> impl Iterator<Item = &Samples> {
        self.measures.iter()
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity_per_second, asked_per_second, held_back, .. } = self;
        let Self { failures, first_failure, recovery_ms, measures, .. } = self;
        write!(f, "{}", table(&format!("{}, ms", self.title()), measures))?;
        write!(
            f,
            "{capacity_per_second:.0} per second can be done, {asked_per_second:.0} were asked for: \
             {} accepted, {} refused, {failures} failed, {held_back} held back; \
             as before {recovery_ms:.0} ms after the last",
            measures[0].attempts(),
            measures[1].attempts(),
        )?;
        if let Some(failure) = first_failure {
            write!(f, "; first failure: {}", escape_control(failure))?;
        }
        writeln!(f)
    }
}
