//! Sandboxes frozen, thawed, stopped and started.

use serde_json::{Value, json};
use testkit::{Answer, Preview, Server, Viewer, reqwest::Method};

use crate::server;

async fn change(server: &Server, id: &str, verb: &str) -> Answer {
    server.post(&format!("/v1/sandboxes/{id}/{verb}"), &json!({})).await
}

async fn look(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/sandboxes/{id}")).await.json
}

#[tokio::test]
async fn a_frozen_sandbox_stands_still_and_the_next_request_lets_it_go_on() {
    let server = server();
    server.shell("s", "i=0; (while :; do i=$((i+1)); done) & echo $! > pid").await;

    let frozen = change(&server, "s", "freeze").await;
    assert_eq!(frozen.status, 200, "{}", frozen.text);
    assert_eq!(frozen.json["state"], "frozen");
    let before = look(&server, "s").await;
    // What burns in another sandbox says that time has passed in which this one could have.
    server.shell("other", "for i in $(seq 100000); do :; done").await;
    let after = look(&server, "s").await;
    assert_eq!(before["usage"]["cpuMs"], after["usage"]["cpuMs"], "{before} {after}");
    assert_eq!(after["state"], "frozen");
    assert_eq!(change(&server, "s", "freeze").await.json["state"], "frozen");

    assert_eq!(server.shell("s", "kill -0 $(cat pid) && echo there").await, "there\n");
    assert_eq!(look(&server, "s").await["state"], "running");
}

#[tokio::test]
async fn a_freeze_waits_for_the_requests_under_way() {
    let server = server();
    server.shell("s", "true").await;
    let waiting = server.request(Method::POST, "/v1/sandboxes/s/exec").json(
        &json!({"command": "touch here; while [ ! -e go ]; do sleep 0.01; done; echo whole"}),
    );
    let waiting = tokio::spawn(waiting.send());
    server.shell("s", "while [ ! -e here ]; do sleep 0.01; done").await;

    let freeze = server.request(Method::POST, "/v1/sandboxes/s/freeze").send();
    let freeze = tokio::spawn(freeze);
    server.put("/v1/sandboxes/s/files/workspace/go", "").await;

    let answer = waiting.await.unwrap().unwrap().text().await.unwrap();
    assert!(answer.contains("whole"), "{answer}");
    let frozen: Value = freeze.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(frozen["state"], "frozen", "{frozen}");
}

#[tokio::test]
async fn what_is_used_all_the_time_is_not_frozen() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "s").await;
    viewer.type_in("echo $((6*7))\n").await;
    viewer.until("42").await;

    let refused = change(&server, "s", "freeze").await;

    assert_eq!(refused.code(), "RESOURCE_BUSY", "{}", refused.text);
    viewer.type_in("echo $((7*7))\n").await;
    viewer.until("49").await;
}

#[tokio::test]
async fn a_frozen_sandbox_can_be_thawed_stopped_started_and_destroyed() {
    let server = server();
    let running = "sleep 1000 & echo kept > file";
    for (verb, state) in [("thaw", "running"), ("stop", "stopped"), ("start", "running")] {
        server.shell("s", running).await;
        assert_eq!(change(&server, "s", "freeze").await.json["state"], "frozen");
        let changed = change(&server, "s", verb).await;
        assert_eq!(changed.json["state"], state, "{verb}: {}", changed.text);
        assert_eq!(server.shell("s", "cat file").await, "kept\n");
    }
    change(&server, "s", "freeze").await;
    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
    assert_eq!(server.get("/v1/sandboxes/s").await.status, 404);
}

#[tokio::test]
async fn a_stopped_sandbox_keeps_its_files_and_loses_its_processes() {
    let server = server();
    server.shell("s", "echo kept > file; sleep 1000 & echo $! > pid").await;

    assert_eq!(change(&server, "s", "stop").await.json["state"], "stopped");
    assert_eq!(change(&server, "s", "stop").await.json["state"], "stopped");
    assert_eq!(change(&server, "s", "freeze").await.json["state"], "stopped");
    assert_eq!(change(&server, "s", "thaw").await.json["state"], "stopped");
    assert!(look(&server, "s").await["usage"].is_null());
    assert_eq!(change(&server, "s", "start").await.json["state"], "running");

    assert_eq!(server.shell("s", "cat file; pgrep sleep || echo none").await, "kept\nnone\n");
}

#[tokio::test]
async fn processes_end_with_notice_and_those_that_do_not_are_ended() {
    let server = server();
    let polite = "trap 'echo bye >> bye; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let rude = "trap '' TERM HUP; echo ready; while :; do sleep 0.01; done";
    server.start_process("s", polite, "ready").await;
    server.shell("s", "true").await;
    // Frozen ones hear it too.
    for freezes in [false, true] {
        if freezes {
            server.start_process("s", polite, "ready").await;
            change(&server, "s", "freeze").await;
        }
        assert_eq!(change(&server, "s", "stop").await.json["state"], "stopped");
        change(&server, "s", "start").await;
    }
    assert_eq!(server.shell("s", "cat bye").await, "bye\nbye\n");

    server.start_process("s", rude, "ready").await;
    assert_eq!(change(&server, "s", "stop").await.json["state"], "stopped");
    assert_eq!(server.shell("s", "pgrep -f '[e]cho ready' || echo none").await, "none\n");
}

#[tokio::test]
async fn a_command_is_started_with_the_sandbox_each_time() {
    let server = server();
    let body = json!({"id": "s", "onStart": "echo started >> log; exec sleep 1000"});
    let made = server.post("/v1/sandboxes", &body).await;
    assert_eq!(made.json["onStart"], body["onStart"], "{}", made.text);
    let process = server.get("/v1/sandboxes/s/processes/on-start").await;
    assert_eq!(process.json["running"], true, "{}", process.text);

    // It runs, which is not to say that it has written anything yet.
    let looks = |lines| {
        format!(
            "for i in $(seq 6000); do [ \"$(cat log | wc -l)\" = {lines} ] && exit 0; sleep 0.01; done; cat log; exit 1"
        )
    };
    server.shell("s", &looks(1)).await;
    change(&server, "s", "stop").await;
    change(&server, "s", "start").await;
    server.shell("s", &looks(2)).await;

    // One that cannot be started keeps nobody out.
    let broken = server.patch("/v1/sandboxes/s", &json!({"onStart": ["no-such-program"]})).await;
    assert_eq!(broken.status, 200, "{}", broken.text);
    change(&server, "s", "stop").await;
    assert_eq!(server.shell("s", "echo here").await, "here\n");
    for bad in [json!([]), json!([""]), json!("a\u{0}b"), json!("x".repeat(16 * 1024 + 1))] {
        let refused = server.patch("/v1/sandboxes/s", &json!({"onStart": bad})).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{bad}: {}", refused.text);
    }
}

#[tokio::test]
async fn only_what_exists_is_frozen_thawed_stopped_or_started() {
    let server = server();
    for verb in ["freeze", "thaw", "stop", "start"] {
        assert_eq!(change(&server, "never", verb).await.code(), "SANDBOX_NOT_FOUND");
        assert_eq!(change(&server, "not%20an%20id", verb).await.code(), "INVALID_SANDBOX_ID");
    }
}

#[tokio::test]
async fn a_visitor_of_a_preview_wakes_its_sandbox() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    assert_eq!(preview.get("/headers").await.status(), 200);
    assert_eq!(change(&server, "s", "freeze").await.json["state"], "frozen");

    // Looking wakes nobody.
    let listed = server.get("/v1/sandboxes/s/ports").await;
    assert_eq!(listed.status, 200, "{}", listed.text);
    assert_eq!(look(&server, "s").await["state"], "frozen");

    assert_eq!(preview.get("/headers").await.status(), 200);
    assert_eq!(look(&server, "s").await["state"], "running");
}

#[tokio::test]
async fn many_that_freeze_and_use_a_sandbox_at_once_all_get_their_answers() {
    let server = server();
    server.shell("s", "true").await;
    let calls = (0..40).map(|i| {
        let server = &server;
        async move {
            match i % 4 {
                0 => assert_eq!(change(server, "s", "freeze").await.status, 200),
                1 => assert_eq!(change(server, "s", "thaw").await.status, 200),
                _ => assert_eq!(server.shell("s", &format!("echo {i}")).await, format!("{i}\n")),
            }
        }
    });
    futures_util::future::join_all(calls).await;
}
