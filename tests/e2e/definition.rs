//! What is defined in a sandbox outlives its stops.

use serde_json::{Value, json};
use testkit::Server;

use crate::server;

async fn define(server: &Server) {
    let env = json!({"env": {"A": "1", "HOME": null}});
    assert_eq!(server.patch("/v1/sandboxes/s/env", &env).await.status, 204);
    let session = json!({"id": "build", "name": "Build", "cwd": "/tmp", "env": {"B": "2"},
        "commandTimeoutMs": 5000});
    let made = server.post("/v1/sandboxes/s/sessions", &session).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let gone = server.post("/v1/sandboxes/s/sessions", &json!({"id": "gone"})).await;
    assert_eq!(gone.status, 201, "{}", gone.text);
    assert_eq!(server.delete("/v1/sandboxes/s/sessions/gone").await.status, 204);
    let own = json!({"env": {"C": "3"}});
    assert_eq!(server.patch("/v1/sandboxes/s/sessions/build/env", &own).await.status, 204);
    assert_eq!(server.patch("/v1/sandboxes/s/sessions/default/env", &own).await.status, 204);
}

async fn expect_defined(server: &Server, id: &str) {
    assert_eq!(server.shell(id, "echo $A [$C] [${HOME-none}]").await, "1 [] [none]\n");
    let own = json!({"command": "echo $A $C", "session": "default"});
    let own = server.post(&format!("/v1/sandboxes/{id}/exec"), &own).await;
    assert_eq!(own.json["stdout"], "1 3\n", "{}", own.text);
    let listed = server.get(&format!("/v1/sandboxes/{id}/sessions")).await.json;
    let ids: Vec<&Value> =
        listed["sessions"].as_array().into_iter().flatten().map(|session| &session["id"]).collect();
    assert_eq!(ids, ["build", "default"], "{listed}");
    let build = &listed["sessions"][0];
    assert_eq!((&build["name"], &build["commandTimeoutMs"]), (&json!("Build"), &json!(5000)));
    let command = json!({"command": "pwd; echo $A $B $C", "session": "build"});
    let ran = server.post(&format!("/v1/sandboxes/{id}/exec"), &command).await;
    assert_eq!(ran.json["stdout"], "/tmp\n1 2 3\n", "{}", ran.text);
}

#[tokio::test]
async fn variables_and_sessions_outlive_a_stop_and_a_restart_of_the_server() {
    let mut server = server();
    server.shell("s", "true").await;
    define(&server).await;
    let created = server.get("/v1/sandboxes/s/sessions/build").await.json["createdAtMs"].clone();
    assert_eq!(server.post("/v1/sandboxes/s/stop", &json!({})).await.status, 200);
    expect_defined(&server, "s").await;
    let again = server.get("/v1/sandboxes/s/sessions/build").await.json["createdAtMs"].clone();
    assert_eq!(again, created);

    server.stop();
    server.restart();
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    expect_defined(&server, "s").await;
}

#[tokio::test]
async fn a_fork_has_what_its_source_defined_and_a_restore_what_was_defined_then() {
    let server = server();
    server.shell("s", "true").await;
    define(&server).await;
    let kept = server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "c"})).await;
    assert_eq!(kept.status, 201, "{}", kept.text);
    let fork = server.post("/v1/sandboxes/s/fork", &json!({"ids": ["f"]})).await;
    assert_eq!(fork.status, 201, "{}", fork.text);
    expect_defined(&server, "f").await;

    server.patch("/v1/sandboxes/s/env", &json!({"env": {"A": "other"}})).await;
    server.delete("/v1/sandboxes/s/sessions/build").await;
    server.post("/v1/sandboxes/s/restore", &json!({"checkpoint": "c"})).await;
    expect_defined(&server, "s").await;
}

#[tokio::test]
async fn a_session_that_a_command_made_is_there_again() {
    let server = server();
    let command = json!({"command": "cd /; X=1", "session": "own"});
    let ran = server.post("/v1/sandboxes/s/exec", &command).await;
    assert_eq!(ran.json["exitCode"], 0, "{}", ran.text);
    // What it waits for is behind what the command noted.
    server.patch("/v1/sandboxes/s/env", &json!({"env": {"A": "1"}})).await;
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    let listed = server.get("/v1/sandboxes/s/sessions/own").await;
    assert_eq!(listed.json["cwd"], "/workspace", "a shell's state ends with it: {}", listed.text);
}

#[tokio::test]
async fn a_file_of_definitions_that_was_spoilt_spoils_nothing_else() {
    let server = server();
    server.shell("s", "true").await;
    define(&server).await;
    let file = "/var/lib/sandbox/definitions.json";
    assert_eq!(server.shell("s", &format!("stat -c %a {file}")).await, "600\n");
    for spoilt in [
        format!("echo '{{' > {file}"),
        format!("echo '{{\"env\":{{\"a b\":\"\"}},\"sessions\":[{{}}]}}' > {file}"),
        format!("head -c 8M /dev/zero > {file}"),
        format!("rm {file}; mkfifo {file}"),
        format!("rm {file}; ln -s /proc/1/mem {file}"),
        format!("rm {file}; mkdir {file}"),
    ] {
        server.shell("s", &spoilt).await;
        server.post("/v1/sandboxes/s/stop", &json!({})).await;
        assert_eq!(server.shell("s", "echo up").await, "up\n", "{spoilt}");
    }
    server.shell("s", &format!("rmdir {file}")).await;
    define(&server).await;
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    expect_defined(&server, "s").await;
}
