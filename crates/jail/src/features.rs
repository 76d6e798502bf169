//! What a machine offers for isolation: each kernel feature, tool and setting, with what is lost
//! without it and how to get it.
//!
//! Owns: looking (`facts`, `trial`) and judging (`judge`, a pure function of the facts).
//! Does not: change anything, or decide what a server does about what is missing.

mod facts;
mod judge;
mod trial;

use std::path::Path;

use facts::Facts;

/// One thing that isolation needs or profits from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Short name, the same on every machine.
    pub name: &'static str,
    /// Whether sandboxes cannot run at all where it is [`Status::Missing`].
    pub required: bool,
    /// Whether it is there.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What is lost where it is not there.
    pub cost: String,
    /// How to get it.
    pub remedy: String,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Present,
    /// There, with a weakness that `detail` names.
    Degraded,
    /// Not there.
    Missing,
}

/// Looks at this machine, as a place for sandboxes whose files live in `state_dir` (which need
/// not exist yet).
///
/// As root it tries what it can: a user namespace, a mount with shifted ids and an overlay below
/// `state_dir`, all gone at return. Else it says what it could not try.
#[must_use]
pub fn probe(state_dir: &Path) -> Vec<Feature> {
    judge::judge(&Facts::gather(state_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_looked_at_and_is_left_as_it_was() {
        let state = tempfile::tempdir().expect("a directory");
        let deep = state.path().join("not/yet");
        for dir in [state.path(), &deep] {
            let features = probe(dir);
            assert!(features.len() > 20, "{}", features.len());
            for feature in &features {
                println!("{feature:?}");
                for text in [&feature.detail, &feature.cost, &feature.remedy] {
                    assert!(!text.trim().is_empty(), "{feature:?}");
                }
            }
        }
        let left = std::fs::read_dir(state.path()).expect("it is still there").count();
        assert_eq!(left, 0);
    }
}
