//! Runs a filter as the kernel would, for the tests.

use sys::seccomp::{self, Instruction};

/// What a filter decides about; the kernel's `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            seccomp::OFFSET_NUMBER => self.number,
            seccomp::OFFSET_ARCH => self.arch,
            _ => {
                let index = offset.checked_sub(seccomp::OFFSET_ARGUMENTS).expect("no such word");
                assert_eq!(index % 4, 0, "the kernel refuses an unaligned load");
                let argument = self.arguments[usize::try_from(index / 8).expect("small")];
                let low = index.is_multiple_of(8);
                let word = if low { argument & 0xffff_ffff } else { argument >> 32 };
                u32::try_from(word).expect("masked")
            }
        }
    }
}

/// How a run went.
#[derive(Debug)]
pub(super) struct Run {
    /// What the filter answered.
    pub(super) answer: u32,
    /// Each instruction that was executed and, for a comparison, which way it went.
    pub(super) trace: Vec<(usize, bool)>,
}

/// Runs `program` on `call`.
pub(super) fn run(program: &[Instruction], call: &Call) -> Run {
    let (mut at, mut accumulator, mut trace) = (0, 0, Vec::new());
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let holds = match code {
            seccomp::IF_EQUAL => accumulator == k,
            seccomp::IF_AT_LEAST => accumulator >= k,
            seccomp::IF_ANY_BIT => accumulator & k != 0,
            _ => true,
        };
        trace.push((at, holds));
        at += 1;
        match code {
            seccomp::LOAD => accumulator = call.word(k),
            seccomp::AND => accumulator &= k,
            seccomp::JUMP => at += usize::try_from(k).expect("small"),
            seccomp::RETURN => return Run { answer: k, trace },
            seccomp::IF_EQUAL | seccomp::IF_AT_LEAST | seccomp::IF_ANY_BIT => {
                at += usize::from(if holds { jt } else { jf });
            }
            _ => panic!("instruction {at} has the unknown code {code:#x}"),
        }
    }
}
