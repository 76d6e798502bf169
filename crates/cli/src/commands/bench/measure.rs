//! The measures: each a loop of timed calls.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    id::{ImageRef, SandboxId},
    sandbox::CreateSandbox,
    session::DEFAULT_SESSION,
    terminal::{AttachTerminal, CreateTerminal, TerminalEvent},
};
use client::{Client, ClientError, TerminalConnection, TerminalMessage};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    machine::{available_memory, cores},
    report::{Idle, Rate},
    samples::Samples,
};
use crate::{output::Output, random::random_name};

/// Creations before anything is timed: the first pays for cold caches and lazy set-up.
const WARM_UP: usize = 3;

/// Sandboxes with a busy session each, and commands in them for every run of the other measures:
/// they take a tenth of a millisecond's work each, and a rate needs seconds.
const SESSION_SANDBOXES: usize = 50;
const SESSION_EXECS: usize = 50;

/// Between two looks at the free memory. Removal happens behind the reply, and the kernel frees
/// some of it only after a grace period.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// Looks until the memory counts as settled anyway: five seconds.
const SETTLE_LOOKS: usize = 10;

/// Bytes by which two looks at a settled machine may differ.
const SETTLED_BYTES: u64 = 1024 * 1024;

/// Presses a key and waits until it is shown.
async fn press(terminal: &mut TerminalConnection) -> anyhow::Result<()> {
    terminal.input.write(b"k").await?;
    shown(terminal).await
}

async fn shown(terminal: &mut TerminalConnection) -> anyhow::Result<()> {
    loop {
        match terminal.output.next().await? {
            Some(TerminalMessage::Output(_)) => return Ok(()),
            Some(TerminalMessage::Event(TerminalEvent::Ready)) => {}
            other => bail!("the terminal ended: {other:?}"),
        }
    }
}

/// One run of the benchmark.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) client: Client,
    image: Option<ImageRef>,
    pub(super) runs: usize,
    out: Output,
    /// Different in each run, so that two may measure one server.
    tag: String,
    label: String,
}

impl Bench {
    pub(super) fn new(
        client: Client,
        image: Option<ImageRef>,
        runs: usize,
        out: Output,
    ) -> anyhow::Result<Self> {
        let tag = random_name()?;
        let label = format!("sandbar.bench={tag}");
        Ok(Self { client, image, runs, out, tag, label })
    }

    /// The label of every sandbox of this run.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Creates, uses and destroys a few sandboxes, and gives the image they were made from. What
    /// cannot work at all fails here, before anything is counted.
    pub(super) async fn warm_up(&self) -> anyhow::Result<ImageRef> {
        let mut image = None;
        for index in 0..WARM_UP {
            let id = self.id("warm", index)?;
            let sandbox = self.create(&id).await.context("could not create a sandbox")?;
            self.run_true(&id).await?;
            self.client.destroy_sandbox(&id).await.context("could not destroy a sandbox")?;
            image = Some(sandbox.image);
        }
        image.context("nothing was warmed up")
    }

    /// Creation to the first result, the destruction after it, and the three together.
    pub(super) async fn create_exec_destroy(&self) -> Vec<Samples> {
        let mut first = Samples::new("create to first exec result");
        let mut destroy = Samples::new("destroy");
        let mut all = Samples::new("create, exec true, destroy");
        let bar = self.progress("create, exec, destroy", self.runs);
        for index in 0..self.runs {
            let begin = Instant::now();
            let result = async {
                let id = self.id("once", index)?;
                self.create(&id).await?;
                self.run_true(&id).await?;
                Ok::<_, anyhow::Error>(id)
            };
            if let Some(id) = first.record(begin, result.await) {
                let begin_destroy = Instant::now();
                let gone = self.client.destroy_sandbox(&id).await;
                if destroy.record(begin_destroy, gone).is_some() {
                    all.push(begin.elapsed());
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        vec![first, destroy, all]
    }

    /// Exec of `true` in one sandbox.
    pub(super) async fn exec(&self) -> anyhow::Result<Samples> {
        let id = self.id("exec", 0)?;
        self.create(&id).await?;
        let mut samples = Samples::new("exec true");
        let bar = self.progress("exec", self.runs);
        for _index in 0..self.runs {
            let begin = Instant::now();
            samples.record(begin, self.run_true(&id).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(samples)
    }

    /// Exec of `echo hi` in a session, whose shell is there already.
    pub(super) async fn session(&self) -> anyhow::Result<Samples> {
        let id = self.id("session", 0)?;
        self.create(&id).await?;
        self.echo(&id).await?;
        let mut samples = Samples::new("exec echo hi in a session");
        let bar = self.progress("exec in a session", self.runs);
        for _index in 0..self.runs {
            let begin = Instant::now();
            samples.record(begin, self.echo(&id).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(samples)
    }

    /// The same per second, over many sandboxes with one at a time in each.
    pub(super) async fn session_rate(&self) -> anyhow::Result<Rate> {
        let sandboxes = SESSION_SANDBOXES.min(self.runs);
        let ids: Vec<SandboxId> =
            (0..sandboxes).map(|index| self.id("busy", index)).collect::<Result<_, _>>()?;
        let made = stream::iter(&ids).map(|id| async {
            self.create(id).await?;
            self.echo(id).await
        });
        made.buffer_unordered(cores()).try_collect::<Vec<()>>().await?;
        let each = self.runs * SESSION_EXECS / sandboxes;
        let bar = self.progress("exec in sessions at once", each * sandboxes);
        let begin = Instant::now();
        let failures: usize = stream::iter(&ids)
            .map(|id| async {
                let mut failures = 0;
                for _index in 0..each {
                    failures += usize::from(self.echo(id).await.is_err());
                    bar.inc(1);
                }
                failures
            })
            .buffer_unordered(sandboxes)
            .fold(0, |all, failures| async move { all + failures })
            .await;
        let elapsed = begin.elapsed();
        bar.finish_and_clear();
        for id in &ids {
            self.client.destroy_sandbox(id).await?;
        }
        Ok(Rate::new(each * sandboxes - failures, failures, sandboxes, elapsed))
    }

    /// A key pressed in a terminal, to a program and back.
    pub(super) async fn keys(&self) -> anyhow::Result<Samples> {
        let id = self.id("keys", 0)?;
        self.create(&id).await?;
        let mut samples = Samples::new("key to a program and back");
        let bar = self.progress("keys", self.runs);
        match self.terminal(&id).await {
            Ok(mut terminal) => {
                for _index in 0..self.runs {
                    let begin = Instant::now();
                    samples.record(begin, press(&mut terminal).await);
                    bar.inc(1);
                }
            }
            Err(error) => drop(samples.record(Instant::now(), Err::<(), _>(error))),
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(samples)
    }

    /// A terminal whose program sends each key back, and does so already.
    async fn terminal(&self, id: &SandboxId) -> anyhow::Result<TerminalConnection> {
        let program = "stty raw -echo && printf r && exec cat".to_owned();
        let request =
            CreateTerminal { command: Some(Command::Shell(program)), ..CreateTerminal::default() };
        let terminal = self.client.create_terminal(id, &request).await?.id;
        let query = AttachTerminal::default();
        let mut connection = self.client.attach_terminal(id, &terminal, &query).await?;
        shown(&mut connection).await?;
        Ok(connection)
    }

    /// Creations and destructions per second with as many in flight as there are cores.
    pub(super) async fn rate(&self) -> Rate {
        let in_flight = cores();
        let bar = self.progress("create and destroy at once", self.runs);
        let begin = Instant::now();
        let results: Vec<anyhow::Result<()>> = stream::iter(0..self.runs)
            .map(|index| async move {
                let id = self.id("rate", index)?;
                self.create(&id).await?;
                self.client.destroy_sandbox(&id).await?;
                Ok(())
            })
            .buffer_unordered(in_flight)
            .inspect(|_result| bar.inc(1))
            .collect()
            .await;
        let elapsed = begin.elapsed();
        bar.finish_and_clear();
        let failures = results.iter().filter(|result| result.is_err()).count();
        Rate::new(self.runs - failures, failures, in_flight, elapsed)
    }

    /// Memory of a sandbox that does nothing: what all of them take away from the machine, divided
    /// by their number. None when the server's memory is another machine's.
    pub(super) async fn idle_memory(&self) -> anyhow::Result<Option<Idle>> {
        if !self.client.is_local() {
            return Ok(None);
        }
        let before = self.settled_memory().await?;
        let bar = self.progress("idle sandboxes", self.runs);
        let results: Vec<anyhow::Result<SandboxId>> = stream::iter(0..self.runs)
            .map(|index| async move {
                let id = self.id("idle", index)?;
                self.create(&id).await?;
                Ok(id)
            })
            .buffer_unordered(cores())
            .inspect(|_result| bar.inc(1))
            .collect()
            .await;
        let with_sandboxes = self.settled_memory().await?;
        let asked = results.len();
        let ids: Vec<SandboxId> = results.into_iter().filter_map(Result::ok).collect();
        let (made, failures) = (ids.len(), asked - ids.len());
        stream::iter(ids)
            .map(|id| async move { self.client.destroy_sandbox(&id).await })
            .buffer_unordered(cores())
            .for_each(|result| async {
                // What is left is destroyed by its label at the end.
                drop(result);
            })
            .await;
        bar.finish_and_clear();
        Ok(Some(Idle::new(made, failures, before.saturating_sub(with_sandboxes))))
    }

    /// Free memory once two looks agree.
    async fn settled_memory(&self) -> anyhow::Result<u64> {
        let mut last = available_memory()?;
        for _look in 0..SETTLE_LOOKS {
            tokio::time::sleep(SETTLE_INTERVAL).await;
            let now = available_memory()?;
            if now.abs_diff(last) <= SETTLED_BYTES {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    pub(super) fn id(&self, measure: &str, index: usize) -> anyhow::Result<SandboxId> {
        Ok(format!("bench-{}-{measure}-{index}", self.tag).parse()?)
    }

    pub(super) async fn create(
        &self,
        id: &SandboxId,
    ) -> Result<api::sandbox::Sandbox, ClientError> {
        self.client.create_sandbox(&self.request(id)).await
    }

    /// What every sandbox of this run is made with.
    pub(super) fn request(&self, id: &SandboxId) -> CreateSandbox {
        let labels = BTreeMap::from([("sandbar.bench".to_owned(), self.tag.clone())]);
        CreateSandbox {
            id: Some(id.clone()),
            image: self.image.clone(),
            labels,
            ..CreateSandbox::default()
        }
    }

    pub(super) async fn run_true(&self, id: &SandboxId) -> anyhow::Result<()> {
        let request = ExecRequest::new(Command::Program(vec!["true".to_owned()]));
        let result = self.client.exec(id, &request).await.context("could not run true")?;
        if !result.success {
            bail!("true ended with {:?}: {}", result.ending, result.stderr);
        }
        Ok(())
    }

    pub(super) async fn run_shell(&self, id: &SandboxId, text: &str) -> anyhow::Result<()> {
        let request = ExecRequest::new(Command::Shell(text.to_owned()));
        let result = self.client.exec(id, &request).await.context("could not run a command")?;
        if !result.success {
            bail!("{text} ended with {:?}: {}", result.ending, result.stderr);
        }
        Ok(())
    }

    pub(super) async fn echo(&self, id: &SandboxId) -> anyhow::Result<()> {
        let session = Some(DEFAULT_SESSION.parse()?);
        let command = Command::Shell("echo hi".to_owned());
        let request = ExecRequest { session, ..ExecRequest::new(command) };
        let result = self.client.exec(id, &request).await.context("could not run echo")?;
        if !result.success {
            bail!("echo ended with {:?}: {}", result.ending, result.stderr);
        }
        Ok(())
    }

    /// A bar on the terminal; hidden elsewhere.
    pub(super) fn progress(&self, what: &str, length: usize) -> ProgressBar {
        if !self.out.shows_progress() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("{msg:<28} {pos}/{len} {bar:30} {elapsed}")
            .unwrap_or_else(|_fault| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar
    }
}
