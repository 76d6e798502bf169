//! Every step of a jail fails, hangs for a moment, or has its process die: what asked for the sandbox
//! is told which, and nothing is left.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

use super::Points;
use crate::server;

/// Every step, in the order of `enter.rs`, and how often its name comes.
pub(super) const STEPS: [(&str, usize); 26] = [
    ("cgroup", 1),
    ("clocks", 2),
    ("host identity", 1),
    ("user namespace", 1),
    ("id maps", 1),
    ("identity", 1),
    ("namespaces", 1),
    ("fork", 1),
    ("session", 1),
    ("signals", 1),
    ("hostname", 1),
    ("proc", 1),
    ("counters", 1),
    ("mounts", 1),
    ("rootfs", 1),
    ("memory", 1),
    ("dev", 1),
    ("run", 1),
    ("bind", 1),
    ("mask", 1),
    ("network", 2),
    ("limits", 1),
    ("processors", 1),
    ("room", 1),
    ("descriptors", 1),
    ("credentials", 1),
];

/// In the source, but not exercised here: behind the filter a process cannot tell how it ended, and
/// views are for readers, which are no sandboxes.
const ELSEWHERE: [&str; 2] = ["seccomp", "views"];

/// The names that steps have in the source.
fn in_the_source() -> BTreeMap<String, usize> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jail/src");
    let mut paths: Vec<_> =
        fs::read_dir(root.join("enter")).expect("it is there").flatten().collect();
    paths.sort_by_key(fs::DirEntry::path);
    let files = paths.iter().map(fs::DirEntry::path).chain([root.join("enter.rs")]);
    let mut names = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(file).expect("it can be read");
        let own =
            text.split("const STEP: &str = \"").nth(1).and_then(|rest| rest.split('"').next());
        for call in text.split("in_step(").skip(1) {
            let name = match call.strip_prefix('"') {
                Some(rest) => rest.split('"').next(),
                None if call.starts_with("STEP") => own,
                None => None,
            };
            *names.entry(name.unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    names.remove("");
    names
}

#[test]
fn every_step_in_the_code_is_exercised() {
    let found = in_the_source();
    let listed = STEPS.iter().map(|(name, _)| *name).chain(ELSEWHERE);
    let mut listed: Vec<_> = listed.collect();
    listed.sort_unstable();
    assert_eq!(found.keys().collect::<Vec<_>>(), listed);
    for (name, times) in STEPS {
        assert!(found[name] >= times, "{name}");
    }
}

#[tokio::test]
async fn a_step_that_fails_hangs_or_dies_leaves_nothing() {
    let server = server();
    let points = Points::of(&server);
    server.shell("stays", "true").await;
    let before = server.look();
    for (step, pass) in STEPS.iter().flat_map(|(step, times)| (0..*times).map(move |n| (*step, n)))
    {
        for word in ["error", "kill", "hold"] {
            let case = format!("{word} {pass}");
            points.arm(&format!("enter.{step}"), &case);
            let made = server.post("/v1/sandboxes", &json!({"id": "s"})).await;
            match word {
                "hold" => assert_eq!(made.status, 201, "{step}, {case}: {}", made.text),
                _ => assert_eq!(made.code(), "SANDBOX_FAILED", "{step}, {case}: {}", made.text),
            }
            if word == "error" {
                assert_eq!(made.json["error"]["details"]["step"], step, "{case}: {}", made.text);
            }
            // What failed works when it is asked for again.
            assert_eq!(server.shell("s", "echo works").await, "works\n", "{step}, {case}");
            assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
        }
    }
    server.expect_again(&before);
}
