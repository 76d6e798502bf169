//! The end of a shell or an interpreter, which is looked for more than once.

use sys::{
    signal::SIGKILL,
    wait::{Ended, Status},
};
use tokio::sync::oneshot;

/// The end of a child that outlives the command it was started for.
#[derive(Debug)]
pub(crate) struct Exit {
    told: oneshot::Receiver<Ended>,
    status: Option<Status>,
}

impl Exit {
    pub(crate) fn new(told: oneshot::Receiver<Ended>) -> Self {
        Self { told, status: None }
    }

    /// How it ended, when it does.
    ///
    /// Cancel safe.
    pub(crate) async fn wait(&mut self) -> Status {
        if self.status.is_none() {
            self.status = Some((&mut self.told).await.map_or(LOST, |ended| ended.status));
        }
        self.status.unwrap_or(LOST)
    }

    /// How it ended, if it has.
    pub(crate) fn now(&mut self) -> Option<Status> {
        if self.status.is_none() {
            self.status = match self.told.try_recv() {
                Ok(ended) => Some(ended.status),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => Some(LOST),
            };
        }
        self.status
    }
}

/// Of a child whose end nobody saw: only a fault of the agent can cause it.
const LOST: Status = Status::Signaled(SIGKILL);
