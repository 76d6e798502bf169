//! What happens to sandboxes, told.

use serde_json::{Value, json};
use testkit::{Server, answer, events, reqwest::Method};

use crate::server;

/// Pairs of kind and cause of the events that a query finds.
async fn told(server: &Server, query: &str) -> Vec<(String, String)> {
    let answer = server.get(&format!("/v1/events{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["more"], false, "{}", answer.text);
    let events = answer.json["events"].as_array().expect("a list of events");
    events.iter().map(pair).collect()
}

fn pair(event: &Value) -> (String, String) {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("cause"))
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, cause)| ((*kind).to_owned(), (*cause).to_owned())).collect()
}

#[tokio::test]
async fn a_life_is_told_with_its_reasons() {
    let server = server();
    let ci = server.new_key("ci", Some("ci-")).await;
    server.shell("ci-a", "true").await;
    for change in ["freeze", "thaw", "freeze"] {
        server.post(&format!("/v1/sandboxes/ci-a/{change}"), &json!({})).await;
    }
    server.shell("ci-a", "true").await;
    server.patch("/v1/sandboxes/ci-a", &json!({"labels": {"team": "x"}})).await;
    server.post("/v1/sandboxes/ci-a/checkpoints", &json!({"id": "c1"})).await;
    server.post("/v1/sandboxes/ci-a/restore", &json!({"checkpoint": "c1"})).await;
    server.delete("/v1/sandboxes/ci-a/checkpoints/c1").await;
    let gone = server.request_with(&ci, Method::DELETE, "/v1/sandboxes/ci-a").send().await.unwrap();
    assert_eq!(gone.status(), 204);

    let answer = server.get("/v1/events").await;
    let events = answer.json["events"].as_array().unwrap().clone();
    let expected = [
        ("created", "use"),
        ("started", "use"),
        ("frozen", "request"),
        ("thawed", "request"),
        ("frozen", "request"),
        ("thawed", "use"),
        ("changed", "request"),
        ("checkpointCreated", "request"),
        ("stopped", "request"),
        ("restored", "request"),
        ("checkpointRemoved", "request"),
        ("destroyed", "request"),
    ];
    assert_eq!(events.iter().map(pair).collect::<Vec<_>>(), pairs(&expected));
    let keys: Vec<&Value> = events.iter().map(|event| &event["key"]).collect();
    assert_eq!((keys[0], keys[11]), (&json!("local"), &json!("ci")), "{}", answer.text);
    assert_eq!(events[7]["checkpoint"], "c1", "{}", answer.text);
    assert_eq!(events[11]["labels"], json!({"team": "x"}), "{}", answer.text);
    let cursors: Vec<u64> = events.iter().map(|event| event["cursor"].as_u64().unwrap()).collect();
    assert_eq!(cursors, (1..=12).collect::<Vec<_>>());

    assert_eq!(told(&server, "?label=team=x").await.len(), 6);
    assert_eq!(told(&server, "?kind=frozen,created&after=1").await.len(), 2);
    assert_eq!(told(&server, "?sandbox=ci-b").await, pairs(&[]));
    // As the command line shows them.
    let shown = server.command(["events", "--kind", "destroyed"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.trim_end().ends_with("destroyed          ci-a  request  by=ci"), "{shown}");
}

#[tokio::test]
async fn a_fork_is_told_with_its_origin_and_one_that_fails_with_the_failure() {
    let server = server();
    server.shell("a", "echo x > f").await;
    let fork = json!({"ids": ["b"]});
    assert_eq!(server.post("/v1/sandboxes/a/fork", &fork).await.status, 201);
    let answer = server.get("/v1/events?sandbox=b&kind=created").await;
    assert_eq!(answer.json["events"][0]["source"], "a", "{}", answer.text);
    // One of two ids is taken, so neither fork stays.
    let failed = server.post("/v1/sandboxes/a/fork", &json!({"ids": ["c", "b"]})).await;
    assert_eq!(failed.code(), "SANDBOX_EXISTS", "{}", failed.text);
    let expected =
        pairs(&[("created", "request"), ("started", "request"), ("destroyed", "failure")]);
    assert_eq!(told(&server, "?sandbox=c").await, expected);
}

#[tokio::test]
async fn what_becomes_of_an_idle_sandbox_is_told() {
    let server = server();
    let mut live = events(server.request(Method::GET, "/v1/events?sandbox=s")).await.unwrap();
    let idle = json!({"sleepAfterMs": 200, "stopAfterMs": 200});
    server.post("/v1/sandboxes", &json!({"id": "s", "idle": idle, "ttlMs": 3_600_000})).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(kind, _)| kind != "destroyed") {
        seen.push(pair(&live.next().await.unwrap()));
        if seen.last().is_some_and(|(kind, _)| kind == "stopped") {
            // It is older than that by now.
            server.patch("/v1/sandboxes/s", &json!({"ttlMs": 200})).await;
        }
    }
    let expected = [
        ("created", "request"),
        ("started", "request"),
        ("frozen", "idle"),
        ("stopped", "idle"),
        ("changed", "request"),
        ("destroyed", "ttl"),
    ];
    assert_eq!(seen, pairs(&expected));
}

#[tokio::test]
async fn a_stream_goes_on_after_its_last_event_without_gap_or_repetition() {
    let server = server();
    server.shell("a", "true").await;
    let follow =
        |last: u64| server.request(Method::GET, "/v1/events").header("last-event-id", last);
    let mut first = events(follow(0)).await.unwrap();
    assert_eq!(first.next().await.unwrap()["kind"], "created");
    let cursor = first.cursor.unwrap();
    drop(first);
    server.post("/v1/sandboxes/a/freeze", &json!({})).await;

    let mut second = events(follow(cursor)).await.unwrap();
    assert_eq!(second.next().await.unwrap()["kind"], "started");
    assert_eq!(second.next().await.unwrap()["kind"], "frozen");
    server.post("/v1/sandboxes/a/thaw", &json!({})).await;
    assert_eq!(second.next().await.unwrap()["kind"], "thawed");
    assert_eq!(second.cursor, Some(cursor + 3));
}

#[tokio::test]
async fn a_key_is_told_of_its_own_sandboxes_alone() {
    let server = server();
    let key = server.new_key("ci", Some("ci-")).await;
    let request = server.request_with(&key, Method::GET, "/v1/events");
    let mut live = events(request).await.unwrap();
    server.shell("other", "true").await;
    server.shell("ci-a", "true").await;
    assert_eq!(live.next().await.unwrap()["sandboxId"], "ci-a");
    let request = server.request_with(&key, Method::GET, "/v1/events?sandbox=other");
    let others = answer(request.send().await.unwrap()).await;
    assert_eq!(others.json["events"], json!([]), "{}", others.text);

    // Nor is it told where a fork comes from that somebody else made of what it does not see.
    server.post("/v1/sandboxes/other/checkpoints", &json!({"id": "plan"})).await;
    let fork = json!({"ids": ["ci-b"], "checkpoint": "plan"});
    assert_eq!(server.post("/v1/sandboxes/other/fork", &fork).await.status, 201);
    server.post("/v1/sandboxes/ci-a/fork", &json!({"ids": ["ci-c"]})).await;
    let request = server.request_with(&key, Method::GET, "/v1/events?kind=created");
    let created = answer(request.send().await.unwrap()).await;
    let created = created.json["events"].as_array().unwrap();
    let told = |name: &str| created.iter().map(|event| event[name].clone()).collect::<Vec<_>>();
    assert_eq!(told("sandboxId"), ["ci-a", "ci-b", "ci-c"]);
    assert_eq!(told("source"), [Value::Null, Value::Null, json!("ci-a")]);
    assert_eq!([told("checkpoint"), told("key")].concat(), [const { Value::Null }; 6]);
}

#[tokio::test]
async fn pages_join_and_bad_queries_are_refused() {
    let server = server();
    server.shell("a", "true").await;
    server.delete("/v1/sandboxes/a").await;
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = server.get(&format!("/v1/events?limit=1&after={after}")).await.json;
        seen.extend(page["events"].as_array().unwrap().iter().map(pair));
        after = page["cursor"].as_u64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, pairs(&[("created", "use"), ("started", "use"), ("destroyed", "request")]));
    for (query, code) in [
        ("limit=0", "VALIDATION_FAILED"),
        ("limit=1001", "VALIDATION_FAILED"),
        ("kind=born", "VALIDATION_FAILED"),
        ("kind=", "VALIDATION_FAILED"),
        ("label=", "VALIDATION_FAILED"),
        ("sandbox=-", "VALIDATION_FAILED"),
        ("after=-1", "VALIDATION_FAILED"),
        ("after=4", "EVENTS_MISSED"),
        ("unknown=1", "VALIDATION_FAILED"),
    ] {
        assert_eq!(server.get(&format!("/v1/events?{query}")).await.code(), code, "{query}");
    }
    assert_eq!(server.get("/v1/events?after=3&limit=1000").await.json["events"], json!([]));
    let stream = server.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
    let refused = stream.header("last-event-id", "x").send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn processes_killed_for_want_of_memory_are_told_once() {
    let server = server();
    let small = json!({"id": "s", "resources": {"memoryBytes": 67_108_864}});
    assert_eq!(server.post("/v1/sandboxes", &small).await.status, 201);
    let query = "/v1/events?kind=outOfMemory,stopped";
    let mut live = events(server.request(Method::GET, query)).await.unwrap();
    let hog = json!({"command": "tail /dev/zero"});
    let ran = server.post("/v1/sandboxes/s/exec", &hog).await;
    assert_ne!(ran.json["exitCode"], 0, "{}", ran.text);
    let told = live.next().await.unwrap();
    assert_eq!(pair(&told), ("outOfMemory".to_owned(), "outOfMemory".to_owned()));
    assert!(told["message"].as_str().unwrap().contains("killed"), "{told}");

    // Also what is ended before the next look comes.
    server.post("/v1/sandboxes/s/exec", &json!({"command": "tail /dev/zero"})).await;
    server.post("/v1/sandboxes/s/stop", &json!({})).await;
    assert_eq!(live.next().await.unwrap()["kind"], "outOfMemory");
    assert_eq!(live.next().await.unwrap()["kind"], "stopped");
}
