//! The measures of the code interpreter.

use std::time::Instant;

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    id::{ContextId, SandboxId},
    interpreter::{CreateContext, Language, RunCode},
};
use client::ClientError;
use futures_util::future::try_join_all;

use super::{measure::Bench, report::Contexts, samples::Samples};

/// Runs of the measures in which an interpreter starts, at most: each takes some ten times what the
/// others take.
const STARTS: usize = 100;

/// Code that needs pandas.
const PANDAS: &str = "import pandas as pd; int(pd.DataFrame({'n': range(3)}).n.sum())";

/// A chart as most are.
const CHART: &str = "import matplotlib.pyplot as plt\nplt.plot(range(100)); plt.show()";

/// Contexts that are asked for at once.
const AT_ONCE: usize = 50;

/// Times that many contexts are asked for at once, at most: each takes half a second or so.
const BURSTS: usize = 100;

/// Contexts whose memory is measured, so many that what they share is not any one's own.
const IDLE: usize = 20;

/// What was measured.
#[derive(Default)]
pub(super) struct Interpreter {
    pub(super) measures: Vec<Samples>,
    pub(super) contexts: Option<Contexts>,
}

impl Bench {
    /// All of them, or none where the image has no interpreter.
    pub(super) async fn interpreter(&self) -> anyhow::Result<Interpreter> {
        let id = self.id("code", 0)?;
        self.create(&id).await?;
        let python = self.client.run_code(&id, None, &RunCode::new("1 + 1")).await;
        if let Err(ClientError::Api { error, .. }) = &python
            && error.code == api::error::ErrorCode::InterpreterNotAvailable
        {
            self.client.destroy_sandbox(&id).await?;
            return Ok(Interpreter::default());
        }
        let mut all = vec![self.first_run("first runCode with pandas", PANDAS).await?];
        all.push(self.warm_run(&id, "runCode 1 + 1", "1 + 1").await?);
        if self.run_code(&id, CHART).await.is_ok() {
            all.push(self.warm_run(&id, "runCode of a line chart", CHART).await?);
        }
        for language in [Language::Python, Language::JavaScript] {
            all.push(self.new_context(&id, language).await?);
        }
        let contexts = Some(self.idle_contexts(&id).await?);
        self.client.destroy_sandbox(&id).await?;
        all.push(self.burst_of_contexts().await?);
        Ok(Interpreter { measures: all, contexts })
    }

    /// So many contexts at once in a new sandbox, until the last of them takes code.
    async fn burst_of_contexts(&self) -> anyhow::Result<Samples> {
        let mut samples = Samples::new("50 new Python contexts at once");
        let runs = self.runs.min(BURSTS);
        let bar = self.progress("contexts at once", runs);
        for index in 0..runs {
            let id = self.id("burst", index)?;
            self.create(&id).await?;
            let request = CreateContext::default();
            let begin = Instant::now();
            let all = (0..AT_ONCE).map(|_| self.client.create_context(&id, &request));
            samples.record(begin, try_join_all(all).await);
            self.client.destroy_sandbox(&id).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    /// Memory that contexts which have used pandas have for themselves.
    async fn idle_contexts(&self, id: &SandboxId) -> anyhow::Result<Contexts> {
        let count = self.runs.min(IDLE);
        let mut files = String::new();
        for _index in 0..count {
            let context = self.client.create_context(id, &CreateContext::default()).await?;
            self.client.run_code(id, Some(&context.id), &RunCode::new(PANDAS)).await?;
            let pid = context.pid.context("a new context has an interpreter")?;
            files.push_str(&format!(" /proc/{pid}/smaps_rollup"));
        }
        let sum = format!("cat{files} | awk '/^Private/ {{ sum += $2 }} END {{ print sum }}'");
        let result = self.client.exec(id, &ExecRequest::new(Command::Shell(sum))).await?;
        let kib: u64 = result.stdout.trim().parse().context("reading smaps_rollup")?;
        Ok(Contexts { count, private_bytes: kib * 1024 / count as u64 })
    }

    /// The first code in a new sandbox, its creation included.
    async fn first_run(&self, name: &'static str, code: &str) -> anyhow::Result<Samples> {
        let mut samples = Samples::new(name);
        let runs = self.runs.min(STARTS);
        let bar = self.progress(name, runs);
        for index in 0..runs {
            let id = self.id("pandas", index)?;
            let begin = Instant::now();
            let ran = async {
                self.create(&id).await?;
                self.run_code(&id, code).await
            };
            samples.record(begin, ran.await);
            self.client.destroy_sandbox(&id).await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    /// Code in a context that has run it before.
    async fn warm_run(
        &self,
        id: &SandboxId,
        name: &'static str,
        code: &str,
    ) -> anyhow::Result<Samples> {
        self.run_code(id, code).await?;
        let mut samples = Samples::new(name);
        let bar = self.progress(name, self.runs);
        for _index in 0..self.runs {
            let begin = Instant::now();
            samples.record(begin, self.run_code(id, code).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    /// A context in a live sandbox, until it takes code.
    async fn new_context(&self, id: &SandboxId, language: Language) -> anyhow::Result<Samples> {
        let name = match language {
            Language::JavaScript | Language::TypeScript => "new JavaScript context",
            Language::Python | Language::Bash => "new Python context",
        };
        let mut samples = Samples::new(name);
        let runs = self.runs.min(STARTS);
        let bar = self.progress(name, runs);
        let request = CreateContext { language, ..CreateContext::default() };
        for _index in 0..runs {
            let begin = Instant::now();
            let made = self.client.create_context(id, &request).await;
            let made: Option<ContextId> = samples.record(begin, made).map(|context| context.id);
            if let Some(context) = made {
                self.client.delete_context(id, &context).await?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    async fn run_code(&self, id: &SandboxId, code: &str) -> anyhow::Result<()> {
        let result = self.client.run_code(id, None, &RunCode::new(code)).await?;
        if let Some(error) = result.error {
            bail!("{code:?} failed: {}: {}", error.name, error.value);
        }
        Ok(())
    }
}
