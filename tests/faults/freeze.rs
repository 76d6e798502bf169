//! What dies while sandboxes are frozen, or on their way there.

use std::time::Duration;

use serde_json::json;
use testkit::reqwest::Method;

use crate::{crash::kill, server};

#[tokio::test]
async fn a_frozen_sandbox_outlives_the_daemon_frozen() {
    let mut server = server();
    server.shell("s", "sleep 1000 & echo $! > pid").await;
    let frozen = server.post("/v1/sandboxes/s/freeze", &json!({})).await;
    assert_eq!(frozen.json["state"], "frozen", "{}", frozen.text);

    server.kill();
    server.restart();

    assert_eq!(server.get("/v1/sandboxes/s").await.json["state"], "frozen");
    assert_eq!(server.shell("s", "kill -0 $(cat pid) && echo there").await, "there\n");
}

#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_freezing_leaves_sandboxes_that_work() {
    let mut server = server();
    for i in 0..4 {
        server.shell(&format!("s{i}"), "(while :; do :; done) & echo $! > pid").await;
    }
    for round in 0..6_u64 {
        let calls: Vec<_> = (0..8)
            .map(|i| {
                let verb = if (i + round) % 2 == 0 { "freeze" } else { "thaw" };
                let path = format!("/v1/sandboxes/s{}/{verb}", i % 4);
                tokio::spawn(server.request(Method::POST, &path).send())
            })
            .collect();
        // A different moment each round; none of them matters.
        tokio::time::sleep(Duration::from_micros(round * 700)).await;
        server.kill();
        for call in calls {
            drop(call.await);
        }
        server.restart();
        for i in 0..4 {
            let state = server.get(&format!("/v1/sandboxes/s{i}")).await.json["state"].clone();
            assert!(state == "running" || state == "frozen", "{state}");
        }
    }
    for i in 0..4 {
        let id = format!("s{i}");
        assert_eq!(server.shell(&id, "kill -0 $(cat pid) && echo there").await, "there\n");
    }
}

#[tokio::test]
async fn an_agent_killed_while_it_is_frozen_leaves_its_sandbox_stopped_and_usable() {
    let server = server();
    server.shell("s", "echo kept > file").await;
    server.post("/v1/sandboxes/s/freeze", &json!({})).await;

    kill(server.agent_pid());

    assert_eq!(server.shell("s", "cat file").await, "kept\n");
}
