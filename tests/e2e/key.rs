//! Keys: made, listed, limited, ended.

use std::{os::fd::AsFd, process::Output};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use testkit::{
    Answer, Raw, Server, answer,
    api::{
        error::ErrorCode,
        exec::{Command, ExecRequest},
        limit::{CREATES_PER_KEY, JSON_BYTES_PER_KEY},
        sandbox::{CreateSandbox, ListSandboxes, Sandbox},
    },
    client::{Client, ClientError},
    reqwest::{Method, Response},
};

use crate::server;

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result.expect_err("it is refused") {
        ClientError::Api { error, .. } => error.code,
        other => unreachable!("not the server's refusal: {other}"),
    }
}

fn named(id: &str) -> CreateSandbox {
    let id = id.parse().expect("an id");
    CreateSandbox { id: Some(id), ..CreateSandbox::default() }
}

fn shell(command: &str) -> ExecRequest {
    ExecRequest::new(Command::Shell(command.to_owned()))
}

fn ids(sandboxes: &[Sandbox]) -> Vec<&str> {
    sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect()
}

/// GET with a key.
async fn get(server: &Server, key: &str, path: &str) -> Answer {
    let request = server.request_with(key, Method::GET, path);
    answer(request.send().await.expect("a response comes")).await
}

/// An exec whose events are followed, read up to the first of them.
async fn follow(server: &Server, key: &str, id: &str, command: &str) -> Response {
    let request = server
        .request_with(key, Method::POST, &format!("/v1/sandboxes/{id}/exec"))
        .header("accept", "text/event-stream")
        .json(&json!({ "command": command }));
    let mut response = request.send().await.expect("a response comes");
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.is_ok_and(|event| event.is_some()), "a first event comes");
    response
}

/// Reads a stream that is cut off, and fails when it ends as if it were whole.
async fn cut_off(mut response: Response) {
    while let Ok(chunk) = response.chunk().await {
        assert!(chunk.is_some(), "a stream that was cut off looks whole");
    }
}

#[tokio::test]
async fn a_key_is_made_listed_used_and_removed_and_its_secret_told_once() {
    let server = server();
    let body = json!({
        "name": "ci", "scope": {"type": "sandboxes", "prefix": "ci-"}, "expiresInSecs": 3600
    });

    let made = server.post("/v1/keys", &body).await;

    assert_eq!(made.status, 201, "{}", made.text);
    let secret = made.json["secret"].as_str().unwrap();
    assert!(secret.starts_with("sbk_") && secret.len() >= 4 + 64, "{secret}");
    let key = &made.json["key"];
    assert_eq!(key["scope"], body["scope"]);
    let lifetime = key["expiresAtMs"].as_i64().unwrap() - key["createdAtMs"].as_i64().unwrap();
    assert_eq!(lifetime, 3_600_000);
    assert_eq!(key["lastUsedAtMs"], Value::Null);

    assert_eq!(get(&server, secret, "/v1/sandboxes").await.status, 200);
    let listed = server.get("/v1/keys").await;
    let names: Vec<_> =
        listed.json["keys"].as_array().unwrap().iter().map(|key| &key["name"]).collect();
    assert_eq!(names, ["ci", "local"]);
    let used = listed.json["keys"][0]["lastUsedAtMs"].as_i64().unwrap();
    assert_eq!(used % 3_600_000, 0);
    assert!(!listed.text.contains(secret) && !listed.text.contains("sbk_"));

    let again = server.post("/v1/keys", &body).await;
    assert_eq!((again.status, again.code()), (409, "KEY_EXISTS"), "{}", again.text);
    assert_eq!(server.delete("/v1/keys/ci").await.status, 204);
    assert_eq!(get(&server, secret, "/v1/sandboxes").await.code(), "UNAUTHORIZED");
    let missing = server.delete("/v1/keys/ci").await;
    assert_eq!((missing.status, missing.code()), (404, "KEY_NOT_FOUND"));
    let local = server.delete("/v1/keys/local").await;
    assert_eq!((local.status, local.code()), (403, "FORBIDDEN"), "{}", local.text);
}

#[tokio::test]
async fn a_key_that_is_not_well_described_is_not_made() {
    let server = server();
    let scope = json!({"type": "admin"});
    for body in [
        json!({"name": "ci"}),
        json!({"name": "ci", "scope": "admin"}),
        json!({"name": "ci", "scope": {"type": "admin", "prefix": "ci-"}}),
        json!({"name": "ci", "scope": {"type": "sandboxes"}}),
        json!({"name": "ci", "scope": {"type": "sandboxes", "prefix": ""}}),
        json!({"name": "ci", "scope": {"type": "sandboxes", "prefix": "ci"}}),
        json!({"name": "ci", "scope": {"type": "sandboxes", "prefix": format!("{}-", "a".repeat(40))}}),
        json!({"name": "../ci", "scope": scope}),
        json!({"name": "", "scope": scope}),
        json!({"name": "ci", "scope": scope, "expiresInSecs": 0}),
        json!({"name": "ci", "scope": scope, "expiresInSecs": 315_360_001}),
        json!({"name": "ci", "scope": scope, "secret": "sbk_of_my_own"}),
    ] {
        let answer = server.post("/v1/keys", &body).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_FAILED"), "{body}");
    }
    assert_eq!(server.get("/v1/keys").await.json["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_holder_of_a_prefix_works_with_its_sandboxes_as_if_there_were_no_others() {
    let server = server();
    let key = server.new_key("ci", Some("ci-")).await;
    let (admin, ci) = (server.client(), server.client_with(&key));
    admin.exec(&"other".parse().unwrap(), &shell("true")).await.unwrap();
    admin.exec(&"ci".parse().unwrap(), &shell("true")).await.unwrap();

    // By first use, by name, and with an id that is chosen for it.
    let first = "ci-first".parse().unwrap();
    assert_eq!(ci.exec(&first, &shell("echo made")).await.unwrap().stdout, "made\n");
    ci.create_sandbox(&named("ci-named")).await.unwrap();
    let chosen = ci.create_sandbox(&CreateSandbox::default()).await.unwrap().id;
    assert!(chosen.as_str().starts_with("ci-"), "{chosen}");
    assert_eq!(ci.sandbox(&first).await.unwrap().id, first);
    assert!(!ci.list_images().await.unwrap().images.is_empty());

    let seen = ci.all_sandboxes(None).await.unwrap();
    let mut expected = [chosen.as_str(), "ci-first", "ci-named"];
    expected.sort_unstable();
    assert_eq!(ids(&seen), expected);
    assert_eq!(admin.all_sandboxes(None).await.unwrap().len(), 5);

    ci.destroy_sandbox(&first).await.unwrap();
    assert_eq!(code(ci.sandbox(&first).await), ErrorCode::SandboxNotFound);
    // An admin sees to everybody's.
    admin.destroy_sandbox(&"ci-named".parse().unwrap()).await.unwrap();
    assert_eq!(ids(&ci.all_sandboxes(None).await.unwrap()), [chosen.as_str()]);
}

#[tokio::test]
async fn labels_pages_and_cursors_do_not_widen_what_a_key_sees() {
    let server = server();
    let key = server.new_key("b", Some("b-")).await;
    let ci = server.client_with(&key);
    for id in ["a-1", "b-1", "b-2", "c-1"] {
        let mut request = named(id);
        request.labels.insert("team".to_owned(), "x".to_owned());
        server.client().create_sandbox(&request).await.unwrap();
    }

    let all = ci.all_sandboxes(Some("team=x")).await.unwrap();
    assert_eq!(ids(&all), ["b-1", "b-2"]);
    for (cursor, expected) in
        [("a-0", &["b-1", "b-2"][..]), ("b-1", &["b-2"]), ("b-2", &[]), ("c-0", &[])]
    {
        let query = ListSandboxes { cursor: Some(cursor.to_owned()), ..ListSandboxes::default() };
        let page = ci.list_sandboxes(&query).await.unwrap();
        assert_eq!(ids(&page.sandboxes), expected, "{cursor}");
    }
    let page = ListSandboxes { limit: Some(2), ..ListSandboxes::default() };
    assert_eq!(ci.list_sandboxes(&page).await.unwrap().next_cursor, None);
}

#[tokio::test]
async fn a_removed_key_is_refused_on_connections_it_had_opened_before() {
    let server = server();
    let key = server.new_key("ci", Some("ci-")).await;
    let mut kept = Raw::open(&server).await;
    kept.send("GET /v1/sandboxes HTTP/1.1", &key, &[]).await;
    assert_eq!(kept.answer().await.unwrap().status, 200);

    assert_eq!(server.delete("/v1/keys/ci").await.status, 204);

    kept.send("GET /v1/sandboxes HTTP/1.1", &key, &[]).await;
    let refused = kept.answer().await.unwrap();
    assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn what_is_under_way_with_a_key_ends_when_it_is_removed_and_its_sandboxes_stay() {
    let server = server();
    let (key, other) =
        (server.new_key("ci", Some("ci-")).await, server.new_key("other", Some("ci-")).await);
    // Its own process id is in the file of its name from when it runs.
    let runs =
        |name: &str, what: &str| format!("echo $$ > {name}.new; mv {name}.new {name}; {what}");
    let cut = follow(&server, &key, "ci-1", &runs("cut", "exec sleep 1000")).await;
    let busy = runs("busy", "while :; do echo more; done");
    let busy = follow(&server, &key, "ci-1", &busy).await;
    let untouched = follow(&server, &other, "ci-1", &runs("other", "exec sleep 1000")).await;
    let client = server.client_with(&key);
    let buffered = runs("buffered", "exec sleep 1000");
    let buffered =
        tokio::spawn(async move { client.exec(&"ci-1".parse().unwrap(), &shell(&buffered)).await });
    let run = "for i in $(seq 6000); do [ -e cut ] && [ -e busy ] && [ -e other ] && \
               [ -e buffered ] && exit 0; sleep 0.01; done; exit 1";
    server.shell("ci-1", run).await;

    assert_eq!(server.delete("/v1/keys/ci").await.status, 204);

    cut_off(cut).await;
    cut_off(busy).await;
    assert_eq!(code(buffered.await.unwrap()), ErrorCode::Unauthorized);
    for name in ["cut", "busy", "buffered"] {
        let gone = format!(
            "for i in $(seq 6000); do [ -e /proc/$(cat {name}) ] || exit 0; sleep 0.01; done; exit 1"
        );
        server.shell("ci-1", &gone).await;
    }
    // The other key's goes on.
    server.shell("ci-1", "kill -0 $(cat other)").await;
    drop(untouched);
}

#[tokio::test]
async fn a_key_expires() {
    let server = server();
    server.shell("s", "true").await;
    // Long enough for the request on a busy machine.
    let body = json!({"name": "short", "scope": {"type": "admin"}, "expiresInSecs": 6});
    let made = server.post("/v1/keys", &body).await;
    let key = made.json["secret"].as_str().unwrap();
    let stream = follow(&server, key, "s", "echo on; exec sleep 1000").await;

    // Its end is the event that is waited for.
    cut_off(stream).await;

    let mut refused = get(&server, key, "/v1/sandboxes").await;
    while refused.status == 200 {
        // The timer of the stream may be ahead of the clock by a millisecond.
        refused = get(&server, key, "/v1/sandboxes").await;
    }
    assert_eq!(refused.code(), "UNAUTHORIZED");
    assert_eq!(server.get("/v1/keys").await.json["keys"][1]["name"], "short");
    assert_eq!(server.delete("/v1/keys/short").await.status, 204);
}

#[tokio::test]
async fn keys_survive_a_crash_and_removed_ones_do_not_come_back() {
    let mut server = server();
    let kept = server.new_key("kept", Some("ci-")).await;
    let gone = server.new_key("gone", None).await;
    assert_eq!(get(&server, &kept, "/v1/sandboxes").await.status, 200);
    assert_eq!(server.delete("/v1/keys/gone").await.status, 204);
    let before = server.get("/v1/keys").await.json["keys"].clone();

    server.kill();
    server.restart();

    assert_eq!(get(&server, &kept, "/v1/sandboxes").await.status, 200);
    assert_eq!(get(&server, &kept, "/metrics").await.code(), "FORBIDDEN");
    assert_eq!(get(&server, &gone, "/v1/sandboxes").await.code(), "UNAUTHORIZED");
    let after = server.get("/v1/keys").await.json["keys"].clone();
    assert_eq!(after[0], before[0], "name, scope, times");
    assert_eq!(after[1]["createdAtMs"], before[1]["createdAtMs"]);
}

#[tokio::test]
async fn no_secret_is_stored_or_logged_and_the_log_names_the_key() {
    let mut server = Server::start_with(
        env!("CARGO_BIN_EXE_sandbar"),
        &[("LOG_FORMAT", "json"), ("LOG_LEVEL", "trace")],
    );
    let key = server.new_key("ci", Some("ci-")).await;
    let request = server
        .request_with(&key, Method::GET, "/v1/sandboxes/ci-none")
        .header("x-request-id", "by-ci");
    assert_eq!(answer(request.send().await.unwrap()).await.status, 404);
    let wrong = "sbk_wrong_0123456789abcdef0123456789abcdef";
    assert_eq!(get(&server, wrong, "/v1/sandboxes").await.status, 401);
    assert_eq!(server.delete("/v1/keys/ci").await.status, 204);
    // A request is logged behind its answer.
    drop(server.log_until("a key was removed"));
    let log = server.log_until("\"request_id\":\"by-ci\",\"method\"");

    let line = log.lines().find(|line| line.contains("\"by-ci\"") && line.contains("duration"));
    let line: Value = serde_json::from_str(line.expect("the request is logged")).unwrap();
    assert_eq!(line["key"], "ci");
    let made = log.lines().find(|line| line.contains("a key was created")).expect("it is logged");
    let made: Value = serde_json::from_str(made).unwrap();
    assert_eq!((&made["key"], &made["by"]), (&json!("ci"), &json!("local")));

    server.stop();
    let local = std::fs::read_to_string(server.state_dir().join("key")).unwrap();
    for secret in [key.as_str(), wrong, local.trim()] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    let digits = key.trim_start_matches("sbk_").as_bytes();
    for file in ["sandbar.db", "sandbar.db-wal", "endpoint"] {
        let bytes = std::fs::read(server.state_dir().join(file)).unwrap_or_default();
        assert!(!bytes.windows(digits.len()).any(|part| part == digits), "{file}");
    }
}

#[tokio::test]
async fn the_local_key_is_replaced_for_everybody_who_reads_its_file() {
    let mut server = server();
    let old = server.key();
    let stream = follow(&server, &old, "s", "echo on; exec sleep 1000").await;

    let rotated = server.client().rotate_key().await.unwrap();

    cut_off(stream).await;
    assert_eq!(server.key(), rotated.secret);
    assert_ne!(old, rotated.secret);
    assert_eq!(get(&server, &old, "/v1/sandboxes").await.code(), "UNAUTHORIZED");
    assert_eq!(server.client().all_sandboxes(None).await.unwrap().len(), 1);
    server.kill();
    server.restart();
    assert_eq!(server.key(), rotated.secret);
    assert_eq!(get(&server, &old, "/v1/sandboxes").await.code(), "UNAUTHORIZED");
    assert_eq!(get(&server, &rotated.secret, "/v1/sandboxes").await.status, 200);
}

#[tokio::test]
async fn a_local_key_that_the_configuration_decides_is_not_replaced() {
    let key = "configured-0123456789abcdef0123456789abcdef";
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("KEY", key)]);

    let refused = server.post("/v1/keys:rotate", &json!({})).await;

    assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"), "{}", refused.text);
    assert_eq!(server.key(), key);
    assert_eq!(server.get("/v1/sandboxes").await.status, 200);
}

#[tokio::test]
async fn one_key_cannot_take_the_requests_of_others() {
    let server =
        Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("MAX_REQUESTS_PER_KEY", "2")]);
    let (greedy, modest) =
        (server.new_key("greedy", Some("g-")).await, server.new_key("modest", Some("m-")).await);
    let wait = "echo on; while [ ! -e go ]; do sleep 0.01; done";
    let streams =
        [follow(&server, &greedy, "g-1", wait).await, follow(&server, &greedy, "g-1", wait).await];

    let refused = server.request_with(&greedy, Method::GET, "/v1/sandboxes").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused = answer(refused).await;
    assert_eq!((refused.status, refused.code()), (429, "TOO_MANY_REQUESTS"), "{}", refused.text);
    assert_eq!(refused.json["error"]["details"]["limit"], 2);

    assert_eq!(get(&server, &modest, "/v1/sandboxes").await.status, 200);
    // An admin key has the node's limit alone.
    let admin = [
        follow(&server, &server.key(), "g-1", wait).await,
        follow(&server, &server.key(), "g-1", wait).await,
    ];
    server.shell("g-1", "touch go").await;
    for stream in streams.into_iter().chain(admin) {
        assert!(stream.text().await.unwrap().contains("event: exit"));
    }
    // The place is free once the server has seen that the answer is sent.
    while get(&server, &greedy, "/v1/sandboxes").await.status == 429 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&server, &greedy, "/v1/sandboxes").await.status, 200);
}

/// Stops the processes that make sandboxes, or has them go on.
fn signal_launchers(server: &Server, signal: i32) {
    let path = format!("/proc/{pid}/task/{pid}/children", pid = server.keeper_pid());
    let children = std::fs::read_to_string(path).expect("the kernel lists children");
    for child in children.split_whitespace() {
        // What looked after the images when the server started may have ended.
        if let Ok(pidfd) = sys::pidfd::open(child.parse().expect("a number")) {
            sys::signal::send(pidfd.as_fd(), signal).expect("it can be signalled");
        }
    }
}

#[tokio::test]
async fn one_key_cannot_take_the_memory_for_bodies_of_others() {
    const MIB: usize = 1 << 20;
    let server = server();
    let (greedy, modest) =
        (server.new_key("greedy", Some("g-")).await, server.new_key("modest", Some("m-")).await);
    // No creation, for it has no such field.
    let body = format!(r#"{{"nothing": true{}}}"#, " ".repeat(2 * MIB));
    let tried = async |key: &str| {
        let request = server.request_with(key, Method::POST, "/v1/sandboxes");
        let request = request.header("content-type", "application/json").body(body.clone());
        answer(request.send().await.expect("a response comes")).await
    };
    assert_eq!(tried(&greedy).await.code(), "VALIDATION_FAILED");

    // Half a body each, and one more of them than there is room for.
    let mut unfinished = Vec::new();
    let length = format!("content-length: {}", 2 * MIB);
    for _ in 0..=JSON_BYTES_PER_KEY / MIB {
        let mut raw = Raw::open(&server).await;
        let headers = ["content-type: application/json", &length];
        assert!(raw.send("POST /v1/sandboxes HTTP/1.1", &greedy, &headers).await);
        raw.write(vec![b' '; MIB]).await;
        unfinished.push(raw);
    }
    let refused = loop {
        let tried = tried(&greedy).await;
        if tried.status == 429 {
            break tried;
        }
    };
    assert_eq!(refused.code(), "TOO_MANY_REQUESTS");
    assert_eq!(refused.json["error"]["details"]["limitBytes"], JSON_BYTES_PER_KEY);
    assert_eq!(tried(&modest).await.code(), "VALIDATION_FAILED");
    assert_eq!(tried(&server.key()).await.code(), "VALIDATION_FAILED");

    drop(unfinished);
    while tried(&greedy).await.status == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_key_cannot_take_the_creations_of_others() {
    let server = server();
    let key = server.new_key("greedy", Some("g-")).await;
    let (greedy, admin) = (server.client_with(&key), server.client());
    signal_launchers(&server, sys::signal::SIGSTOP);
    let create = async |client: &Client, id: String| client.create_sandbox(&named(&id)).await;
    let mut creations: FuturesUnordered<_> =
        (0..=CREATES_PER_KEY).map(|number| create(&greedy, format!("g-{number}"))).collect();

    // Nothing is made now, so the one that ends is the one that was refused.
    let refused = creations.next().await.unwrap();
    assert_eq!(code(refused), ErrorCode::TooManyRequests);
    let others = create(&admin, "other".to_owned());
    signal_launchers(&server, sys::signal::SIGCONT);

    others.await.unwrap();
    while let Some(created) = creations.next().await {
        created.unwrap();
    }
    assert_eq!(greedy.all_sandboxes(None).await.unwrap().len(), CREATES_PER_KEY);
    greedy.create_sandbox(&CreateSandbox::default()).await.unwrap();
}

fn sandbar(server: &Server, key: Option<&str>, args: &[&str]) -> Output {
    let mut command = server.command(args);
    command.envs(key.map(|key| ("SANDBAR_KEY", key)));
    command.output().expect("the binary starts")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn keys_are_managed_from_the_command_line() {
    let server = server();

    let created =
        sandbar(&server, None, &["key", "create", "ci", "--prefix", "ci-", "--expires", "30d"]);

    let key = text(&created);
    assert!(key.starts_with("sbk_") && !key.contains('\n'), "the secret alone: {key}");
    let note = String::from_utf8_lossy(&created.stderr).into_owned();
    assert!(note.contains("ci-") && !note.contains(&key), "{note}");
    // `run` chooses an id that the key is for.
    assert_eq!(text(&sandbar(&server, Some(&key), &["run", "--", "echo", "ran"])), "ran");
    assert_eq!(text(&sandbar(&server, Some(&key), &["exec", "ci-1", "echo made"])), "made");
    let refused = sandbar(&server, Some(&key), &["key", "ls"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("admin"));

    let listed = text(&sandbar(&server, None, &["key", "ls"]));
    let row = listed.lines().find(|line| line.starts_with("ci ")).unwrap();
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!((row[1], row[3], row[4]), ("ci-*", "<1h", "in"), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with("local")), "{listed}");
    let listed: Value =
        serde_json::from_str(&text(&sandbar(&server, None, &["key", "ls", "--json"]))).unwrap();
    assert_eq!(listed["keys"][0]["scope"]["prefix"], "ci-");

    assert_eq!(text(&sandbar(&server, None, &["key", "rm", "ci"])), "ci");
    assert!(!sandbar(&server, Some(&key), &["ps"]).status.success());

    let old = server.key();
    let rotated = text(&sandbar(&server, None, &["key", "rotate"]));
    assert!(!rotated.contains(&server.key()), "{rotated}");
    assert_ne!(server.key(), old);
    assert!(text(&sandbar(&server, None, &["ps"])).contains("ci-1"));
    let shown = text(&sandbar(&server, Some(&server.key()), &["key", "rotate"]));
    assert_eq!(shown, server.key(), "who does not read the file is shown the secret");
}

#[tokio::test]
async fn a_key_has_as_many_sandboxes_as_it_may_and_no_more() {
    let server = server();
    let made = server
        .command(["key", "create", "ci", "--prefix", "ci-", "--max-sandboxes", "2"])
        .output()
        .expect("the binary starts");
    assert!(made.status.success(), "{made:?}");
    let key = String::from_utf8(made.stdout).expect("a secret is text");
    let client = server.client_with(key.trim());
    client.create_sandbox(&named("ci-a")).await.expect("one");
    // Whoever makes it: the limit is of the sandboxes that the key is for.
    server.shell("ci-b", "true").await;
    server.shell("other", "true").await;

    assert_eq!(code(client.create_sandbox(&named("ci-c")).await), ErrorCode::QuotaExceeded);
    assert_eq!(
        code(client.create_sandbox(&CreateSandbox::default()).await),
        ErrorCode::QuotaExceeded
    );
    let id = "ci-c".parse().expect("an id");
    assert_eq!(code(client.exec(&id, &shell("true")).await), ErrorCode::QuotaExceeded);
    let fork = server.request_with(key.trim(), Method::POST, "/v1/sandboxes/ci-a/fork");
    let fork = fork.json(&json!({})).send().await.expect("a response comes");
    let fork = answer(fork).await;
    assert_eq!((fork.status, fork.code()), (403, "QUOTA_EXCEEDED"), "{}", fork.text);
    assert_eq!(fork.json["error"]["details"]["limit"], 2, "{}", fork.text);
    // What is there works on, and an admin is not bound by it.
    client.create_sandbox(&named("ci-a")).await.expect("it is there");
    server.shell("ci-d", "true").await;
    for id in ["ci-b", "ci-d"] {
        assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
    }
    client.create_sandbox(&named("ci-c")).await.expect("one more fits again");

    let scope = json!({"type": "sandboxes", "prefix": "no-", "maxSandboxes": 0});
    let none = server.post("/v1/keys", &json!({"name": "none", "scope": scope})).await;
    assert_eq!(none.json["key"]["scope"], scope, "{}", none.text);
    let client = server.client_with(none.json["secret"].as_str().expect("a secret"));
    assert_eq!(code(client.create_sandbox(&named("no-a")).await), ErrorCode::QuotaExceeded);
}
