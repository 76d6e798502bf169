//! Where a sandbox is in its life, and what may happen to it next. Pure.
//!
//! ```text
//!            ┌─────────── Use ◀──────────┐
//!            ▼                           │
//! (new) ▶ Creating ──▶ Running ──Stop──▶ Stopping ──▶ Stopped
//!            │            │                              │
//!            └──▶ Failed ─┴──────────── Destroy ─────────┴──▶ Destroying ──▶ Gone
//!                                                                 └──▶ Doomed ──Destroy──▶ …
//! ```
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
    /// As it was, while its settings are being changed.
    Changing(Box<Self>),
    /// Its processes are being ended; its files stay.
    Stopping,
    Stopped,
    Failed(Failure),
    /// Recorded as gone, its processes are being ended.
    Destroying,
    /// Recorded as gone, but its processes could not be ended: it can only be destroyed again.
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
    /// Not in this state.
    Refuse,
}

/// Decides what becomes of `operation` in `state`.
pub(crate) fn admit(state: &State, operation: Operation) -> Admission {
    match (state, operation) {
        (State::Changing(before), Operation::Use) if before.is_running() => Admission::Done,
        (
            State::Creating | State::Changing(_) | State::Stopping | State::Destroying,
            Operation::Use | Operation::Change | Operation::Stop | Operation::Destroy,
        ) => Admission::Wait,
        (State::Running(_), Operation::Use) => Admission::Done,
        (State::Running(_), Operation::Change | Operation::Stop | Operation::Destroy) => {
            Admission::Begin
        }
        (
            State::Stopped | State::Failed(_),
            Operation::Use | Operation::Change | Operation::Destroy,
        ) => Admission::Begin,
        (State::Stopped | State::Failed(_) | State::Doomed(_), Operation::Stop) => Admission::Done,
        (State::Doomed(_) | State::Gone(_), Operation::Use | Operation::Change) => {
            Admission::Refuse
        }
        (State::Doomed(_), Operation::Destroy) => Admission::Begin,
        (State::Gone(_), Operation::Stop | Operation::Destroy) => Admission::Done,
    }
}

impl Operation {
    /// The state while the operation is carried out on what was `before`.
    pub(crate) fn passing(self, before: &State) -> State {
        match self {
            Self::Use => State::Creating,
            Self::Change => State::Changing(Box::new(before.clone())),
            Self::Stop => State::Stopping,
            Self::Destroy => State::Destroying,
        }
    }
}

impl State {
    /// True while a task works on the sandbox.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Creating | Self::Changing(_) | Self::Stopping | Self::Destroying)
    }

    /// True while its agent answers.
    pub(crate) fn is_running(&self) -> bool {
        match self {
            Self::Running(_) => true,
            Self::Changing(before) => before.is_running(),
            _ => false,
        }
    }

    /// The state as callers see it, with the reason of a failure. None: callers do not see it.
    pub(crate) fn public(&self) -> Option<(SandboxState, Option<String>)> {
        match self {
            Self::Creating => Some((SandboxState::Creating, None)),
            Self::Running(_) => Some((SandboxState::Running, None)),
            Self::Stopping | Self::Stopped => Some((SandboxState::Stopped, None)),
            Self::Failed(failure) | Self::Doomed(failure) => {
                Some((SandboxState::Failed, Some(failure.reason.clone())))
            }
            Self::Changing(before) => before.public(),
            Self::Destroying | Self::Gone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 4] =
        [Operation::Use, Operation::Change, Operation::Stop, Operation::Destroy];

    fn failure() -> Failure {
        Failure { code: ErrorCode::SandboxFailed, step: None, reason: "x".to_owned() }
    }

    fn running() -> State {
        State::Running(AgentIdentity { pid: 1, start_time: 2, boot_id: "b".to_owned() })
    }

    #[test]
    fn every_pair_of_state_and_operation_has_its_answer() {
        use Admission::{Begin, Done, Refuse, Wait};
        let changing = |state| State::Changing(Box::new(state));
        //                                     Use     Change  Stop  Destroy
        let table = [
            (State::Creating, [Wait, Wait, Wait, Wait]),
            (running(), [Done, Begin, Begin, Begin]),
            (changing(running()), [Done, Wait, Wait, Wait]),
            (changing(State::Stopped), [Wait, Wait, Wait, Wait]),
            (State::Stopping, [Wait, Wait, Wait, Wait]),
            (State::Stopped, [Begin, Begin, Done, Begin]),
            (State::Failed(failure()), [Begin, Begin, Done, Begin]),
            (State::Destroying, [Wait, Wait, Wait, Wait]),
            (State::Doomed(failure()), [Refuse, Refuse, Done, Begin]),
            (State::Gone(None), [Refuse, Refuse, Done, Done]),
        ];
        for (state, answers) in table {
            for (operation, answer) in OPERATIONS.into_iter().zip(answers) {
                assert_eq!(admit(&state, operation), answer, "{operation:?} in {state:?}");
            }
        }
    }

    #[test]
    fn one_waits_exactly_for_states_that_pass() {
        for operation in OPERATIONS {
            let passing = operation.passing(&State::Stopped);
            assert!(passing.is_passing());
            assert_eq!(admit(&passing, operation), Admission::Wait);
        }
        for settled in [running(), State::Stopped, State::Failed(failure()), State::Gone(None)] {
            assert!(!settled.is_passing());
        }
    }

    #[test]
    fn a_sandbox_that_goes_is_not_seen() {
        assert_eq!(State::Destroying.public(), None);
        assert_eq!(State::Gone(None).public(), None);
        let changing = State::Changing(Box::new(running()));
        assert_eq!(changing.public(), running().public(), "a change is not seen");
        let seen = State::Failed(failure()).public();
        assert_eq!(seen, Some((SandboxState::Failed, Some("x".to_owned()))));
    }
}
