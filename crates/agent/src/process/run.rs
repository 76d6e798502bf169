//! Execs with an idempotency key: each is one run, however many requests carry the key.
//!
//! A run lives as long as a caller is attached to it. When the last one's connection breaks it waits
//! [`RESUME_GRACE_SECS`] for the next, and is then ended; see [`Attachment`].

use std::{sync::Arc, time::Duration};

use api::{error::ApiError, exec::OnDisconnect, limit::RESUME_GRACE_SECS};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Cause, Kill, Process};

/// A command that its key leads back to.
#[derive(Debug)]
pub(crate) struct Run {
    /// Of the request: another one may not use the key.
    pub(crate) hash: u64,
    pub(crate) process: Arc<Process>,
    begun: watch::Sender<Option<Result<(), ApiError>>>,
    callers: watch::Sender<Callers>,
}

/// Who is attached to a run.
#[derive(Debug, Clone, Copy, Default)]
struct Callers {
    attached: usize,
    /// Counts the readers that the command waited for; the last one is it.
    reader: u64,
}

impl Run {
    pub(crate) fn new(hash: u64, process: Arc<Process>) -> Arc<Self> {
        let (begun, callers) = (watch::Sender::new(None), watch::Sender::new(Callers::default()));
        Arc::new(Self { hash, process, begun, callers })
    }

    /// Says how its start went.
    pub(crate) fn begin(&self, result: Result<(), ApiError>) {
        self.begun.send_replace(Some(result));
    }

    /// How its start went, when that is known.
    pub(crate) async fn begun(&self) -> Result<(), ApiError> {
        let mut begun = self.begun.subscribe();
        let begun = begun.wait_for(Option::is_some).await.map(|result| result.clone());
        begun.ok().flatten().expect("the sender is a field of `self`")
    }

    /// One caller less; true when none is left.
    fn detach(&self) -> bool {
        self.callers.send_modify(|callers| callers.attached -= 1);
        self.callers.borrow().attached == 0
    }

    /// Makes the caller the one reader that the command waits for. What is returned ends when
    /// another takes its place.
    pub(crate) fn take_over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut turn = 0;
        self.callers.send_modify(|callers| {
            callers.reader += 1;
            turn = callers.reader;
        });
        let mut callers = self.callers.subscribe();
        async move {
            // The run can be gone only when nobody reads it.
            drop(callers.wait_for(|callers| callers.reader != turn).await);
        }
    }
}

/// Binds a process to a caller. What happens when it is dropped before the process has ended is what
/// the caller asked for, [`OnDisconnect`].
#[derive(Debug)]
pub(crate) struct Attachment {
    process: Arc<Process>,
    on_disconnect: OnDisconnect,
    /// What it is one caller of, if its request had a key, and who waits for the next.
    run: Option<(Arc<Run>, TaskTracker)>,
}

impl Attachment {
    /// The only one of its process.
    pub(crate) fn new(process: &Arc<Process>, on_disconnect: OnDisconnect) -> Self {
        Self { process: Arc::clone(process), on_disconnect, run: None }
    }

    /// One of perhaps several of a run.
    pub(crate) fn of_run(run: &Arc<Run>, on_disconnect: OnDisconnect, tasks: &TaskTracker) -> Self {
        run.callers.send_modify(|callers| callers.attached += 1);
        let process = Arc::clone(&run.process);
        Self { process, on_disconnect, run: Some((Arc::clone(run), tasks.clone())) }
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let is_last = self.run.as_ref().is_none_or(|(run, _)| run.detach());
        if !is_last || self.process.end().is_some() {
            return;
        }
        match (&self.run, self.on_disconnect) {
            (run, OnDisconnect::Keep) => {
                match run {
                    // Who comes back with the key gets what the request asked for.
                    Some(_) => self.process.log.release(),
                    None => self.process.log.keep_newest(),
                }
                self.process.table.remember(&self.process);
            }
            (None, OnDisconnect::Kill) => abandon(&self.process),
            (Some((run, tasks)), OnDisconnect::Kill) => {
                tasks.spawn(wait_for_caller(Arc::clone(run)));
            }
        }
    }
}

/// Ends a run that nobody comes back to in time. There is at most one such wait per run: it ends
/// when somebody comes.
async fn wait_for_caller(run: Arc<Run>) {
    let mut callers = run.callers.subscribe();
    tokio::select! {
        _ = callers.wait_for(|callers| callers.attached > 0) => {}
        _ = run.process.ended() => {}
        () = tokio::time::sleep(Duration::from_secs(RESUME_GRACE_SECS)) => abandon(&run.process),
    }
}

fn abandon(process: &Process) {
    // Nobody reads any more, so nobody is waited for.
    process.log.release();
    process.kill(Kill::now(Cause::CallerGone));
    if process.pid() == 0 {
        // Where its start is under way it ends by that; else there is nothing to end.
        process.table.forget(process);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::{Instant, sleep};

    use api::limit::EXEC_OUTPUT_BYTES;

    use super::*;
    use crate::process::{
        About, End,
        log::{Budget, RESUME_BYTES, Retention},
        table::Table,
    };

    fn run() -> (Arc<Table>, Arc<Run>) {
        let table = Arc::<Table>::default();
        let command = api::exec::Command::Shell("true".to_owned());
        let process = Process::of(
            &table,
            &Arc::new(Budget::new(1 << 30)),
            About::exec(&command, None),
            Retention::Unread { behind: RESUME_BYTES },
        );
        let run = table.add_run("key", Run::new(0, process));
        run.process.set_pid(7);
        (table, run)
    }

    fn attach(run: &Arc<Run>, on_disconnect: OnDisconnect) -> Attachment {
        Attachment::of_run(run, on_disconnect, &TaskTracker::new())
    }

    fn is_killed(run: &Run) -> bool {
        run.process.kills().borrow().is_some()
    }

    const GRACE: Duration = Duration::from_secs(RESUME_GRACE_SECS);

    #[tokio::test(start_paused = true)]
    async fn a_run_that_nobody_comes_back_to_is_killed_after_the_grace() {
        let (_table, run) = run();
        let first = attach(&run, OnDisconnect::Kill);
        let second = attach(&run, OnDisconnect::Kill);
        drop(first);
        sleep(2 * GRACE).await;
        assert!(!is_killed(&run), "one is still there");

        let left = Instant::now();
        drop(second);
        let mut kills = run.process.kills();
        kills.wait_for(Option::is_some).await.unwrap();

        assert!(left.elapsed() >= GRACE);
        // Nobody is waited for any more.
        run.process.log.append(api::process::OutputStream::Stdout, vec![0; 1 << 20]);
        assert!(run.process.log.room().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_in_time_ends_the_wait() {
        let (_table, run) = run();
        drop(attach(&run, OnDisconnect::Kill));
        sleep(GRACE / 2).await;

        let back = attach(&run, OnDisconnect::Kill);
        sleep(2 * GRACE).await;
        assert!(!is_killed(&run));

        run.process.finish(End::lost());
        drop(back);
        sleep(2 * GRACE).await;
        assert!(!is_killed(&run), "there is nothing left to kill");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_to_be_kept_waits_for_nobody() {
        let (_table, run) = run();
        run.process.log.append(api::process::OutputStream::Stdout, vec![0; 1 << 20]);
        assert!(run.process.log.room().now_or_never().is_none());

        drop(attach(&run, OnDisconnect::Keep));
        sleep(2 * GRACE).await;

        assert!(!is_killed(&run));
        assert!(run.process.log.room().now_or_never().is_some());
    }

    #[tokio::test]
    async fn of_a_result_that_nobody_waits_for_any_more_the_newest_is_kept() {
        let table = Arc::<Table>::default();
        let command = api::exec::Command::Shell("true".to_owned());
        let budget = Arc::new(Budget::new(1 << 30));
        let process = Process::of(&table, &budget, About::exec(&command, None), Retention::Oldest);
        process.set_pid(7);

        drop(Attachment::new(&process, OnDisconnect::Keep));

        let pieces = EXEC_OUTPUT_BYTES >> 20;
        for _ in 0..=pieces {
            process.log.append(api::process::OutputStream::Stdout, vec![0; 1 << 20]);
        }
        assert_eq!(process.log.describe().next_cursor, (pieces as u64 + 1) << 20);
    }

    #[tokio::test]
    async fn a_wish_is_heard_by_who_begins_to_follow_after_it() {
        let (_table, run) = run();
        assert!(run.process.kills().changed().now_or_never().is_none());

        run.process.kill(Kill::now(Cause::Requested));

        assert!(run.process.kills().changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_new_reader_takes_the_place_of_the_old_one() {
        let (_table, run) = run();
        let mut first = Box::pin(run.take_over());
        assert!(first.as_mut().now_or_never().is_none());

        let second = run.take_over();

        first.await;
        assert!(second.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_run_that_did_not_start_leaves_its_key_free() {
        let table = Arc::<Table>::default();
        let command = api::exec::Command::Shell("true".to_owned());
        let budget = Arc::new(Budget::new(0));
        let process = Process::of(&table, &budget, About::exec(&command, None), Retention::Oldest);
        let run = table.add_run("key", Run::new(0, process));
        assert!(table.run("key").is_some() && table.all().is_empty());

        run.process.finish(End::lost());

        assert!(table.run("key").is_none());
    }
}
