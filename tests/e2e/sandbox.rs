//! Sandboxes: created, found, listed, destroyed.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::server;

#[tokio::test]
async fn a_sandbox_is_created_found_listed_and_destroyed() {
    let server = server();

    let created = server.post("/v1/sandboxes", &json!({"id": "one", "labels": {"a": "b"}})).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.json["state"], "running");
    assert_eq!(created.json["image"], "host");

    let found = server.get("/v1/sandboxes/one").await;
    assert_eq!(found.status, 200);
    assert!(found.json["usage"]["memoryBytes"].is_u64(), "{}", found.text);

    let listed = server.get("/v1/sandboxes?label=a%3Db").await;
    assert_eq!(listed.json["sandboxes"][0]["id"], "one");
    assert_eq!(server.get("/v1/sandboxes?label=c").await.json["sandboxes"], json!([]));

    assert_eq!(server.delete("/v1/sandboxes/one").await.status, 204);
    assert_eq!(server.get("/v1/sandboxes/one").await.code(), "SANDBOX_NOT_FOUND");
    assert_eq!(server.delete("/v1/sandboxes/one").await.code(), "SANDBOX_NOT_FOUND");
}

#[tokio::test]
async fn the_same_id_is_the_same_sandbox_and_other_settings_are_a_conflict() {
    let server = server();

    let first = server.post("/v1/sandboxes", &json!({"id": "one", "env": {"A": "1"}})).await;
    let again = server.post("/v1/sandboxes", &json!({"id": "one", "env": {"A": "1"}})).await;
    let other = server.post("/v1/sandboxes", &json!({"id": "one", "env": {"A": "2"}})).await;

    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(other.code(), "SANDBOX_EXISTS");
    assert_eq!(other.status, 409);
}

#[tokio::test]
async fn first_use_creates_and_racing_first_uses_make_one() {
    let server = server();

    let calls = (0..8).map(|_| server.shell("fresh", "echo x >> /workspace/log; echo $HOSTNAME"));
    let names = futures_util::future::join_all(calls).await;

    assert!(names.iter().all(|name| name == "fresh\n"), "{names:?}");
    assert_eq!(server.shell("fresh", "wc -l < /workspace/log").await, "8\n");
}

#[tokio::test]
async fn a_first_use_may_be_refused_and_then_nothing_is_made() {
    let server = server();
    let ask = |method: Method, path: &str, first_use: &str| {
        server
            .request(method, &format!("/v1/sandboxes/mine/{path}"))
            .header("x-sandbar-first-use", first_use)
    };
    let exec =
        |first_use| ask(Method::POST, "exec", first_use).json(&json!({"command": "hostname"}));
    let port = |first_use| ask(Method::POST, "ports", first_use).json(&json!({"port": 8080}));

    for request in
        [exec("refused"), port("refused"), ask(Method::GET, "files/etc/hostname", "refused")]
    {
        let answer = testkit::answer(request.send().await.expect("answer")).await;
        assert_eq!((answer.status, answer.code()), (404, "SANDBOX_NOT_FOUND"), "{}", answer.text);
        assert_eq!(answer.json["error"]["details"]["firstUse"], "refused", "{}", answer.text);
    }
    let wrong = testkit::answer(exec("never").send().await.expect("answer")).await;
    assert_eq!((wrong.status, wrong.code()), (400, "VALIDATION_FAILED"), "{}", wrong.text);
    assert_eq!(server.get("/v1/sandboxes/mine").await.code(), "SANDBOX_NOT_FOUND");

    // One that is there is used, also when it has to be started.
    server.post("/v1/sandboxes", &json!({"id": "mine", "network": "none"})).await;
    assert_eq!(server.post("/v1/sandboxes/mine/stop", &json!({})).await.status, 200);
    let used = testkit::answer(exec("refused").send().await.expect("answer")).await;
    assert_eq!(used.json["stdout"], "mine\n", "{}", used.text);
    assert_eq!(server.get("/v1/sandboxes/mine").await.json["network"], "none");
}

#[tokio::test]
async fn an_id_used_again_finds_nothing_of_the_past() {
    let server = server();
    server.shell("one", "echo secret > /workspace/file; echo s > /tmp/x; echo s > /root/y").await;

    server.delete("/v1/sandboxes/one").await;

    assert_eq!(
        server.shell("one", "ls -A /workspace /tmp /root | grep -cE '^(file|x|y)$' || true").await,
        "0\n"
    );
}

#[tokio::test]
async fn sandboxes_are_listed_in_pages() {
    let server = server();
    for id in ["a", "b", "c"] {
        server.post("/v1/sandboxes", &json!({"id": id})).await;
    }

    let first = server.get("/v1/sandboxes?limit=2").await;
    let cursor = first.json["nextCursor"].as_str().expect("there is a next page").to_owned();
    let second = server.get(&format!("/v1/sandboxes?limit=2&cursor={cursor}")).await;

    let ids = |page: &testkit::Answer| -> Vec<String> {
        let sandboxes = page.json["sandboxes"].as_array().cloned().unwrap_or_default();
        sandboxes.iter().map(|s| s["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(ids(&first), ["a", "b"]);
    assert_eq!(ids(&second), ["c"]);
    assert!(second.json["nextCursor"].is_null());
}

#[tokio::test]
async fn limits_are_enforced_and_told() {
    let server = server();
    let limits = json!({"memoryBytes": 64 << 20, "pids": 32, "cpuMillis": 500});
    let body = json!({"id": "small", "resources": limits});

    let created = server.post("/v1/sandboxes", &body).await;
    for (name, value) in limits.as_object().unwrap() {
        assert_eq!(created.json["resources"][name], *value, "{}", created.text);
    }

    let hog = json!({"command": "head -c 300M /dev/zero | tail"});
    let ended = server.post("/v1/sandboxes/small/exec", &hog).await;
    assert_eq!(ended.json["ending"]["type"], "outOfMemory", "{}", ended.text);

    let bomb =
        json!({"command": "for i in $(seq 100); do sleep 100 & done; wait", "timeoutMs": 20000});
    let ended = server.post("/v1/sandboxes/small/exec", &bomb).await;
    assert_ne!(ended.json["ending"], json!({"type": "exited", "code": 0}), "{}", ended.text);
    assert_eq!(server.shell("small", "echo still here").await, "still here\n");
}

#[tokio::test]
async fn limits_over_the_node_s_ceiling_are_refused() {
    let server = testkit::Server::start_with(
        env!("CARGO_BIN_EXE_sandbar"),
        &[("LIMITS_MAX_MEMORY", "1GiB"), ("LIMITS_DEFAULT_MEMORY", "512MiB")],
    );

    let over = json!({"id": "big", "resources": {"memoryBytes": 2_u64 << 30}});
    let answer = server.post("/v1/sandboxes", &over).await;

    assert_eq!(answer.code(), "VALIDATION_FAILED", "{}", answer.text);
    assert_eq!(server.get("/v1/sandboxes/big").await.status, 404);
}

#[tokio::test]
async fn a_full_node_refuses_more_and_keeps_what_it_has() {
    let server =
        testkit::Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("MAX_SANDBOXES", "1")]);
    server.shell("one", "true").await;

    let refused = server.post("/v1/sandboxes", &json!({"id": "two"})).await;

    assert_eq!(refused.code(), "CAPACITY_EXCEEDED", "{}", refused.text);
    assert_eq!(refused.status, 503);
    assert_eq!(server.shell("one", "echo ok").await, "ok\n");
}

#[tokio::test]
async fn a_machine_without_room_gets_no_more_sandboxes_and_keeps_those_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sandbar.toml");
    let keep = |memory: &str| {
        std::fs::write(&config, format!("kept_memory = \"{memory}\"\n")).unwrap();
    };
    keep("0B");
    let binary = env!("CARGO_BIN_EXE_sandbar");
    let mut server = testkit::Server::start_with(binary, &[("CONFIG", config.to_str().unwrap())]);
    server.shell("one", "sleep 1000 & echo $! > /tmp/pid").await;
    server.stop();
    // More than any machine has.
    keep("1024TiB");
    server.restart();

    let exec = json!({"command": "true"});
    for (path, body) in
        [("/v1/sandboxes", json!({"id": "two"})), ("/v1/sandboxes/three/exec", exec.clone())]
    {
        let refused = server.post(path, &body).await;
        assert_eq!(refused.code(), "CAPACITY_EXCEEDED", "{}", refused.text);
        assert_eq!(refused.json["error"]["details"]["resource"], "memory");
        assert_eq!(refused.status, 503);
    }
    let request = server.request(testkit::reqwest::Method::POST, "/v1/sandboxes").json(&json!({}));
    assert_eq!(request.send().await.unwrap().headers()["retry-after"], "1");
    server.shell("one", "kill -0 $(cat /tmp/pid)").await;
    server.post("/v1/sandboxes/one/stop", &json!({})).await;
    let refused = server.post("/v1/sandboxes/one/exec", &exec).await;
    assert_eq!(refused.code(), "CAPACITY_EXCEEDED", "{}", refused.text);
    let list = server.get("/v1/sandboxes").await.json;
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["sandboxes"][0]["state"], "stopped");

    server.stop();
    keep("0B");
    server.restart();
    assert_eq!(server.shell("one", "echo ok").await, "ok\n");
}

/// Both want all of one processor; what they got is asked of the kernel, however long it takes.
#[tokio::test]
async fn processors_are_shared_by_weight() {
    const ENOUGH_MS: u64 = 1500;
    let server = server();
    let resources = json!({"cpuWeight": 400});
    let heavy = server.post("/v1/sandboxes", &json!({"id": "heavy", "resources": resources})).await;
    assert_eq!(heavy.json["resources"]["cpuWeight"], 400, "{}", heavy.text);
    let usual = server.post("/v1/sandboxes", &json!({"id": "usual"})).await;
    assert_eq!(usual.json["resources"]["cpuWeight"], 100, "{}", usual.text);
    let first = "python3 -c 'import os; print(min(os.sched_getaffinity(0)))'";
    let first = server.shell("usual", first).await;
    let burn =
        format!("import os\nos.sched_setaffinity(0, {{{}}})\nwhile True: pass", first.trim());
    let used = async |id: &str| {
        // Nobody is told that a counter has moved.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let sandbox = server.get(&format!("/v1/sandboxes/{id}")).await;
        sandbox.json["usage"]["cpuMs"].as_u64().expect("it runs")
    };
    let ids = ["heavy", "usual"];
    for id in ids {
        let path = format!("/v1/sandboxes/{id}/processes");
        let started = server.post(&path, &json!({"command": ["python3", "-c", burn]})).await;
        assert_eq!(started.status, 201, "{}", started.text);
    }
    // From when both are past their start.
    for id in ids {
        let start = used(id).await + 100;
        while used(id).await < start {}
    }
    let before = [used("heavy").await, used("usual").await];

    // Time in which the machine itself was away is put down to whoever had the processor, and a look takes
    // a moment: the longer both have run, the less it is of all they got.
    let (mut heavy, mut usual) = (0, 0);
    let shared = async {
        // 3.2 to 5.
        while heavy + usual < ENOUGH_MS || 16 * usual >= 5 * heavy || heavy >= 5 * usual {
            heavy = used("heavy").await - before[0];
            usual = used("usual").await - before[1];
        }
    };
    let shared = tokio::time::timeout(testkit::PATIENCE, shared).await;
    assert!(shared.is_ok(), "{heavy} ms and {usual} ms");
    for (weight, is_good) in [(0, false), (1, true), (1000, true), (1001, false), (10_001, false)] {
        let body = json!({"resources": {"cpuWeight": weight}});
        let made = server.post("/v1/sandboxes", &body).await;
        assert_eq!(made.status == 201, is_good, "{weight}: {}", made.text);
        assert!(is_good || made.text.contains("resources.cpuWeight"), "{}", made.text);
    }
}

#[tokio::test]
async fn the_cpu_limit_holds() {
    let server = server();
    let body = json!({"id": "slow", "resources": {"cpuMillis": 200}});
    server.post("/v1/sandboxes", &body).await;

    // Its share of the time that passes. A busy machine can only lower it; one that is away puts that down
    // to it, which evens out with time.
    let burn = "import time\n\
                wall, cpu, share = time.monotonic(), time.process_time(), 1\n\
                while (passed := time.monotonic() - wall) < 2 or share >= 0.3 and passed < 60:\n\
                \x20 share = (time.process_time() - cpu) / (time.monotonic() - wall)\n\
                print(share)";
    let burned =
        server.post("/v1/sandboxes/slow/exec", &json!({"command": ["python3", "-c", burn]})).await;

    let share: f64 = burned.json["stdout"].as_str().unwrap_or_default().trim().parse().unwrap();
    assert!(share < 0.3, "it got {share} of a CPU instead of 0.2");
}
