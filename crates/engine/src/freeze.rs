//! Stops the processes of sandboxes where they are, and lets them go on.
//!
//! ```text
//! freeze: nobody uses it ─▶ freezing ─▶ frozen        hold: held ─▶ frozen ─▶ work ─▶ as before
//! thaw:   thawing ─▶ running
//! ```
//!
//! As in `create.rs`, the work is a task of the node: a caller that goes away leaves a sandbox
//! frozen or running, nothing between. Nothing is recorded, for the kernel knows what is frozen, see
//! `recover.rs`.

use std::{sync::Arc, time::Duration};

use api::{
    event::{EventCause, EventKind},
    id::SandboxId,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    EngineError, destroy,
    error::{self, Publish},
    event::Cause,
    launch::LaunchError,
    node::Node,
    record::Change,
    sandbox::Sandbox,
    state::{Admission, AgentIdentity, Operation, State},
};

/// How long a freeze waits for the requests under way. Longer ones are streams and terminals, whose
/// callers are there: whoever wants it frozen closes them.
const IDLE_DEADLINE: Duration = Duration::from_secs(10);

/// Times a hold is tried on a sandbox that others start, freeze or stop meanwhile.
const ATTEMPTS: usize = 8;

/// Times a thaw is tried that a launcher fails at: the requests that are under way in a sandbox wait as
/// long as it is frozen, and only a new one would try again.
const THAW_ATTEMPTS: usize = 8;

/// Between two of them: a launcher that was killed has its place taken in less.
const THAW_PAUSE: Duration = Duration::from_millis(100);

/// Freezes the sandbox with this id as soon as nobody uses it.
pub(crate) async fn freeze(
    node: &Arc<Node>,
    id: &SandboxId,
    cause: Cause,
) -> Result<(), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    let deadline = Instant::now() + IDLE_DEADLINE;
    loop {
        let (admission, before) = sandbox.begin(Operation::Freeze);
        match (admission, before) {
            (Admission::Begin, before) => {
                let owner = Arc::clone(node);
                let work = async move { carry_out_freeze(&owner, &sandbox, before, cause).await };
                let frozen = node.work.spawn(work).await;
                return frozen.map_err(|_panicked| error::internal("freezing the sandbox"))?;
            }
            (Admission::Wait, _) => drop(sandbox.settled().await?),
            (Admission::InUse, _) => {
                let unused = timeout_at(deadline, sandbox.unused()).await;
                unused.map_err(|_elapsed| error::in_use_by_requests(id, IDLE_DEADLINE))?;
            }
            _ => return Ok(()),
        }
    }
}

/// Lets the sandbox with this id go on, if it is frozen.
pub(crate) async fn thaw(
    node: &Arc<Node>,
    id: &SandboxId,
    cause: Cause,
) -> Result<(), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    loop {
        let (admission, before) = sandbox.begin(Operation::Thaw);
        match (admission, before) {
            (Admission::Begin, State::Frozen(agent)) => {
                return spawn_thaw(node, &sandbox, agent, cause).await;
            }
            (Admission::Wait, _) => drop(sandbox.settled().await?),
            _ => return Ok(()),
        }
    }
}

/// Freezes a sandbox that is [`State::Freezing`], and was in the state `before`.
pub(crate) async fn carry_out_freeze(
    node: &Node,
    sandbox: &Sandbox,
    before: State,
    cause: Cause,
) -> Result<(), EngineError> {
    let frozen = stop_processes(node, sandbox).await;
    if frozen.is_ok() {
        tell(node, sandbox, EventKind::Frozen, cause).await;
    }
    sandbox.set(match (&frozen, before) {
        (Ok(()), State::Running(agent)) => State::Frozen(agent),
        (_, before) => before,
    });
    frozen
}

/// Lets a sandbox that is [`State::Thawing`] go on, and waits for it. After an error it is frozen.
pub(crate) async fn spawn_thaw(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    agent: AgentIdentity,
    cause: Cause,
) -> Result<(), EngineError> {
    let (owner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    let work = async move {
        let thawed = let_go_on(&owner, &sandbox).await;
        let is_thawed = thawed.is_ok();
        if is_thawed {
            tell(&owner, &sandbox, EventKind::Thawed, cause).await;
        }
        sandbox.set(if is_thawed { State::Running(agent) } else { State::Frozen(agent) });
        thawed
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("thawing the sandbox"))?
}

/// Has `work` done while nothing of the sandbox runs, starts or ends: a running one is frozen
/// meanwhile, without waiting for those who use it, and everybody else waits. `work` bounds its own
/// time; it may count on nothing but that the sandbox's processes do not run. Afterwards the sandbox
/// is what it was. With the result comes how long running processes stood still.
///
/// # Cancel safety
/// Work that has begun goes on without its caller.
///
/// # Errors
/// `SANDBOX_FAILED` when processes do not come to rest, or the sandbox can only be destroyed any
/// more; `SANDBOX_NOT_FOUND` when it goes meanwhile; those of `work`.
pub(crate) async fn hold<T: Send + 'static>(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<(T, Duration), EngineError> {
    for _ in 0..ATTEMPTS {
        let (admission, before) = sandbox.begin(Operation::Hold);
        match (admission, before) {
            (Admission::Begin, before) => {
                let held = carry_out_hold(Arc::clone(node), Arc::clone(sandbox), before, work);
                let done = node.work.spawn(held).await;
                return done.map_err(|_panicked| error::internal("holding the sandbox"))?;
            }
            (_, State::Doomed(failure)) => return Err(failure.to_error()),
            (Admission::Wait, _) => drop(sandbox.settled().await?),
            _ => return Err(error::not_found(&sandbox.id)),
        }
    }
    Err(error::ended_at_once(&sandbox.id))
}

async fn carry_out_hold<T>(
    node: Arc<Node>,
    sandbox: Arc<Sandbox>,
    before: State,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<(T, Duration), EngineError> {
    let State::Running(agent) = before else {
        // Of one that failed, nobody knows what runs.
        let ended = match before {
            State::Failed(_) => destroy::end_jail(&node, sandbox.jail).await,
            _ => Ok(()),
        };
        let done = match ended {
            Ok(()) => work.await,
            Err(error) => Err(error.publish("ending what is left of the sandbox's processes")),
        };
        sandbox.set(before);
        return done.map(|done| (done, Duration::ZERO));
    };
    let begun = Instant::now();
    if let Err(error) = stop_processes(&node, &sandbox).await {
        sandbox.set(State::Running(agent));
        return Err(error);
    }
    let done = work.await;
    // A sandbox that cannot go on is frozen: the next request tries again.
    let thawed = let_go_on(&node, &sandbox).await;
    let (is_thawed, pause) = (thawed.is_ok(), begun.elapsed());
    if let Err(error) = thawed {
        let cause = Cause::of(EventCause::Failure).failing(&error.message);
        tell(&node, &sandbox, EventKind::Frozen, cause).await;
    }
    sandbox.set(if is_thawed { State::Running(agent) } else { State::Frozen(agent) });
    done.map(|done| (done, pause))
}

/// Nothing is on record of what only the kernel knows, so there is an event alone.
async fn tell(node: &Node, sandbox: &Sandbox, kind: EventKind, cause: Cause) {
    node.records.submit(Change::Nothing.telling(sandbox.tells(kind, cause))).await;
}

async fn stop_processes(node: &Node, sandbox: &Sandbox) -> Result<(), EngineError> {
    node.launchers.freeze(sandbox.jail).await.map_err(|error| {
        tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail,
            error = &error as &dyn std::error::Error, "a sandbox cannot be frozen");
        error.publish("freezing the sandbox")
    })
}

async fn let_go_on(node: &Node, sandbox: &Sandbox) -> Result<(), EngineError> {
    let mut attempts = THAW_ATTEMPTS;
    loop {
        let Err(error) = node.launchers.thaw(sandbox.jail).await else { return Ok(()) };
        attempts -= 1;
        tracing::error!(sandbox_id = %sandbox.id, jail = %sandbox.jail, attempts,
            error = &error as &dyn std::error::Error, "a sandbox cannot be thawed");
        if attempts == 0 || !matches!(error, LaunchError::Jail(_)) {
            return Err(error.publish("thawing the sandbox"));
        }
        tokio::time::sleep(THAW_PAUSE).await;
    }
}
