//! The life of one sandbox under everything that can happen to it in any order: uses, operations, time,
//! effects that fail, agents that die, crashes of the daemon. Deterministic: a seed is a run.
//!
//! What decides is the product's own code: [`Life`], `idle::next` behind it, and recovery's `judge` and
//! `rest`. What is modelled is the rest of the world (`world.rs`), as far as the decisions are about it:
//! whether there is a jail, whether it is frozen, what is on disk. That the kernel does what is asked of it is what the tests in
//! `tests/` are for.
//!
//! `SIMULATION_SEEDS` makes a run longer, `SIMULATION_FIRST` another one.

mod planted;
mod world;

use self::world::World;
use super::{Admission, AgentIdentity, Life, NextRung, Operation, Rest, State};
use crate::{
    record::Phase,
    recover::{self, Verdict},
};

/// Runs of one test unless `SIMULATION_SEEDS` says otherwise: some seconds.
const SEEDS: u64 = 20_000;

/// What happens in one run.
const EVENTS: usize = 150;

/// Everything that decides. The product's own, but for what a test has planted.
#[derive(Clone, Copy)]
struct Rules {
    begin: fn(&mut Life, Operation) -> (Admission, State),
    begin_rung: fn(&mut Life, &Rest, i64) -> Option<(NextRung, State)>,
    begin_end_of: fn(&mut Life, &AgentIdentity) -> bool,
    leave: fn(&mut Life, bool, i64) -> bool,
    settle: fn(&mut Life, State, i64),
    judge: fn(&Phase, Option<&AgentIdentity>) -> Verdict,
    rest: fn(&Phase) -> Phase,
}

const PRODUCT: Rules = Rules {
    begin: Life::begin,
    begin_rung: Life::begin_rung,
    begin_end_of: Life::begin_end_of,
    leave: Life::leave,
    settle: Life::settle,
    judge: recover::judge,
    rest: recover::rest,
};

/// `SplitMix64`: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// One run. The error says what was wrong, after which events.
fn run(rules: Rules, seed: u64) -> Result<(), String> {
    let mut world = World::new(rules, Dice(seed));
    for _ in 0..EVENTS {
        world.happen()?;
    }
    world.come_to_rest()
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_that_happens_in_any_order_breaks_a_sandboxs_life() {
    let first = from_environment("SIMULATION_FIRST", 0);
    for seed in first..first + from_environment("SIMULATION_SEEDS", SEEDS) {
        if let Err(what) = run(PRODUCT, seed) {
            panic!("seed {seed}: {what}");
        }
    }
}
