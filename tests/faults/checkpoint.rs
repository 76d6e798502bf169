//! The daemon is killed while checkpoints are made, restored, removed, and forked from.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{Server, reqwest::Method};

use crate::server;

/// Rounds; each kills the daemon once, a little later than the one before.
const ROUNDS: u64 = 24;

/// How long the removal of volumes may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for in one round, all at once.
async fn ask(server: &Server, round: u64) -> Vec<(&'static str, Option<u16>)> {
    let post = |what: &'static str, path: String, body: Value| async move {
        let sent = server.request(Method::POST, &path).json(&body).send().await;
        let Ok(response) = sent else { return (what, None) };
        let status = response.status().as_u16();
        // Cut off in the middle, it is no answer.
        (what, response.bytes().await.is_ok().then_some(status))
    };
    let own = |path: &str| format!("/v1/sandboxes/s/{path}");
    futures_util::future::join_all([
        post("checkpoint", own("checkpoints"), json!({"id": format!("c{round}")})),
        post("fork", own("fork"), json!({"ids": [format!("f{round}")]})),
        post(
            "fork of checkpoint",
            own("fork"),
            json!({"checkpoint": "first", "ids": [format!("g{round}")]}),
        ),
        post("restore", "/v1/sandboxes/r/restore".to_owned(), json!({"checkpoint": "base"})),
    ])
    .await
}

/// Waits until there is a volume for each sandbox and checkpoint, and no other.
async fn expect_volumes(server: &Server) -> Vec<String> {
    let list = server.get("/v1/sandboxes").await;
    let ids: Vec<String> = list.json["sandboxes"]
        .as_array()
        .expect(&list.text)
        .iter()
        .filter_map(|sandbox| sandbox["id"].as_str().map(str::to_owned))
        .collect();
    let mut expected = ids.len();
    for id in &ids {
        let list = server.get(&format!("/v1/sandboxes/{id}/checkpoints")).await;
        expected += list.json["checkpoints"].as_array().expect(&list.text).len();
    }
    let begun = Instant::now();
    loop {
        let found = server.look().volume_count();
        if found == expected {
            return ids;
        }
        assert!(begun.elapsed() < PATIENCE, "{found} volumes, not {expected}, for {ids:?}");
        // There is no event for "what was to be removed is removed".
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_daemon_killed_at_any_step_leaves_whole_checkpoints_and_forks_and_nothing_else() {
    let mut server = server();
    for id in ["s", "r"] {
        server.shell(id, "head -c 3M /dev/urandom > big; sha256sum big > sum").await;
    }
    server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "first"})).await;
    server.post("/v1/sandboxes/r/checkpoints", &json!({"id": "base"})).await;
    let mut answered: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        server.shell("r", &format!("echo {round} > since")).await;
        server.shell("s", &format!("echo {round} > round")).await;
        let pid = i32::try_from(server.pid()).unwrap();
        // From nothing begun to everything done.
        let after = Duration::from_micros(round * 2500);
        let (answers, ()) = tokio::join!(ask(&server, round), async {
            tokio::time::sleep(after).await;
            crate::crash::kill(pid);
        });
        server.kill();
        server.restart();

        let ids = expect_volumes(&server).await;
        for (what, answer) in answers {
            if answer.is_none_or(|status| status >= 300) {
                continue;
            }
            *answered.entry(what).or_default() += 1;
            match what {
                "checkpoint" => {
                    let found = server.get(&format!("/v1/sandboxes/s/checkpoints/c{round}")).await;
                    assert_eq!(found.status, 200, "round {round}: {}", found.text);
                }
                "fork" => assert!(ids.contains(&format!("f{round}")), "round {round}"),
                "fork of checkpoint" => {
                    assert!(ids.contains(&format!("g{round}")), "round {round}");
                }
                _ => {
                    let since = server.shell("r", "cat since 2> /dev/null || echo gone").await;
                    assert_eq!(since, "gone\n", "round {round}");
                }
            }
        }
        for id in &ids {
            assert_eq!(server.shell(id, "sha256sum -c sum").await, "big: OK\n", "{id}");
            if id.starts_with(['f', 'g']) {
                server.delete(&format!("/v1/sandboxes/{id}")).await;
            }
        }
        let checkpoint = format!("/v1/sandboxes/s/checkpoints/c{round}");
        if server.get(&checkpoint).await.status == 200 {
            let fork = json!({"checkpoint": format!("c{round}"), "ids": ["f"]});
            let forked = server.post("/v1/sandboxes/s/fork", &fork).await;
            assert_eq!(forked.status, 201, "{}", forked.text);
            let seen = server.shell("f", "sha256sum -c sum && cat round").await;
            assert_eq!(seen, format!("big: OK\n{round}\n"));
            server.delete("/v1/sandboxes/f").await;
            server.delete(&checkpoint).await;
        }
    }
    println!("answered before the kill: {answered:?}");
    expect_volumes(&server).await;
}
