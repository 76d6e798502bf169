//! The life of one sandbox: its state, who uses it and since when it rests. Pure: every change is one
//! step, whoever takes it says what time it is, and nothing happens outside.
//!
//! `sandbox.rs` keeps one under a lock; the files of the operations carry out what a step has begun, and
//! tell it how that ended.

use api::idle::{EffectiveIdle, NextRung};

use crate::{
    idle::{self, Resting, sweep},
    state::{Admission, AgentIdentity, Operation, State, admit},
};

/// How long a sandbox whose time to live has ended stays when that could not be recorded: a disk that
/// is full now may not be then, and one that fails is not asked all the time.
const SPARED_MS: i64 = 5_000;

/// What changes while a sandbox lives, as one: who uses it and whether it may be frozen are one
/// question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) state: State,
    pub(crate) resting: Resting,
}

/// What decides when a sandbox is to rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) idle: EffectiveIdle,
    /// The end of its time to live.
    pub(crate) dies_at_ms: Option<i64>,
}

impl Life {
    pub(crate) fn new(state: State, now_ms: i64) -> Self {
        let resting = Resting {
            users: 0,
            used_at_ms: now_ms,
            since_ms: now_ms,
            is_reclaimed: false,
            spared_until_ms: now_ms,
        };
        Self { state, resting }
    }

    /// A use of the agent that is returned begins, if it runs.
    pub(crate) fn enter(&mut self) -> Option<&AgentIdentity> {
        let used = self.state.answering();
        self.resting.users += usize::from(used.is_some());
        used
    }

    /// A use ends. True: it was the last one.
    pub(crate) fn leave(&mut self, is_use: bool, now_ms: i64) -> bool {
        self.resting.users -= 1;
        if is_use {
            self.resting.used_at_ms = now_ms;
        }
        self.resting.users == 0
    }

    /// A question to the agent that is returned begins, as a use, if a rung is due that depends on the
    /// answer.
    pub(crate) fn ask_first(&mut self, rest: &Rest, now_ms: i64) -> Option<&AgentIdentity> {
        let next = idle::next(&self.state, self.resting, &rest.idle, None);
        let asks = rest.idle.count_processes && next.is_some_and(|next| next.at_ms <= now_ms);
        let asked = self.state.answering().filter(|_agent| asks);
        self.resting.users += usize::from(asked.is_some());
        asked
    }

    /// Somebody asks for `operation`; with [`Admission::Begin`] its work has begun. Returns the state
    /// before.
    pub(crate) fn begin(&mut self, operation: Operation) -> (Admission, State) {
        let admission = admit(&self.state, self.resting.users, operation);
        let before = self.state.clone();
        if admission == Admission::Begin {
            self.state = operation.passing(&before);
        }
        (admission, before)
    }

    /// A stop begins, if it is still this agent whose sandbox it is.
    pub(crate) fn begin_end_of(&mut self, agent: &AgentIdentity) -> bool {
        let is_it = self.state.agent() == Some(agent);
        if is_it {
            self.state = Operation::Stop.passing(&self.state);
        }
        is_it
    }

    /// What is due at this time begins, if anything is. Returns it with the state before.
    pub(crate) fn begin_rung(&mut self, rest: &Rest, now_ms: i64) -> Option<(NextRung, State)> {
        let next = idle::next(&self.state, self.resting, &rest.idle, rest.dies_at_ms);
        let next = next.filter(|next| next.at_ms <= now_ms)?;
        let before = self.state.clone();
        match sweep::operation(next.rung) {
            None => self.resting.is_reclaimed = true,
            Some(operation) if self.begin(operation).0 == Admission::Begin => {}
            Some(_) => return None,
        }
        Some((next, before))
    }

    /// What had begun has ended, and it is in this state.
    pub(crate) fn settle(&mut self, state: State, now_ms: i64) {
        // What was held is what it was, as if nothing had been.
        if !self.state.passes_to(&state) {
            self.resting.since_ms = now_ms;
            self.resting.is_reclaimed = false;
            if matches!(state, State::Running(_)) {
                self.resting.used_at_ms = now_ms;
            }
        }
        if self.state == State::Destroying {
            self.resting.spared_until_ms = now_ms + SPARED_MS;
        }
        self.state = state;
    }
}

#[cfg(test)]
mod simulation;
