//! Processors that a process may run on. `sched_setaffinity(2)`.

use crate::error::{SysError, check};

/// Processors that this call knows, as the C library does.
pub const MOST: usize = 1024;

/// Bits of one word of a set.
const WORD_BITS: usize = 64;

/// A set of processors by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus([u64; MOST / WORD_BITS]);

impl Cpus {
    /// The processors of this list; numbers from [`MOST`] on are left out.
    #[must_use]
    pub fn of(numbers: &[usize]) -> Self {
        let mut words = [0; MOST / WORD_BITS];
        for number in numbers {
            if let Some(word) = words.get_mut(number / WORD_BITS) {
                *word |= 1 << (number % WORD_BITS);
            }
        }
        Self(words)
    }

    /// Their numbers, in order.
    #[must_use]
    pub fn numbers(&self) -> Vec<usize> {
        let is_in = |number: &usize| {
            self.0.get(number / WORD_BITS).is_some_and(|word| word >> (number % WORD_BITS) & 1 == 1)
        };
        (0..MOST).filter(is_in).collect()
    }
}

/// Processors that the calling thread may run on.
///
/// # Errors
/// When the machine has more than [`MOST`].
pub fn allowed() -> Result<Cpus, SysError> {
    let mut cpus = Cpus([0; MOST / WORD_BITS]);
    // SAFETY: the pointer and the size are those of `cpus`, which has the layout of a cpu_set_t:
    // words of 64 bits, the lowest processor in the lowest bit of the first.
    let ret = unsafe {
        libc::sched_getaffinity(
            0,
            size_of_val(&cpus.0),
            cpus.0.as_mut_ptr().cast::<libc::cpu_set_t>(),
        )
    };
    check("sched_getaffinity", ret).map(|_| cpus)
}

/// Has the calling thread, and whatever it starts, run on these processors until it chooses others.
/// *After fork.*
///
/// # Errors
/// When none of them is there.
pub fn run_on(cpus: &Cpus) -> Result<(), SysError> {
    // SAFETY: as in `allowed`; the kernel only reads.
    let ret = unsafe {
        libc::sched_setaffinity(0, size_of_val(&cpus.0), cpus.0.as_ptr().cast::<libc::cpu_set_t>())
    };
    check("sched_setaffinity", ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_where_it_was_told_and_not_nowhere() {
        let before = allowed().unwrap();
        let first = Cpus::of(&before.numbers()[..1]);
        run_on(&first).unwrap();
        assert_eq!(allowed().unwrap(), first);
        run_on(&Cpus::of(&[])).unwrap_err();
        run_on(&before).unwrap();
        assert_eq!(Cpus::of(&before.numbers()), before);
    }
}
