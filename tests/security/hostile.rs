//! Bytes that no well-meaning program sends.

use serde_json::json;
use testkit::reqwest::Method;

use crate::server;

/// A04
#[tokio::test]
async fn deep_json_is_refused_and_costs_nothing() {
    let server = server();
    server.shell("s", "true").await;
    let paths = ["/v1/sandboxes", "/v1/sandboxes/s/exec", "/v1/sandboxes/s/files:move"];
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"env\":[", "]}")] {
        let deep = |depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
        let bodies = [open.repeat(200), open.repeat(100_000), deep(200), deep(100_000)];
        for (body, path) in bodies.iter().flat_map(|body| paths.map(|path| (body, path))) {
            let request = server.request(Method::POST, path);
            let request = request.header("content-type", "application/json").body(body.clone());
            let answer = request.send().await.expect("a response comes");
            assert!(matches!(answer.status().as_u16(), 400 | 413), "{path}: {answer:?}");
        }
    }
    assert_eq!(server.shell("s", "echo alive").await, "alive\n");
    assert_eq!(server.post("/v1/sandboxes", &json!({"id": "t"})).await.status, 201);
}
