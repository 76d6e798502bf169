//! The disk answers too late, or not at all: what its caller was told has not been done, is not done
//! after a restart either, and what is done next is.

use serde_json::json;
use testkit::Server;

use crate::{failpoints::Points, server};

/// The host name of the sandbox's one exposed port.
async fn host(server: &Server) -> String {
    let list = server.get("/v1/sandboxes/s/ports").await;
    let url = list.json["ports"][0]["url"].as_str().expect(&list.text);
    // A server that was started again listens at another port.
    url.rsplit_once(':').expect(url).0.to_owned()
}

fn restart(server: &mut Server) {
    server.stop();
    server.restart();
}

#[tokio::test]
async fn a_port_changed_too_late_is_as_it_was() {
    let mut server = server();
    let points = Points::of(&server);
    let exposed = server.post("/v1/sandboxes/s/ports", &json!({"port": 8080})).await;
    assert_eq!(exposed.status, 201, "{}", exposed.text);
    let first = host(&server).await;
    let rotate = "/v1/sandboxes/s/ports/8080/rotate";
    points.arm("record.port.done", "error");
    let late = server.post(rotate, &json!({})).await;
    assert_eq!(late.code(), "TIMEOUT", "{}", late.text);
    assert_eq!(host(&server).await, first);
    restart(&mut server);
    assert_eq!(host(&server).await, first);

    points.arm("record.port.done", "error");
    server.post(rotate, &json!({})).await;
    let rotated = server.post(rotate, &json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    let second = host(&server).await;
    assert_ne!(second, first);
    restart(&mut server);
    assert_eq!(host(&server).await, second);

    // One that was never exposed.
    points.arm("record.port.done", "error");
    let late = server.post("/v1/sandboxes/s/ports", &json!({"port": 9090})).await;
    assert_eq!(late.code(), "TIMEOUT", "{}", late.text);
    restart(&mut server);
    let list = server.get("/v1/sandboxes/s/ports").await;
    assert_eq!(list.json["ports"].as_array().map(Vec::len), Some(1), "{}", list.text);
}

#[tokio::test]
async fn settings_changed_too_late_are_as_they_were() {
    let mut server = server();
    let made = server.post("/v1/sandboxes", &json!({"id": "s", "labels": {"a": "1"}})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    Points::of(&server).arm("record.settings.done", "error");
    let late = server.patch("/v1/sandboxes/s", &json!({"labels": {"a": "2"}})).await;
    assert_eq!(late.code(), "TIMEOUT", "{}", late.text);
    restart(&mut server);
    assert_eq!(server.get("/v1/sandboxes/s").await.json["labels"], json!({"a": "1"}));
}

#[tokio::test]
async fn the_id_of_a_fork_that_failed_and_could_not_be_forgotten_at_once_is_free() {
    let mut server = server();
    server.shell("s", "echo kept > file").await;
    let checkpoint = server.post("/v1/sandboxes/s/checkpoints", &json!({"id": "c"})).await;
    assert_eq!(checkpoint.status, 201, "{}", checkpoint.text);
    let fork = json!({"ids": ["f"], "checkpoint": "c"});
    let points = Points::of(&server);
    points.arm("record.files", "error");
    points.arm("record.bury", "error");
    let failed = server.post("/v1/sandboxes/s/fork", &fork).await;
    assert_eq!(failed.status, 500, "{}", failed.text);
    let events = server.get("/v1/events?sandbox=f").await;
    let kinds = events.json["events"].as_array().expect(&events.text).iter();
    let kinds: Vec<_> = kinds.map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["created", "destroyed"]);
    let again = server.post("/v1/sandboxes/s/fork", &fork).await;
    assert_eq!(again.status, 201, "{}", again.text);
    assert_eq!(server.shell("f", "cat file").await, "kept\n");
    restart(&mut server);
    assert_eq!(server.shell("f", "cat file").await, "kept\n");
}
