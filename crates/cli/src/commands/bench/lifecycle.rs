//! Sandboxes that come back: from frozen, and from stopped.

use std::time::Instant;

use super::{measure::Bench, samples::Samples};

impl Bench {
    /// From a request to a frozen sandbox to its result, and the start of a stopped one.
    pub(super) async fn lifecycle(&self) -> anyhow::Result<Vec<Samples>> {
        let id = self.id("back", 0)?;
        self.create(&id).await?;
        self.echo(&id).await?;
        let mut thaw = Samples::new("thaw to first result");
        let bar = self.progress("thaw", self.runs);
        for _index in 0..self.runs {
            self.client.freeze_sandbox(&id).await?;
            let begin = Instant::now();
            thaw.record(begin, self.echo(&id).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut start = Samples::new("start of a stopped sandbox");
        let bar = self.progress("start", self.runs);
        for _index in 0..self.runs {
            self.client.stop_sandbox(&id).await?;
            let begin = Instant::now();
            start.record(begin, self.client.start_sandbox(&id).await);
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(vec![thaw, start])
    }
}
