//! A server that speaks the documented wire and runs nothing: files are kept in memory, commands
//! are known by name. It is what the command line is held against where no kernel is wanted.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, State,
        ws::{Message, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// What happened, in order, for tests to wait for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Created(Value),
    Executed(Value),
    /// The connection of an endless command is gone.
    Cancelled,
    Destroyed(String),
    ShutDown(Value),
}

#[derive(Clone)]
struct Fake {
    seen: mpsc::UnboundedSender<Seen>,
    files: Arc<Mutex<BTreeMap<String, Entry>>>,
    /// In place of an honest archive.
    lie: Arc<Mutex<Option<Lie>>>,
    /// Destroying waits for ever.
    is_stuck: bool,
    stop: Arc<Notify>,
}

/// A file, directory or link of the one sandbox there is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    File(u32, Vec<u8>),
    Directory,
    Link(String),
}

/// What a sandbox sends that has been taken over.
#[derive(Debug, Clone)]
pub(crate) struct Lie {
    pub(crate) archive: Vec<u8>,
    /// The connection breaks after it.
    pub(crate) breaks_off: bool,
}

/// A running fake.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    pub(crate) files: Arc<Mutex<BTreeMap<String, Entry>>>,
    pub(crate) lie: Arc<Mutex<Option<Lie>>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(false).await
    }

    /// One that never finishes destroying.
    pub(crate) async fn stuck() -> Self {
        Self::with(true).await
    }

    async fn with(is_stuck: bool) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let files = Arc::new(Mutex::new(BTreeMap::new()));
        let (stop, lie) = (Arc::new(Notify::new()), Arc::new(Mutex::new(None)));
        let fake = Fake {
            seen: sender,
            files: Arc::clone(&files),
            lie: Arc::clone(&lie),
            is_stuck,
            stop: Arc::clone(&stop),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let served = axum::serve(listener, routes(fake));
        tokio::spawn(async move {
            served.with_graceful_shutdown(async move { stop.notified().await }).await
        });
        Self { url: format!("http://{address}"), seen, files, lie }
    }

    pub(crate) async fn next(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }
}

fn routes(fake: Fake) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "ok", "version": "9.9.9"})) }))
        .route("/v1/sandboxes", post(create).get(list))
        .route("/v1/sandboxes/{id}", delete(destroy).get(inspect))
        .route("/v1/sandboxes/{id}/freeze", post(inspect))
        .route("/v1/sandboxes/{id}/stop", post(inspect))
        .route("/v1/sandboxes/{id}/start", post(inspect))
        .route("/v1/sandboxes/{id}/exec", post(exec))
        .route("/v1/sandboxes/{id}/run", post(refuse_code))
        .route("/v1/sandboxes/{id}/archive", get(pack).put(unpack))
        .route("/v1/sandboxes/{id}/terminals", post(start_terminal))
        .route("/v1/sandboxes/{id}/terminals/{tid}", get(attach))
        .route("/v1/sandboxes/{id}/processes", post(start))
        .route("/v1/sandboxes/{id}/files:list", get(list_files))
        .route("/v1/sandboxes/{id}/files/{*path}", get(read).put(write))
        .route("/v1/images:build", post(build))
        .route("/v1/node:shutdown", post(shut_down))
        .with_state(fake)
}

/// Its image has no interpreters.
async fn refuse_code() -> Response {
    refusal(StatusCode::NOT_IMPLEMENTED, "INTERPRETER_NOT_AVAILABLE", "there is no python3")
}

fn sandbox(id: &str) -> Value {
    json!({"id": id, "state": "running", "image": "default", "network": "internet", "env": {},
        "labels": {}, "createdAtMs": 5,
        "resources": {"memoryBytes": 1 << 30, "pids": 100, "cpuMillis": 1000},
        "usage": {"memoryBytes": 1536, "pids": 3, "cpuMs": 1, "oomKills": 0}})
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({"code": code, "message": message, "requestId": "r1"});
    (status, Json(json!({"error": error}))).into_response()
}

async fn create(State(fake): State<Fake>, Json(body): Json<Value>) -> Response {
    let id = body["id"].as_str().unwrap_or("generated").to_owned();
    fake.seen.send(Seen::Created(body)).unwrap();
    (StatusCode::CREATED, Json(sandbox(&id))).into_response()
}

async fn start_terminal() -> Response {
    let terminal = json!({"id": "t", "pid": 2, "command": "cat", "cols": 80, "rows": 24,
        "viewers": 0, "running": true, "createdAtMs": 5, "firstCursor": 0, "nextCursor": 1});
    (StatusCode::CREATED, Json(terminal)).into_response()
}

/// A terminal that sends back what is typed, after an `r`.
async fn attach(upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.on_upgrade(async |mut socket| {
        let ready = Message::Text("{\"type\":\"ready\"}".into());
        for message in [Message::Binary(Bytes::from_static(b"r")), ready] {
            socket.send(message).await.unwrap();
        }
        while let Some(Ok(message @ Message::Binary(_))) = socket.recv().await {
            socket.send(message).await.unwrap();
        }
    });
    ([("x-sandbar-cursor", "0")], upgrade).into_response()
}

async fn list(Query(query): Query<BTreeMap<String, String>>) -> Response {
    if query.contains_key("label") {
        return Json(json!({"sandboxes": [sandbox("labelled")]})).into_response();
    }
    Json(json!({"sandboxes": [sandbox("one"), sandbox("two")]})).into_response()
}

async fn inspect(Path(id): Path<String>) -> Response {
    if id == "missing" {
        return refusal(StatusCode::NOT_FOUND, "SANDBOX_NOT_FOUND", "no sandbox is called missing");
    }
    Json(sandbox(&id)).into_response()
}

async fn destroy(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    if id == "missing" {
        return refusal(StatusCode::NOT_FOUND, "SANDBOX_NOT_FOUND", "no sandbox is called missing");
    }
    fake.seen.send(Seen::Destroyed(id)).unwrap();
    if fake.is_stuck {
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn start() -> Response {
    let process = json!({"id": "p", "kind": "process", "pid": 7, "command": "true",
        "running": true, "startedAtMs": 5,
        "log": {"firstCursor": 0, "nextCursor": 0, "droppedBytes": 0}});
    (StatusCode::CREATED, Json(process)).into_response()
}

/// What `cat` writes, a file an event.
fn contents(fake: &Fake, body: &Value) -> Vec<Value> {
    let files = fake.files.lock().unwrap();
    let words = body["command"].as_array().unwrap().iter().skip(1);
    let texts = words.map(|path| match &files[path.as_str().unwrap()] {
        Entry::File(_, content) if body["encoding"] == "base64" => BASE64_STANDARD.encode(content),
        Entry::File(_, content) => String::from_utf8(content.clone()).unwrap(),
        Entry::Directory | Entry::Link(_) => String::new(),
    });
    texts.map(|data| json!({"type": "stdout", "data": data, "timeMs": 1})).collect()
}

fn event(value: &Value) -> Result<Bytes, std::io::Error> {
    let name = value["type"].as_str().unwrap();
    Ok(Bytes::from(format!("event: {name}\ndata: {value}\n\n")))
}

fn exit(ending: &Value, exit_code: i32) -> Value {
    json!({"type": "exit", "success": exit_code == 0, "exitCode": exit_code, "ending": ending,
        "durationMs": 1, "usage": {"cpuMs": 0, "peakMemoryBytes": 0}})
}

/// Says that the connection of an endless command is gone, by being dropped with it.
struct OnDrop(mpsc::UnboundedSender<Seen>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        // The test may be over.
        drop(self.0.send(Seen::Cancelled));
    }
}

async fn exec(State(fake): State<Fake>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    fake.seen.send(Seen::Executed(body.clone())).unwrap();
    let program = body["command"].as_array().and_then(|words| words[0].as_str()).unwrap_or("shell");
    if program == "missing-program" {
        return refusal(StatusCode::NOT_FOUND, "COMMAND_NOT_FOUND", "no program is called that");
    }
    if headers.get(header::ACCEPT).is_none_or(|kind| kind != "text/event-stream") {
        return buffered(program, &body);
    }
    let start = json!({"type": "start", "pid": 7, "processId": "p"});
    // "out\n" with a byte that is not UTF-8, and "err\n".
    let stdout = json!({"type": "stdout", "data": "/291dAo=", "timeMs": 1});
    let stderr = json!({"type": "stderr", "data": "ZXJyCg==", "timeMs": 1});
    let events = match program {
        "endless" => {
            let guard = OnDrop(fake.seen.clone());
            let repeated = stream::repeat(stdout).map(move |value| {
                let _held_until_the_body_goes = &guard;
                event(&value)
            });
            return event_stream(Body::from_stream(repeated));
        }
        "silent" => {
            let guard = OnDrop(fake.seen.clone());
            let first = stream::iter([event(&start), event(&stdout)]);
            let rest = stream::once(async move {
                let _held_until_the_body_goes = guard;
                std::future::pending().await
            });
            return event_stream(Body::from_stream(first.chain(rest)));
        }
        "cat" => {
            [contents(&fake, &body), vec![exit(&json!({"type": "exited", "code": 0}), 0)]].concat()
        }
        // What bash says of the time.
        "bash" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let data = format!("{}.{:06}\n", now.as_secs(), now.subsec_micros());
            let exit = exit(&json!({"type": "exited", "code": 0}), 0);
            vec![start, json!({"type": "stdout", "data": data, "timeMs": 1}), exit]
        }
        "slow" => vec![start, stdout, exit(&json!({"type": "timeout"}), 124)],
        "cut" => vec![start, stdout],
        _ => vec![start, stdout, stderr, exit(&json!({"type": "exited", "code": 3}), 3)],
    };
    event_stream(Body::from_stream(stream::iter(events.into_iter().map(|value| event(&value)))))
}

fn buffered(program: &str, body: &Value) -> Response {
    let is_echo = body["session"] == "default" && body["command"] == "echo hi";
    let code = if is_echo || program == "true" { 0 } else { 3 };
    Json(json!({"success": code == 0, "exitCode": code,
        "ending": {"type": "exited", "code": code}, "processId": "p", "stdout": "out\n", "stderr": "err\n",
        "droppedBytes": 0, "durationMs": 1, "usage": {"cpuMs": 0, "peakMemoryBytes": 0}}))
    .into_response()
}

fn event_stream(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn list_files(
    State(fake): State<Fake>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let files = fake.files.lock().unwrap().clone();
    let path = match query["path"].trim_end_matches("/.").trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    match files.get(path) {
        _ if path == "/" => {}
        Some(Entry::Directory) => {}
        Some(_) => return refusal(StatusCode::BAD_REQUEST, "NOT_DIRECTORY", "not a directory"),
        None => return refusal(StatusCode::NOT_FOUND, "FILE_NOT_FOUND", "no such file"),
    }
    let is_recursive = query.contains_key("recursive");
    let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    let below: Vec<_> = files
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .filter(|(name, _)| is_recursive || !name[prefix.len()..].contains('/'))
        .collect();
    let limit: usize = query.get("limit").map_or(2, |limit| limit.parse().unwrap());
    let begin: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let entries: Vec<Value> =
        below.iter().skip(begin).take(limit).map(|(name, entry)| wire(name, entry)).collect();
    let mut page = json!({"entries": entries});
    if begin + limit < below.len() {
        page["nextCursor"] = json!((begin + limit).to_string());
    }
    Json(page).into_response()
}

fn wire(path: &str, entry: &Entry) -> Value {
    let name = path.rsplit('/').next().unwrap();
    let (kind, mode, size) = match entry {
        Entry::File(mode, content) => ("file", *mode, content.len()),
        Entry::Directory => ("directory", 0o755, 0),
        Entry::Link(_) => ("symlink", 0o777, 0),
    };
    let mut value = json!({"name": name, "path": path, "type": kind, "size": size, "mode": mode,
        "modifiedMs": 1});
    if let Entry::Link(target) = entry {
        value["linkTarget"] = json!(target);
    }
    value
}

async fn pack(State(fake): State<Fake>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if let Some(Lie { archive, breaks_off }) = fake.lie.lock().unwrap().clone() {
        let pieces = stream::iter([Ok(Bytes::from(archive))]);
        let end = stream::once(async move {
            // What came before goes out first.
            tokio::task::yield_now().await;
            if breaks_off { Err(std::io::Error::other("gone")) } else { Ok(Bytes::new()) }
        });
        return Body::from_stream(pieces.chain(end)).into_response();
    }
    let prefix = format!("{}/", query["path"].trim_end_matches("/."));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, entry) in fake.files.lock().unwrap().iter() {
        let Some(name) = path.strip_prefix(&prefix) else { continue };
        let mut header = tar::Header::new_ustar();
        match entry {
            Entry::File(mode, content) => {
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, &**content).unwrap();
            }
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                archive.append_data(&mut header, name, std::io::empty()).unwrap();
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    archive.into_inner().unwrap().into_response()
}

async fn unpack(
    State(fake): State<Fake>,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let top = query["path"].trim_end_matches('/').to_owned();
    let mut made = BTreeMap::from([(top.clone(), Entry::Directory)]);
    let (mut counts, mut bytes) = ([0; 3], 0);
    for entry in tar::Archive::new(&*body).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().trim_ascii_end().to_vec()).unwrap();
        let name = name.trim_end_matches('/');
        let mode = entry.header().mode().unwrap() & 0o777;
        let kind = entry.header().entry_type();
        let made_entry = if name == "." {
            continue;
        } else if kind.is_dir() {
            counts[1] += 1;
            Entry::Directory
        } else if kind.is_symlink() {
            counts[2] += 1;
            Entry::Link(entry.link_name().unwrap().unwrap().display().to_string())
        } else {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            counts[0] += 1;
            bytes += content.len();
            Entry::File(mode, content)
        };
        made.insert(format!("{top}/{name}"), made_entry);
    }
    fake.files.lock().unwrap().extend(made);
    let [files, directories, symlinks] = counts;
    Json(json!({"files": files, "directories": directories, "symlinks": symlinks, "hardLinks": 0,
        "bytes": bytes, "leftOutCount": 0, "leftOut": []}))
    .into_response()
}

async fn read(State(fake): State<Fake>, Path((_, path)): Path<(String, String)>) -> Response {
    match fake.files.lock().unwrap().get(&format!("/{path}")) {
        Some(Entry::File(mode, content)) => {
            ([("x-sandbar-mode", format!("{mode:o}"))], content.clone()).into_response()
        }
        Some(_) => refusal(StatusCode::BAD_REQUEST, "IS_DIRECTORY", "a directory"),
        None => refusal(StatusCode::NOT_FOUND, "FILE_NOT_FOUND", "no such file"),
    }
}

async fn write(
    State(fake): State<Fake>,
    Path((_, path)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Json<Value> {
    let mode = query.get("mode").map_or(0o644, |mode| u32::from_str_radix(mode, 8).unwrap());
    let (path, entry) = (format!("/{path}"), Entry::File(mode, body.to_vec()));
    let written = wire(&path, &entry);
    fake.files.lock().unwrap().insert(path, entry);
    Json(written)
}

async fn build(Json(body): Json<Value>) -> Response {
    let recipe = body["recipe"].as_str().unwrap();
    let last = if recipe.contains("false") {
        json!({"type": "failed", "message": "RUN false ended with 1"})
    } else {
        json!({"type": "done", "image": {"name": body["name"], "digest": "sha256:00", "layers": 2,
            "sizeBytes": 2048, "createdAtMs": 1}})
    };
    let events = [
        json!({"type": "step", "index": 1, "total": 1, "instruction": "RUN x", "cached": false}),
        json!({"type": "log", "line": "working\u{1b}[2J"}),
        last,
    ];
    event_stream(Body::from_stream(stream::iter(events.map(|value| event(&value)))))
}

async fn shut_down(State(fake): State<Fake>, Json(body): Json<Value>) -> StatusCode {
    fake.seen.send(Seen::ShutDown(body)).unwrap();
    fake.stop.notify_one();
    StatusCode::ACCEPTED
}
