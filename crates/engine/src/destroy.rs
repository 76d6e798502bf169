//! Ends sandboxes: stops them, or destroys them for good.
//!
//! ```text
//! stop:    notice ─▶ kill ─▶ stopped ─▶ record it
//! destroy: record the burial ─▶ kill ─▶ forget, reply ─▶ remove cgroups, files ─▶ record that it is done
//! ```
//!
//! Needs no help of the agent. As in `create.rs`, the work is a task of the node: a caller that
//! goes away does not leave a sandbox half destroyed.

use std::{sync::Arc, time::Duration};

use api::{event::EventKind, id::SandboxId};
use jail::JailId;
use tokio::time::Instant;

use crate::{
    EngineError,
    error::{self, Publish},
    event::Cause,
    launch::{Chore, LaunchError, Removal},
    memory,
    node::Node,
    record::{Change, Phase},
    sandbox::Sandbox,
    state::{Admission, Failure, Operation, State},
};

/// How long processes may take to end by themselves when their sandbox is stopped: a database writes
/// its last pages in this time, and whoever waits for the stop does not give up.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Between looks whether they have. The kernel tells of the end of a group only where it has a v2
/// tree with it in.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// Times a destroy is tried on a sandbox that others start or stop meanwhile.
const ATTEMPTS: usize = 8;

/// Destroys the sandbox with this id. Of several at once, all return when it is gone.
pub(crate) async fn destroy(
    node: &Arc<Node>,
    id: &SandboxId,
    cause: &Cause,
) -> Result<(), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    end(node, &sandbox, Operation::Destroy, cause).await
}

/// Ends the processes of the sandbox with this id; its files and settings stay.
pub(crate) async fn stop(
    node: &Arc<Node>,
    id: &SandboxId,
    cause: &Cause,
) -> Result<(), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    end(node, &sandbox, Operation::Stop, cause).await
}

/// Carries out [`Operation::Stop`] or [`Operation::Destroy`], or waits for whoever does.
pub(crate) async fn end(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    operation: Operation,
    cause: &Cause,
) -> Result<(), EngineError> {
    for _ in 0..ATTEMPTS {
        let (admission, before) = sandbox.begin(operation);
        match admission {
            // Users keep nobody from ending it.
            Admission::Done | Admission::Refuse | Admission::InUse => return Ok(()),
            Admission::Begin => {
                let (owner, sandbox, cause) =
                    (Arc::clone(node), Arc::clone(sandbox), cause.clone());
                let ended = node.work.spawn(async move {
                    match operation {
                        Operation::Destroy => {
                            carry_out_destroy(&owner, &sandbox, before, cause).await
                        }
                        _ => carry_out_stop(&owner, &sandbox, cause).await,
                    }
                });
                let ended = ended.await;
                return ended.map_err(|_panicked| error::internal("ending the sandbox"))?;
            }
            Admission::Wait => match (sandbox.settled().await?, operation) {
                (State::Doomed(failure), Operation::Destroy) => return Err(failure.to_error()),
                (State::Gone(_), _) => return Ok(()),
                // Somebody else's work has ended; now it is our turn.
                _ => {}
            },
        }
    }
    Err(error::ended_at_once(&sandbox.id))
}

/// Ends the processes of a sandbox that is [`State::Stopping`].
pub(crate) async fn carry_out_stop(
    node: &Node,
    sandbox: &Arc<Sandbox>,
    cause: Cause,
) -> Result<(), EngineError> {
    // What they were killed for before is not told any more when they are gone.
    memory::look(node, std::iter::once(sandbox)).await;
    give_notice(node, sandbox.jail).await;
    let ended = end_jail(node, sandbox.jail).await;
    match ended.map_err(|error| failure(sandbox, &error, "stopping the sandbox")) {
        Ok(()) => {
            let stopped = Change::Phase(sandbox.jail, Phase::Stopped);
            node.records.submit(stopped.telling(sandbox.tells(EventKind::Stopped, cause))).await;
            sandbox.set(State::Stopped);
            Ok(())
        }
        Err(failure) => {
            let failed = Change::Phase(sandbox.jail, Phase::Failed(failure.clone()));
            let told = sandbox.tells(EventKind::Failed, cause.failing(&failure.reason));
            node.records.submit(failed.telling(told)).await;
            sandbox.set(State::Failed(failure.clone()));
            Err(failure.to_error())
        }
    }
}

/// Tells the processes of a jail that they are to end, and waits until they have, but not for ever.
/// Whatever goes wrong here, they are killed next.
async fn give_notice(node: &Node, jail: JailId) {
    if let Err(error) = node.launchers.notify(jail).await {
        tracing::warn!(%jail, error = &error as &dyn std::error::Error,
            "processes end without notice");
        return;
    }
    let deadline = Instant::now() + STOP_GRACE;
    while Instant::now() < deadline && runs_something(node, jail).await {
        tokio::time::sleep(STOP_LOOK).await;
    }
}

/// False also when nothing is known.
async fn runs_something(node: &Node, jail: JailId) -> bool {
    let name = node.config.node.name.clone();
    let read = tokio::task::spawn_blocking(move || jail::usage(&name, jail)).await;
    matches!(read, Ok(Ok(usage)) if usage.pids > 0)
}

/// Ends and forgets a sandbox that is [`State::Destroying`].
pub(crate) async fn carry_out_destroy(
    node: &Node,
    sandbox: &Sandbox,
    before: State,
    cause: Cause,
) -> Result<(), EngineError> {
    let told = sandbox.tells(EventKind::Destroyed, cause);
    let bury = Change::Bury(sandbox.jail).telling(told);
    if let Err(error) = node.records.write(bury).await {
        tracing::warn!(sandbox_id = %sandbox.id, error = &error as &dyn std::error::Error,
            "a sandbox is not destroyed because that could not be recorded");
        // A write that comes late makes this a doomed sandbox in the records alone: the next start
        // buries what the caller meant to destroy.
        sandbox.set(before);
        return Err(error.publish("recording that the sandbox goes"));
    }
    let killed = node.launchers.kill(sandbox.jail).await;
    unlink(node, sandbox.jail);
    let root = killed.map_err(|error| {
        let failure = failure(sandbox, &error, "destroying the sandbox");
        sandbox.set(State::Doomed(failure.clone()));
        failure.to_error()
    })?;
    // Before the reply: when remains pile up faster than they go, destroying slows down.
    let room = node.remover.reserve().await;
    let volumes = sandbox.checkpoints.volumes().into_iter().chain([sandbox.volume()]);
    node.forget(sandbox, None);
    tracing::info!(sandbox_id = %sandbox.id, jail = %sandbox.jail, "sandbox destroyed");
    if let Some(room) = room {
        room.send(Chore::Remove(Removal { number: sandbox.number.clone(), root }));
    }
    for volume in volumes.filter(|volume| volume.id() != sandbox.jail) {
        node.remover.remove(volume).await;
    }
    Ok(())
}

/// Leaves no process, no cgroup, no link and no socket of a jail.
pub(crate) async fn end_jail(node: &Node, jail: JailId) -> Result<(), LaunchError> {
    let ended = node.launchers.clear(jail).await;
    unlink(node, jail);
    ended
}

fn unlink(node: &Node, jail: JailId) {
    if let Err(error) = link::socket::unlink(node.links.run_dir(), jail.0) {
        tracing::warn!(%jail, %error, "a socket cannot be removed");
    }
}

/// Why a sandbox cannot be ended, which is told here.
pub(crate) fn failure(sandbox: &Sandbox, error: &LaunchError, attempt: &str) -> Failure {
    tracing::error!(sandbox_id = %sandbox.id, jail = %sandbox.jail,
        error = error as &dyn std::error::Error, "a sandbox cannot be ended");
    Failure::of(&error.publish(attempt))
}
