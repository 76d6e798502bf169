//! Exec: buffered, streamed, bounded, and impossible to hang.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Events, Server, reqwest::Method};

use crate::server;

const EXEC: &str = "/v1/sandboxes/s/exec";

#[tokio::test]
async fn stdout_stderr_and_the_exit_code_come_apart() {
    let server = server();

    let ended = server.post(EXEC, &json!({"command": "echo out; echo err >&2; exit 3"})).await;

    assert_eq!(ended.status, 200);
    assert_eq!(ended.json["stdout"], "out\n");
    assert_eq!(ended.json["stderr"], "err\n");
    assert_eq!(ended.json["exitCode"], 3);
    assert_eq!(ended.json["success"], false);
    assert_eq!(ended.json["ending"], json!({"type": "exited", "code": 3}));
}

#[tokio::test]
async fn a_program_gets_its_arguments_untouched() {
    let server = server();

    let ended =
        server.post(EXEC, &json!({"command": ["printf", "%s|", "a b", "$HOME", "\"'"]})).await;

    assert_eq!(ended.json["stdout"], "a b|$HOME|\"'|");
}

#[tokio::test]
async fn cwd_env_and_stdin_are_the_command_s_own() {
    let server = server();
    server
        .post("/v1/sandboxes", &json!({"id": "s", "env": {"A": "sandbox", "B": "sandbox"}}))
        .await;

    let body = json!({
        "command": "pwd; echo $A $B ${C-unset}; cat", "cwd": "/tmp",
        "env": {"B": "command", "A": null}, "stdin": "typed"
    });
    let ended = server.post(EXEC, &body).await;
    assert_eq!(ended.json["stdout"], "/tmp\ncommand unset\ntyped", "{}", ended.text);

    let after = server.post(EXEC, &json!({"command": "pwd; echo $A $B; cat"})).await;
    assert_eq!(
        after.json["stdout"], "/workspace\nsandbox sandbox\n",
        "stdin is empty unless given"
    );
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree_and_keeps_what_was_written() {
    let server = server();

    // Time enough to write it on a machine that is away for a while.
    let body = json!({
        "command": "echo before; (setsid sleep 1000 & ); sleep 1000", "timeoutMs": 3000
    });
    let ended = server.post(EXEC, &body).await;

    assert_eq!(ended.json["ending"]["type"], "timeout", "{}", ended.text);
    assert_eq!(ended.json["exitCode"], 124);
    assert_eq!(ended.json["stdout"], "before\n");
    assert_eq!(server.shell("s", "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true").await, "0\n");
}

#[tokio::test]
async fn a_background_process_neither_delays_the_reply_nor_dies() {
    let server = server();
    let started = Instant::now();

    let ended = server.post(EXEC, &json!({"command": "sleep 1000 & echo started"})).await;

    assert_eq!(ended.json["stdout"], "started\n", "{}", ended.text);
    assert!(started.elapsed() < Duration::from_secs(500), "the reply waited for the grandchild");
    // The reply does not wait for it to become what it is, either.
    let sleeps = "for i in $(seq 6000); do grep -qsx sleep /proc/[0-9]*/comm && exit 0; sleep 0.01; done; exit 1";
    server.shell("s", sleeps).await;
}

#[tokio::test]
async fn binary_output_is_exact_in_base64() {
    let server = server();

    let body = json!({"command": "printf '\\x00\\xff\\x0a'", "encoding": "base64"});
    let ended = server.post(EXEC, &body).await;

    assert_eq!(ended.json["stdout"], "AP8K");
}

#[tokio::test]
async fn events_arrive_while_the_command_runs() {
    let server = server();
    let go = "/workspace/go";
    let body = json!({"command": format!("echo first; while [ ! -e {go} ]; do sleep 0.01; done; echo last")});
    let mut events = stream(&server, &body).await;

    assert_eq!(next(&mut events).await["type"], "start");
    assert_eq!(next(&mut events).await["data"], "first\n");
    // Only now may it go on: had the events been held back, this would never be reached.
    server.put("/v1/sandboxes/s/files/workspace/go", "").await;
    assert_eq!(next(&mut events).await["data"], "last\n");
    let end = next(&mut events).await;
    assert_eq!((&end["type"], &end["exitCode"]), (&json!("exit"), &json!(0)));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_command() {
    let server = server();
    let mut events = stream(&server, &json!({"command": "echo $$; sleep 1000"})).await;
    next(&mut events).await;
    let pid = next(&mut events).await["data"].as_str().unwrap_or_default().trim().to_owned();

    drop(events);

    let gone =
        format!("for i in $(seq 6000); do [ -e /proc/{pid} ] || exit 0; sleep 0.01; done; exit 1");
    server.shell("s", &gone).await;
}

#[tokio::test]
async fn a_gigabyte_streams_in_bounded_memory() {
    let server = server();
    let body = json!({"command": "head -c 1G /dev/zero | tr '\\0' x"});
    let mut events = stream(&server, &body).await;

    let mut bytes = 0;
    while let Some(event) = events.next().await {
        if event["type"] == "stdout" {
            bytes += event["data"].as_str().map_or(0, str::len);
        }
    }

    assert_eq!(bytes, 1 << 30);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let peak_kib: u64 = peak.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap();
    assert!(peak_kib < 200 * 1024, "the daemon grew to {peak_kib} KiB");
}

#[tokio::test]
async fn what_cannot_be_run_is_told_apart() {
    let server = server();
    for (body, status, code) in [
        (json!({"command": ["no-such-program"]}), 404, "COMMAND_NOT_FOUND"),
        (json!({"command": "true", "cwd": "/nowhere"}), 404, "FILE_NOT_FOUND"),
        (json!({"command": "true", "cwd": "/etc/hosts"}), 400, "NOT_DIRECTORY"),
        (json!({"command": ""}), 400, "INVALID_COMMAND"),
        (json!({"command": []}), 400, "INVALID_COMMAND"),
        (json!({"command": "a\u{0}b"}), 400, "INVALID_COMMAND"),
        (json!({"command": "true", "env": {"A=B": "x"}}), 400, "VALIDATION_FAILED"),
        (json!({"command": "true", "timeoutMs": 0}), 400, "VALIDATION_FAILED"),
        (json!({"command": "true", "timeoutMs": u64::MAX}), 400, "VALIDATION_FAILED"),
        (json!({"command": 7}), 400, "VALIDATION_FAILED"),
        (json!({"command": "true", "extra": 1}), 400, "VALIDATION_FAILED"),
        (json!({}), 400, "VALIDATION_FAILED"),
    ] {
        let answer = server.post(EXEC, &body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}: {}", answer.text);
        assert!(answer.json["error"]["requestId"].is_string(), "{}", answer.text);
    }
}

#[tokio::test]
async fn many_commands_run_at_once() {
    let server = server();
    server.shell("s", "true").await;

    let calls = (0..64).map(|i| {
        let server = &server;
        async move { server.shell("s", &format!("echo {i}")).await }
    });
    let outputs = futures_util::future::join_all(calls).await;

    for (i, output) in outputs.iter().enumerate() {
        assert_eq!(output, &format!("{i}\n"));
    }
}

async fn next(events: &mut Events) -> Value {
    events.next().await.expect("the stream goes on")
}

async fn stream(server: &Server, body: &Value) -> Events {
    testkit::events(server.request(Method::POST, EXEC).json(body)).await.expect("a response comes")
}
