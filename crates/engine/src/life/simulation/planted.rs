//! Bugs that are planted one by one: the simulation finds each.

use super::{
    Admission, AgentIdentity, Life, NextRung, Operation, PRODUCT, Phase, Rest, Rules, State,
    Verdict, run, world::failure,
};
use crate::recover;

/// Runs in which a planted bug must be found.
const SEEDS: u64 = 3_000;

fn expect_found(rules: Rules, complaint: &str) {
    let found = (0..SEEDS).find_map(|seed| run(rules, seed).err());
    let found = found.unwrap_or_else(|| panic!("nobody noticed: {complaint}"));
    assert!(found.starts_with(complaint), "{complaint}, found as: {found}");
}

#[test]
fn freezing_what_is_used() {
    fn begin(life: &mut Life, operation: Operation) -> (Admission, State) {
        let users = std::mem::take(&mut life.resting.users);
        let answer = life.begin(operation);
        life.resting.users = users;
        answer
    }
    expect_found(Rules { begin, ..PRODUCT }, "what is used is frozen");
}

#[test]
fn not_waiting_for_whoever_is_at_work() {
    fn begin(life: &mut Life, operation: Operation) -> (Admission, State) {
        if operation == Operation::Destroy && life.state == State::Stopping {
            let before = std::mem::replace(&mut life.state, State::Destroying);
            return (Admission::Begin, before);
        }
        life.begin(operation)
    }
    expect_found(Rules { begin, ..PRODUCT }, "two work on one sandbox");
}

#[test]
fn using_what_is_doomed() {
    fn begin(life: &mut Life, operation: Operation) -> (Admission, State) {
        if operation == Operation::Use && matches!(life.state, State::Doomed(_)) {
            let before = std::mem::replace(&mut life.state, State::Creating);
            return (Admission::Begin, before);
        }
        life.begin(operation)
    }
    expect_found(Rules { begin, ..PRODUCT }, "what is doomed is used");
}

#[test]
fn idle_time_that_does_not_begin_with_the_end_of_a_use() {
    fn leave(life: &mut Life, _is_use: bool, now_ms: i64) -> bool {
        life.leave(false, now_ms)
    }
    expect_found(Rules { leave, ..PRODUCT }, "a rung comes too early");
}

#[test]
fn a_rung_counted_from_the_one_before() {
    fn settle(life: &mut Life, state: State, now_ms: i64) {
        let since_ms = life.resting.since_ms;
        life.settle(state, now_ms);
        life.resting.since_ms = since_ms;
    }
    expect_found(Rules { settle, ..PRODUCT }, "a rung comes too early");
}

#[test]
fn a_checkpoint_that_counts_as_a_use() {
    fn settle(life: &mut Life, state: State, now_ms: i64) {
        life.settle(state, now_ms);
        if matches!(life.state, State::Running(_)) {
            life.resting.used_at_ms = now_ms;
        }
    }
    expect_found(Rules { settle, ..PRODUCT }, "a rung does not come");
}

#[test]
fn a_freeze_that_takes_the_agent_for_gone() {
    fn settle(life: &mut Life, state: State, now_ms: i64) {
        let is_frozen = matches!(state, State::Frozen(_));
        life.settle(if is_frozen { State::Stopped } else { state }, now_ms);
    }
    expect_found(Rules { settle, ..PRODUCT }, "the state is not what there is");
}

#[test]
fn the_end_of_any_agent_stopping_the_one_that_runs() {
    fn begin_end_of(life: &mut Life, _agent: &AgentIdentity) -> bool {
        let is_running = matches!(life.state, State::Running(_));
        if is_running {
            life.state = State::Stopping;
        }
        is_running
    }
    let rules = Rules { begin_end_of, ..PRODUCT };
    expect_found(rules, "the end of an earlier agent stops a later one");
}

#[test]
fn ending_what_runs_because_that_is_not_on_disk_yet() {
    fn judge(phase: &Phase, agent: Option<&AgentIdentity>) -> Verdict {
        match phase {
            Phase::Running(_) => recover::judge(phase, agent),
            _ => Verdict::Settle,
        }
    }
    expect_found(Rules { judge, ..PRODUCT }, "a crash ended what ran");
}

#[test]
fn taking_what_ran_for_what_was_never_made() {
    fn rest(phase: &Phase) -> Phase {
        match phase {
            Phase::Creating => Phase::Failed(failure()),
            phase => recover::rest(phase),
        }
    }
    expect_found(Rules { rest, ..PRODUCT }, "a crash made what ran a failure");
}

#[test]
fn forgetting_the_time_to_live() {
    fn begin_rung(life: &mut Life, rest: &Rest, now_ms: i64) -> Option<(NextRung, State)> {
        life.begin_rung(&Rest { dies_at_ms: None, ..*rest }, now_ms)
    }
    expect_found(Rules { begin_rung, ..PRODUCT }, "it never goes");
}
