//! Climbs the ladders: looks which rungs have come, begins what they say, and sleeps until the next.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::{
    event::EventCause,
    idle::{Rung, RungReason},
};
use http::Uri;
use serde::{Deserialize, de::IgnoredAny};
use tokio::time::timeout;

use super::Alarm;
use crate::{destroy, event::Cause, freeze, node::Node, sandbox::Sandbox, state::Operation};

/// The longest it sleeps: what a hint has missed, if any could, is found then.
const LONGEST_MS: i64 = 60_000;

/// The shortest: rungs that come closer together than this are climbed together.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long an agent may take to say what runs. One that does not say it has its sandbox frozen.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// Bytes of such an answer. An agent has some hundred processes and terminals at most, each with a
/// command line; one that says more says nothing.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Climbs until the node takes no new work.
pub(crate) fn spawn(node: &Arc<Node>) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        loop {
            let sleep = climb_all(&owner);
            tokio::select! {
                () = owner.closing.cancelled() => return,
                () = wait(&owner.alarm, sleep) => {}
            }
        }
    });
}

async fn wait(alarm: &Alarm, sleep: Duration) {
    tokio::time::sleep(SHORTEST).await;
    drop(timeout(sleep, alarm.early.notified()).await);
}

/// Begins what is due, and says how long nothing will be.
fn climb_all(node: &Arc<Node>) -> Duration {
    let alarm = &node.alarm;
    alarm.wakes_at_ms.store(i64::MAX, Ordering::SeqCst);
    let now_ms = alarm.clock.now_ms();
    let mut wakes_at_ms = now_ms + LONGEST_MS;
    for sandbox in node.all() {
        match sandbox.next_rung() {
            Some(next) if next.at_ms <= now_ms => climb(node, &sandbox, now_ms),
            Some(next) => wakes_at_ms = wakes_at_ms.min(next.at_ms),
            None => {}
        }
    }
    alarm.wakes_at_ms.store(wakes_at_ms, Ordering::SeqCst);
    Duration::from_millis(u64::try_from(wakes_at_ms - now_ms).unwrap_or(0))
}

/// Begins what is due for a sandbox, unless what runs in it by itself is a use of it.
fn climb(node: &Arc<Node>, sandbox: &Arc<Sandbox>, now_ms: i64) {
    if let Some(question) = sandbox.ask_first(now_ms) {
        let (owner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
        node.work.spawn(async move {
            let is_busy = runs_something(&owner, &sandbox).await;
            question.answer(is_busy);
            if !is_busy {
                begin(&owner, &sandbox, now_ms);
            }
        });
        return;
    }
    begin(node, sandbox, now_ms);
}

fn begin(node: &Arc<Node>, sandbox: &Arc<Sandbox>, now_ms: i64) {
    let Some((next, before)) = sandbox.begin_rung(now_ms) else { return };
    let (rung, cause) = (next.rung, Cause::of(why(next.reason)));
    // What leaves the state as it is has another rung at once.
    sandbox.hint();
    tracing::debug!(sandbox_id = %sandbox.id, ?rung, "a sandbox rests");
    let (owner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    // Failures are logged where they happen; the sandbox is then what it was, for another round.
    node.work.spawn(async move {
        match rung {
            Rung::Freeze => drop(freeze::carry_out_freeze(&owner, &sandbox, before, cause).await),
            Rung::Reclaim => owner.remover.reclaim(sandbox.jail).await,
            Rung::Stop => drop(destroy::carry_out_stop(&owner, &sandbox, cause).await),
            Rung::Destroy => {
                drop(destroy::carry_out_destroy(&owner, &sandbox, before, cause).await);
            }
        }
    });
}

/// What is told of a rung.
fn why(reason: RungReason) -> EventCause {
    match reason {
        RungReason::Idle => EventCause::Idle,
        RungReason::Ttl => EventCause::Ttl,
    }
}

/// What a rung asks of the state machine; nothing for one that leaves the state.
pub(crate) fn operation(rung: Rung) -> Option<Operation> {
    match rung {
        Rung::Freeze => Some(Operation::Freeze),
        Rung::Reclaim => None,
        Rung::Stop => Some(Operation::Stop),
        Rung::Destroy => Some(Operation::Destroy),
    }
}

/// Whether the agent says that something runs. It may lie; that keeps its own sandbox running, as
/// `keepAlive` would.
async fn runs_something(node: &Node, sandbox: &Sandbox) -> bool {
    let asked = async {
        let running = Uri::from_static("/processes?running=true");
        let processes = node.links.ask(sandbox.jail.0, running, ANSWER_BYTES).await.ok()?;
        let processes: Processes = serde_json::from_slice(&processes).ok()?;
        if !processes.processes.is_empty() {
            return Some(true);
        }
        let all = Uri::from_static("/terminals");
        let terminals = node.links.ask(sandbox.jail.0, all, ANSWER_BYTES).await.ok()?;
        let terminals: Terminals = serde_json::from_slice(&terminals).ok()?;
        Some(terminals.terminals.iter().any(|terminal| terminal.running))
    };
    timeout(ASK_DEADLINE, asked).await.ok().flatten().unwrap_or(false)
}

#[derive(Deserialize)]
struct Processes {
    processes: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Terminals {
    terminals: Vec<Terminal>,
}

#[derive(Deserialize)]
struct Terminal {
    running: bool,
}
