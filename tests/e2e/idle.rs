//! What becomes of sandboxes that nobody uses.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use testkit::{PATIENCE, Preview, Server, Viewer, reqwest::Method};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::server;

/// Short enough to wait for.
const SOON_MS: u64 = 400;

/// Longer than any test.
const LATER_MS: u64 = 3_600_000;

async fn create(server: &Server, idle: Value) {
    let made = server.post("/v1/sandboxes", &json!({"id": "s", "idle": idle})).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// Changes what becomes of it.
async fn settings(server: &Server, idle: Value) {
    let changed = server.patch("/v1/sandboxes/s", &json!({"idle": idle})).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
}

async fn look(server: &Server) -> Value {
    server.get("/v1/sandboxes/s").await.json
}

/// Looks, which is no use, until the state is this one, which must be one that stays.
async fn until(server: &Server, state: &str) -> Value {
    let begin = Instant::now();
    loop {
        let seen = look(server).await;
        let found = seen["state"].as_str().unwrap_or("gone");
        if found == state {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "it is not {state}: {seen}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Looks until so many requests are under way. The beginning of one is known when it has come, its end a
/// moment after its caller has gone.
async fn requests(server: &Server, number: u64) {
    let come = async {
        while look(server).await["activity"]["requests"] != number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, come).await.is_ok(), "not {number}: {}", look(server).await);
}

#[tokio::test]
async fn an_idle_sandbox_is_frozen_and_told_when_and_why() {
    let server = server();
    create(&server, json!({"sleepAfterMs": 60_000})).await;
    server.shell("s", "true").await;
    let seen = look(&server).await;
    let activity = &seen["activity"];
    assert_eq!((&activity["requests"], &seen["state"]), (&json!(0), &json!("running")), "{seen}");
    let expected = activity["lastUsedAtMs"].as_i64().unwrap() + 60_000;
    assert_eq!(
        activity["next"],
        json!({"rung": "freeze", "reason": "idle", "atMs": expected}),
        "{seen}"
    );

    let sooner = json!({"idle": {"sleepAfterMs": SOON_MS}});
    let changed = server.patch("/v1/sandboxes/s", &sooner).await;
    assert_eq!(changed.json["idle"]["sleepAfterMs"], SOON_MS, "{}", changed.text);
    let frozen = until(&server, "frozen").await;

    assert!(frozen["activity"]["next"]["rung"] != "freeze", "{frozen}");
    assert_eq!(server.shell("s", "echo back").await, "back\n");
}

#[tokio::test]
async fn a_sandbox_goes_down_the_whole_ladder() {
    let server = server();
    create(&server, json!({"sleepAfterMs": LATER_MS, "stopAfterMs": LATER_MS})).await;
    server.shell("s", "head -c 8M /dev/urandom > file; cat file > /dev/null; sleep 1000 &").await;
    let full = look(&server).await["usage"]["memoryBytes"].as_u64().unwrap();

    // Where it stays until it has been looked at.
    settings(&server, json!({"sleepAfterMs": SOON_MS})).await;
    let frozen = until(&server, "frozen").await;
    assert!(frozen["usage"]["memoryBytes"].as_u64().unwrap() <= full, "{frozen}");
    let rungs = server.request(Method::GET, "/v1/events?sandbox=s&kind=stopped,destroyed");
    let mut rungs = testkit::events(rungs).await.unwrap();
    settings(&server, json!({"stopAfterMs": SOON_MS, "destroyAfterMs": SOON_MS})).await;
    for kind in ["stopped", "destroyed"] {
        let told = timeout(PATIENCE, rungs.next()).await.unwrap().unwrap();
        assert_eq!((&told["kind"], &told["cause"]), (&json!(kind), &json!("idle")), "{told}");
    }
    until(&server, "gone").await;

    assert_eq!(server.shell("s", "ls file || echo nothing").await, "nothing\n");
}

#[tokio::test]
async fn the_memory_of_a_frozen_sandbox_is_pushed_out() {
    let server = server();
    create(&server, json!({"sleepAfterMs": LATER_MS})).await;
    server.shell("s", "head -c 32M /dev/urandom > file; sync; cat file > /dev/null").await;
    let full = look(&server).await["usage"]["memoryBytes"].as_u64().unwrap();
    assert!(full > 16 << 20, "{full}");
    settings(&server, json!({"sleepAfterMs": SOON_MS})).await;

    let begin = Instant::now();
    loop {
        let seen = until(&server, "frozen").await;
        let left = seen["usage"]["memoryBytes"].as_u64().unwrap();
        if left < full / 4 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{left} of {full} bytes are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.shell("s", "stat -c %s file").await, "33554432\n");
}

#[tokio::test]
async fn what_happens_first_is_the_callers_to_say() {
    let server = server();
    create(&server, json!({"sleepAfterMs": SOON_MS, "onIdle": "stop"})).await;
    server.shell("s", "echo kept > file").await;
    until(&server, "stopped").await;
    let destroy = json!({"idle": {"onIdle": "destroy"}});
    assert_eq!(server.patch("/v1/sandboxes/s", &destroy).await.status, 200);
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
    until(&server, "gone").await;
}

#[tokio::test]
async fn what_is_used_is_not_idle() {
    let server = server();
    create(&server, json!({"sleepAfterMs": SOON_MS})).await;
    let viewer = Viewer::attach(&server, "s").await;
    let command = server
        .request(Method::POST, "/v1/sandboxes/s/exec")
        .json(&json!({"command": "while [ ! -e go ]; do sleep 0.01; done; echo whole"}));
    let command = tokio::spawn(command.send());
    requests(&server, 2).await;
    // Many times as long as it would take.
    tokio::time::sleep(Duration::from_millis(4 * SOON_MS)).await;
    let seen = look(&server).await;
    assert_eq!(seen["state"], "running", "{seen}");
    assert_eq!(seen["activity"]["requests"], 2, "{seen}");
    assert!(seen["activity"]["next"].is_null(), "{seen}");

    server.put("/v1/sandboxes/s/files/workspace/go", "").await;
    let answer = command.await.unwrap().unwrap().text().await.unwrap();
    assert!(answer.contains("whole"), "{answer}");
    assert_eq!(look(&server).await["activity"]["requests"], 1);
    drop(viewer);
    until(&server, "frozen").await;
}

/// A WebSocket to the application, over which it has answered once.
async fn open_socket(preview: &Preview<'_>) -> WebSocketStream<TcpStream> {
    let url = format!("ws://{}/ws", preview.host);
    let joined = client_async(url, preview.connect().await).await;
    let (mut socket, _) = joined.expect("it answers");
    echo(&mut socket).await;
    socket
}

async fn echo(socket: &mut WebSocketStream<TcpStream>) {
    socket.send(Message::text("there?")).await.expect("it is sent");
    let answer = timeout(PATIENCE, socket.next()).await.expect("it answers");
    assert_eq!(answer.expect("it is open").expect("it is whole"), Message::text("there?"));
}

#[tokio::test]
async fn an_open_preview_is_a_use_exactly_as_long_as_it_is_open() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let mut socket = open_socket(&preview).await;
    let mut events = preview.get("/events").await;
    events.chunk().await.unwrap();
    let poll = tokio::spawn(preview.request(Method::GET, "/poll").send());
    server.patch("/v1/sandboxes/s", &json!({"idle": {"sleepAfterMs": LEAST_MS}})).await;

    requests(&server, 3).await;
    tokio::time::sleep(Duration::from_millis(5 * LEAST_MS)).await;
    assert_eq!(look(&server).await["state"], "running");
    drop(events);
    requests(&server, 2).await;
    preview.get("/release").await;
    assert_eq!(poll.await.unwrap().unwrap().status(), 200);
    requests(&server, 1).await;
    tokio::time::sleep(Duration::from_millis(5 * LEAST_MS)).await;
    assert_eq!(look(&server).await["state"], "running");
    echo(&mut socket).await;
    drop(socket);
    until(&server, "frozen").await;
}

#[tokio::test]
async fn an_open_preview_is_no_use_where_that_was_asked_for() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let socket = open_socket(&preview).await;
    let mut events = preview.get("/events").await;
    events.chunk().await.unwrap();
    let poll = tokio::spawn(preview.request(Method::GET, "/poll").send());
    requests(&server, 3).await;
    let uncounted = json!({"idle": {"sleepAfterMs": SOON_MS, "countVisits": false}});
    let changed = server.patch("/v1/sandboxes/s", &uncounted).await;
    assert_eq!(changed.json["idle"]["countVisits"], false, "{}", changed.text);
    // What was open before that counts to its end.
    assert_eq!(look(&server).await["activity"]["requests"], 3);
    poll.abort();
    drop((socket, events));

    let mut socket = open_socket(&preview).await;
    let poll = tokio::spawn(preview.request(Method::GET, "/poll").send());
    let frozen = until(&server, "frozen").await;
    assert_eq!(frozen["activity"]["requests"], 0, "{frozen}");
    // A new request is a use in the moment it comes, and all that was open goes on.
    assert_eq!(preview.get("/release").await.status(), 200);
    assert_eq!(poll.await.unwrap().unwrap().status(), 200);
    echo(&mut socket).await;
    until(&server, "frozen").await;
}

#[tokio::test]
async fn what_is_kept_alive_is_left_alone_until_it_is_not() {
    let server = server();
    create(&server, json!({"sleepAfterMs": LEAST_MS, "keepAlive": true})).await;
    tokio::time::sleep(Duration::from_millis(5 * LEAST_MS)).await;
    let seen = look(&server).await;
    assert_eq!(seen["state"], "running", "{seen}");
    assert!(seen["activity"]["next"].is_null(), "{seen}");

    server.patch("/v1/sandboxes/s", &json!({"idle": {"keepAlive": false}})).await;
    until(&server, "frozen").await;
}

/// The shortest there is.
const LEAST_MS: u64 = 100;

#[tokio::test]
async fn processes_count_where_that_was_asked_for() {
    let server = server();
    create(&server, json!({"sleepAfterMs": LEAST_MS, "countProcesses": true})).await;
    let process = json!({"command": "sleep 1000", "id": "p"});
    assert_eq!(server.post("/v1/sandboxes/s/processes", &process).await.status, 201);
    tokio::time::sleep(Duration::from_millis(5 * LEAST_MS)).await;
    assert_eq!(look(&server).await["state"], "running");

    server.post("/v1/sandboxes/s/processes/p/kill", &json!({})).await;
    until(&server, "frozen").await;
}

#[tokio::test]
async fn a_visitor_wakes_a_sandbox_that_fell_asleep() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    server.patch("/v1/sandboxes/s", &json!({"idle": {"sleepAfterMs": LEAST_MS}})).await;
    until(&server, "frozen").await;
    assert!(preview.get("/headers").await.status().is_success());
    until(&server, "frozen").await;
}

#[tokio::test]
async fn a_time_to_live_is_the_end() {
    let server = server();
    let lives = |id: &str, ttl_ms: u64| {
        let (server, id) = (&server, id.to_owned());
        async move {
            let body = json!({"id": id, "ttlMs": ttl_ms, "idle": {"keepAlive": true}});
            server.post("/v1/sandboxes", &body).await
        }
    };
    let made = lives("s", LATER_MS).await;
    let next = &made.json["activity"]["next"];
    assert_eq!(
        (&next["rung"], &next["reason"]),
        (&json!("destroy"), &json!("ttl")),
        "{}",
        made.text
    );
    let ends = server.request(Method::GET, "/v1/events?kind=destroyed");
    let mut ends = testkit::events(ends).await.unwrap();
    for id in ["short", "s"] {
        if id == "s" {
            server.patch("/v1/sandboxes/s", &json!({"ttlMs": 2 * SOON_MS})).await;
        } else {
            lives(id, 2 * SOON_MS).await;
        }
        let told = timeout(PATIENCE, ends.next()).await.unwrap().unwrap();
        assert_eq!((&told["sandboxId"], &told["cause"]), (&json!(id), &json!("ttl")), "{told}");
        let is_gone = async {
            // It is told before it has ended.
            while server.get(&format!("/v1/sandboxes/{id}")).await.status != 404 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, is_gone).await.unwrap();
    }
}

#[tokio::test]
async fn times_and_words_that_make_no_sense_are_refused() {
    let server = server();
    create(&server, json!({})).await;
    for idle in [
        json!({"sleepAfterMs": 0}),
        json!({"sleepAfterMs": 99}),
        json!({"stopAfterMs": 99}),
        json!({"destroyAfterMs": 31_622_400_001_u64}),
        json!({"onIdle": "explode"}),
        json!({"sleepAfter": "10m"}),
    ] {
        let patched = server.patch("/v1/sandboxes/s", &json!({"idle": idle})).await;
        assert_eq!(patched.code(), "VALIDATION_FAILED", "{idle}: {}", patched.text);
        let made = server.post("/v1/sandboxes", &json!({"id": "t", "idle": idle})).await;
        assert_eq!(made.code(), "VALIDATION_FAILED", "{idle}: {}", made.text);
    }
    let never = server.patch("/v1/sandboxes/never", &json!({"idle": {"keepAlive": true}})).await;
    assert_eq!(never.code(), "SANDBOX_NOT_FOUND");
}

#[tokio::test]
async fn settings_and_labels_that_change_are_kept() {
    let mut server = server();
    create(&server, json!({"sleepAfterMs": 5_000, "stopAfterMs": 6_000})).await;
    let change = json!({"idle": {"keepAlive": true}, "labels": {"a": "b"}});
    let changed = server.patch("/v1/sandboxes/s", &change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);

    server.kill();
    server.restart();

    let found = look(&server).await;
    assert_eq!(found["idle"], changed.json["idle"]);
    assert_eq!(
        (&found["idle"]["sleepAfterMs"], &found["idle"]["keepAlive"]),
        (&json!(5_000), &json!(true))
    );
    assert_eq!(found["labels"], json!({"a": "b"}));
    let listed = server.get("/v1/sandboxes?label=a%3Db").await;
    assert_eq!(listed.json["sandboxes"][0]["id"], "s");
    // A creation that asks for what it is finds it; one that asks for something else does not.
    let same = json!({"id": "s", "labels": {"a": "b"}, "idle": {"sleepAfterMs": 5_000}});
    assert_eq!(server.post("/v1/sandboxes", &same).await.status, 200);
    let other = json!({"id": "s", "labels": {"a": "b"}, "idle": {"sleepAfterMs": 5_001}});
    assert_eq!(server.post("/v1/sandboxes", &other).await.code(), "SANDBOX_EXISTS");
}
