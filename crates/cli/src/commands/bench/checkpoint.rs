//! Checkpoints of a sandbox with a GiB of changes, and forks of it.

use std::time::{Duration, Instant};

use api::checkpoint::{CreateCheckpoint, ForkSandbox};

use super::{measure::Bench, samples::Samples};

/// Checkpoints at most: each is of another GiB, which has to be written first.
const CHECKPOINTS: usize = 100;

/// Writes a GiB over what is there.
const CHANGE: &str = "head -c 1073741824 /dev/urandom > /workspace/changes";

impl Bench {
    /// How long processes stand still for a checkpoint, the whole call, and the way from a checkpoint
    /// to the first result in a fork.
    pub(super) async fn checkpoints(&self) -> anyhow::Result<Vec<Samples>> {
        let id = self.id("checkpoint", 0)?;
        self.create(&id).await?;
        let mut pause = Samples::new("pause of a checkpoint, 1 GiB changed");
        let mut call = Samples::new("checkpoint, 1 GiB changed");
        let mut last = None;
        let count = self.runs.min(CHECKPOINTS);
        let bar = self.progress("checkpoints", count);
        for _index in 0..count {
            self.run_shell(&id, CHANGE).await?;
            // One at a time, so that the disk need not hold them all.
            if let Some(before) = last.take() {
                self.client.remove_checkpoint(&id, &before).await?;
            }
            let begin = Instant::now();
            let made = self.client.create_checkpoint(&id, &CreateCheckpoint::default()).await;
            if let Some(made) = call.record(begin, made) {
                pause.push(Duration::from_micros(made.pause_us));
                last = Some(made.checkpoint.id);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let mut fork = Samples::new("fork of 1 GiB to first result");
        let bar = self.progress("forks", self.runs);
        for _index in 0..self.runs {
            let request = ForkSandbox { checkpoint: last.clone(), ..ForkSandbox::default() };
            let begin = Instant::now();
            let forked = async {
                let forks = self.client.fork_sandbox(&id, &request).await?;
                for fork in &forks {
                    self.run_true(&fork.id).await?;
                }
                anyhow::Ok(forks)
            };
            for made in fork.record(begin, forked.await).unwrap_or_default() {
                self.client.destroy_sandbox(&made.id).await?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok(vec![pause, call, fork])
    }
}
