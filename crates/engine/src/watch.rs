//! Notices that an agent has ended by itself: killed by its sandbox's memory limit, by its tenant,
//! or by an administrator. The sandbox is then stopped, and the next request starts it again.

use std::{os::fd::OwnedFd, sync::Arc};

use api::event::EventCause;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{destroy, event::Cause, node::Node, sandbox::Sandbox, state::AgentIdentity};

/// Watches an agent until it ends, is ended, or the engine stops watching.
pub(crate) fn spawn(node: &Arc<Node>, sandbox: Arc<Sandbox>, agent: AgentIdentity, pidfd: OwnedFd) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe because a descriptor could close or change; an \
                      OwnedFd does neither"
        )]
        let watched = AsyncFd::with_interest(pidfd, Interest::READABLE);
        let pidfd = match watched {
            Ok(pidfd) => pidfd,
            Err(error) => {
                tracing::error!(sandbox_id = %sandbox.id, %error, "an agent cannot be watched");
                return;
            }
        };
        tokio::select! {
            () = owner.ending.cancelled() => return,
            () = sandbox.outlived(&agent) => return,
            // Readable, or not pollable any more: either way it is not known to run.
            readable = pidfd.readable() => drop(readable),
        }
        drop(pidfd);
        // Whoever is ending it may fail, and leave it to us. Nobody waits for that with a deadline.
        while sandbox.state().is_passing() {
            tokio::select! {
                () = owner.ending.cancelled() => return,
                settled = sandbox.settled() => drop(settled),
            }
        }
        if sandbox.begin_end_of(&agent) {
            tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail, "agent ended; sandbox stopped");
            let work = Arc::clone(&owner);
            // A failure is logged and becomes the sandbox's state.
            let cause = Cause::of(EventCause::AgentEnded);
            owner.work.spawn(async move {
                drop(destroy::carry_out_stop(&work, &sandbox, cause).await);
            });
        }
    });
}
