//! Writes classic BPF from its end to its start, so that every target of a jump is known when the
//! jump is written.
//!
//! Classic BPF jumps forward only, and a comparison at most 255 instructions far. A target further
//! away is brought nearer: the answer is written again, or a plain jump (which reaches any
//! distance) is put between.

use std::collections::HashMap;

use sys::seccomp::{self, Instruction};

/// An instruction written already: how many stand after it in the finished program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Label(usize);

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Test {
    /// Is it this?
    Equal(u32),
    /// Is it this or more?
    AtLeast(u32),
    /// Has it a bit of this?
    AnyBit(u32),
}

/// A program in the making. Parts that are the same are written once.
#[derive(Debug, Default)]
pub(super) struct Program {
    reversed: Vec<Instruction>,
    answers: HashMap<u32, Label>,
    branches: HashMap<(Test, Label, Label), Label>,
}

impl Program {
    /// The program that starts at `first`.
    pub(super) fn finish(mut self, first: Label) -> Vec<Instruction> {
        self.reversed.truncate(first.0 + 1);
        self.reversed.reverse();
        self.reversed
    }

    /// Ends with `answer`.
    pub(super) fn answer(&mut self, answer: u32) -> Label {
        match self.answers.get(&answer) {
            Some(label) => *label,
            None => self.answer_again(answer),
        }
    }

    /// Goes on at `yes` when `test` holds, else at `no`.
    pub(super) fn branch(&mut self, test: Test, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return yes;
        }
        if let Some(label) = self.branches.get(&(test, yes, no)) {
            return *label;
        }
        let wanted = (test, yes, no);
        // Bringing one target nearer writes an instruction, which moves the other one away.
        let (jt, jf) = loop {
            match (self.reach(yes), self.reach(no)) {
                (Some(jt), Some(jf)) => break (jt, jf),
                (None, _) => yes = self.nearer(yes),
                (_, None) => no = self.nearer(no),
            }
        };
        let (code, k) = match test {
            Test::Equal(k) => (seccomp::IF_EQUAL, k),
            Test::AtLeast(k) => (seccomp::IF_AT_LEAST, k),
            Test::AnyBit(k) => (seccomp::IF_ANY_BIT, k),
        };
        let label = self.write(Instruction { code, jt, jf, k });
        self.branches.insert(wanted, label);
        label
    }

    /// Loads the word at `offset` of `struct seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_through(next);
        self.write(Instruction { code: seccomp::LOAD, jt: 0, jf: 0, k: offset })
    }

    /// Keeps the bits of `mask` in the accumulator, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_through(next);
        self.write(Instruction { code: seccomp::AND, jt: 0, jf: 0, k: mask })
    }

    fn write(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    fn answer_again(&mut self, answer: u32) -> Label {
        let label = self.write(Instruction { code: seccomp::RETURN, jt: 0, jf: 0, k: answer });
        self.answers.insert(answer, label);
        label
    }

    /// What the next instruction has to skip to get to `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    fn reach(&self, target: Label) -> Option<u8> {
        u8::try_from(self.distance(target)).ok()
    }

    /// An instruction with the effect of `target`, within reach.
    fn nearer(&mut self, target: Label) -> Label {
        let there = self.reversed[target.0];
        if there.code != seccomp::RETURN {
            return self.jump(target);
        }
        let latest = self.answer(there.k);
        if self.reach(latest).is_some() { latest } else { self.answer_again(there.k) }
    }

    /// Makes `next` the instruction that follows the next one written.
    fn fall_through(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.jump(next);
        }
    }

    fn jump(&mut self, target: Label) -> Label {
        let k = u32::try_from(self.distance(target)).expect("a program has at most 4096 parts");
        self.write(Instruction { code: seccomp::JUMP, jt: 0, jf: 0, k })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::interpreter::{Call, run};

    fn call(number: u32) -> Call {
        Call { arch: 0, number, arguments: [0; 6] }
    }

    /// A chain of comparisons, each with an answer of its own, all with one answer behind them.
    fn chain(length: u32) -> Vec<Instruction> {
        let mut program = Program::default();
        let mut rest = program.answer(seccomp::ANSWER_ALLOW);
        let shared = program.answer(seccomp::ANSWER_KILL_PROCESS);
        for number in (0..length).rev() {
            let own = program.answer(seccomp::ANSWER_ERRNO | number);
            let odd = program.branch(Test::AnyBit(1), shared, own);
            rest = program.branch(Test::Equal(number), odd, rest);
        }
        let first = program.load(seccomp::OFFSET_NUMBER, rest);
        program.finish(first)
    }

    #[test]
    fn jumps_of_any_length_arrive() {
        for length in [1, 63, 64, 84, 85, 86, 127, 128, 129, 255, 256, 257, 1000] {
            let program = chain(length);
            assert!(program.len() <= seccomp::MAX_INSTRUCTIONS, "{length}");
            for number in 0..length {
                let expected = if number % 2 == 1 {
                    seccomp::ANSWER_KILL_PROCESS
                } else {
                    seccomp::ANSWER_ERRNO | number
                };
                assert_eq!(run(&program, &call(number)).answer, expected, "{number} of {length}");
            }
            assert_eq!(run(&program, &call(length)).answer, seccomp::ANSWER_ALLOW);
        }
    }

    #[test]
    fn continuations_far_away_are_jumped_to() {
        let mut program = Program::default();
        let allow = program.answer(seccomp::ANSWER_ALLOW);
        let kill = program.answer(seccomp::ANSWER_KILL_PROCESS);
        let target = program.branch(Test::Equal(8), allow, kill);
        for number in 0..300 {
            program.answer(seccomp::ANSWER_ERRNO | number);
        }
        let masked = program.and(8, target);
        let first = program.load(seccomp::OFFSET_NUMBER, masked);
        let program = program.finish(first);
        assert_eq!(run(&program, &call(0xff)).answer, seccomp::ANSWER_ALLOW);
        assert_eq!(run(&program, &call(0xf7)).answer, seccomp::ANSWER_KILL_PROCESS);
    }

    #[test]
    fn the_same_part_is_written_once() {
        let mut program = Program::default();
        let yes = program.answer(1);
        let no = program.answer(2);
        let first = program.branch(Test::AtLeast(5), yes, no);
        assert_eq!(program.branch(Test::AtLeast(5), yes, no), first);
        assert_eq!(program.branch(Test::AtLeast(5), yes, yes), yes);
        assert_eq!(program.finish(first).len(), 3);
    }
}
