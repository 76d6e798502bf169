//! Checkpoints: made, listed, removed, restored, forked from, exported and imported.

mod export;

use serde_json::{Value, json};
use testkit::{Server, reqwest::Method};

use crate::{disk::Disk, server};

const BOX: &str = "/v1/sandboxes/s";

/// Prints how many processes called `sleep` there are.
const SLEEPERS: &str = "cat /proc/[0-9]*/comm 2> /dev/null | grep -c ^sleep || true";

async fn checkpoint(server: &Server, id: &str) -> Value {
    let made = server.post(&format!("{BOX}/checkpoints"), &json!({"id": id})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json
}

async fn restore(server: &Server, id: &str) {
    let restored = server.post(&format!("{BOX}/restore"), &json!({"checkpoint": id})).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    assert_eq!(restored.json["state"], "stopped");
}

async fn fork(server: &Server, body: Value) -> Vec<String> {
    let forked = server.post(&format!("{BOX}/fork"), &body).await;
    assert_eq!(forked.status, 201, "{}", forked.text);
    let forks = forked.json["sandboxes"].as_array().cloned().unwrap_or_default();
    forks
        .iter()
        .map(|fork| {
            assert_eq!(fork["state"], "running");
            fork["id"].as_str().unwrap_or_default().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_sandbox_goes_back_to_its_checkpoint_and_everything_since_is_gone() {
    let server = server();
    server
        .shell("s", "echo one > changed; echo two > removed; mkdir dir; ln -s changed link")
        .await;
    let made = checkpoint(&server, "before").await;
    assert_eq!(made["checkpoint"]["id"], "before");
    assert_eq!(made["checkpoint"]["sandboxId"], "s");
    server
        .shell("s", "echo other > changed; rm removed; rmdir dir; echo new > added; rm -r /root; rm /etc/hosts")
        .await;

    restore(&server, "before").await;

    let seen = "cat changed removed link; ls -d dir /root; ls added 2>&1 | grep -c 'No such'; wc -l < /etc/hosts";
    assert_eq!(server.shell("s", seen).await, "one\ntwo\none\n/root\ndir\n1\n2\n");
    // It stays, to be gone back to again.
    server.shell("s", "rm changed").await;
    restore(&server, "before").await;
    assert_eq!(server.shell("s", "cat changed").await, "one\n");
}

#[tokio::test]
async fn processes_go_on_after_a_checkpoint_and_end_with_a_restore() {
    let server = server();
    let beat =
        "(n=0; while :; do n=$((n+1)); echo $n > beat; sleep 0.01; done) & sleep 1000 & sleep 0.1";
    server.shell("s", beat).await;
    let made = checkpoint(&server, "c").await;
    assert!(made["pauseUs"].as_u64().unwrap_or_default() > 0, "{made}");

    let goes_on = "n=$(cat beat); for i in $(seq 6000); do [ \"$(cat beat)\" != \"$n\" ] && exit; sleep 0.01; done; exit 1";
    server.shell("s", goes_on).await;
    restore(&server, "c").await;
    assert_eq!(server.shell("s", SLEEPERS).await, "0\n");
}

#[tokio::test]
async fn forks_have_the_files_and_nothing_else_and_go_their_own_ways() {
    let server = server();
    let body =
        json!({"id": "s", "labels": {"a": "1"}, "env": {"E": "x"}, "resources": {"pids": 64}});
    server.post("/v1/sandboxes", &body).await;
    server.shell("s", "echo then > file; sleep 1000 &").await;
    checkpoint(&server, "c").await;
    server.shell("s", "echo now > file").await;

    let of_checkpoint = fork(&server, json!({"checkpoint": "c", "ids": ["x", "y"]})).await;
    assert_eq!(of_checkpoint, ["x", "y"]);
    let of_now = fork(&server, json!({"labels": {"b": "2"}})).await;

    for (id, content) in [("x", "then\n"), ("y", "then\n"), (of_now[0].as_str(), "now\n")] {
        assert_eq!(server.shell(id, "cat file").await, content);
        assert_eq!(server.shell(id, &format!("echo $E; {SLEEPERS}")).await, "x\n0\n");
        let seen = server.get(&format!("/v1/sandboxes/{id}")).await;
        assert_eq!(seen.json["resources"]["pids"], 64);
    }
    assert_eq!(server.get("/v1/sandboxes/x").await.json["labels"], json!({"a": "1"}));
    let own = server.get(&format!("/v1/sandboxes/{}", of_now[0])).await;
    assert_eq!(own.json["labels"], json!({"b": "2"}));

    server.shell("x", "echo x > file").await;
    assert_eq!(server.shell("y", "cat file").await, "then\n");
    assert_eq!(server.shell("s", "cat file").await, "now\n");
    // What they come from may go; so may they.
    server.delete(&format!("{BOX}/checkpoints/c")).await;
    server.delete(BOX).await;
    assert_eq!(server.shell("x", "cat file").await, "x\n");
    assert_eq!(server.shell("y", "cat file").await, "then\n");
}

#[tokio::test]
async fn a_bare_fork_starts_nothing_by_itself() {
    let server = server();
    let service = json!({"name": "web", "command": "exec sleep 1000"});
    let body = json!({"id": "s", "onStart": "echo started >> log", "services": [service]});
    let made = server.post("/v1/sandboxes", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let written = "for i in $(seq 6000); do [ -s log ] && exit; sleep 0.01; done; exit 1";
    server.shell("s", written).await;

    fork(&server, json!({"ids": ["bare"], "bare": true})).await;
    let seen = server.get("/v1/sandboxes/bare").await.json;
    assert_eq!((&seen["onStart"], &seen["services"]), (&Value::Null, &Value::Null), "{seen}");
    assert_eq!(server.get("/v1/sandboxes/bare/processes").await.json["processes"], json!([]));

    fork(&server, json!({"ids": ["whole"]})).await;
    let twice = "for i in $(seq 6000); do [ $(wc -l <log) = 2 ] && exit; sleep 0.01; done; exit 1";
    server.shell("whole", twice).await;
    assert_eq!(server.shell("bare", "cat log").await, "started\n");
}

#[tokio::test]
async fn many_forks_at_once() {
    let server = server();
    server.shell("s", "head -c 20M /dev/urandom > big; sha256sum big > sum").await;
    let forks = fork(&server, json!({"count": 6})).await;
    assert_eq!(forks.len(), 6);
    for id in &forks {
        assert_eq!(server.shell(id, "sha256sum -c sum").await, "big: OK\n");
    }
}

/// What a sandbox's files are is two layers and one of its own, however many forks of forks it comes from.
#[tokio::test]
async fn generations_do_not_add_up() {
    const GENERATIONS: usize = 50;
    let server = server();
    // In the order in which they were made, which is that of two processes at once.
    let mounts =
        "sed -E 's,/fd/[0-9]+,,g; s/[ug]id=[0-9]+//g; s/,uuid=on//' /proc/self/mounts | sort";
    server.shell("s", "head -c 1M /dev/urandom > big; sync; echo 0 > generation").await;
    let first = server.shell("s", mounts).await;
    let mut last = "s".to_owned();
    for generation in 1..=GENERATIONS {
        let (path, next) = (format!("/v1/sandboxes/{last}"), format!("g{generation}"));
        let made = server.post(&format!("{path}/checkpoints"), &json!({"id": "c"})).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let body = json!({"checkpoint": "c", "ids": [next]});
        let forked = server.post(&format!("{path}/fork"), &body).await;
        assert_eq!(forked.status, 201, "{}", forked.text);
        server.shell(&next, &format!("echo {generation} >> generation; rm -rf d; mkdir d")).await;
        assert_eq!(server.delete(&path).await.status, 204);
        last = next;
    }
    assert_eq!(server.shell(&last, mounts).await, first);
    let lines = server.shell(&last, "wc -l < generation").await;
    assert_eq!(lines.trim(), (GENERATIONS + 1).to_string());
    let used =
        server.get(&format!("/v1/sandboxes/{last}")).await.json["usage"]["diskBytes"].clone();
    let used = used.as_u64().unwrap_or_default();
    assert!((1 << 20..4 << 20).contains(&used), "what is inherited is counted once: {used}");
}

#[tokio::test]
async fn what_a_fork_inherits_counts() {
    let server = server();
    let body = json!({"id": "s", "resources": {"diskBytes": 64 << 20}});
    server.post("/v1/sandboxes", &body).await;
    server.shell("s", "head -c 40M /dev/urandom > big; sync").await;
    checkpoint(&server, "c").await;
    fork(&server, json!({"checkpoint": "c", "ids": ["f"]})).await;

    let used = server.get("/v1/sandboxes/f").await.json["usage"]["diskBytes"].clone();
    assert!(used.as_u64().unwrap_or_default() >= 40 << 20, "{used}");
    let more = json!({"command": "head -c 40M /dev/urandom > more"});
    for id in ["f", "s"] {
        if id == "s" {
            restore(&server, "c").await;
        }
        let ended = server.post(&format!("/v1/sandboxes/{id}/exec"), &more).await;
        assert_eq!(ended.json["ending"]["type"], "diskFull", "{}", ended.text);
    }
}

#[tokio::test]
async fn checkpoints_are_listed_found_and_removed() {
    let server = server();
    server.shell("s", "head -c 10M /dev/urandom > big").await;
    checkpoint(&server, "one").await;
    let generated = server.post(&format!("{BOX}/checkpoints"), &json!({})).await;
    let two = generated.json["checkpoint"]["id"].as_str().unwrap_or_default().to_owned();
    assert!(two.starts_with("cp-"), "{}", generated.text);

    let list = server.get(&format!("{BOX}/checkpoints")).await;
    let list = list.json["checkpoints"].as_array().cloned().unwrap_or_default();
    assert_eq!(list.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [&json!("one"), &json!(two)]);
    assert!(list[0]["sizeBytes"].as_u64().unwrap_or_default() >= 10 << 20, "{list:?}");
    let one = server.get(&format!("{BOX}/checkpoints/one")).await;
    assert_eq!(one.json, list[0]);

    assert_eq!(server.delete(&format!("{BOX}/checkpoints/one")).await.status, 204);
    let again = server.delete(&format!("{BOX}/checkpoints/one")).await;
    assert_eq!(again.code(), "CHECKPOINT_NOT_FOUND", "{}", again.text);
    let restored = server.post(&format!("{BOX}/restore"), &json!({"checkpoint": "one"})).await;
    assert_eq!(restored.code(), "CHECKPOINT_NOT_FOUND", "{}", restored.text);
    // The id is free again.
    checkpoint(&server, "one").await;
}

#[tokio::test]
async fn bad_requests_change_nothing() {
    let server = server();
    for (method, path) in [("post", "checkpoints"), ("post", "fork"), ("get", "checkpoints")] {
        let path = format!("{BOX}/{path}");
        let answer = if method == "get" {
            server.get(&path).await
        } else {
            server.post(&path, &json!({})).await
        };
        assert_eq!(answer.code(), "SANDBOX_NOT_FOUND", "{}", answer.text);
    }
    server.shell("s", "true").await;
    server.shell("taken", "true").await;
    checkpoint(&server, "c").await;
    for (path, body, code) in [
        ("checkpoints", json!({"id": "c"}), "CHECKPOINT_EXISTS"),
        ("checkpoints", json!({"id": "a/b"}), "VALIDATION_FAILED"),
        ("checkpoints", json!({"name": "x"}), "VALIDATION_FAILED"),
        ("restore", json!({}), "VALIDATION_FAILED"),
        ("restore", json!({"checkpoint": "none"}), "CHECKPOINT_NOT_FOUND"),
        ("fork", json!({"checkpoint": "none"}), "CHECKPOINT_NOT_FOUND"),
        ("fork", json!({"count": 0}), "VALIDATION_FAILED"),
        ("fork", json!({"count": 65}), "VALIDATION_FAILED"),
        ("fork", json!({"count": 1, "ids": ["a", "b"]}), "VALIDATION_FAILED"),
        ("fork", json!({"ids": ["free", "taken"]}), "SANDBOX_EXISTS"),
        ("fork", json!({"ids": ["twice", "twice"]}), "SANDBOX_EXISTS"),
        ("fork", json!({"labels": {"": "x"}}), "VALIDATION_FAILED"),
    ] {
        let answer = server.post(&format!("{BOX}/{path}"), &body).await;
        assert_eq!(answer.code(), code, "{path} {body}: {}", answer.text);
    }
    let all = server.get("/v1/sandboxes").await;
    assert_eq!(all.json["sandboxes"].as_array().map(Vec::len), Some(2), "{}", all.text);
    let odd = server.get(&format!("{BOX}/checkpoints/a%2Fb")).await;
    assert_eq!(odd.code(), "VALIDATION_FAILED", "{}", odd.text);
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_has_checkpoints_too() {
    let server = server();
    server.shell("s", "echo kept > file").await;
    server.post(&format!("{BOX}/stop"), &json!({})).await;
    let made = checkpoint(&server, "stopped").await;
    assert_eq!(made["pauseUs"], 0);
    assert_eq!(server.get(BOX).await.json["state"], "stopped");
    server.shell("s", "rm file").await;
    server.post(&format!("{BOX}/freeze"), &json!({})).await;
    checkpoint(&server, "frozen").await;
    assert_eq!(server.get(BOX).await.json["state"], "frozen");

    restore(&server, "stopped").await;
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
    restore(&server, "frozen").await;
    assert_eq!(server.shell("s", "ls file 2>&1 | grep -c 'No such'").await, "1\n");
}

#[tokio::test]
async fn a_destroyed_sandbox_takes_its_checkpoints_with_it() {
    let server = server();
    let before = server.look();
    server.shell("s", "echo x > file").await;
    for id in ["a", "b", "c"] {
        checkpoint(&server, id).await;
    }
    restore(&server, "b").await;
    server.delete(BOX).await;
    server.expect_again(&before);
    server.shell("s", "true").await;
    assert_eq!(server.get(&format!("{BOX}/checkpoints")).await.json["checkpoints"], json!([]));
}

#[tokio::test]
async fn many_at_once_while_it_is_used_are_each_whole() {
    let server = server();
    // Two files that always agree, but for the moment between the renames.
    let write = "n=0; while [ ! -e stop ]; do n=$((n+1)); echo $n > a.new; cp a.new b.new; mv a.new a; mv b.new b; done";
    server.post(&format!("{BOX}/processes"), &json!({"command": write, "id": "w"})).await;
    server.shell("s", "while [ ! -e b ]; do sleep 0.01; done").await;
    let all = (0..8).map(|number| {
        let server = &server;
        async move { checkpoint(server, &format!("c{number}")).await }
    });
    futures_util::future::join_all(all).await;
    let (stopped, ()) = tokio::join!(server.shell("s", "touch stop"), async {
        for number in 0..8 {
            let id = format!("f{number}");
            fork(&server, json!({"checkpoint": format!("c{number}"), "ids": [id]})).await;
            let pair = server.shell(&id, "echo $(cat a) $(cat b)").await;
            let mut numbers = pair.split_whitespace().map(|n| n.parse::<u64>().unwrap());
            let (a, b) = (numbers.next().unwrap(), numbers.next().unwrap());
            assert!(a == b || a == b + 1, "{pair}");
        }
    });
    assert_eq!(stopped, "");
}

#[tokio::test]
async fn checkpoints_and_forks_outlive_the_server() {
    let mut server = server();
    server.shell("s", "echo one > file").await;
    checkpoint(&server, "c").await;
    server.shell("s", "echo two > file").await;
    fork(&server, json!({"checkpoint": "c", "ids": ["f"]})).await;
    restore(&server, "c").await;
    server.kill();
    server.restart();

    assert_eq!(server.shell("s", "cat file").await, "one\n");
    assert_eq!(server.shell("f", "cat file").await, "one\n");
    let list = server.get(&format!("{BOX}/checkpoints")).await;
    assert_eq!(list.json["checkpoints"][0]["id"], "c", "{}", list.text);
    server.shell("s", "echo three > file").await;
    restore(&server, "c").await;
    assert_eq!(server.shell("s", "cat file").await, "one\n");
}

#[tokio::test]
async fn a_node_without_volumes_refuses_checkpoints_clearly() {
    let disk = Disk::small(64);
    let server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.path(), &[]);
    server.shell("s", "echo kept > file").await;
    for path in ["checkpoints", "fork"] {
        let refused = server.post(&format!("{BOX}/{path}"), &json!({})).await;
        assert_eq!(refused.code(), "CHECKPOINTS_NOT_AVAILABLE", "{}", refused.text);
        assert_eq!(refused.status, 501);
        assert!(refused.text.contains("2048 MiB"), "{}", refused.text);
    }
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
}

#[tokio::test]
async fn a_key_forks_exports_and_imports_within_its_scope() {
    let server = server();
    let secret = server.new_key("ci", Some("ci-")).await;
    server.shell("ci-a", "true").await;
    let post = |path: &str, body: Value| {
        let request = server.request_with(&secret, Method::POST, path).json(&body);
        async move { testkit::answer(request.send().await.expect("a response comes")).await }
    };
    let outside = post("/v1/sandboxes/ci-a/fork", json!({"ids": ["other"]})).await;
    assert_eq!(outside.code(), "FORBIDDEN", "{}", outside.text);
    let inside = post("/v1/sandboxes/ci-a/fork", json!({"count": 2})).await;
    let ids = inside.json["sandboxes"].as_array().cloned().unwrap_or_default();
    assert!(
        ids.len() == 2
            && ids.iter().all(|one| one["id"].as_str().is_some_and(|id| id.starts_with("ci-")))
    );
    server.shell("s", "true").await;
    checkpoint(&server, "c").await;
    for (method, path) in [
        (Method::POST, "fork"),
        (Method::GET, "checkpoints/c/export"),
        (Method::POST, "checkpoints:import"),
    ] {
        let call = server.request_with(&secret, method, &format!("{BOX}/{path}"));
        let foreign = call.json(&json!({})).send().await.expect("a response comes");
        let foreign = testkit::answer(foreign).await;
        assert_eq!(foreign.code(), "SANDBOX_NOT_FOUND", "{path}: {}", foreign.text);
    }
}
