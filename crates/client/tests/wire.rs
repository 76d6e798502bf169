//! The client against a server that speaks the documented wire, written by hand in each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, also in its helper functions")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use api::{
    error::ErrorCode,
    exec::{Command, Encoding, Ending, ExecEvent, ExecRequest},
    file::{FileResult, ListFiles, MakeDirectory, NewFile, ReadEncoding, WriteFile, WriteFiles},
    id::SandboxId,
    image::{BuildEvent, BuildImage},
    node::{Shutdown, ShutdownSandboxes},
    sandbox::CreateSandbox,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use client::{Client, ClientError, decode_output, encode_stdin};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const KEY: &str = "test-key";

/// Serves `routes` behind the key and returns a client of it.
async fn serve(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let app = routes.layer(middleware::from_fn(require_key));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Client::new(&format!("http://{address}"), KEY).unwrap()
}

async fn require_key(headers: HeaderMap, request: Request, next: Next) -> Response {
    if headers.get(header::AUTHORIZATION).is_some_and(|key| key == "Bearer test-key") {
        return next.run(request).await;
    }
    refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
}

fn refusal(status: StatusCode, code: &str) -> Response {
    let body = json!({"error": {"code": code, "message": "no", "requestId": "r1",
        "details": {"field": "id"}}});
    (status, Json(body)).into_response()
}

fn id(text: &str) -> SandboxId {
    text.parse().unwrap()
}

fn sandbox(id: &str) -> Value {
    json!({"id": id, "state": "running", "image": "default", "network": "internet", "env": {},
        "labels": {}, "createdAtMs": 5,
        "resources": {"memoryBytes": 1, "pids": 2, "cpuMillis": 3}})
}

fn event_stream(text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], text.into()).into_response()
}

#[tokio::test]
async fn sandboxes_are_listed_page_by_page() {
    let list = |RawQuery(query): RawQuery| async move {
        match query.as_deref() {
            Some("label=team%3Dred%20%26%20blue") => {
                Json(json!({"sandboxes": [sandbox("a")], "nextCursor": "a+"}))
            }
            Some("label=team%3Dred%20%26%20blue&cursor=a%2B") => {
                Json(json!({"sandboxes": [sandbox("b")]}))
            }
            other => panic!("query {other:?}"),
        }
    };
    let client = serve(Router::new().route("/v1/sandboxes", get(list))).await;
    let all = client.all_sandboxes(Some("team=red & blue")).await.unwrap();
    let ids: Vec<_> = all.iter().map(|sandbox| sandbox.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn creating_sends_only_what_was_asked_for() {
    let create = |Json(body): Json<Value>| async move {
        assert_eq!(body, json!({"id": "x", "resources": {}, "network": "internet"}));
        (StatusCode::CREATED, Json(sandbox("x")))
    };
    let client = serve(Router::new().route("/v1/sandboxes", post(create))).await;
    let request = CreateSandbox { id: Some(id("x")), ..CreateSandbox::default() };
    assert_eq!(client.create_sandbox(&request).await.unwrap().id, id("x"));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_details_and_status() {
    let routes = Router::new().route(
        "/v1/sandboxes/{id}",
        get(|| async { refusal(StatusCode::NOT_FOUND, "SANDBOX_NOT_FOUND") }),
    );
    let client = serve(routes).await;
    let error = client.sandbox(&id("x")).await.unwrap_err();
    let ClientError::Api { status: 404, error } = error else { panic!("{error:?}") };
    assert_eq!(error.code, ErrorCode::SandboxNotFound);
    assert_eq!(error.details["field"], "id");
    assert_eq!(error.request_id.as_deref(), Some("r1"));
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_the_server() {
    let client = serve(Router::new()).await;
    let stranger = Client::new(client.url(), "wrong").unwrap();
    let error = stranger.health().await.unwrap_err();
    assert!(matches!(error, ClientError::Api { status: 401, .. }), "{error:?}");
}

#[tokio::test]
async fn another_programs_answers_are_told_apart() {
    let routes = Router::new()
        .route("/healthz", get(|| async { "I am a web page" }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing here") });
    let client = serve(routes).await;
    for error in [client.health().await.unwrap_err(), client.sandbox(&id("x")).await.unwrap_err()] {
        assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_closed_port_says_how_to_start_a_server() {
    // Taken and not listened on: one given back could be somebody else's by now.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = closed.local_addr().unwrap();
    let client = Client::new(&format!("http://{address}"), KEY).unwrap();
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("sandbar serve"), "{error}");
}

#[tokio::test]
async fn a_buffered_exec_returns_its_result() {
    let exec = |Json(body): Json<Value>| async move {
        assert_eq!(body, json!({"command": ["cat"], "stdin": "AP8=", "encoding": "base64"}));
        Json(json!({"success": true, "exitCode": 0, "ending": {"type": "exited", "code": 0},
            "processId": "p", "stdout": "AP8=", "stderr": "", "droppedBytes": 0, "durationMs": 1,
            "usage": {"cpuMs": 0, "peakMemoryBytes": 0}}))
    };
    let client = serve(Router::new().route("/v1/sandboxes/{id}/exec", post(exec))).await;
    let mut request = ExecRequest::new(Command::Program(vec!["cat".to_owned()]));
    request.encoding = Encoding::Base64;
    request.stdin = Some(encode_stdin(&[0, 255]));
    let result = client.exec(&id("x"), &request).await.unwrap();
    assert_eq!(decode_output(&result.stdout, Encoding::Base64).unwrap(), [0, 255]);
}

const EXEC_EVENTS: &str = "event: start\ndata: {\"type\":\"start\",\"pid\":7,\"processId\":\"p\"}\n\n: beat\n\n\
    event: stdout\ndata: {\"type\":\"stdout\",\"data\":\"hi\",\"timeMs\":1}\n\n\
    event: exit\ndata: {\"type\":\"exit\",\"success\":false,\"exitCode\":124,\
    \"ending\":{\"type\":\"timeout\"},\"durationMs\":5,\
    \"usage\":{\"cpuMs\":0,\"peakMemoryBytes\":0}}\n\n";

fn shell(text: &str) -> ExecRequest {
    ExecRequest::new(Command::Shell(text.to_owned()))
}

#[tokio::test]
async fn a_streamed_exec_ends_with_its_exit() {
    let exec = |headers: HeaderMap| async move {
        assert_eq!(headers[header::ACCEPT], "text/event-stream");
        // One byte at a time, so that every cut occurs.
        let bytes =
            EXEC_EVENTS.bytes().map(|byte| Ok::<_, std::io::Error>(Bytes::from(vec![byte])));
        event_stream(Body::from_stream(stream::iter(bytes)))
    };
    let client = serve(Router::new().route("/v1/sandboxes/{id}/exec", post(exec))).await;
    let events = client.exec_stream(&id("x"), &shell("x")).await.unwrap();
    let events: Vec<ExecEvent> = events.try_collect().await.unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[0], ExecEvent::Start { pid: 7, process_id: "p".parse().unwrap() });
    assert!(matches!(events[2], ExecEvent::Exit { ending: Ending::Timeout, .. }));
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_so_is_an_error_event() {
    let cut = EXEC_EVENTS.split("event: exit").next().unwrap();
    let failed =
        "event: error\ndata: {\"error\":{\"code\":\"AGENT_UNREACHABLE\",\"message\":\"m\"}}\n\n";
    let routes = Router::new().route(
        "/v1/sandboxes/{id}/exec",
        post(move |Path(id): Path<String>| async move {
            event_stream(if id == "cut" { cut } else { failed })
        }),
    );
    let client = serve(routes).await;
    let events = client.exec_stream(&id("cut"), &shell("x")).await.unwrap();
    let error = events.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, ClientError::CutOff { .. }), "{error:?}");
    let mut events = client.exec_stream(&id("failed"), &shell("x")).await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Api { status: 502, .. }), "{error:?}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_stream_closes_its_connection() {
    let (closed, wait) = oneshot::channel::<()>();
    let held = Arc::new(Mutex::new(Some(closed)));
    let exec = |State(held): State<Arc<Mutex<Option<oneshot::Sender<()>>>>>| async move {
        let closed = held.lock().unwrap().take();
        let start = EXEC_EVENTS.split_inclusive("\n\n").next().unwrap();
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(start))]);
        // The body lives until the connection does not; then `closed` is dropped with it.
        let rest = stream::once(async move {
            let _held_until_the_body_goes = closed;
            std::future::pending().await
        });
        event_stream(Body::from_stream(first.chain(rest)))
    };
    let routes = Router::new().route("/v1/sandboxes/{id}/exec", post(exec)).with_state(held);
    let client = serve(routes).await;
    let mut events = client.exec_stream(&id("x"), &shell("x")).await.unwrap();
    assert_eq!(
        events.next().await.unwrap().unwrap(),
        ExecEvent::Start { pid: 7, process_id: "p".parse().unwrap() }
    );
    drop(events);
    wait.await.unwrap_err();
}

/// What a server answers to a write.
fn written() -> Json<Value> {
    Json(
        json!({"name": "f", "path": "/f", "type": "file", "size": 1, "mode": 420, "modifiedMs": 1}),
    )
}

#[tokio::test]
async fn paths_arrive_as_they_were_meant() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let write = |State(seen): State<Arc<Mutex<Vec<String>>>>,
                 Path((_, path)): Path<(String, String)>,
                 uri: Uri,
                 body: Bytes| async move {
        assert_eq!(body, b"\0\xff"[..]);
        seen.lock().unwrap().push(format!("{path} {}", uri.query().unwrap_or_default()));
        written()
    };
    let routes = Router::new()
        .route("/v1/sandboxes/{id}/files/{*path}", put(write))
        .with_state(Arc::clone(&seen));
    let client = serve(routes).await;
    let mode = WriteFile { mode: Some("755".to_owned()), ..WriteFile::default() };
    for path in ["/a b/ä?#%2F", "/w/../../../x", "/..", "/"] {
        client.write_file(&id("x"), path, &mode, &b"\0\xff"[..]).await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        seen,
        ["a b/ä?#%2F mode=755", "/w/../../../x mode=755", "/.. mode=755", "/ mode=755"]
    );
    let error = client.read_file(&id("x"), "a.txt").await.unwrap_err();
    assert!(matches!(error, ClientError::RelativePath { .. }), "{error:?}");
}

#[tokio::test]
async fn contents_stream_in_both_directions() {
    const CHUNKS: usize = 64;
    let routes = Router::new().route(
        "/v1/sandboxes/{id}/files/{*path}",
        put(|body: Body| async move {
            let bytes = body
                .into_data_stream()
                .try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) })
                .await
                .unwrap();
            assert_eq!(bytes, CHUNKS * 65536);
            written()
        })
        .get(|| async { ([("x-sandbar-mode", "750")], vec![7_u8; 100_000]) }),
    );
    let client = serve(routes).await;
    let chunks = (0..CHUNKS).map(|_| Ok(Bytes::from(vec![1_u8; 65536])));
    let options = WriteFile::default();
    client.write_file_stream(&id("x"), "/big", &options, stream::iter(chunks)).await.unwrap();
    let content = client.read_file_stream(&id("x"), "/big").await.unwrap();
    assert_eq!((content.size(), content.mode()), (Some(100_000), Some(0o750)));
    let length = content.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await;
    assert_eq!(length.unwrap(), 100_000);
}

#[tokio::test]
async fn content_that_cannot_be_read_is_told_from_a_broken_connection() {
    let routes = Router::new().route(
        "/v1/sandboxes/{id}/files/{*path}",
        put(|body: Body| async move {
            drop(body.into_data_stream().try_collect::<Vec<_>>().await);
            StatusCode::CREATED
        }),
    );
    let client = serve(routes).await;
    let content = stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "gone")),
    ]);
    let result = client.write_file_stream(&id("x"), "/f", &WriteFile::default(), content).await;
    let error = result.unwrap_err();
    let ClientError::Content { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "gone");
}

#[tokio::test]
async fn directories_are_listed_and_made() {
    let routes = Router::new()
        .route(
            "/v1/sandboxes/{id}/files:list",
            get(|RawQuery(query): RawQuery| async move {
                assert_eq!(query.unwrap(), "path=%2Fw&recursive=true&hidden=true&limit=5");
                Json(json!({"entries": [{"name": "l", "path": "/w/l", "type": "symlink",
                    "size": 1, "mode": 511, "modifiedMs": 1, "linkTarget": "/etc"}]}))
            }),
        )
        .route(
            "/v1/sandboxes/{id}/files:mkdir",
            post(|Json(body): Json<Value>| async move {
                assert_eq!(body, json!({"path": "/w/d", "recursive": true}));
                written()
            }),
        );
    let client = serve(routes).await;
    let query = ListFiles {
        path: "/w".to_owned(),
        recursive: true,
        hidden: true,
        limit: Some(5),
        ..ListFiles::default()
    };
    let page = client.list_files(&id("x"), &query).await.unwrap();
    assert_eq!(page.entries[0].link_target.as_deref(), Some("/etc"));
    let request = MakeDirectory { path: "/w/d".to_owned(), recursive: true, session: None };
    client.make_directory(&id("x"), &request).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_of_files_arrives_whole() {
    let routes = Router::new()
        .route(
            "/v1/sandboxes/{id}/files/{*path}",
            put(|RawQuery(query): RawQuery, headers: HeaderMap| async move {
                let expected = "append=true&exclusive=true&sha256=ab&session=s";
                assert_eq!(query.unwrap(), expected);
                assert_eq!(headers["if-match"], "\"tag\"");
                written()
            })
            .get(|RawQuery(query): RawQuery| async move {
                assert_eq!(query.unwrap(), "encoding=base64");
                Json(json!({"path": "/f", "size": 1, "mode": 420, "modifiedMs": 1, "etag": "\"t\"",
                    "mimeType": "text/plain", "isBinary": false, "encoding": "base64",
                    "content": "eA=="}))
            }),
        )
        .route(
            "/v1/sandboxes/{id}/files:stat",
            get(|RawQuery(query): RawQuery| async move {
                if query.unwrap() == "path=%2Ff&follow=true" {
                    return Ok(written());
                }
                Err(refusal(StatusCode::NOT_FOUND, "FILE_NOT_FOUND"))
            }),
        )
        .route(
            "/v1/sandboxes/{id}/files:write",
            post(|Json(body): Json<Value>| async move {
                assert_eq!(body["files"][0]["ifMatch"], "\"tag\"");
                Json(json!({"files": [written().0,
                    {"path": "g", "error": {"code": "FILE_EXISTS", "message": "m"}}]}))
            }),
        );
    let client = serve(routes).await;
    let options = WriteFile {
        mode: None,
        append: true,
        exclusive: true,
        sha256: Some("ab".to_owned()),
        session: Some("s".parse().unwrap()),
    };
    client.replace_file(&id("x"), "/f", &options, "\"tag\"", "x").await.unwrap();
    let content = client.file_content(&id("x"), "/f", ReadEncoding::Base64).await.unwrap();
    assert_eq!((&*content.content, content.encoding), ("eA==", Encoding::Base64));
    assert!(client.file_exists(&id("x"), "/f").await.unwrap());
    assert!(!client.file_exists(&id("x"), "/g").await.unwrap());
    let file = NewFile { if_match: Some("\"tag\"".to_owned()), ..NewFile::default() };
    let request = WriteFiles { files: vec![file], session: None };
    let results = client.write_files(&id("x"), &request).await.unwrap();
    let results: Vec<_> = results.into_iter().map(FileResult::into_result).collect();
    assert_eq!(results[0].as_ref().unwrap().path, "/f");
    assert_eq!(results[1].as_ref().unwrap_err().code, ErrorCode::FileExists);
}

#[tokio::test]
async fn a_failed_build_is_an_event() {
    let text = "event: step\ndata: {\"type\":\"step\",\"index\":1,\"total\":2,\
        \"instruction\":\"RUN x\",\"cached\":false}\n\n\
        event: failed\ndata: {\"type\":\"failed\",\"message\":\"m\"}\n\n";
    let routes =
        Router::new().route("/v1/images:build", post(move || async move { event_stream(text) }));
    let client = serve(routes).await;
    let request = BuildImage { name: "x".parse().unwrap(), recipe: "FROM y".to_owned() };
    let events = client.build_image(&request).await.unwrap();
    let events: Vec<BuildEvent> = events.try_collect().await.unwrap();
    assert_eq!(events.last(), Some(&BuildEvent::Failed { message: "m".to_owned() }));
}

#[tokio::test]
async fn a_shutdown_says_what_becomes_of_the_sandboxes() {
    let routes = Router::new().route(
        "/v1/node:shutdown",
        post(|Json(body): Json<Value>| async move {
            assert_eq!(body, json!({"sandboxes": "destroy"}));
            StatusCode::ACCEPTED
        }),
    );
    let client = serve(routes).await;
    client.shut_down(&Shutdown { sandboxes: ShutdownSandboxes::Destroy }).await.unwrap();
}
