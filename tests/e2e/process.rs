//! Processes, through the API and the command line.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{Answer, Server, reqwest::Method};

use crate::server;

pub(crate) const PROCESSES: &str = "/v1/sandboxes/s/processes";

pub(crate) fn of(id: &str, rest: &str) -> String {
    format!("{PROCESSES}/{id}{rest}")
}

/// Starts a process and returns what is said of it.
pub(crate) async fn start(server: &Server, body: Value) -> Value {
    let started = server.post(PROCESSES, &body).await;
    assert_eq!(started.status, 201, "{}", started.text);
    started.json
}

/// Waits for something that must come.
pub(crate) async fn wait(server: &Server, id: &str, until: Value) -> Value {
    let body = json!({"until": until, "timeoutMs": 60_000});
    let ready = server.post(&of(id, "/wait"), &body).await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    ready.json
}

pub(crate) async fn exit(server: &Server, id: &str) -> Value {
    wait(server, id, json!({"type": "exit"})).await["process"].clone()
}

async fn write(
    server: &Server,
    id: &str,
    query: &str,
    body: impl Into<testkit::reqwest::Body>,
) -> Answer {
    let request = server.request(Method::POST, &of(id, &format!("/stdin{query}"))).body(body);
    testkit::answer(request.send().await.expect("a response comes")).await
}

/// The text of one output in a log.
fn output(logs: &Value, stream: &str) -> String {
    let records = logs["records"].as_array().expect("a log has records").iter();
    records.filter(|r| r["stream"] == stream).filter_map(|r| r["data"].as_str()).collect()
}

#[tokio::test]
async fn a_process_runs_on_by_itself_and_is_found_read_and_ended() {
    let server = server();
    let body = json!({"command": "echo out; echo err >&2; sleep 1000", "id": "web"});

    let started = start(&server, body.clone()).await;

    assert_eq!((&started["id"], &started["running"]), (&json!("web"), &json!(true)));
    for text in ["out", "err"] {
        wait(&server, "web", json!({"type": "log", "text": text})).await;
    }
    let pid = started["pid"].to_string();
    assert_eq!(server.get(&of(&pid, "")).await.json["id"], "web");
    let logs = server.get(&of("web", "/logs")).await.json;
    assert_eq!(
        (output(&logs, "stdout"), output(&logs, "stderr")),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(
        server.get(&of("web", &format!("/logs?cursor={}", logs["nextCursor"]))).await.json["records"],
        json!([])
    );
    assert_eq!(server.post(PROCESSES, &body).await.code(), "PROCESS_EXISTS");
    assert_eq!(server.delete(&of("web", "")).await.code(), "RESOURCE_BUSY");
    let listed = server.get(&format!("{PROCESSES}?running=true")).await.json;
    assert_eq!(listed["processes"].as_array().map(Vec::len), Some(1));

    let killed = server.post(&of("web", "/kill"), &json!({})).await;

    assert_eq!(killed.json["ending"], json!({"type": "killed", "signal": 15}), "{}", killed.text);
    assert_eq!(killed.json["exitCode"], 143);
    assert_eq!(server.shell("s", "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true").await, "0\n");
    assert_eq!(server.delete(&of("web", "")).await.status, 204);
    assert_eq!(server.get(&of("web", "")).await.code(), "PROCESS_NOT_FOUND");
    let failed = server.post(PROCESSES, &json!({"command": ["no-such-program"]})).await;
    assert_eq!(failed.code(), "COMMAND_NOT_FOUND");
    assert_eq!(server.get(PROCESSES).await.json, json!({"processes": []}), "no phantom is left");
}

#[tokio::test]
async fn stdin_is_streamed_to_a_process_byte_for_byte() {
    let server = server();
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|n| u8::try_from(n * 7 % 251).unwrap_or(0)).collect();
    start(&server, json!({"command": "sha256sum", "id": "sum", "stdin": "open"})).await;

    for part in bytes.chunks(1_000_000) {
        assert_eq!(
            write(&server, "sum", "", part.to_vec()).await.json,
            json!({"writtenBytes": 1_000_000})
        );
    }
    write(&server, "sum", "?close=true", "").await;
    exit(&server, "sum").await;

    server.put("/v1/sandboxes/s/files/workspace/same", bytes).await;
    let logs = server.get(&of("sum", "/logs")).await.json;
    assert_eq!(server.shell("s", "sha256sum < same").await, output(&logs, "stdout"));
}

#[tokio::test]
async fn input_that_nobody_takes_is_refused_with_the_reason() {
    let server = server();
    let large = || vec![b'x'; 8 << 20];
    start(&server, json!({"command": "sleep 1000", "id": "closed"})).await;
    start(&server, json!({"command": "exit 0", "id": "ended", "stdin": "open"})).await;
    exit(&server, "ended").await;

    assert_eq!(write(&server, "closed", "", large()).await.code(), "STDIN_CLOSED");
    assert_eq!(write(&server, "ended", "", large()).await.code(), "PROCESS_ENDED");
    assert_eq!(write(&server, "never", "", large()).await.code(), "PROCESS_NOT_FOUND");

    start(&server, json!({"command": "sleep 1000", "id": "deaf", "stdin": "open"})).await;
    let writing = write(&server, "deaf", "", large());
    let (url, now) = (of("deaf", "/kill"), json!({"graceMs": 0}));
    let killing = server.post(&url, &now);
    let (written, _) = futures_util::future::join(writing, killing).await;
    assert_eq!(written.code(), "PROCESS_ENDED", "{}", written.text);

    // What a process leaves behind comes to the end of its input, too.
    let command = "mkfifo ended; (read < ended; wc -c; echo whole) <&0 & sleep 0.2";
    start(&server, json!({"command": command, "id": "left", "stdin": "open"})).await;
    let written = write(&server, "left", "", large()).await;
    assert_eq!(written.code(), "PROCESS_ENDED", "{}", written.text);
    let begin = "echo > ended; while pgrep -x wc; do sleep 0.01; done";
    server.shell("s", begin).await;
}

#[tokio::test]
async fn a_line_a_port_and_a_page_are_waited_for() {
    let server = server();
    let script = "import http.server\n\
        s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
        print('serving on', s.server_port, flush=True)\n\
        s.serve_forever()";
    start(&server, json!({"command": ["python3", "-c", script], "id": "web"})).await;

    let ready = wait(&server, "web", json!({"type": "log", "pattern": r"on (\d+)$"})).await;
    let port: u16 =
        ready["line"]["groups"][1].as_str().and_then(|p| p.parse().ok()).expect("a port");
    wait(&server, "web", json!({"type": "port", "port": port})).await;
    let page = wait(&server, "web", json!({"type": "http", "port": port, "path": "/"})).await;
    assert_eq!(page["status"], 200);

    let body = json!({"until": {"type": "http", "port": port, "path": "/none"}, "timeoutMs": 50});
    let timed_out = server.post(&of("web", "/wait"), &body).await;
    assert_eq!((timed_out.status, timed_out.code()), (408, "PROCESS_READY_TIMEOUT"));
    assert_eq!(timed_out.json["error"]["details"]["timeout"], 50);
    start(&server, json!({"command": "exit 4", "id": "gone"})).await;
    let body = json!({"until": {"type": "port", "port": 1}});
    let exited = server.post(&of("gone", "/wait"), &body).await;
    assert_eq!((exited.status, exited.code()), (500, "PROCESS_EXITED_BEFORE_READY"));
    assert_eq!(exited.json["error"]["details"]["exitCode"], 4);
}

#[tokio::test]
async fn a_log_is_followed_and_resumed_by_its_ids() {
    let server = server();
    start(&server, json!({"command": "seq 100000", "id": "p"})).await;
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();

    let (mut text, mut after, mut is_over) = (String::new(), None::<u64>, false);
    while !is_over {
        let mut request = server.request(Method::GET, &of("p", "/logs?follow=true"));
        if let Some(cursor) = after {
            request = request.header("last-event-id", cursor);
        }
        let mut events = testkit::events(request).await.expect("a response comes");
        for _ in 0..3 {
            let Some(event) = events.next().await else { break };
            text += event["data"].as_str().unwrap_or_default();
            after = events.cursor;
            is_over |= event["type"] == "exit";
        }
    }

    assert_eq!(text, expected);
}

#[tokio::test]
async fn all_are_killed_at_once() {
    let server = server();
    for _ in 0..5 {
        start(&server, json!({"command": "setsid sleep 1000 & sleep 1000"})).await;
    }

    let killed = server.post(&format!("{PROCESSES}:kill"), &json!({})).await;

    assert_eq!(killed.json, json!({"killed": 5}), "{}", killed.text);
    assert_eq!(server.shell("s", "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true").await, "0\n");
}

#[tokio::test]
async fn an_exec_that_is_asked_for_again_runs_once() {
    let server = server();
    let exec = |key: &'static str, body: Value| {
        let request = server.request(Method::POST, "/v1/sandboxes/s/exec").json(&body);
        let request = request.header("idempotency-key", key);
        async move { testkit::answer(request.send().await.expect("a response comes")).await }
    };
    let body = json!({"command": "echo run >> runs; sleep 0.1; echo done"});

    let both = futures_util::future::join(exec("k", body.clone()), exec("k", body.clone())).await;
    let later = exec("k", body).await;

    assert_eq!((both.0.json == both.1.json, both.0.json == later.json), (true, true));
    assert_eq!(later.json["stdout"], "done\n");
    assert_eq!(server.shell("s", "cat runs").await, "run\n");
    let other = exec("k", json!({"command": "echo other"})).await;
    assert_eq!((other.status, other.code()), (409, "IDEMPOTENCY_CONFLICT"));
}

#[test]
fn processes_are_started_listed_read_waited_for_and_killed_by_hand() {
    let server = server();
    let sandbar = |args: &[&str]| server.command(args).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let started = sandbar(&[
        "start",
        "box",
        "--id",
        "web",
        "-e",
        "A=b",
        "--",
        "sh",
        "-c",
        "echo $A; echo err >&2; sleep 1000",
    ]);
    assert_eq!(text(&started.stdout), "web\n", "{}", text(&started.stderr));
    let line = sandbar(&["wait", "box", "web", "--pattern", "^b$"]);
    assert_eq!((text(&line.stdout).as_str(), line.status.code()), ("b\n", Some(0)));
    let line = sandbar(&["wait", "box", "web", "--pattern", "^err$"]);
    assert_eq!((text(&line.stdout).as_str(), line.status.code()), ("err\n", Some(0)));
    let listed = text(&sandbar(&["ps", "box"]).stdout);
    assert!(listed.contains("web") && listed.contains("running"), "{listed}");
    let logs = sandbar(&["logs", "box", "web"]);
    assert_eq!((text(&logs.stdout).as_str(), text(&logs.stderr).as_str()), ("b\n", "err\n"));

    let mut following =
        server.command(["logs", "-f", "box", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "b");
    let killed = sandbar(&["kill", "-s", "KILL", "box", "web"]);
    assert_eq!(text(&killed.stdout), "web\n", "{}", text(&killed.stderr));
    assert!(lines.next().is_none(), "it ends with the process");
    assert!(following.wait().unwrap().success());

    assert_eq!(sandbar(&["wait", "box", "web"]).status.code(), Some(137));
    let listed = text(&sandbar(&["ps", "box"]).stdout);
    assert!(listed.contains("killed 9"), "{listed}");
    assert_eq!(text(&sandbar(&["kill", "--all", "box"]).stdout), "0\n");
    for args in [&["ps", "never"][..], &["logs", "never", "web"], &["kill", "never", "web"]] {
        let refused = sandbar(args);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("never"), "{}", text(&refused.stderr));
    }
    assert!(!text(&sandbar(&["ps", "-q"]).stdout).contains("never"), "nothing was made");
}

#[tokio::test]
async fn a_log_that_is_not_followed_ends_though_the_process_writes_faster_than_it_is_read() {
    let server = server();
    start(&server, json!({"command": "yes", "id": "yes"})).await;
    wait(&server, "yes", json!({"type": "log", "text": "y"})).await;
    let request = server.request(Method::GET, &of("yes", "/logs"));
    let mut events = testkit::events(request.header("accept", "text/event-stream")).await.unwrap();
    let all = async {
        let mut bytes = 0;
        while let Some(event) = events.next().await {
            bytes += event["data"].as_str().map_or(0, str::len);
        }
        bytes
    };
    let bytes = tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("it ends with what there was");
    assert!(bytes > 0);
}
