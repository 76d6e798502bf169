//! Compares what is on record with what exists, once, at the start: every sandbox is adopted or
//! found stopped, and everything without one is buried, see `reconcile.rs`.
//!
//! | on record      | its agent runs, is the recorded one, and answers | anything else             |
//! |----------------|--------------------------------------------------|---------------------------|
//! | running        | running                                          | killed, stopped           |
//! | starting       | running                                          | killed, stopped           |
//! | stopped        | running (a settled start that was not recorded)  | killed, stopped           |
//! | creating       | running                                          | killed, stopped           |
//! | failed         | killed, failed                                   | killed, failed            |
//! | fork, no files | killed, files removed                            | killed, files removed     |
//! | burial or none | killed, files removed                            | killed, files removed     |
//!
//! A frozen agent answers nobody: where it would be adopted if it did, it is adopted as frozen. That
//! a sandbox is frozen is on no record, for the kernel knows; a freeze or thaw that was cut short is
//! whatever the kernel has of it.
//!
//! One that was started under other settings, and so has user ids or an address that may be given to
//! another, counts as one whose agent is not the recorded one. One for which there are no user ids or no
//! address any more, because the node was given fewer, is found failed and is not started. That is on no
//! record: with the settings as they were it is stopped.
//!
//! A sandbox that is adopted gets the network policy on record once more, because a change of it may
//! have been recorded and not carried out; one that cannot get it is stopped.
//!
//! The kernel is asked first and by jail number, because every object of a jail carries it.

mod place;

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use api::event::{EventCause, EventKind};
use futures_util::{StreamExt, stream};
use jail::JailId;
use link::LinkError;

use crate::{
    EngineError,
    error::{self, Publish},
    event::{Cause, Draft},
    network,
    node::Node,
    number::Number,
    reconcile::{self, Found, Jails},
    record::{Change, CheckpointRecord, Loaded, Phase, PortRecord, SandboxRecord},
    sandbox::Sandbox,
    slot::UIDS_PER_SLOT,
    state::{AgentIdentity, Failure, State},
    watch,
};

/// Sandboxes looked at together. Looking is waiting for an agent's answer, so this is more than
/// there are processors; kills queue at the launchers anyway.
const AT_ONCE: usize = 64;

/// What becomes of a recorded sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It runs, if its agent answers.
    Adopt,
    /// It does not run. What is left of it in the kernel is removed.
    Settle,
}

/// Brings memory, records and kernel into agreement.
pub(crate) async fn recover(node: &Arc<Node>, loaded: Loaded) -> Result<(), EngineError> {
    let mut found = reconcile::look(node).await?;
    // The kernel is still about those of what ran last; whoever looks again finds those that stay.
    found.links.clear();
    // The highest number in use counts even when the records have been lost.
    node.numbers.skip(loaded.next_jail.max(found.highest() + 1));

    // A fork without its files is nobody's: whoever asked for it was not answered.
    let (unborn, sandboxes): (Vec<_>, Vec<_>) =
        loaded.sandboxes.into_iter().partition(|record| record.origin.is_some());
    let count = sandboxes.len();
    let (mut ports, mut checkpoints) = (loaded.ports, loaded.checkpoints);
    let mut with_belongings = |record: SandboxRecord| {
        let ports = ports.remove(&record.jail).unwrap_or_default();
        let checkpoints = checkpoints.remove(&record.jail).unwrap_or_default();
        (record, Belongings { ports, checkpoints })
    };
    stream::iter(sandboxes.into_iter().map(&mut with_belongings))
        .for_each_concurrent(AT_ONCE, |(record, its)| restore(node, record, its, &found.jails))
        .await;

    for record in &unborn {
        let cause = Cause::of(EventCause::Recovery);
        let told = Draft::of(&record.id, &record.settings, EventKind::Destroyed, cause);
        node.records.submit(Change::Bury(record.jail).telling(told)).await;
        found.burials.insert(record.jail);
    }
    let nobodys = found.nobodys(&node.numbers.look());
    tracing::info!(sandboxes = count, remains = nobodys.len(), "recovered");
    reconcile::remove_behind(node, left_volumes(node, &found));
    reconcile::bury_all(node, nobodys, &found, EventCause::Recovery).await;
    Ok(())
}

/// A sandbox that was restored has left the volume of its jail's number, and has the jail.
fn left_volumes(node: &Node, found: &Found) -> Vec<Number> {
    let is_there =
        |number: &JailId| found.volumes.contains(number) || found.burials.contains(number);
    let has_left = |sandbox: &Arc<Sandbox>| sandbox.files().volume != sandbox.jail;
    let all = node.all().into_iter().filter(has_left).map(|sandbox| sandbox.number.clone());
    all.filter(|number| is_there(&number.id())).collect()
}

/// What else is on record of a sandbox.
struct Belongings {
    ports: Vec<PortRecord>,
    checkpoints: Vec<CheckpointRecord>,
}

async fn restore(node: &Arc<Node>, record: SandboxRecord, its: Belongings, jails: &Jails) {
    let found = jails.get(&record.jail).copied();
    let phase = record.phase.clone();
    let (id, jail, volume) = (record.id.clone(), record.jail, record.files.volume);
    let Some(sandbox) = node.restore(record) else {
        // The records contradict themselves. Nothing is removed of what they name, and it does not run.
        tracing::error!(sandbox_id = %id, %jail, "the record of a sandbox has another's numbers");
        node.keep_numbers(
            [jail, volume].into_iter().chain(its.checkpoints.iter().map(|it| it.volume)),
        );
        if found.is_some()
            && let Err(error) = node.launchers.clear(jail).await
        {
            tracing::error!(%jail, error = &error as &dyn std::error::Error, "it cannot be ended");
        }
        return;
    };
    if !sandbox.has_place {
        tracing::error!(sandbox_id = %id, %jail,
            "a sandbox has no place in the node's address or user id range; it is not started");
    }
    let numbered = |record: CheckpointRecord| {
        let number = node.numbers.own(record.volume)?;
        Some((record, number))
    };
    sandbox.checkpoints.restore(its.checkpoints.into_iter().filter_map(numbered).collect());
    sandbox.ports.restore(its.ports, |port, generation| node.secret.token(jail, port, generation));
    let agent = found.flatten().and_then(|pid| identify(pid, &node.boot_id));
    if let Some((agent, pidfd)) = agent
        && sandbox.has_place
        && judge(&phase, Some(&agent)) == Verdict::Adopt
        && is_in_place(node, &sandbox, &agent, &pidfd)
        && let Some(state) = state_of(node, jail, &agent).await
        && is_confined(node, &sandbox).await
    {
        adopt(node, sandbox, (agent, pidfd), &phase, state).await;
    } else {
        settle(node, &sandbox, phase, found.is_some()).await;
    }
}

/// False for a sandbox that was started under other settings of the node's user ids or network: what
/// it has may be given to another.
fn is_in_place(node: &Node, sandbox: &Sandbox, agent: &AgentIdentity, pidfd: &OwnedFd) -> bool {
    let uid = node.config.uid_base + sandbox.slot * UIDS_PER_SLOT;
    let address = network::place(node, sandbox.slot, &sandbox.asker).map(|place| place.address);
    let is_in_place = place::is_in_place(agent.pid, uid, address).unwrap_or(false);
    if !is_in_place {
        tracing::warn!(jail = %sandbox.jail,
            "a sandbox runs with user ids or an address that it would not be given now; it is stopped");
    }
    // If it lives now, what was read was its own.
    is_in_place && sys::poll::wait_readable(pidfd.as_fd(), 0).is_ok_and(|has_ended| !has_ended)
}

pub(crate) fn judge(phase: &Phase, agent: Option<&AgentIdentity>) -> Verdict {
    match (phase, agent) {
        (Phase::Running(recorded), Some(agent)) if recorded == agent => Verdict::Adopt,
        (Phase::Creating | Phase::Starting | Phase::Stopped, Some(_)) => Verdict::Adopt,
        (Phase::Running(_) | Phase::Failed(_), Some(_)) | (_, None) => Verdict::Settle,
    }
}

/// What a sandbox with this agent is. None: the agent is of no use.
async fn state_of(node: &Node, jail: JailId, agent: &AgentIdentity) -> Option<State> {
    // A host without a freezer has frozen nothing.
    if jail::is_frozen(&node.config.node.name, jail).unwrap_or(false) {
        return Some(State::Frozen(agent.clone()));
    }
    answers(node, jail).await.then(|| State::Running(agent.clone()))
}

async fn answers(node: &Node, jail: JailId) -> bool {
    match node.links.health(jail.0).await {
        Ok(()) => true,
        // It listens, and its sandbox may be using all of its share of the CPU: no reason to end it.
        Err(LinkError::Silent) => {
            tracing::warn!(%jail, "an agent is slow to answer; its sandbox is adopted");
            true
        }
        Err(error) => {
            tracing::warn!(%jail, error = &error as &dyn std::error::Error,
                "an agent runs but does not answer; its sandbox is stopped");
            false
        }
    }
}

/// Puts what is on record of the sandbox's network in force again. Nothing happens where it is.
async fn is_confined(node: &Node, sandbox: &Sandbox) -> bool {
    let Err(error) = network::confine(node, sandbox).await else { return true };
    tracing::error!(jail = %sandbox.jail, error = &error as &dyn std::error::Error,
        "a sandbox's network policy cannot be put in force; it is stopped");
    false
}

async fn adopt(
    node: &Arc<Node>,
    sandbox: Arc<Sandbox>,
    (agent, pidfd): (AgentIdentity, OwnedFd),
    phase: &Phase,
    state: State,
) {
    let running = Phase::Running(agent.clone());
    if *phase != running {
        let started = sandbox.tells(EventKind::Started, Cause::of(EventCause::Recovery));
        node.records.submit(Change::Phase(sandbox.jail, running).telling(started)).await;
    }
    sandbox.set(state);
    watch::spawn(node, sandbox, agent, pidfd);
}

/// Removes what is left in the kernel and gives a sandbox that does not run its state.
async fn settle(node: &Node, sandbox: &Sandbox, phase: Phase, has_remains: bool) {
    let mut settled = rest(&phase);
    if has_remains && let Err(error) = node.launchers.clear(sandbox.jail).await {
        tracing::error!(sandbox_id = %sandbox.id, jail = %sandbox.jail,
            error = &error as &dyn std::error::Error, "a sandbox cannot be ended");
        settled = Phase::Failed(Failure::of(&error.publish("ending the sandbox")));
    }
    if let Err(error) = link::socket::unlink(node.links.run_dir(), sandbox.jail.0) {
        tracing::warn!(jail = %sandbox.jail, %error, "a socket cannot be removed");
    }
    if settled != phase {
        let change = Change::Phase(sandbox.jail, settled.clone());
        let change = match told(node, sandbox, &phase, &settled) {
            Some(told) => change.telling(told),
            None => change.into(),
        };
        node.records.submit(change).await;
    }
    sandbox.set(match settled {
        _ if !sandbox.has_place => State::Failed(Failure::of(&error::no_place())),
        Phase::Failed(failure) => State::Failed(failure),
        Phase::Creating | Phase::Starting | Phase::Running(_) | Phase::Stopped => State::Stopped,
    });
}

/// What is told of a sandbox that was found to be no more what it was. A start that was cut short was
/// not told either.
fn told(node: &Node, sandbox: &Sandbox, before: &Phase, settled: &Phase) -> Option<Draft> {
    let why = match before {
        Phase::Running(agent) if agent.boot_id != node.boot_id => EventCause::Reboot,
        _ => EventCause::Recovery,
    };
    match settled {
        Phase::Failed(failure) => {
            let cause = Cause::of(why).failing(&failure.reason);
            Some(sandbox.tells(EventKind::Failed, cause))
        }
        _ if matches!(before, Phase::Running(_)) => {
            Some(sandbox.tells(EventKind::Stopped, Cause::of(why)))
        }
        _ => None,
    }
}

/// What a sandbox of this phase is once nothing of it runs.
pub(crate) fn rest(phase: &Phase) -> Phase {
    match phase {
        // That one ran is recorded behind the reply: one that was being made may have been used.
        Phase::Creating | Phase::Running(_) | Phase::Starting | Phase::Stopped => Phase::Stopped,
        Phase::Failed(failure) => Phase::Failed(failure.clone()),
    }
}

/// The process `pid` as it is named for ever, and a descriptor of it. None: it has ended.
fn identify(pid: i32, boot_id: &str) -> Option<(AgentIdentity, OwnedFd)> {
    // The descriptor first: if the process is still alive after its start time has been read, the
    // start time was its.
    let pidfd = sys::pidfd::open(pid).ok()?;
    let start_time = jail::start_time(pid).ok()?;
    let has_ended = sys::poll::wait_readable(pidfd.as_fd(), 0).ok()?;
    (!has_ended).then(|| (AgentIdentity { pid, start_time, boot_id: boot_id.to_owned() }, pidfd))
}

#[cfg(test)]
mod tests {
    use api::error::ErrorCode;

    use super::*;

    fn agent(pid: i32, start_time: u64, boot_id: &str) -> AgentIdentity {
        AgentIdentity { pid, start_time, boot_id: boot_id.to_owned() }
    }

    fn failed() -> Phase {
        Phase::Failed(Failure {
            code: ErrorCode::SandboxFailed,
            step: None,
            reason: "x".to_owned(),
        })
    }

    #[test]
    fn only_the_recorded_agent_is_adopted() {
        let found = agent(5, 100, "now");
        let table = [
            (Phase::Running(agent(5, 100, "now")), Verdict::Adopt),
            (Phase::Running(agent(6, 100, "now")), Verdict::Settle),
            (Phase::Running(agent(5, 101, "now")), Verdict::Settle),
            (Phase::Running(agent(5, 100, "before")), Verdict::Settle),
            (Phase::Creating, Verdict::Adopt),
            (Phase::Starting, Verdict::Adopt),
            (Phase::Stopped, Verdict::Adopt),
            (failed(), Verdict::Settle),
        ];
        for (phase, verdict) in table {
            assert_eq!(judge(&phase, Some(&found)), verdict, "{phase:?}");
            assert_eq!(judge(&phase, None), Verdict::Settle, "{phase:?} without an agent");
        }
    }

    #[test]
    fn what_does_not_run_keeps_its_files_or_its_reason() {
        assert_eq!(rest(&Phase::Running(agent(1, 1, "b"))), Phase::Stopped);
        assert_eq!(rest(&Phase::Starting), Phase::Stopped);
        assert_eq!(rest(&Phase::Stopped), Phase::Stopped);
        assert_eq!(rest(&failed()), failed());
        assert_eq!(rest(&Phase::Creating), Phase::Stopped);
    }

    #[test]
    fn a_process_is_identified_while_it_lives() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (first, _) = identify(pid, "boot").unwrap();
        assert_eq!(identify(pid, "boot").unwrap().0, first);
        assert!(first.start_time > 0);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(identify(pid, "boot").is_none());
    }
}
