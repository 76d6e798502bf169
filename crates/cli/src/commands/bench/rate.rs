//! Rates: what goes on at the same time, and how long.

use std::time::{Duration, Instant};

use api::id::SandboxId;
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};

use super::{machine::cores, measure::Bench, report::Rate, samples::Samples};

/// Creations that begin at the same time, unless there are fewer runs.
const BURST: usize = 200;

/// Callers that create, use and destroy one sandbox after the other, at the same time.
const CALLERS: [(usize, &str); 2] = [
    (8, "create to first exec result, 8 at once"),
    (50, "create to first exec result, 50 at once"),
];

/// Sandboxes with a busy session each, and commands in them for every run of the other measures:
/// they take a tenth of a millisecond's work each, and a rate needs seconds.
const SESSION_SANDBOXES: usize = 50;
const SESSION_EXECS: usize = 50;

impl Bench {
    /// Creation to the first result by several callers, who destroy what they had and go on.
    pub(super) async fn callers(&self) -> Vec<Samples> {
        let mut measures = Vec::new();
        for (callers, name) in CALLERS {
            let (mut samples, bar) = (Samples::new(name), self.progress(name, self.runs));
            let results: Vec<_> = stream::iter(0..self.runs)
                .map(|index| async move {
                    let begin = Instant::now();
                    let result = async {
                        let id = self.id(&format!("by-{callers}"), index)?;
                        self.create(&id).await?;
                        self.run_true(&id).await?;
                        Ok::<_, anyhow::Error>(id)
                    };
                    let first = result.await.map(|id| (id, begin.elapsed()));
                    if let Ok((id, _)) = &first {
                        self.client.destroy_sandbox(id).await?;
                    }
                    first
                })
                .buffer_unordered(callers)
                .inspect(|_result| bar.inc(1))
                .collect()
                .await;
            for result in results {
                samples.take(result.map(|(_id, took)| took));
            }
            bar.finish_and_clear();
            measures.push(samples);
        }
        measures
    }

    /// Creations and destructions per second with as many in flight as there are cores, for so long.
    pub(super) async fn rate(&self, lasting: Duration) -> Rate {
        let in_flight = cores();
        let bar = self.progress("create and destroy at once", in_flight);
        let begin = Instant::now();
        let callers = (0..in_flight).map(|caller| async move {
            let (mut made, mut failed) = (0, 0);
            while begin.elapsed() < lasting {
                let result = async {
                    let id = self.id("rate", caller + in_flight * (made + failed))?;
                    self.create(&id).await?;
                    Ok::<_, anyhow::Error>(self.client.destroy_sandbox(&id).await?)
                };
                match result.await {
                    Ok(()) => made += 1,
                    Err(_counted) => failed += 1,
                }
            }
            (made, failed)
        });
        let each = join_all(callers).await;
        let elapsed = begin.elapsed();
        bar.finish_and_clear();
        let (made, failed) =
            each.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Rate::new(made, failed, in_flight, elapsed)
    }

    /// Creations that begin at the same time: when each is done, and all of them.
    pub(super) async fn burst(&self) -> (Samples, Rate) {
        let count = BURST.min(self.runs);
        let mut samples = Samples::new("create, 200 begun at once");
        let begin = Instant::now();
        let made = stream::iter(0..count)
            .map(|index| async move {
                let id = self.id("burst", index)?;
                self.create(&id).await?;
                Ok::<_, anyhow::Error>((id, begin.elapsed()))
            })
            .buffer_unordered(count)
            .collect::<Vec<_>>()
            .await;
        let elapsed = begin.elapsed();
        let mut ids = Vec::new();
        for result in made {
            let done = result.map(|(id, took)| {
                ids.push(id);
                took
            });
            samples.take(done);
        }
        let rate = Rate::new(ids.len(), count - ids.len(), count, elapsed);
        self.destroy_all(ids).await;
        (samples, rate)
    }

    /// Execs of `echo hi` in sessions per second, over many sandboxes with one at a time in each.
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
        self.destroy_all(ids).await;
        Ok(Rate::new(each * sandboxes - failures, failures, sandboxes, elapsed))
    }
}
