//! `attacks/ids.toml`: no attack is forgotten, and what is said to try one does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;

/// The sections of the list, with how many attacks each has; lifecycle counts from 0.
const SECTIONS: [(char, u32, u32); 10] = [
    ('E', 1, 62),
    ('I', 1, 25),
    ('Q', 1, 46),
    ('F', 1, 30),
    ('N', 1, 24),
    ('A', 1, 40),
    ('P', 1, 24),
    ('L', 0, 30),
    ('D', 1, 10),
    ('S', 1, 7),
];

/// Attacks that must be tried at least.
const MUST_BE_TRIED: usize = 220;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    attack: String,
    #[serde(default)]
    tests: Vec<String>,
    untested: Option<String>,
    /// Why some of it is not tried in the control jail too.
    #[expect(dead_code, reason = "for who reads the table")]
    uncontrolled: Option<String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn table() -> BTreeMap<String, Attack> {
    let text = fs::read_to_string(root().join("attacks/ids.toml")).expect("the table is there");
    toml::from_str(&text).expect("the table is TOML")
}

/// What is wrong with saying that `test` tries `id`.
fn fault(id: &str, test: &str) -> Option<String> {
    let (file, name) = test.split_once("::").unwrap_or((test, ""));
    let Ok(text) = fs::read_to_string(root().join(file)) else {
        return Some(format!("{id}: there is no {file}"));
    };
    let found = match file.strip_suffix(".py") {
        Some(_) => text.contains(&format!("@probe(\"{id}\"")),
        None => text.contains(&format!("fn {name}(")),
    };
    (!found).then(|| format!("{id}: nothing of it in {test}"))
}

#[test]
fn every_attack_is_tried_or_has_a_reason() {
    let table = table();
    let wanted = SECTIONS.iter().flat_map(|(section, first, last)| {
        (*first..=*last).map(move |number| format!("{section}{number:02}"))
    });
    let wanted: BTreeSet<String> = wanted.collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), wanted);

    let faults = table.iter().flat_map(|(id, attack)| {
        let both = (attack.tests.is_empty() == attack.untested.is_none())
            .then(|| format!("{id} ({}) has tests and a reason, or neither", attack.attack));
        both.into_iter().chain(attack.tests.iter().filter_map(|test| fault(id, test)))
    });
    assert_eq!(faults.collect::<Vec<_>>(), Vec::<String>::new());

    let tried = table.values().filter(|attack| attack.untested.is_none()).count();
    println!("{tried} of {} attacks are tried", table.len());
    assert!(tried >= MUST_BE_TRIED, "only {tried}");
}

#[test]
fn every_probe_is_in_the_table() {
    let table = table();
    for group in ["escape", "leak", "exhaustion", "tree"] {
        let file = format!("attacks/{group}.py");
        let text = fs::read_to_string(root().join(&file)).expect("the probes are there");
        for rest in text.split("@probe(\"").skip(1) {
            let id = rest.get(..3).expect("an id has three characters");
            let attack = table.get(id);
            assert!(
                attack.is_some_and(|attack| attack.tests.contains(&file)),
                "{id}: {file} is not among its tests"
            );
        }
    }
}

/// What is promised names tests that are there.
#[test]
fn every_test_that_the_documents_name_is_there() {
    for document in ["SECURITY.md", "SPECIFICATION.md", "README.md"] {
        let text = fs::read_to_string(root().join(document)).expect("the document is there");
        let named = text.split('`').filter(|code| code.contains(".rs::") && !code.contains(' '));
        let faults: Vec<_> = named.filter_map(|test| fault(document, test)).collect();
        assert_eq!(faults, Vec::<String>::new());
    }
}
