//! Execs with an idempotency key: each is one run, however many requests carry the key.
//!
//! A run lives as long as a caller is attached to it. When the last one's connection breaks it waits
//! [`RESUME_GRACE_SECS`] for the next, and is then ended; see [`Attachment`].

use std::{sync::Arc, time::Duration};

use api::{error::ApiError, exec::OnDisconnect, limit::RESUME_GRACE_SECS};
use tokio::sync::watch;

use super::{Cause, Kill, Process, table::Table};
use crate::init::Agent;

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
    agent: Arc<Agent>,
    process: Arc<Process>,
    run: Option<Arc<Run>>,
    on_disconnect: OnDisconnect,
}

impl Attachment {
    /// The only one of its process.
    pub(crate) fn new(
        agent: &Arc<Agent>,
        process: &Arc<Process>,
        on_disconnect: OnDisconnect,
    ) -> Self {
        let (agent, process) = (Arc::clone(agent), Arc::clone(process));
        Self { agent, process, run: None, on_disconnect }
    }

    /// One of perhaps several of a run.
    pub(crate) fn of_run(agent: &Arc<Agent>, run: &Arc<Run>, on_disconnect: OnDisconnect) -> Self {
        run.callers.send_modify(|callers| callers.attached += 1);
        let (agent, process) = (Arc::clone(agent), Arc::clone(&run.process));
        Self { agent, process, run: Some(Arc::clone(run)), on_disconnect }
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let is_last = self.run.as_ref().is_none_or(|run| {
            run.callers.send_modify(|callers| callers.attached -= 1);
            run.callers.borrow().attached == 0
        });
        if !is_last || self.process.end().is_some() {
            return;
        }
        match (&self.run, self.on_disconnect) {
            (_, OnDisconnect::Keep) => {
                self.process.log.release();
                self.agent.processes.remember(&self.process);
            }
            (None, OnDisconnect::Kill) => abandon(&self.agent.processes, &self.process),
            (Some(run), OnDisconnect::Kill) => {
                let (agent, run) = (Arc::clone(&self.agent), Arc::clone(run));
                self.agent.tasks.spawn(wait_for_caller(agent, run));
            }
        }
    }
}

/// Ends a run that nobody comes back to in time. There is at most one such wait per run: it ends
/// when somebody comes.
async fn wait_for_caller(agent: Arc<Agent>, run: Arc<Run>) {
    let mut callers = run.callers.subscribe();
    tokio::select! {
        _ = callers.wait_for(|callers| callers.attached > 0) => {}
        _ = run.process.ended() => {}
        () = tokio::time::sleep(Duration::from_secs(RESUME_GRACE_SECS)) => {
            abandon(&agent.processes, &run.process);
        }
    }
}

fn abandon(table: &Table, process: &Process) {
    // Nobody reads any more, so nobody is waited for.
    process.log.release();
    process.kill(Kill::now(Cause::CallerGone));
    if process.pid() == 0 {
        table.forget(process);
    }
}
