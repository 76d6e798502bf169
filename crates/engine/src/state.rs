//! Where a sandbox is in its life, and what may happen to it next. Pure.
//!
//! ```text
//!            ┌──────────────── Use ◀──────────────────┐
//!            ▼                                        │
//! (new) ▶ Creating ──▶ Running ──────Stop──▶ Stopping ──▶ Stopped
//!            │          │   ▲                ▲            │
//!            │   Freeze ▼   │ Use, Thaw      │            │
//!            │          Frozen ──────────────┘            │
//!            └──▶ Failed ─┴──────────── Destroy ──────────┴──▶ Destroying ──▶ Gone
//!                                                                 └──▶ Doomed ──Destroy──▶ …
//! ```
//!
//! Any settled state but the last two can be Held: nothing of the sandbox runs, starts or ends until
//! whoever holds it lets go, and it is what it was. So can it be Changing, which keeps nobody from
//! using one that runs.
//!
//! Invariant: a state that [`State::is_passing`] has exactly one task working on it, which is the
//! only one that assigns the next state. Everybody else waits.

use api::{error::ErrorCode, sandbox::SandboxState};
use serde::{Deserialize, Serialize};

use crate::EngineError;

/// Names an agent's process for ever: a process id alone comes to mean another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentIdentity {
    pub(crate) pid: i32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub(crate) start_time: u64,
    /// As `/proc/sys/kernel/random/boot_id` has it.
    pub(crate) boot_id: String,
}

/// Why a sandbox could not be made or ended, as it is recorded and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    /// The step of the launcher's list, where it was one.
    pub(crate) step: Option<String>,
    /// For the caller: no host paths.
    pub(crate) reason: String,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its jail is being built, for the first time or again.
    Creating,
    Running(AgentIdentity),
    /// Its processes are being stopped where they are.
    Freezing(AgentIdentity),
    /// None of its processes runs; all are there.
    Frozen(AgentIdentity),
    /// Its processes are being let go on.
    Thawing(AgentIdentity),
    /// Nothing of it runs for a moment; then it is again what it was.
    Held(Box<Self>),
    /// As it was, while its settings are being changed.
    Changing(Box<Self>),
    /// Its processes are being ended; its files stay.
    Stopping,
    Stopped,
    Failed(Failure),
    /// Recorded as gone, its processes are being ended.
    Destroying,
    /// Meant to be gone, but its processes could not be ended, or that it goes not recorded: it can
    /// only be destroyed again.
    Doomed(Failure),
    /// Forgotten, its id is free. Whoever still holds it looks the id up again, or fails with the
    /// error when this was the end of an attempt to create it.
    Gone(Option<Box<EngineError>>),
}

/// What is to happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It has to run, for a request.
    Use,
    /// Its processes have to stop where they are, unless somebody uses it.
    Freeze,
    /// What is frozen has to go on; what is not is left as it is.
    Thaw,
    /// Nothing of it may run, start or end for a moment.
    Hold,
    /// Its settings have to become others.
    Change,
    /// Its processes have to end; files and settings stay.
    Stop,
    /// It has to go.
    Destroy,
}

/// The answer to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nothing is left to do.
    Done,
    /// Whoever asked carries it out, after assigning [`Operation::passing`].
    Begin,
    /// Somebody is at work: ask again when the state has settled.
    Wait,
    /// Somebody uses it: ask again when nobody does.
    InUse,
    /// Not in this state.
    Refuse,
}

/// Decides what becomes of `operation` in `state`, with `users` requests under way.
pub(crate) fn admit(state: &State, users: usize, operation: Operation) -> Admission {
    use Admission::{Begin, Done, InUse, Refuse, Wait};
    match (state, operation) {
        (State::Changing(before), Operation::Use) if before.is_running() => Done,
        (state, _) if state.is_passing() => Wait,
        (State::Running(_), Operation::Use | Operation::Thaw) => Done,
        (State::Running(_), Operation::Freeze) if users > 0 => InUse,
        (State::Frozen(_), Operation::Freeze) => Done,
        (State::Running(_) | State::Frozen(_), _) => Begin,
        (
            State::Stopped | State::Failed(_),
            Operation::Use | Operation::Destroy | Operation::Hold | Operation::Change,
        ) => Begin,
        (State::Doomed(_), Operation::Destroy) => Begin,
        (
            State::Doomed(_) | State::Gone(_),
            Operation::Use | Operation::Hold | Operation::Change,
        ) => Refuse,
        // What does not run has nothing to freeze, to thaw or to stop.
        (_, _) => Done,
    }
}

impl Operation {
    /// The state while the operation is carried out on a sandbox in `state`.
    pub(crate) fn passing(self, state: &State) -> State {
        match (self, state) {
            (Self::Use | Self::Thaw, State::Frozen(agent)) => State::Thawing(agent.clone()),
            (Self::Freeze, State::Running(agent)) => State::Freezing(agent.clone()),
            (Self::Hold, state) => State::Held(Box::new(state.clone())),
            (Self::Change, state) => State::Changing(Box::new(state.clone())),
            (Self::Stop, _) => State::Stopping,
            (Self::Destroy, _) => State::Destroying,
            (Self::Use | Self::Thaw | Self::Freeze, _) => State::Creating,
        }
    }
}

impl State {
    /// True while a task works on the sandbox.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Creating
            | Self::Freezing(_)
            | Self::Thawing(_)
            | Self::Held(_)
            | Self::Changing(_)
            | Self::Stopping
            | Self::Destroying => true,
            Self::Running(_)
            | Self::Frozen(_)
            | Self::Stopped
            | Self::Failed(_)
            | Self::Doomed(_)
            | Self::Gone(_) => false,
        }
    }

    /// True while its agent answers whoever asks.
    pub(crate) fn is_running(&self) -> bool {
        self.answering().is_some()
    }

    /// The agent that answers whoever asks.
    pub(crate) fn answering(&self) -> Option<&AgentIdentity> {
        match self {
            Self::Running(agent) => Some(agent),
            Self::Changing(before) => before.answering(),
            _ => None,
        }
    }

    /// True when `after` is what this passing state was before, as if nothing had been.
    pub(crate) fn passes_to(&self, after: &Self) -> bool {
        matches!(self, Self::Held(before) | Self::Changing(before) if **before == *after)
    }

    /// The agent of a settled sandbox that has processes.
    pub(crate) fn agent(&self) -> Option<&AgentIdentity> {
        match self {
            Self::Running(agent) | Self::Frozen(agent) => Some(agent),
            _ => None,
        }
    }

    /// The state as callers see it, with the reason of a failure. None: callers do not see it.
    pub(crate) fn public(&self) -> Option<(SandboxState, Option<String>)> {
        match self {
            Self::Creating => Some((SandboxState::Creating, None)),
            Self::Running(_) | Self::Freezing(_) => Some((SandboxState::Running, None)),
            Self::Frozen(_) | Self::Thawing(_) => Some((SandboxState::Frozen, None)),
            Self::Held(state) | Self::Changing(state) => state.public(),
            Self::Stopping | Self::Stopped => Some((SandboxState::Stopped, None)),
            Self::Failed(failure) | Self::Doomed(failure) => {
                Some((SandboxState::Failed, Some(failure.reason.clone())))
            }
            Self::Destroying | Self::Gone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure { code: ErrorCode::SandboxFailed, step: None, reason: "x".to_owned() }
    }

    fn agent() -> AgentIdentity {
        AgentIdentity { pid: 1, start_time: 2, boot_id: "b".to_owned() }
    }

    fn running() -> State {
        State::Running(agent())
    }

    const ALL: [Operation; 7] = [
        Operation::Use,
        Operation::Freeze,
        Operation::Thaw,
        Operation::Hold,
        Operation::Change,
        Operation::Stop,
        Operation::Destroy,
    ];

    #[test]
    fn every_pair_of_state_and_operation_has_its_answer() {
        use Admission::{Begin, Done, Refuse, Wait};
        let changing = |state| State::Changing(Box::new(state));
        //                                     Use     Freeze Thaw   Hold    Change  Stop   Destroy
        let table = [
            (State::Creating, [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (running(), [Done, Begin, Done, Begin, Begin, Begin, Begin]),
            (State::Freezing(agent()), [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (State::Frozen(agent()), [Begin, Done, Begin, Begin, Begin, Begin, Begin]),
            (State::Thawing(agent()), [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (State::Held(Box::new(running())), [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (changing(running()), [Done, Wait, Wait, Wait, Wait, Wait, Wait]),
            (changing(State::Frozen(agent())), [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (State::Stopping, [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (State::Stopped, [Begin, Done, Done, Begin, Begin, Done, Begin]),
            (State::Failed(failure()), [Begin, Done, Done, Begin, Begin, Done, Begin]),
            (State::Destroying, [Wait, Wait, Wait, Wait, Wait, Wait, Wait]),
            (State::Doomed(failure()), [Refuse, Done, Done, Refuse, Refuse, Done, Begin]),
            (State::Gone(None), [Refuse, Done, Done, Refuse, Refuse, Done, Done]),
        ];
        for (state, answers) in table {
            for (operation, answer) in ALL.into_iter().zip(answers) {
                assert_eq!(admit(&state, 0, operation), answer, "{operation:?} in {state:?}");
            }
        }
    }

    #[test]
    fn users_keep_a_sandbox_from_being_frozen_and_from_nothing_else() {
        for operation in ALL {
            let expected = match operation {
                Operation::Freeze => Admission::InUse,
                other => admit(&running(), 0, other),
            };
            assert_eq!(admit(&running(), 1, operation), expected, "{operation:?}");
        }
    }

    #[test]
    fn one_waits_exactly_for_states_that_pass() {
        let settled = [
            running(),
            State::Frozen(agent()),
            State::Stopped,
            State::Failed(failure()),
            State::Doomed(failure()),
            State::Gone(None),
        ];
        for state in settled {
            assert!(!state.is_passing());
            for operation in ALL {
                if admit(&state, 0, operation) == Admission::Begin {
                    let passing = operation.passing(&state);
                    assert!(passing.is_passing(), "{operation:?} in {state:?}");
                    assert_eq!(admit(&passing, 0, operation), Admission::Wait);
                }
            }
        }
    }

    #[test]
    fn what_is_held_or_changed_looks_as_it_did() {
        for state in [running(), State::Frozen(agent()), State::Stopped] {
            assert_eq!(Operation::Hold.passing(&state).public(), state.public());
            assert_eq!(Operation::Change.passing(&state).public(), state.public());
        }
    }

    #[test]
    fn a_sandbox_that_goes_is_not_seen() {
        assert_eq!(State::Destroying.public(), None);
        assert_eq!(State::Gone(None).public(), None);
        let seen = State::Failed(failure()).public();
        assert_eq!(seen, Some((SandboxState::Failed, Some("x".to_owned()))));
    }
}
