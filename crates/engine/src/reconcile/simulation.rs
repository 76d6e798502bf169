//! Rounds of looking for what is left behind, between everything that is made, passed on, removed and
//! not removed, in any order: nothing that is somebody's is taken, nothing is told of that is not there,
//! and in the end nothing is left. Deterministic: a seed is a run.
//!
//! What decides is the product's own: [`Numbers`] and [`Found::nobodys`].

use std::collections::BTreeSet;

use jail::JailId;

use super::Found;
use crate::number::{Number, Numbers, Ownership};

/// Runs of one test.
const SEEDS: u64 = 5_000;

/// What happens in one run.
const EVENTS: usize = 200;

/// What a test may have planted.
#[derive(Clone, Copy)]
struct Rules {
    /// Whose everything is, is looked at before what there is.
    looks_at_owners_first: bool,
    /// Whoever removes something has its number from whoever had it.
    passes_on: bool,
}

const PRODUCT: Rules = Rules { looks_at_owners_first: true, passes_on: true };

/// Who has a number, and what comes next.
#[derive(Debug)]
enum Owner {
    /// A burial is on record, and then there is something.
    Making(Number),
    Living(Number),
    /// With a number that was not passed on, nobody's for a while.
    Removing(JailId, Option<Number>),
}

/// One look, which takes its time.
#[derive(Debug, Default)]
struct Round {
    ownership: Option<Ownership>,
    found: Option<Found>,
    left: Vec<JailId>,
    has_begun: bool,
}

struct World {
    rules: Rules,
    dice: u64,
    numbers: Numbers,
    owners: Vec<Owner>,
    things: BTreeSet<JailId>,
    rows: BTreeSet<JailId>,
    burials: BTreeSet<JailId>,
    round: Round,
    may_fail: bool,
}

impl World {
    fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            dice: seed,
            numbers: Numbers::new(),
            owners: Vec::new(),
            things: BTreeSet::new(),
            rows: BTreeSet::new(),
            burials: BTreeSet::new(),
            round: Round::default(),
            may_fail: true,
        }
    }

    /// `SplitMix64`, as in the simulation of a life.
    fn below(&mut self, end: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn fails(&mut self) -> bool {
        self.may_fail && self.below(5) == 0
    }

    fn happen(&mut self) -> Result<(), String> {
        match self.below(20) {
            0..4 => {
                let number = self.numbers.take();
                self.burials.insert(number.id());
                self.owners.push(Owner::Making(number));
            }
            4..12 => self.work()?,
            12..19 => self.look_on()?,
            _ => self.crash(),
        }
        Ok(())
    }

    /// Somebody goes one step further.
    fn work(&mut self) -> Result<(), String> {
        if self.owners.is_empty() {
            return Ok(());
        }
        let which = self.below(self.owners.len() as u64);
        match self.owners.swap_remove(usize::try_from(which).unwrap()) {
            Owner::Making(number) if self.fails() => {
                // Perhaps half of it is there.
                if self.below(2) == 0 {
                    self.things.insert(number.id());
                }
                self.remove(number);
            }
            Owner::Making(number) => {
                self.things.insert(number.id());
                self.burials.remove(&number.id());
                self.rows.insert(number.id());
                self.owners.push(Owner::Living(number));
            }
            Owner::Living(number) => {
                if !self.things.contains(&number.id()) {
                    return Err("what is somebody's was removed".to_owned());
                }
                self.rows.remove(&number.id());
                self.burials.insert(number.id());
                self.remove(number);
            }
            Owner::Removing(number, owned) => {
                let owned = owned.or_else(|| self.numbers.own(number));
                if !self.fails() {
                    self.things.remove(&number);
                    self.burials.remove(&number);
                }
                drop(owned);
            }
        }
        Ok(())
    }

    fn remove(&mut self, number: Number) {
        let jail = number.id();
        self.owners.push(Owner::Removing(jail, Some(number).filter(|_| self.rules.passes_on)));
    }

    /// The round goes one step further, or the next begins.
    fn look_on(&mut self) -> Result<(), String> {
        if let Some(number) = self.round.left.pop() {
            return self.bury(number);
        }
        let owners_first = self.rules.looks_at_owners_first;
        let looks_at_owners = self.round.ownership.is_none();
        if looks_at_owners && (owners_first || self.round.found.is_some()) {
            self.round.ownership = Some(self.numbers.look());
        } else if self.round.found.is_none() {
            let (volumes, burials) = (self.things.clone(), self.burials.clone());
            self.round.found = Some(Found { volumes, burials, ..Found::default() });
        }
        self.round.has_begun = true;
        if let Round { ownership: Some(ownership), found: Some(found), .. } = &self.round {
            self.round =
                Round { left: found.nobodys(ownership).into_iter().collect(), ..Round::default() };
        }
        Ok(())
    }

    fn bury(&mut self, number: JailId) -> Result<(), String> {
        let is_there = self.things.contains(&number) || self.burials.contains(&number);
        let at_work = self.owners.iter().any(|owner| match owner {
            Owner::Making(own) | Owner::Living(own) => own.id() == number,
            Owner::Removing(own, _) => *own == number,
        });
        if at_work || self.rows.contains(&number) {
            return Err("what is somebody's is taken for a leak".to_owned());
        }
        if !is_there {
            return Err("something is told of that is not there".to_owned());
        }
        let Some(number) = self.numbers.own(number) else {
            return Err("what was nobody's has become somebody's".to_owned());
        };
        self.burials.insert(number.id());
        self.remove(number);
        Ok(())
    }

    /// The daemon ends, and another one has what is on record.
    fn crash(&mut self) {
        let next = self.numbers.take().id().0;
        self.owners.clear();
        self.numbers = Numbers::new();
        self.numbers.skip(next);
        self.round = Round::default();
        let rows = self.rows.iter().filter_map(|row| self.numbers.own(*row));
        self.owners = rows.map(Owner::Living).collect();
    }

    /// Nothing fails any more: after two rounds, there is what is somebody's.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.may_fail = false;
        for _ in 0..2 {
            self.finish_work()?;
            self.round = Round::default();
            self.look_on()?;
            while self.round.has_begun || !self.round.left.is_empty() {
                self.look_on()?;
            }
        }
        self.finish_work()?;
        let is_clean = self.things == self.rows && self.burials.is_empty();
        if is_clean { Ok(()) } else { Err(format!("{:?} is left", self.things)) }
    }

    /// Whoever makes or removes something is done. Those who only live go, too.
    fn finish_work(&mut self) -> Result<(), String> {
        while self.owners.iter().any(|owner| !matches!(owner, Owner::Living(_))) {
            self.work()?;
        }
        Ok(())
    }
}

fn run(rules: Rules, seed: u64) -> Result<(), String> {
    let mut world = World::new(rules, seed);
    for _ in 0..EVENTS {
        world.happen()?;
    }
    world.come_to_rest()
}

fn expect_found(rules: Rules, complaint: &str) {
    let found = (0..SEEDS).find_map(|seed| run(rules, seed).err());
    assert_eq!(found.as_deref(), Some(complaint));
}

#[test]
fn nothing_that_is_somebodys_is_taken_and_nothing_is_left() {
    for seed in 0..SEEDS {
        run(PRODUCT, seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn looking_at_owners_last_is_found() {
    let rules = Rules { looks_at_owners_first: false, ..PRODUCT };
    expect_found(rules, "something is told of that is not there");
}

#[test]
fn a_number_that_is_nobodys_for_a_moment_is_found() {
    let rules = Rules { passes_on: false, ..PRODUCT };
    expect_found(rules, "what is somebody's is taken for a leak");
}
