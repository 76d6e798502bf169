//! Contexts of bash.

use serde_json::{Value, json};
use testkit::{
    Server,
    api::interpreter::{CodeErrorKind, RunResult},
};

use super::{BEGUN_MS, CONTEXTS, RUN, run_in, server};

async fn sh(server: &Server, code: &str, more: Value) -> RunResult {
    let mut body = json!({"language": "bash"});
    if let Value::Object(more) = more {
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.clone()));
    }
    run_in(server, RUN, code, body).await
}

#[tokio::test]
async fn a_shell_keeps_its_state_and_tells_how_code_ended() {
    let server = server();
    sh(&server, "cd /tmp; export A=1; f() { echo \"f $1\"; }", json!({})).await;
    let result = sh(&server, "pwd; echo $A; f x; echo oops >&2", json!({})).await;
    assert!(result.success && result.results.is_empty());
    assert_eq!(result.logs.stdout, ["/tmp\n", "1\n", "f x\n"]);
    assert_eq!(result.logs.stderr, ["oops\n"]);
    assert_eq!(result.execution_count, 2);
    let failed = sh(&server, "echo before; false", json!({})).await;
    let error = failed.error.unwrap();
    assert_eq!((error.name.as_str(), error.kind), ("ExitStatus", CodeErrorKind::Exception));
    assert!(error.value.contains("status 1") && !failed.context_reset);
    let env = sh(&server, "echo $B", json!({"env": {"B": "2"}})).await;
    assert_eq!(
        (env.logs.stdout, sh(&server, "echo [$B]", json!({})).await.logs.stdout),
        (vec!["2\n".to_owned()], vec!["[]\n".to_owned()])
    );
    assert!(sh(&server, "", json!({})).await.success);
}

#[tokio::test]
async fn a_timeout_keeps_the_shell_and_exit_starts_another() {
    let server = server();
    sh(&server, "kept=1", json!({})).await;
    let late = sh(&server, "echo before; sleep 60", json!({"timeoutMs": BEGUN_MS})).await;
    assert_eq!(late.logs.stdout, ["before\n"]);
    assert_eq!((late.error.unwrap().kind, late.context_reset), (CodeErrorKind::Timeout, false));
    assert_eq!(sh(&server, "echo $kept", json!({})).await.logs.stdout, ["1\n"]);
    let gone = sh(&server, "echo bye; exit 3", json!({})).await;
    assert_eq!((gone.error.unwrap().kind, gone.context_reset), (CodeErrorKind::Exited, true));
    assert_eq!(sh(&server, "echo [$kept]", json!({})).await.logs.stdout, ["[]\n"]);
}

#[tokio::test]
async fn a_bash_context_is_interrupted_restarted_and_deleted() {
    let server = server();
    let made = server
        .post(CONTEXTS, &json!({"id": "b", "language": "sh", "cwd": "/tmp", "env": {"X": "1"}}))
        .await;
    assert_eq!((made.status, &made.json["language"]), (201, &json!("bash")), "{}", made.text);
    let path = format!("{CONTEXTS}/b/run");
    let result = run_in(&server, &path, "pwd; echo $X; y=2", json!({})).await;
    assert_eq!(result.logs.stdout, ["/tmp\n", "1\n"]);
    let body = json!({"code": "touch /workspace/began; sleep 600"});
    let request = server.request(testkit::reqwest::Method::POST, &path).json(&body);
    let running = tokio::spawn(async move {
        request.send().await.expect("an answer comes").json::<RunResult>().await
    });
    server.shell("s", "until [ -e /workspace/began ]; do sleep 0.01; done").await;
    let interrupted = server.post(&format!("{CONTEXTS}/b/interrupt"), &json!({})).await;
    assert_eq!(interrupted.json, json!({"interrupted": true}));
    let result = running.await.unwrap().unwrap();
    assert_eq!(
        (result.error.unwrap().kind, result.context_reset),
        (CodeErrorKind::Interrupted, false)
    );
    assert_eq!(run_in(&server, &path, "echo $y", json!({})).await.logs.stdout, ["2\n"]);
    assert_eq!(server.post(&format!("{CONTEXTS}/b/restart"), &json!({})).await.status, 200);
    assert_eq!(run_in(&server, &path, "echo [$y]", json!({})).await.logs.stdout, ["[]\n"]);
    assert_eq!(server.delete(&format!("{CONTEXTS}/b")).await.status, 204);
    assert_eq!(server.shell("s", "pgrep -c sleep || true").await, "0\n");
    let sessions = server.get("/v1/sandboxes/s/sessions").await;
    assert_eq!(
        sessions.json["sessions"].as_array().map(Vec::len),
        Some(1),
        "a context is no session to others"
    );
}

#[tokio::test]
async fn a_shell_that_ended_when_nothing_ran_is_told_once_and_another_one_starts() {
    let server = server();
    sh(&server, "kept=1", json!({})).await;
    let pid = server.get(&format!("{CONTEXTS}/default-bash")).await.json["pid"].clone();
    server
        .shell("s", &format!("kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.01; done"))
        .await;
    let told = sh(&server, "echo $kept", json!({})).await;
    assert_eq!((told.error.unwrap().kind, told.context_reset), (CodeErrorKind::Crashed, true));
    assert_eq!(told.logs.stdout, Vec::<String>::new(), "the code did not run");
    let next = sh(&server, "echo [$kept]", json!({})).await;
    assert_eq!((next.logs.stdout, next.execution_count), (vec!["[]\n".to_owned()], 1));
}
