//! What the API says is what the kernel has.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use testkit::{Found, Server};

/// How long what happens behind a reply may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there has to be, as the API tells it.
#[derive(Debug)]
struct Told {
    states: BTreeMap<String, String>,
    expected: Found,
    /// Sandboxes that do not run have their volume, unless they were never made.
    maybe_volumes: usize,
}

async fn told(server: &Server) -> Told {
    let list = server.get("/v1/sandboxes").await;
    let mut told = Told { states: BTreeMap::new(), expected: Found::default(), maybe_volumes: 0 };
    for sandbox in list.json["sandboxes"].as_array().expect(&list.text) {
        let text = |field: &str| sandbox[field].as_str().unwrap_or_default().to_owned();
        let (id, state) = (text("id"), text("state"));
        let lives = matches!(state.as_str(), "running" | "frozen");
        told.expected.jails += usize::from(lives);
        told.expected.links += usize::from(lives);
        told.expected.sockets += usize::from(lives);
        told.expected.frozen += usize::from(state == "frozen");
        if matches!(state.as_str(), "failed" | "stopped") {
            told.maybe_volumes += 1;
        } else {
            told.expected.volumes += 1;
        }
        let checkpoints = server.get(&format!("/v1/sandboxes/{id}/checkpoints")).await;
        let checkpoints = checkpoints.json["checkpoints"].as_array().map_or(0, Vec::len);
        told.expected.volumes += checkpoints;
        told.states.insert(id, state);
    }
    told
}

/// Waits until API and kernel agree.
pub(crate) async fn expect_agreement(server: &Server, case: &str) {
    let begun = Instant::now();
    loop {
        let told = told(server).await;
        let found = server.look().found();
        let volumes = told.expected.volumes..=told.expected.volumes + told.maybe_volumes;
        let is_expected = Found { volumes: told.expected.volumes, ..found } == told.expected
            && volumes.contains(&found.volumes);
        if is_expected {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{case}: {told:#?}, but {found:?}: {:#?}\n{}",
            server.look(),
            server.log()
        );
        // There is no event for "what was to be removed is removed".
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
