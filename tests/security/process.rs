//! What processes and waits must not reach.

use std::net::TcpListener;

use serde_json::json;
use testkit::reqwest::Method;

use crate::server;

#[tokio::test]
async fn cannot_signal_or_kill_the_agent_or_a_stranger_by_its_process_id() {
    let server = server();
    // A process of the sandbox that no request started.
    let stranger = server.shell("s", "setsid sleep 1000 >/dev/null 2>&1 & echo $!").await;
    let stranger = stranger.trim();

    for pid in ["1", stranger, "0", "-1", "99999999999999999999"] {
        let path = format!("/v1/sandboxes/s/processes/{pid}");
        assert_eq!(server.get(&path).await.code(), "PROCESS_NOT_FOUND", "{pid}");
        let signal = json!({"signal": "KILL"});
        let signalled = server.post(&format!("{path}/signal"), &signal).await;
        assert_eq!(signalled.code(), "PROCESS_NOT_FOUND", "{pid}");
        let killed = server.post(&format!("{path}/kill"), &json!({})).await;
        assert_eq!(killed.code(), "PROCESS_NOT_FOUND", "{pid}");
    }
    server.post("/v1/sandboxes/s/processes:kill", &json!({"graceMs": 0})).await;
    assert_eq!(server.shell("s", &format!("kill -0 {stranger} && echo lives")).await, "lives\n");
}

#[tokio::test]
async fn cannot_see_end_or_answer_for_what_runs_in_another_sandbox() {
    let server = server();
    let body = json!({"command": "sleep 1000", "id": "web"});
    let started = server.post("/v1/sandboxes/a/processes", &body).await;
    assert_eq!(started.status, 201, "{}", started.text);
    let pid = started.json["pid"].to_string();

    for name in ["web", &pid] {
        let foreign = server.get(&format!("/v1/sandboxes/b/processes/{name}")).await;
        assert_eq!(foreign.code(), "PROCESS_NOT_FOUND");
    }
    let killed = server.post("/v1/sandboxes/b/processes:kill", &json!({})).await;
    assert_eq!(killed.json, json!({"killed": 0}));
    let mut answers = Vec::new();
    for id in ["a", "b"] {
        let request = server.request(Method::POST, &format!("/v1/sandboxes/{id}/exec"));
        let request = request.header("idempotency-key", "same");
        let body = json!({"command": "hostname; echo $RANDOM$RANDOM$RANDOM"});
        let response = request.json(&body).send().await.expect("a response comes");
        answers.push(testkit::answer(response).await.json["stdout"].clone());
    }
    assert_ne!(answers[0], answers[1], "a key belongs to one sandbox");
    assert_eq!(server.get("/v1/sandboxes/a/processes/web").await.json["running"], true);
}

#[tokio::test]
async fn cannot_reach_the_host_s_loopback_by_waiting_for_a_port() {
    let server = server();
    let listener = TcpListener::bind("127.0.0.1:0").expect("the host listens");
    let port = listener.local_addr().expect("it has a port").port();
    let body = json!({"command": "sleep 1000", "id": "p"});
    server.post("/v1/sandboxes/s/processes", &body).await;

    for until in [json!({"type": "port", "port": port}), json!({"type": "http", "port": port})] {
        let body = json!({"until": until, "timeoutMs": 300});
        let waited = server.post("/v1/sandboxes/s/processes/p/wait", &body).await;
        assert_eq!(waited.code(), "PROCESS_READY_TIMEOUT", "{}", waited.text);
    }

    listener.set_nonblocking(true).expect("it can be asked");
    assert!(listener.accept().is_err(), "nobody came");
}

/// Q28
#[tokio::test]
async fn output_is_never_taken_for_an_event() {
    let server = server();
    let lie = r#"printf 'x\r\n\r\nevent: exit\r\nid: 9\r\ndata: {"type":"exit","exitCode":0}\r\n\r\n: \0\033[2J\n'; exit 7"#;

    let request =
        server.request(Method::POST, "/v1/sandboxes/s/exec").json(&json!({"command": lie}));
    let mut events = testkit::events(request).await.expect("the stream begins");
    let mut kinds = Vec::new();
    let mut code = json!(null);
    while let Some(event) = events.next().await {
        kinds.push(event["type"].as_str().unwrap_or_default().to_owned());
        code = event["exitCode"].clone();
    }

    assert_eq!(code, 7);
    assert_eq!(kinds.iter().filter(|kind| *kind == "exit").count(), 1, "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("exit"), "{kinds:?}");
}
