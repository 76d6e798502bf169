//! The measures of the code interpreter.

use std::time::Instant;

use anyhow::bail;
use api::{
    id::{ContextId, SandboxId},
    interpreter::{CreateContext, Language, RunCode},
};
use client::ClientError;

use super::{measure::Bench, samples::Samples};

/// Runs of the measures in which an interpreter starts: each takes a good part of a second, and the
/// others take a millisecond.
const STARTS: usize = 30;

/// Code that needs pandas.
const PANDAS: &str = "import pandas as pd; int(pd.DataFrame({'n': range(3)}).n.sum())";

/// A chart as most are.
const CHART: &str = "import matplotlib.pyplot as plt\nplt.plot(range(100)); plt.show()";

impl Bench {
    /// All of them, or none where the image has no interpreter.
    pub(super) async fn interpreter(&self) -> anyhow::Result<Vec<Samples>> {
        let id = self.id("code", 0)?;
        self.create(&id).await?;
        let python = self.client.run_code(&id, None, &RunCode::new("1 + 1")).await;
        if let Err(ClientError::Api { error, .. }) = &python
            && error.code == api::error::ErrorCode::InterpreterNotAvailable
        {
            self.client.destroy_sandbox(&id).await?;
            return Ok(Vec::new());
        }
        let mut all = vec![self.first_run("first runCode with pandas", PANDAS).await?];
        all.push(self.warm_run(&id, "runCode 1 + 1", "1 + 1").await?);
        if self.run_code(&id, CHART).await.is_ok() {
            all.push(self.warm_run(&id, "runCode of a line chart", CHART).await?);
        }
        for language in [Language::Python, Language::JavaScript] {
            all.push(self.new_context(&id, language).await?);
        }
        self.client.destroy_sandbox(&id).await?;
        Ok(all)
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
