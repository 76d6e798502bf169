//! Notices that the kernel killed processes of a sandbox for want of memory, and tells it.
//!
//! Owns: how many such kills were told. Does not: know which process it was; whoever waits for one
//! learns from its ending.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::event::{EventCause, EventKind};

use crate::{event::Cause, node::Node, record::Change, sandbox::Sandbox};

/// Between two looks. The kernel counts, and where there are only v1 cgroups it tells nobody who could
/// not also make it tell too much. A look at one sandbox takes some 20 µs.
const PERIOD: Duration = Duration::from_secs(5);

/// Kills of one sandbox since it was started, as far as they were told. None: it was adopted, and what
/// was before is not known.
#[derive(Debug, Default)]
pub(crate) struct Kills(Mutex<Option<u64>>);

impl Kills {
    /// It was started: the kernel begins to count.
    pub(crate) fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(0);
    }

    /// Those of `now` that were not told; from now on they were.
    fn rise(&self, now: u64) -> u64 {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = told.map_or(0, |told| now.saturating_sub(told));
        *told = Some(now);
        new
    }
}

/// Looks at all sandboxes that run, again and again, until the node takes no new work.
pub(crate) fn spawn(node: &Arc<Node>) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        loop {
            tokio::select! {
                () = owner.closing.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let all = owner.all();
            look(&owner, all.iter().filter(|sandbox| sandbox.state().is_running())).await;
        }
    });
}

/// Looks at sandboxes, and tells what is new.
pub(crate) async fn look(node: &Node, sandboxes: impl Iterator<Item = &Arc<Sandbox>>) {
    let sandboxes: Vec<Arc<Sandbox>> = sandboxes.cloned().collect();
    let (name, jails): (_, Vec<_>) =
        (node.config.node.name.clone(), sandboxes.iter().map(|sandbox| sandbox.jail).collect());
    let read = tokio::task::spawn_blocking(move || {
        let kills = |jail| jail::usage(&name, jail).ok().map(|usage| usage.oom_kills);
        jails.into_iter().map(kills).collect::<Vec<_>>()
    });
    // What cannot be read is looked at again.
    for (sandbox, kills) in sandboxes.iter().zip(read.await.unwrap_or_default()) {
        let new = kills.map_or(0, |kills| sandbox.kills.rise(kills));
        if new > 0 {
            let message = format!("{new} processes were killed for want of memory");
            let cause = Cause::of(EventCause::OutOfMemory).saying(&message);
            let told = sandbox.tells(EventKind::OutOfMemory, cause);
            node.records.submit(Change::Nothing.telling(told)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_is_told_once() {
        let kills = Kills::default();
        // Adopted: nobody knows what was told.
        assert_eq!([kills.rise(2), kills.rise(2), kills.rise(3)], [0, 0, 1]);
        kills.begin();
        assert_eq!([kills.rise(0), kills.rise(2), kills.rise(2)], [0, 2, 0]);
    }
}
