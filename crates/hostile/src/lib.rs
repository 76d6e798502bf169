//! Hostile bytes for parsers, in tests: examples, bent over and over.
//!
//! The same bytes in each run, so a failure is found again; on stable Rust, so every test run has them.
//! `HOSTILE_ROUNDS` makes a run longer, `HOSTILE_SEED` another one.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{
    fmt::Write,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

/// Inputs of one test unless `HOSTILE_ROUNDS` says otherwise: well under a second for a parser.
const ROUNDS: u64 = 20_000;

/// Bytes of an input at most; what grows faster than its input shows long before.
const MOST_BYTES: usize = 64 * 1024;

/// How long a parser may take over one input.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes and numbers that parsers tend to get wrong.
const INTERESTING: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\x7f\xff\xff\xff",
    b"\n",
    b"\r\n\r\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"..",
    b"/",
    b"//",
    b"%00",
    b"%2f",
    b":",
    b"@",
    b"-",
    b" ",
    b"=",
    b"18446744073709551616",
    b"-1",
    b"\xc0\x0c",
];

/// xorshift64*: small, and good enough to bend bytes with.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`; 0 for an end of 0.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Gives `parse` the examples themselves, then inputs bent from them.
///
/// # Panics
/// When `parse` panics or takes over a second; the message has the input, in the form of a Rust
/// literal.
pub fn bytes(examples: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    let mut random = Random(number("HOSTILE_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut attempt = |input: &[u8]| {
        let begun = Instant::now();
        let done = panic::catch_unwind(AssertUnwindSafe(|| parse(input)));
        let is_slow = begun.elapsed() > PATIENCE;
        if done.is_err() || is_slow {
            let what = if is_slow { "took too long over" } else { "panicked at" };
            panic!("the parser {what} b\"{}\"", literal(input));
        }
    };
    examples.iter().for_each(|example| attempt(example));
    let mut input = Vec::new();
    for _ in 0..number("HOSTILE_ROUNDS", ROUNDS) {
        let example = examples.get(random.below(examples.len())).copied().unwrap_or_default();
        input.clear();
        input.extend_from_slice(example);
        // Mostly near an example: what is far from all of them is refused by the first check.
        for _ in 0..=random.below(4) {
            bend(&mut input, examples, &mut random);
        }
        input.truncate(MOST_BYTES);
        attempt(&input);
    }
}

/// As [`bytes`], for what takes text: inputs that are not UTF-8 are mended first.
///
/// # Panics
/// As [`bytes`].
pub fn text(examples: &[&str], mut parse: impl FnMut(&str)) {
    let examples: Vec<&[u8]> = examples.iter().map(|example| example.as_bytes()).collect();
    bytes(&examples, |input| parse(&String::from_utf8_lossy(input)));
}

fn bend(input: &mut Vec<u8>, examples: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(16) + 1);
    match random.below(8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = INTERESTING[random.below(INTERESTING.len())];
            drop(input.splice(at..at, piece.iter().copied()));
        }
        4 => {
            let piece = INTERESTING[random.below(INTERESTING.len())];
            drop(input.splice(at..end, piece.iter().copied()));
        }
        5 => {
            // The same again and again: lengths, depths, counts.
            let piece = input.get(at..end).unwrap_or_default().repeat(1 << random.below(10));
            drop(input.splice(at..at, piece));
        }
        6 => {
            let other = examples.get(random.below(examples.len())).copied().unwrap_or_default();
            let rest = other.get(random.below(other.len() + 1)..).unwrap_or_default();
            input.truncate(at);
            input.extend_from_slice(rest);
        }
        _ => input.truncate(at),
    }
}

fn literal(input: &[u8]) -> String {
    let mut text = String::new();
    for byte in input {
        // Writing to a string cannot fail.
        write!(text, "{}", byte.escape_ascii()).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_behind_two_bends_is_found_and_told() {
        let found = panic::catch_unwind(|| {
            text(&["key=value"], |input| assert!(!input.contains("=\0"), "a fault"));
        });

        let told = found.expect_err("it is found");
        let told = told.downcast_ref::<String>().expect("it is told as text");
        assert!(told.contains("=\\x00"), "{told}");
    }

    #[test]
    fn inputs_are_the_same_in_each_run_and_mostly_different_from_each_other() {
        let run = || {
            let mut inputs = Vec::new();
            bytes(&[b"0123456789", b"abcdefghij"], |input| inputs.push(input.to_vec()));
            inputs
        };
        let (first, second) = (run(), run());
        assert_eq!(first, second);
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(different.len() * 2 > first.len(), "{} of {}", different.len(), first.len());
    }
}
