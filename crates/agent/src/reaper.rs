//! Waits for children: for the commands somebody follows, and for orphans nobody does.
//!
//! Invariant: a child is expected in the same turn of the runtime in which it is made, so it
//! cannot be reaped before somebody waits for it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sys::{
    SysError,
    wait::{self, Ended},
};
use tokio::sync::{Notify, oneshot};

/// Who waits for which child.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    /// By process id; an entry goes when its child has ended.
    expected: Mutex<HashMap<i32, oneshot::Sender<Ended>>>,
    reaped: Notify,
}

impl Reaper {
    /// The end of child `pid`, when it comes.
    pub(crate) fn expect(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (tell, end) = oneshot::channel();
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, tell);
        end
    }

    /// Waits for every child that has ended, and returns how many of them were orphans.
    pub(crate) fn reap(&self) -> Result<usize, SysError> {
        let mut orphans = 0;
        while let Some(ended) = wait::any()? {
            let tell =
                self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&ended.pid);
            match tell {
                // Nobody listens any more when the command was given up after a kill.
                Some(tell) => drop(tell.send(ended)),
                None => orphans += 1,
            }
        }
        self.reaped.notify_waiters();
        Ok(orphans)
    }

    /// Ends when children have been waited for. Nothing is missed between a look at processes and
    /// the first poll of this, because everything runs on one thread.
    pub(crate) fn reaped(&self) -> impl Future<Output = ()> {
        self.reaped.notified()
    }
}
