//! Bad input and the rules of the API itself: every fault has a clear error, and nothing is lost.

use serde_json::{Value, json};
use testkit::{
    answer,
    reqwest::{Client, Method},
};

use crate::server;

#[tokio::test]
async fn a_key_is_always_required() {
    let server = server();
    for (header, status) in [(None, 401), (Some("Bearer wrong"), 401), (Some("Basic x"), 401)] {
        let mut request = Client::new().get(format!("{}/v1/sandboxes", server.url()));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let answer = answer(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (status, "UNAUTHORIZED"), "{header:?}");
    }
    for public in ["/healthz", "/openapi.json", "/"] {
        let response = Client::new().get(format!("{}{public}", server.url())).send().await.unwrap();
        assert_eq!(response.status(), 200, "{public}");
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let server = server();
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        let request = server.request(Method::GET, "/v1/sandboxes").header(name, value);
        let answer = answer(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (403, "HOST_NOT_ALLOWED"), "{name}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_make_no_sandbox() {
    let server = server();

    let unknown = server.get("/v1/sandboxes/s/nothing").await;
    assert_eq!((unknown.status, unknown.code()), (404, "ROUTE_NOT_FOUND"), "{}", unknown.text);
    let method = server.delete("/v1/sandboxes/s/exec").await;
    assert_eq!((method.status, method.code()), (405, "METHOD_NOT_ALLOWED"), "{}", method.text);

    assert_eq!(server.get("/v1/sandboxes").await.json["sandboxes"], json!([]));
}

#[tokio::test]
async fn bad_bodies_and_ids_are_told_apart_and_change_nothing() {
    let server = server();
    let send = async |path: &str, kind: &str, body: Vec<u8>| {
        let request = server.request(Method::POST, path).header("content-type", kind).body(body);
        answer(request.send().await.unwrap()).await
    };
    let json = "application/json";
    let deep = format!("{{\"env\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    for (path, kind, body, status, code) in [
        ("/v1/sandboxes", json, "{", 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, "[]", 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, r#"{"id": 7}"#, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, r#"{"id": "a b"}"#, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, r#"{"colour": "red"}"#, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, r#"{"resources": {"pids": -1}}"#, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, r#"{"image": "no-such-image"}"#, 404, "IMAGE_NOT_FOUND"),
        ("/v1/sandboxes", json, r#"{"env": {"A=": "x"}}"#, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", json, &deep, 400, "VALIDATION_FAILED"),
        ("/v1/sandboxes", "text/plain", "{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("/v1/sandboxes/-bad-/exec", json, r#"{"command": "true"}"#, 400, "INVALID_SANDBOX_ID"),
        ("/v1/sandboxes/8080/exec", json, r#"{"command": "true"}"#, 400, "INVALID_SANDBOX_ID"),
        ("/v1/sandboxes/a%00b/exec", json, r#"{"command": "true"}"#, 400, "INVALID_SANDBOX_ID"),
    ] {
        let answer = send(path, kind, body.into()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {body}: {}",
            answer.text
        );
        assert!(answer.json["error"]["message"].as_str().is_some_and(|text| text.len() > 10));
        assert!(answer.json["error"]["requestId"].is_string(), "{}", answer.text);
    }
    let large = send("/v1/sandboxes", json, vec![b' '; 9 << 20]).await;
    assert_eq!((large.status, large.code()), (413, "PAYLOAD_TOO_LARGE"), "{}", large.text);
    assert_eq!(server.get("/v1/sandboxes").await.json["sandboxes"], json!([]));
    assert_eq!(server.get("/v1/sandboxes?limit=0").await.code(), "VALIDATION_FAILED");
    assert_eq!(server.get("/v1/sandboxes?colour=red").await.code(), "VALIDATION_FAILED");
}

#[tokio::test]
async fn the_document_describes_every_route_and_the_page_reads() {
    let server = server();

    let document = server.get("/openapi.json").await.json;

    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let paths = document["paths"].as_object().expect("there are paths");
    for path in [
        "/v1/sandboxes",
        "/v1/sandboxes/{id}",
        "/v1/sandboxes/{id}/exec",
        "/v1/sandboxes/{id}/files/{path}",
        "/v1/sandboxes/{id}/files:list",
        "/v1/sandboxes/{id}/files:mkdir",
        "/v1/images",
        "/v1/images:build",
        "/healthz",
        "/metrics",
    ] {
        let operations = paths.get(path).unwrap_or_else(|| panic!("{path} is not documented"));
        for operation in
            operations.as_object().into_iter().flatten().map(|(_, operation)| operation)
        {
            if operation.is_object() {
                assert_ne!(operation["summary"], Value::Null, "{path}");
            }
        }
    }
    let page = server.get("/").await.text;
    assert!(page.contains("<html") && page.contains("/v1/sandboxes/{id}/exec"));
}
