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
        (State::Creating | State::Stopping | State::Destroying, _) => Admission::Wait,
        (State::Running(_), Operation::Use) => Admission::Done,
        (State::Running(_), Operation::Stop | Operation::Destroy) => Admission::Begin,
        (State::Stopped | State::Failed(_), Operation::Use | Operation::Destroy) => {
            Admission::Begin
        }
        (State::Stopped | State::Failed(_) | State::Doomed(_), Operation::Stop) => Admission::Done,
        (State::Doomed(_), Operation::Use) => Admission::Refuse,
        (State::Doomed(_), Operation::Destroy) => Admission::Begin,
        (State::Gone(_), Operation::Use) => Admission::Refuse,
        (State::Gone(_), Operation::Stop | Operation::Destroy) => Admission::Done,
    }
}

impl Operation {
    /// The state while the operation is carried out.
    pub(crate) fn passing(self) -> State {
        match self {
            Self::Use => State::Creating,
            Self::Stop => State::Stopping,
            Self::Destroy => State::Destroying,
        }
    }
}

impl State {
    /// True while a task works on the sandbox.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Creating | Self::Stopping | Self::Destroying)
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

    fn running() -> State {
        State::Running(AgentIdentity { pid: 1, start_time: 2, boot_id: "b".to_owned() })
    }

    #[test]
    fn every_pair_of_state_and_operation_has_its_answer() {
        use Admission::{Begin, Done, Refuse, Wait};
        //                                     Use     Stop  Destroy
        let table = [
            (State::Creating, [Wait, Wait, Wait]),
            (running(), [Done, Begin, Begin]),
            (State::Stopping, [Wait, Wait, Wait]),
            (State::Stopped, [Begin, Done, Begin]),
            (State::Failed(failure()), [Begin, Done, Begin]),
            (State::Destroying, [Wait, Wait, Wait]),
            (State::Doomed(failure()), [Refuse, Done, Begin]),
            (State::Gone(None), [Refuse, Done, Done]),
        ];
        for (state, answers) in table {
            for (operation, answer) in
                [Operation::Use, Operation::Stop, Operation::Destroy].into_iter().zip(answers)
            {
                assert_eq!(admit(&state, operation), answer, "{operation:?} in {state:?}");
            }
        }
    }

    #[test]
    fn one_waits_exactly_for_states_that_pass() {
        for operation in [Operation::Use, Operation::Stop, Operation::Destroy] {
            let passing = operation.passing();
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
        let seen = State::Failed(failure()).public();
        assert_eq!(seen, Some((SandboxState::Failed, Some("x".to_owned()))));
    }
}
