//! The measures: each a loop of timed calls.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    id::{ImageRef, SandboxId},
    sandbox::{CreateSandbox, Resources, Sandbox},
    session::DEFAULT_SESSION,
    terminal::{AttachTerminal, CreateTerminal, TerminalEvent},
};
use client::{Client, ClientError, TerminalConnection, TerminalMessage};
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    machine::{available_memory, cores},
    report::Idle,
    samples::Samples,
};
use crate::{output::Output, random::random_name};

/// What other programs do in one run.
pub(super) const WHOLE_LIFE: &str = "create, exec true, destroy";

/// Creations before anything is timed: the first pays for cold caches and lazy set-up.
const WARM_UP: usize = 3;

/// Between two rounds when there is time: that of a person, or an agent, who looks at a result, is
/// longer.
pub(super) const PAUSE: Duration = Duration::from_millis(60);

/// More kinds of sandboxes than a server looks back on to tell which to make ahead: it sees each once.
const KINDS: u32 = 17;

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

    /// Creates, uses and destroys a few sandboxes, and describes the last. What cannot work at all fails
    /// here, before anything is counted.
    pub(super) async fn warm_up(&self) -> anyhow::Result<Sandbox> {
        let mut last = None;
        for index in 0..WARM_UP {
            let id = self.id("warm", index)?;
            let sandbox = self.create(&id).await.context("could not create a sandbox")?;
            self.run_true(&id).await?;
            self.client.destroy_sandbox(&id).await.context("could not destroy a sandbox")?;
            last = Some(sandbox);
        }
        last.context("nothing was warmed up")
    }

    /// Creation to the first result, the destruction after it, and the three together: one after the
    /// other, which leaves no time to make sandboxes ahead.
    pub(super) async fn create_exec_destroy(&self) -> Vec<Samples> {
        let names = ["create to first exec result", "destroy", WHOLE_LIFE];
        self.rounds("once", names, Duration::ZERO, |request, _index| request).await
    }

    /// The same at a pace that leaves time to make sandboxes ahead, and at that pace with sandboxes of
    /// which none is made ahead: each is of a kind of its own.
    pub(super) async fn unhurried(&self, pids: u32) -> Vec<Samples> {
        let names = [
            "create to first exec result, unhurried",
            "destroy, unhurried",
            "create, exec true, destroy, unhurried",
        ];
        let mut measures = self.rounds("pace", names, PAUSE, |request, _index| request).await;
        let names = [
            "create to first exec result, unhurried, none made ahead",
            "destroy, unhurried, none made ahead",
            "create, exec true, destroy, unhurried, none made ahead",
        ];
        let of_its_own = |request: CreateSandbox, index: usize| {
            let kind = u32::try_from(index).unwrap_or(0) % KINDS;
            let pids = Some(pids.saturating_sub(1 + kind));
            CreateSandbox { resources: Resources { pids, ..request.resources }, ..request }
        };
        // Their sums tell nothing more, and a destroy is a destroy.
        measures.truncate(2);
        measures.extend(self.rounds("anew", names, PAUSE, of_its_own).await.into_iter().take(1));
        measures
    }

    async fn rounds(
        &self,
        name: &str,
        names: [&str; 3],
        pause: Duration,
        change: impl Fn(CreateSandbox, usize) -> CreateSandbox,
    ) -> Vec<Samples> {
        let [mut first, mut destroy, mut all] = names.map(Samples::new);
        let bar = self.progress(names[2], self.runs);
        for index in 0..self.runs {
            let begin = Instant::now();
            let result = async {
                let id = self.id(name, index)?;
                self.client.create_sandbox(&change(self.request(&id), index)).await?;
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
            tokio::time::sleep(pause).await;
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
        self.destroy_all(ids).await;
        bar.finish_and_clear();
        Ok(Some(Idle::new(made, failures, before.saturating_sub(with_sandboxes))))
    }

    /// Destroys sandboxes, several at once. What is left is destroyed by its label at the end.
    pub(super) async fn destroy_all(&self, ids: Vec<SandboxId>) {
        stream::iter(ids)
            .map(|id| async move { self.client.destroy_sandbox(&id).await })
            .buffer_unordered(cores())
            .for_each(|result| async { drop(result) })
            .await;
    }

    /// Free memory once two looks agree.
    pub(super) async fn settled_memory(&self) -> anyhow::Result<u64> {
        let mut last = available_memory()?;
        // Who asks for few runs asks for a quick look.
        for _look in 0..SETTLE_LOOKS.min(self.runs) {
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

    pub(super) async fn create(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
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
