//! The world around one sandbox, and what must hold in it.

use std::collections::VecDeque;

use api::{
    error::ErrorCode,
    idle::{EffectiveIdle, OnIdle, Rung},
};

use super::{Dice, Rules};
use crate::{
    life::{Life, Rest},
    record::Phase,
    recover::Verdict,
    state::{Admission, AgentIdentity, Failure, Operation, State},
};

const OPERATIONS: [Operation; 7] = [
    Operation::Use,
    Operation::Freeze,
    Operation::Thaw,
    Operation::Hold,
    Operation::Change,
    Operation::Stop,
    Operation::Destroy,
];

/// What a task does outside memory, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// On disk before the next effect.
    Intent,
    Bury,
    Freeze,
    Thaw,
    Kill,
    Launch,
}

/// The one task that works on the sandbox.
#[derive(Debug)]
struct Work {
    operation: Operation,
    before: State,
    left: VecDeque<Effect>,
    launched: Option<AgentIdentity>,
}

#[derive(Debug)]
struct Jail {
    agent: AgentIdentity,
    is_frozen: bool,
    is_dead: bool,
}

pub(super) struct World {
    rules: Rules,
    dice: Dice,
    now_ms: i64,
    life: Life,
    rest: Rest,
    work: Option<Work>,
    jail: Option<Jail>,
    /// What is on disk; none: nothing but, perhaps, a burial.
    record: Option<Phase>,
    /// Changes that wait for the writer; a crash loses the last of them.
    queued: VecDeque<Phase>,
    next_pid: i32,
    /// When the last use ended or the sandbox began to run, as its users know it.
    used_at_ms: i64,
    /// Since when it is in its state, as its users know it.
    since_ms: i64,
    /// Somebody was told that it is gone.
    is_told_gone: bool,
    /// An end of its processes has failed: something may be there that should not.
    has_stuck: bool,
    happened: Vec<String>,
}

pub(super) fn failure() -> Failure {
    Failure { code: ErrorCode::SandboxFailed, step: None, reason: "x".to_owned() }
}

fn agent(pid: i32) -> AgentIdentity {
    AgentIdentity { pid, start_time: 1, boot_id: "b".to_owned() }
}

fn ms(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX)
}

impl World {
    /// A sandbox that has just been asked for.
    pub(super) fn new(rules: Rules, mut dice: Dice) -> Self {
        let idle = EffectiveIdle {
            keep_alive: dice.one_in(5),
            on_idle: match dice.below(4) {
                0 => OnIdle::Stop,
                1 => OnIdle::Destroy,
                _ => OnIdle::Freeze,
            },
            sleep_after_ms: 100 + dice.below(2_000),
            stop_after_ms: dice.below(3) * 5_000,
            destroy_after_ms: dice.below(3) * 9_000,
            ..EffectiveIdle::default()
        };
        let dies_at_ms = dice.one_in(3).then(|| 20_000 + ms(dice.below(99_999)));
        let mut world = Self {
            rules,
            dice,
            now_ms: 1_000,
            life: Life::new(State::Creating, 1_000),
            rest: Rest { idle, dies_at_ms },
            work: None,
            jail: None,
            record: None,
            queued: VecDeque::new(),
            next_pid: 1,
            used_at_ms: 1_000,
            since_ms: 1_000,
            is_told_gone: false,
            has_stuck: false,
            happened: Vec::new(),
        };
        world.take_on(Operation::Use, State::Creating);
        world
    }

    fn is_gone(&self) -> bool {
        matches!(self.life.state, State::Gone(_))
    }

    /// One more thing happens, and then everything that must hold is looked at.
    pub(super) fn happen(&mut self) -> Result<(), String> {
        match self.dice.below(100) {
            0..20 => self.now_ms += ms(self.dice.below(3_000)),
            20..30 => drop(self.life.enter()),
            30..42 => self.leave(),
            42..58 => self.ask()?,
            58..66 => self.sweep()?,
            66..90 => self.work_on(true)?,
            90..94 => self.write(),
            94..97 => self.agent_dies()?,
            _ => self.crash()?,
        }
        self.check()
    }

    fn note(&mut self, what: &str) {
        self.happened.push(format!("{} {what} -> {:?}", self.now_ms, self.life.state));
    }

    fn wrong(&self, what: &str) -> String {
        let from = self.happened.len().saturating_sub(25);
        let last = self.happened.get(from..).unwrap_or_default().join("\n");
        format!("{what}, with {:?}, {:?}, after\n{last}", self.life, self.jail)
    }

    fn leave(&mut self) {
        if self.life.resting.users > 0 {
            (self.rules.leave)(&mut self.life, true, self.now_ms);
            self.used_at_ms = self.now_ms;
        }
    }

    /// A caller asks for something.
    fn ask(&mut self) -> Result<(), String> {
        let which = self.dice.below(OPERATIONS.len() as u64);
        let Some(operation) = OPERATIONS.into_iter().nth(usize::try_from(which).unwrap_or(0))
        else {
            return Ok(());
        };
        // Destroying ends a run, so it is rarer.
        if operation == Operation::Destroy && !self.dice.one_in(4) {
            return Ok(());
        }
        let users = self.life.resting.users;
        let (admission, before) = (self.rules.begin)(&mut self.life, operation);
        self.note(&format!("{operation:?}: {admission:?}"));
        if admission != Admission::Begin {
            return Ok(());
        }
        if operation == Operation::Freeze && users > 0 {
            return Err(self.wrong("what is used is frozen"));
        }
        if matches!(before, State::Doomed(_)) && operation != Operation::Destroy {
            return Err(self.wrong("what is doomed is used"));
        }
        if self.work.is_some() {
            return Err(self.wrong("two work on one sandbox"));
        }
        self.take_on(operation, before);
        Ok(())
    }

    /// The effects of the operation, as the files named after them have them.
    fn take_on(&mut self, operation: Operation, before: State) {
        use Effect::{Bury, Freeze, Intent, Kill, Launch, Thaw};
        let has_agent = before.agent().is_some();
        let effects: &[Effect] = match operation {
            Operation::Use | Operation::Thaw if has_agent => &[Thaw],
            Operation::Use | Operation::Thaw => &[Intent, Kill, Launch],
            Operation::Freeze => &[Freeze],
            Operation::Hold if matches!(before, State::Running(_)) => &[Freeze, Thaw],
            Operation::Hold => &[],
            Operation::Change => &[Intent],
            Operation::Stop => &[Thaw, Kill],
            Operation::Destroy => &[Bury, Kill],
        };
        let left = effects.iter().copied().collect();
        self.work = Some(Work { operation, before, left, launched: None });
    }

    /// Who climbs the ladders looks.
    fn sweep(&mut self) -> Result<(), String> {
        let users = self.life.resting.users;
        let begun = (self.rules.begin_rung)(&mut self.life, &self.rest, self.now_ms);
        let Some((next, before)) = begun else { return self.expect_nothing_due() };
        let rung = next.rung;
        self.note(&format!("rung {rung:?}"));
        let is_ttl = self.rest.dies_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms);
        let idle = self.rest.idle;
        let after = |from: i64, rest_ms: u64| rest_ms > 0 && self.now_ms >= from + ms(rest_ms);
        let is_time = match (&before, rung) {
            (_, Rung::Destroy) if is_ttl => true,
            (State::Frozen(_), Rung::Reclaim) => true,
            _ if idle.keep_alive => false,
            (State::Running(_), _) => users == 0 && after(self.used_at_ms, idle.sleep_after_ms),
            (State::Frozen(_), Rung::Stop) => after(self.since_ms, idle.stop_after_ms),
            (State::Stopped | State::Failed(_), Rung::Destroy) => {
                after(self.since_ms, idle.destroy_after_ms)
            }
            _ => false,
        };
        if !is_time {
            return Err(self.wrong("a rung comes too early"));
        }
        match rung {
            Rung::Reclaim => {}
            Rung::Freeze => self.take_on(Operation::Freeze, before),
            Rung::Stop => self.take_on(Operation::Stop, before),
            Rung::Destroy => self.take_on(Operation::Destroy, before),
        }
        Ok(())
    }

    /// What nobody has used for long enough does not stay as it is.
    fn expect_nothing_due(&self) -> Result<(), String> {
        let is_due = matches!(self.life.state, State::Running(_))
            && self.life.resting.users == 0
            && !self.rest.idle.keep_alive
            && self.now_ms >= self.used_at_ms + ms(self.rest.idle.sleep_after_ms);
        if is_due { Err(self.wrong("a rung does not come")) } else { Ok(()) }
    }

    /// The task at work has one effect, or ends.
    fn work_on(&mut self, may_fail: bool) -> Result<(), String> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let Some(effect) = work.left.pop_front() else { return self.end_work(true) };
        let fails = may_fail && self.dice.one_in(12);
        self.note(&format!("{effect:?}{}", if fails { " fails" } else { "" }));
        if fails {
            self.has_stuck |= effect == Effect::Kill && self.jail.is_some();
            return self.fail_at(effect);
        }
        self.take_effect(effect)
    }

    fn take_effect(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Intent => {
                self.write_all();
                let starts = |work: &Work| work.left.contains(&Effect::Launch);
                if self.work.as_ref().is_some_and(starts) {
                    let is_new = self.record.is_none();
                    self.record = Some(if is_new { Phase::Creating } else { Phase::Starting });
                }
            }
            Effect::Bury => {
                self.write_all();
                self.record = None;
            }
            Effect::Freeze | Effect::Thaw => {
                if let Some(jail) = &mut self.jail {
                    jail.is_frozen = effect == Effect::Freeze;
                }
            }
            Effect::Kill => {
                self.jail = None;
                self.has_stuck = false;
            }
            Effect::Launch => {
                if self.jail.is_some() {
                    return Err(self.wrong("two agents for one sandbox"));
                }
                let agent = agent(self.next_pid);
                self.next_pid += 1;
                self.jail = Some(Jail { agent: agent.clone(), is_frozen: false, is_dead: false });
                if let Some(work) = &mut self.work {
                    work.launched = Some(agent);
                }
            }
        }
        Ok(())
    }

    /// The task at work goes on or ends, because an effect failed.
    fn fail_at(&mut self, effect: Effect) -> Result<(), String> {
        let Some(work) = &self.work else { return Ok(()) };
        let settled = match (work.operation, effect, work.before.clone()) {
            // Notice is given if it can be.
            (Operation::Stop, Effect::Thaw, _) => return Ok(()),
            // What cannot go on is frozen: the next request tries again.
            (Operation::Hold, Effect::Thaw, State::Running(agent)) => State::Frozen(agent),
            // A destroy that is not on disk has not been.
            (Operation::Destroy, Effect::Bury, before) => before,
            _ => return self.end_work(false),
        };
        self.work = None;
        self.settle(settled);
        Ok(())
    }

    fn end_work(&mut self, is_done: bool) -> Result<(), String> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let agent = work.launched.or(work.before.agent().cloned());
        let settled = match (work.operation, is_done, agent) {
            (Operation::Use | Operation::Thaw, true, Some(agent)) => {
                self.queued.push_back(Phase::Running(agent.clone()));
                State::Running(agent)
            }
            (Operation::Freeze, true, Some(agent)) => State::Frozen(agent),
            (Operation::Stop, true, _) => {
                self.queued.push_back(Phase::Stopped);
                State::Stopped
            }
            (Operation::Use | Operation::Thaw, _, None) | (Operation::Stop, false, _) => {
                self.queued.push_back(Phase::Failed(failure()));
                State::Failed(failure())
            }
            (Operation::Destroy, true, _) => {
                self.is_told_gone = true;
                State::Gone(None)
            }
            (Operation::Destroy, false, _) => State::Doomed(failure()),
            _ => work.before,
        };
        self.settle(settled);
        Ok(())
    }

    fn settle(&mut self, state: State) {
        if !self.life.state.passes_to(&state) {
            self.since_ms = self.now_ms;
            if matches!(state, State::Running(_)) {
                self.used_at_ms = self.now_ms;
            }
        }
        (self.rules.settle)(&mut self.life, state, self.now_ms);
        self.note("settled");
    }

    /// The writer comes to one more change.
    fn write(&mut self) {
        if let (Some(phase), Some(record)) = (self.queued.pop_front(), &mut self.record) {
            *record = phase;
        }
    }

    fn write_all(&mut self) {
        while !self.queued.is_empty() {
            self.write();
        }
    }

    fn agent_dies(&mut self) -> Result<(), String> {
        if let Some(jail) = &mut self.jail {
            jail.is_dead = true;
            self.note("the agent dies");
        }
        self.watch()
    }

    /// Who watches agents tells of the ends of this one and the one before, perhaps late.
    fn watch(&mut self) -> Result<(), String> {
        let dead = self.jail.as_ref().filter(|jail| jail.is_dead).map(|jail| jail.agent.clone());
        for agent in [Some(agent(self.next_pid - 2)), dead].into_iter().flatten() {
            let before = self.life.state.clone();
            if self.work.is_some() || !(self.rules.begin_end_of)(&mut self.life, &agent) {
                continue;
            }
            self.note(&format!("the end of agent {}", agent.pid));
            if before.agent() != Some(&agent) {
                return Err(self.wrong("the end of an earlier agent stops a later one"));
            }
            self.take_on(Operation::Stop, before);
        }
        Ok(())
    }

    /// The daemon ends with everything it knows, and another one recovers.
    fn crash(&mut self) -> Result<(), String> {
        self.note("crash");
        let has_run = matches!(self.life.state, State::Running(_) | State::Frozen(_));
        for _ in 0..self.dice.below(1 + self.queued.len() as u64) {
            self.write();
        }
        self.queued.clear();
        self.work = None;
        self.life = Life::new(State::Creating, self.now_ms);
        self.used_at_ms = self.now_ms;
        let Some(phase) = self.record.clone() else {
            // A burial, or nothing at all: whatever exists is ended.
            self.jail = None;
            self.is_told_gone = true;
            self.settle(State::Gone(None));
            return Ok(());
        };
        if self.is_told_gone {
            return Err(self.wrong("what is gone came back"));
        }
        let alive = self.jail.as_ref().filter(|jail| !jail.is_dead);
        let (agent, is_frozen) =
            (alive.map(|jail| jail.agent.clone()), alive.is_some_and(|jail| jail.is_frozen));
        let verdict = (self.rules.judge)(&phase, agent.as_ref());
        let state = match (verdict, agent) {
            (Verdict::Adopt, Some(agent)) => {
                self.queued.push_back(Phase::Running(agent.clone()));
                if is_frozen { State::Frozen(agent) } else { State::Running(agent) }
            }
            (_, Some(_)) if has_run => return Err(self.wrong("a crash ended what ran")),
            _ => {
                self.jail = None;
                let rest = (self.rules.rest)(&phase);
                self.record = Some(rest.clone());
                match rest {
                    Phase::Failed(_) if has_run && !matches!(phase, Phase::Failed(_)) => {
                        return Err(self.wrong("a crash made what ran a failure"));
                    }
                    Phase::Failed(failure) => State::Failed(failure),
                    _ => State::Stopped,
                }
            }
        };
        self.has_stuck = false;
        self.settle(state);
        Ok(())
    }

    /// What must hold at any time.
    fn check(&self) -> Result<(), String> {
        if self.life.state.is_passing() != self.work.is_some() {
            return Err(self.wrong("a state passes without anybody at work, or the reverse"));
        }
        if self.is_told_gone && !self.is_gone() {
            return Err(self.wrong("what is gone is there"));
        }
        if self.work.is_some() || self.has_stuck {
            return Ok(());
        }
        let agrees = match (&self.life.state, &self.jail) {
            (State::Running(agent), Some(jail)) => *agent == jail.agent && !jail.is_frozen,
            (State::Frozen(agent), Some(jail)) => *agent == jail.agent && jail.is_frozen,
            (State::Running(_) | State::Frozen(_), None) => false,
            (_, jail) => jail.is_none(),
        };
        if agrees { Ok(()) } else { Err(self.wrong("the state is not what there is")) }
    }

    /// Nothing goes wrong any more and nobody comes: everything that was begun ends, and the sandbox
    /// becomes what its settings say.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        /// Enough for every rung of the ladder, and for a destroy to be tried again.
        const ROUNDS: usize = 12;
        while self.life.resting.users > 0 {
            self.leave();
        }
        for _ in 0..ROUNDS {
            let mut steps = 0;
            while self.work.is_some() {
                steps += 1;
                if steps > ROUNDS {
                    return Err(self.wrong("work does not end"));
                }
                self.work_on(false)?;
            }
            self.watch()?;
            self.now_ms += 200_000;
            if self.work.is_none() {
                self.sweep()?;
            }
            self.check()?;
        }
        let idle = self.rest.idle;
        let goes = self.rest.dies_at_ms.is_some()
            || (!idle.keep_alive && idle.stop_after_ms > 0 && idle.destroy_after_ms > 0);
        let is_left = !self.is_gone() && !matches!(self.life.state, State::Doomed(_));
        if goes && is_left { Err(self.wrong("it never goes")) } else { Ok(()) }
    }
}
