//! The points in the code are the points that are exercised.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    scenario::{ELSEWHERE, Effect, SCENARIOS},
    steps::STEPS,
};

fn source(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect("the source is there")
}

/// What stands in quotation marks in a text.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names that the function `name` in a file gives.
fn names(path: &str) -> BTreeSet<String> {
    let source = source(path);
    let (_, function) = source.split_once("fn name(&self)").expect("it names what it is");
    quoted(function.split_once("\n    }\n").expect("the function ends").0)
}

fn effects() -> impl Iterator<Item = &'static Effect> {
    SCENARIOS.iter().flat_map(|scenario| scenario.effects)
}

#[test]
fn every_change_and_every_request_is_exercised_or_said_to_be_elsewhere() {
    let (mut changes, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for effect in effects().chain(&ELSEWHERE) {
        match effect {
            Effect::Record(name) => changes.insert((*name).to_owned()),
            Effect::Request(name) => requests.insert((*name).to_owned()),
            Effect::Build | Effect::Socket => false,
        };
    }
    assert_eq!(changes, names("engine/src/record.rs"));
    assert_eq!(requests, names("jail/src/wire.rs"));
}

#[test]
fn every_point_in_the_code_is_around_an_effect() {
    let mut found = BTreeSet::new();
    for path in [
        "engine/src/record/writer.rs",
        "engine/src/blank.rs",
        "jail/src/launcher.rs",
        "jail/src/server.rs",
        "jail/src/launch.rs",
    ] {
        let source = source(path);
        let points = source.split("failpoint!(").skip(1);
        let pattern = |point: &str| {
            let name = point.split('"').nth(1).expect("a point has a name");
            // One name each, whatever it is made from.
            name.replace("{name}", "{}")
        };
        found.extend(points.map(pattern));
    }
    let listed = [
        "ask.{}",
        "heard.{}",
        "launch.cgroups",
        "launch.hear-exec",
        "launch.hear-{}",
        "launch.tell-{}",
        "launcher.{}",
        "launcher.{}.done",
        "record.{}",
        "record.{}.done",
        "socket.listen",
        "socket.listen.done",
    ];
    assert_eq!(found, listed.map(str::to_owned).into());
}

#[test]
fn there_are_at_least_sixty_and_each_is_come_to_by_several_operations() {
    let points: BTreeSet<_> = effects().flat_map(|effect| effect.points()).collect();
    let places: usize = SCENARIOS.iter().map(|scenario| scenario.points().len()).sum();
    let steps: usize = STEPS.iter().map(|(_, times)| times).sum();
    println!("{} points and {steps} steps of a jail; {places} places of operations", points.len());
    assert!(points.len() + steps >= 60 && places >= 2 * points.len());
}
