//! Processes, and streams that come back, against a server that speaks the documented wire.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use api::{
    error::ErrorCode,
    exec::{Command, Encoding, ExecEvent, ExecRequest},
    id::SandboxId,
    process::{KillProcess, ListProcesses, ReadLogs, Signal},
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use client::{Client, ClientError};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

async fn serve(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Client::new(&format!("http://{address}"), "key").unwrap()
}

fn sandbox() -> SandboxId {
    "s".parse().unwrap()
}

fn process(id: &str) -> Value {
    json!({"id": id, "kind": "process", "pid": 7, "command": "sleep 1", "running": true,
        "startedAtMs": 5, "log": {"firstCursor": 0, "nextCursor": 3, "droppedBytes": 0}})
}

fn exit() -> String {
    let exit = json!({"type": "exit", "success": true, "exitCode": 0, "durationMs": 1,
        "ending": {"type": "exited", "code": 0}, "usage": {"cpuMs": 0, "peakMemoryBytes": 0}});
    format!("event: exit\nid: 6\ndata: {exit}\n\n")
}

fn output(cursor: u64, data: &str) -> String {
    let event = json!({"type": "stdout", "data": data, "timeMs": 1});
    format!("event: stdout\nid: {cursor}\ndata: {event}\n\n")
}

const START: &str = "event: start\ndata: {\"type\":\"start\",\"pid\":7,\"processId\":\"p\"}\n\n";

/// A stream that breaks off after `text`.
fn broken(text: String) -> Response {
    let end = stream::once(async {
        // What was written goes out when the stream pauses.
        tokio::task::yield_now().await;
        Err(io::Error::other("gone"))
    });
    let pieces = stream::iter([Ok(Bytes::from(text))]).chain(end);
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

fn whole(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": "no"}}))).into_response()
}

/// What each request said: its `Last-Event-ID` and its `Idempotency-Key`.
type Seen = Arc<Mutex<Vec<(Option<String>, Option<String>)>>>;

fn note(seen: &Seen, headers: &HeaderMap) -> usize {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut seen = seen.lock().unwrap();
    seen.push((text("last-event-id"), text("idempotency-key")));
    seen.len()
}

/// The output of a stream, and its last event.
async fn read(mut stream: client::ExecStream) -> (String, Vec<ExecEvent>) {
    let (mut text, mut events) = (String::new(), Vec::new());
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        if let ExecEvent::Stdout { data, .. } = &event {
            text.push_str(data);
        }
        events.push(event);
    }
    assert_eq!(stream.cursor(), 6);
    (text, events)
}

#[tokio::test]
async fn a_stream_with_a_key_comes_back_where_it_broke() {
    let seen = Seen::default();
    let exec = |State(seen): State<Seen>, headers: HeaderMap| async move {
        match note(&seen, &headers) {
            1 => broken(START.to_owned()),
            2 => broken(format!("{START}{}{}", output(2, "ab"), ":\n\n")),
            3 => refusal(StatusCode::SERVICE_UNAVAILABLE, "STARTING"),
            // An event that is cut is no event.
            4 => broken(format!("{}{}", output(4, "cd"), &output(6, "ef")[..20])),
            _ => whole(output(6, "ef") + &exit()),
        }
    };
    let routes = Router::new().route("/v1/sandboxes/s/exec", post(exec));
    let client = serve(routes.with_state(Arc::clone(&seen))).await;
    let request = ExecRequest::new(Command::Shell("x".to_owned()));

    let stream = client.exec_stream_once(&sandbox(), &request, "k1", None).await.unwrap();
    let (text, events) = read(stream).await;

    assert_eq!(text, "abcdef");
    let starts = events.iter().filter(|event| matches!(event, ExecEvent::Start { .. })).count();
    assert_eq!(starts, 1);
    let seen = seen.lock().unwrap();
    let after: Vec<_> = seen.iter().map(|(after, _)| after.as_deref()).collect();
    assert_eq!(after, [None, None, Some("2"), Some("2"), Some("4")]);
    assert!(seen.iter().all(|(_, key)| key.as_deref() == Some("k1")));
}

#[tokio::test]
async fn a_followed_log_comes_back_and_a_refusal_ends_it() {
    let seen = Seen::default();
    let logs = |State(seen): State<Seen>, RawQuery(query): RawQuery, headers: HeaderMap| async move {
        assert_eq!(query.as_deref(), Some("encoding=utf8&follow=true"));
        match note(&seen, &headers) {
            1 => broken(output(5, "e")),
            2 => whole(output(6, "f") + &exit()),
            3 => broken(output(6, "f")),
            _ => refusal(StatusCode::NOT_FOUND, "PROCESS_NOT_FOUND"),
        }
    };
    let routes = Router::new().route("/v1/sandboxes/s/processes/web/logs", get(logs));
    let client = serve(routes.with_state(Arc::clone(&seen))).await;
    let id = sandbox();

    let stream = client.follow_process(&id, "web", Some(4), Encoding::Utf8).await.unwrap();
    assert_eq!(read(stream).await.0, "ef");
    let mut stream = client.follow_process(&id, "web", None, Encoding::Utf8).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let error = stream.next().await.unwrap().unwrap_err();

    let ClientError::Api { error, .. } = error else { panic!("{error:?}") };
    assert_eq!(error.code, ErrorCode::ProcessNotFound);
    let seen = seen.lock().unwrap();
    let after: Vec<_> = seen.iter().map(|(after, _)| after.as_deref()).collect();
    assert_eq!(after, [Some("4"), Some("5"), None, Some("6")]);
}

#[tokio::test]
async fn a_stream_whose_place_was_taken_does_not_come_back() {
    let exec = || async {
        let error = json!({"error": {"code": "RESOURCE_BUSY", "message": "no"}});
        whole(format!("{START}event: error\ndata: {error}\n\n"))
    };
    let client = serve(Router::new().route("/v1/sandboxes/s/exec", post(exec))).await;
    let request = ExecRequest::new(Command::Shell("x".to_owned()));

    let mut stream = client.exec_stream_once(&sandbox(), &request, "k", None).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let error = stream.next().await.unwrap().unwrap_err();

    assert!(matches!(error, ClientError::Api { status: 409, .. }), "{error:?}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_call_with_a_key_is_repeated_until_it_is_answered() {
    let seen = Seen::default();
    let exec = |State(seen): State<Seen>, headers: HeaderMap| async move {
        match note(&seen, &headers) {
            1 => broken("{\"processId\":".to_owned()),
            2 => refusal(StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN"),
            _ => Json(json!({"processId": "p", "success": true, "exitCode": 0, "stdout": "once",
                "ending": {"type": "exited", "code": 0}, "stderr": "", "droppedBytes": 0,
                "durationMs": 1, "usage": {"cpuMs": 0, "peakMemoryBytes": 0}}))
            .into_response(),
        }
    };
    let routes = Router::new().route("/v1/sandboxes/s/exec", post(exec));
    let client = serve(routes.with_state(Arc::clone(&seen))).await;
    let request = ExecRequest::new(Command::Shell("x".to_owned()));

    let result = client.exec_once(&sandbox(), &request, "k").await.unwrap();

    assert_eq!((result.stdout.as_str(), seen.lock().unwrap().len()), ("once", 3));
    let plain = client.exec(&sandbox(), &request).await;
    assert!(plain.is_ok(), "the fourth request is answered");
}

#[tokio::test]
async fn processes_are_named_and_asked_for_as_documented() {
    let list = |RawQuery(query): RawQuery| async move {
        assert_eq!(query.as_deref(), Some("running=true&kind=process"));
        Json(json!({"processes": [process("a:b")]}))
    };
    let kill = |Path(name): Path<String>, Json(body): Json<Value>| async move {
        assert_eq!((name.as_str(), body), ("a:b", json!({"signal": 2, "graceMs": 5000})));
        Json(process("a:b"))
    };
    let logs = |RawQuery(query): RawQuery| async move {
        assert_eq!(query.as_deref(), Some("cursor=3&encoding=base64"));
        Json(json!({"records": [], "droppedBytes": 3, "nextCursor": 3, "running": true}))
    };
    let stdin = |RawQuery(query): RawQuery, body: Bytes| async move {
        assert_eq!((query.as_deref(), &body[..]), (Some("close=true"), &b"in"[..]));
        Json(json!({"writtenBytes": 2}))
    };
    let routes = Router::new()
        .route("/v1/sandboxes/s/processes", get(list))
        .route("/v1/sandboxes/s/processes/{name}/kill", post(kill))
        .route("/v1/sandboxes/s/processes/{name}/logs", get(logs))
        .route("/v1/sandboxes/s/processes/{name}/stdin", post(stdin));
    let client = serve(routes).await;
    let id = sandbox();

    let running = Some(true);
    let query = ListProcesses { running, kind: Some(api::process::ProcessKind::Process) };
    let listed = client.list_processes(&id, &query).await.unwrap();
    assert_eq!(listed[0].id.as_str(), "a:b");
    let signal: Signal = "INT".parse().unwrap();
    let kill = KillProcess { signal, ..KillProcess::default() };
    client.kill_process(&id, "a:b", kill).await.unwrap();
    let query = ReadLogs { cursor: Some(3), follow: false, encoding: Encoding::Base64 };
    assert_eq!(client.process_logs(&id, "a:b", &query).await.unwrap().dropped_bytes, 3);
    assert_eq!(client.write_stdin(&id, "a:b", "in", true).await.unwrap().written_bytes, 2);
}
