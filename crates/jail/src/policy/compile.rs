//! Turns a checked policy into a filter.
//!
//! The filter looks at the ABI, then finds the call's number by halving: the numbers are cut into
//! intervals with one answer each, and the comparisons form a tree over the intervals. The lists
//! of argument values are searched in the same way.
//!
//! It is made of loads, ands, comparisons and jumps only, so that the kernel (from 5.11) can work
//! out beforehand which calls are allowed whatever their arguments, and skip the filter for them.

use sys::seccomp::{self, Instruction};

use super::{
    Arch,
    program::{Label, Program, Test},
    text::{Alternative, ArgumentTest, Decision, Policy},
};

/// The number that a tracer writes to have a call skipped. No call has it, in any ABI, so allowing
/// it allows nothing, and anything else would spoil the answer that the tracer gives instead.
const SKIPPED: u32 = u32::MAX;

/// errno(3) EPERM, the same on both architectures.
const EPERM: u32 = 1;
/// errno(3) ENOSYS, the same on both architectures.
const ENOSYS: u32 = 38;

/// Answers of a filter.
pub(super) const ALLOW: u32 = seccomp::ANSWER_ALLOW;
pub(super) const REFUSE: u32 = seccomp::ANSWER_ERRNO | EPERM;
pub(super) const ABSENT: u32 = seccomp::ANSWER_ERRNO | ENOSYS;
pub(super) const KILL: u32 = seccomp::ANSWER_KILL_PROCESS;

/// The filter that every process of a sandbox is under.
pub(super) fn agent_filter(policy: &Policy, arch: Arch) -> Vec<Instruction> {
    let mut program = Program::default();
    let kill = program.answer(KILL);
    let allow = program.answer(ALLOW);
    let absent = program.answer(ABSENT);
    let mut points = Vec::new();
    for (name, number) in arch.calls() {
        let label = match policy.decision(name) {
            Decision::Allow | Decision::Agent => allow,
            Decision::Refuse => program.answer(REFUSE),
            Decision::Absent => absent,
            Decision::Conditional(alternatives) => rule(&mut program, alternatives),
        };
        points.push((number, label));
    }
    let number = match arch.foreign_bit() {
        None => {
            points.push((SKIPPED, allow));
            search(&mut program, &intervals(points, absent))
        }
        Some(bit) => {
            let known = search(&mut program, &intervals(points, absent));
            // The bit is set in SKIPPED too.
            let foreign = program.branch(Test::Equal(SKIPPED), allow, kill);
            program.branch(Test::AnyBit(bit), foreign, known)
        }
    };
    let native = program.load(seccomp::OFFSET_NUMBER, number);
    let abi = program.branch(Test::Equal(arch.audit()), native, kill);
    let first = program.load(seccomp::OFFSET_ARCH, abi);
    program.finish(first)
}

/// The first alternative that fits decides; EPERM when none does.
fn rule(program: &mut Program, alternatives: &[Alternative]) -> Label {
    let mut otherwise = program.answer(REFUSE);
    for Alternative { tests, errno } in alternatives.iter().rev() {
        let answer = errno.map_or(ALLOW, |errno| seccomp::ANSWER_ERRNO | u32::from(errno));
        let mut fits = program.answer(answer);
        for test in tests.iter().rev() {
            fits = argument(program, test, fits, otherwise);
        }
        otherwise = fits;
    }
    otherwise
}

fn argument(program: &mut Program, test: &ArgumentTest, holds: Label, otherwise: Label) -> Label {
    let (found, missed) = if test.wanted { (holds, otherwise) } else { (otherwise, holds) };
    let points = test.values.iter().map(|value| (*value, found)).collect();
    let search = search(program, &intervals(points, missed));
    let masked = if test.mask == u32::MAX { search } else { program.and(test.mask, search) };
    program.load(seccomp::OFFSET_ARGUMENTS + 8 * u32::from(test.argument), masked)
}

/// A run of numbers with one continuation: from `start` to the start of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    start: u32,
    label: Label,
}

/// Cuts the numbers into intervals: each of `points` with its own label, `rest` between them.
fn intervals(mut points: Vec<(u32, Label)>, rest: Label) -> Vec<Interval> {
    points.sort_by_key(|point| point.0);
    let mut intervals = vec![Interval { start: 0, label: rest }];
    for (number, label) in points {
        intervals.push(Interval { start: number, label });
        if let Some(next) = number.checked_add(1) {
            intervals.push(Interval { start: next, label: rest });
        }
    }
    // Of intervals that start together only the last has numbers in it.
    intervals.reverse();
    intervals.dedup_by_key(|interval| interval.start);
    intervals.reverse();
    intervals.dedup_by_key(|interval| interval.label);
    intervals
}

/// Finds the interval that the accumulator lies in and goes on at its label.
fn search(program: &mut Program, intervals: &[Interval]) -> Label {
    match intervals {
        [only] => only.label,
        [before, one, after] if before.label == after.label && one.start + 1 == after.start => {
            program.branch(Test::Equal(one.start), one.label, before.label)
        }
        _ => {
            let (low, high) = intervals.split_at(intervals.len() / 2);
            let pivot = high[0].start;
            let (high, low) = (search(program, high), search(program, low));
            program.branch(Test::AtLeast(pivot), high, low)
        }
    }
}
