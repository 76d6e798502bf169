//! A tenant with a key of its own reaches for what is another's, or the node's.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::{Raw, Server, answer, reqwest::Method};

use super::{answers, ask, exchange, ids, without_id};
use crate::server;

/// What only the sandbox `a-1` has.
const CANARY: &str = "canary-8f14e45fceea167a";

/// A tenant's sandbox with a secret in it, and the key of another tenant.
async fn tenants() -> (Server, String) {
    let server = server();
    let write = format!("echo {CANARY} > canary");
    server.shell("a-1", &write).await;
    let key = server.new_key("b", Some("b-")).await;
    (server, key)
}

/// A02
#[tokio::test]
async fn another_tenants_sandbox_is_not_there_on_any_route() {
    let (server, key) = tenants().await;
    let document = server.get("/openapi.json").await.json;
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/sandboxes/{id}") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut told = Vec::new();
            // The first is there and the second is not; the others only look like the tenant's.
            for id in ["a-1", "a-2", "b", "B-1", "xb-1"] {
                let path = path.replace("{id}", id).replace("{path}", "workspace/canary");
                let path = path.replace(['{', '}'], "");
                let request = server.request_with(&key, method.clone(), &path);
                let refused =
                    answer(request.json(&json!({"command": "true"})).send().await.unwrap()).await;
                let at = format!("{method} {path}: {}", refused.text);
                assert_eq!((refused.status, refused.code()), (404, "SANDBOX_NOT_FOUND"), "{at}");
                let text = without_id(&refused).to_string();
                told.push(
                    text.replace(&format!("\"{id}\""), "ID").replace(&format!(" {id} "), " ID "),
                );
                tried += 1;
            }
            told.dedup();
            assert_eq!(told.len(), 1, "there or not, the answer is the same: {told:#?}");
        }
    }
    assert!(tried > 30, "the document has the sandbox's routes");
    assert_eq!(
        ids(&server).await,
        BTreeSet::from(["a-1".to_owned()]),
        "none was made or destroyed"
    );
    assert_eq!(server.shell("a-1", "cat canary").await.trim(), CANARY);
    // The control: with the tenant's own prefix the same request is carried out.
    let own = server
        .request_with(&key, Method::POST, "/v1/sandboxes/b-1/exec")
        .json(&json!({"command": "echo own"}));
    assert_eq!(answer(own.send().await.unwrap()).await.json["stdout"], "own\n");
}

/// A02, A38
#[tokio::test]
async fn a_tenants_key_opens_nothing_of_the_node() {
    let (server, key) = tenants().await;
    let document = server.get("/openapi.json").await.json;
    let open = ["/", "/healthz", "/openapi.json", "/v1/sandboxes", "/v1/images", "/v1/events"];
    let mut tried = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/v1/sandboxes/{id}") || open.contains(&path.as_str()) {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{name}", "b");
            for body in [
                json!({}),
                json!({"name": "mine", "scope": {"type": "admin"}}),
                json!({"name": "mine", "recipe": "FROM host"}),
                json!({"sandboxes": "destroy"}),
            ] {
                let request = server.request_with(&key, method.clone(), &path).json(&body);
                let refused = answer(request.send().await.unwrap()).await;
                let at = format!("{method} {path}: {}", refused.text);
                assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"), "{at}");
            }
            tried.insert(path);
        }
    }
    for path in ["/metrics", "/v1/keys", "/v1/keys/b", "/v1/keys:rotate", "/v1/images:build"] {
        assert!(tried.contains(path), "{path} was not tried");
    }
    assert_eq!(server.get("/v1/keys").await.json["keys"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/healthz").await.json["status"], "ok");
}

/// A02
#[tokio::test]
async fn a_body_or_a_query_does_not_lead_out_of_a_prefix() {
    let (server, key) = tenants().await;
    let create = async |body: Value| {
        let request = server.request_with(&key, Method::POST, "/v1/sandboxes").json(&body);
        answer(request.send().await.unwrap()).await
    };
    let mut told = Vec::new();
    // `a-1` exists, with these settings; `a-2` does not.
    for id in ["a-1", "a-2", "b", "B-1"] {
        let refused = create(json!({ "id": id })).await;
        assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"), "{id}: {}", refused.text);
        told.push(without_id(&refused));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "there or not, the answer is the same: {told:#?}");
    for body in [
        r#"{"id": "b-1", "id": "a-2"}"#,
        r#"{"id": "b-1\u0000a"}"#,
        r#"{"id": "b-1/../a-1"}"#,
        r#"{"id": "b-"}"#,
        r#"{"prefix": "a-"}"#,
        r#"{"id": ["b-1", "a-1"]}"#,
    ] {
        let request = server
            .request_with(&key, Method::POST, "/v1/sandboxes")
            .header("content-type", "application/json")
            .body(body);
        let refused = answer(request.send().await.unwrap()).await;
        assert_eq!((refused.status, refused.code()), (400, "VALIDATION_FAILED"), "{body}");
    }
    let list = async |query: &str| {
        let request = server.request_with(&key, Method::GET, &format!("/v1/sandboxes{query}"));
        answer(request.send().await.unwrap()).await
    };
    for query in ["", "?cursor=a-0", "?cursor=a", "?limit=1000", "?cursor=A"] {
        assert_eq!(list(query).await.json["sandboxes"], json!([]), "{query}");
    }
    for query in ["?prefix=a-", "?id=a-1", "?cursor=", "?cursor=..", "?cursor=b-1&cursor=a-0"] {
        assert_eq!(list(query).await.code(), "VALIDATION_FAILED", "{query}");
    }
    assert_eq!(ids(&server).await, BTreeSet::from(["a-1".to_owned()]));
}

/// A11, A12, A13
#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_a_prefix() {
    let (server, key) = tenants().await;
    let own = server.request_with(&key, Method::POST, "/v1/sandboxes").json(&json!({"id": "b-1"}));
    assert_eq!(answer(own.send().await.unwrap()).await.status, 201);
    let targets = [
        "/v1/sandboxes/a-1",
        "/v1/sandboxes/A-1",
        "/v1/sandboxes/b-1/../a-1",
        "/v1/sandboxes/b-1/..",
        "/v1/sandboxes/./a-1",
        "/v1/sandboxes//a-1",
        "//v1/sandboxes/a-1",
        "/v1//sandboxes/a-1",
        "/v1/./sandboxes/a-1",
        "/v1/sandboxes/b-1/../../sandboxes/a-1",
        "/v1/sandboxes/b-1%2f..%2fa-1",
        "/v1/sandboxes/b-1%2F..%2Fa-1",
        "/v1/sandboxes/b-1/%2e%2e/a-1",
        "/v1/sandboxes/b-1/..%2fa-1",
        "/v1/sandboxes/b-1%5c..%5ca-1",
        "/v1/sandboxes/b-1\\..\\a-1",
        "/v1/sandboxes/%61-1",
        "/v1/sandboxes/%2561-1",
        "/v1/sandboxes/b-1;/../a-1",
        "/v1/sandboxes/b-1;id=a-1",
        "/v1/sandboxes/b-1%00a-1",
        "/v1/sandboxes/a-1%00b-1",
        "/v1/sandboxes/a-1%20",
        "/v1/sandboxes/a-1.",
        "/v1/sandboxes/b-%2e%2e%2fa-1",
        "/v1/sandboxes/a-1?b-1",
        "/V1/SANDBOXES/a-1",
        "/v1/sandboxes/..%2f..%2fv1%2fsandboxes%2fa-1",
        "/v1/keys/../sandboxes/a-1",
        "/v1/images/../sandboxes/a-1",
        "/healthz/../v1/sandboxes/a-1",
        "/healthz%2f..%2fv1/sandboxes/a-1",
        "/..;/v1/sandboxes/a-1",
    ];
    let tails = ["", "/files/workspace/canary", "/files:list?path=/workspace"];
    for (target, tail) in targets.iter().flat_map(|target| tails.map(|tail| (target, tail))) {
        for method in ["GET", "DELETE", "POST"] {
            let line = format!("{method} {target}{tail} HTTP/1.1");
            let length: &[&str] = if method == "POST" { &["content-length: 0"] } else { &[] };
            let got = ask(&server, &line, &key, length).await;
            assert!((400..500).contains(&got.status), "{line}: {}", got.text);
            assert!(!got.text.contains(CANARY), "{line}: {}", got.text);
        }
    }
    let line = "GET /v1/sandboxes/b-1?id=a-1 HTTP/1.1";
    assert_eq!(ask(&server, line, &key, &[]).await.json["id"], "b-1", "a query names no sandbox");
    // Inside its own file route, `..` is a path inside its own sandbox.
    for path in ["../../a-1/files/workspace/canary", "..%2f..%2fa-1%2fworkspace%2fcanary"] {
        let line = format!("GET /v1/sandboxes/b-1/files/workspace/{path} HTTP/1.1");
        let got = ask(&server, &line, &key, &[]).await;
        assert_eq!((got.status, got.code()), (404, "FILE_NOT_FOUND"), "{line}: {}", got.text);
    }
    let both = BTreeSet::from(["a-1".to_owned(), "b-1".to_owned()]);
    assert_eq!(ids(&server).await, both, "none was made or destroyed");
    assert_eq!(server.shell("a-1", "cat canary").await.trim(), CANARY);
    // The control: the same target in an admin's hand.
    let line = "GET /v1/sandboxes/a-1/files/workspace/canary HTTP/1.1";
    assert!(ask(&server, line, &server.key(), &[]).await.text.contains(CANARY));
}

/// A11
#[tokio::test]
async fn an_absolute_target_names_the_same_sandbox_to_whoever_decides_and_whoever_acts() {
    let (server, key) = tenants().await;
    let base = server.url();
    for target in [
        format!("{base}/v1/sandboxes/a-1/files/workspace/canary"),
        format!("{base}//v1/sandboxes/a-1/files/workspace/canary"),
        format!("{base}/v1/sandboxes/b-1/../a-1/files/workspace/canary"),
        "http://evil.example/v1/sandboxes/a-1/files/workspace/canary".to_owned(),
        format!("http://user@{}/v1/sandboxes/a-1", base.trim_start_matches("http://")),
        "/v1/sandboxes/b-1 /v1/sandboxes/a-1".to_owned(),
        "*".to_owned(),
    ] {
        let mut raw = Raw::open(&server).await;
        raw.send(&format!("GET {target} HTTP/1.1"), &key, &[]).await;
        let got = raw.rest_of_one().await;
        assert!(answers(&got).iter().all(|status| (400..500).contains(status)), "{target}: {got}");
        assert_eq!(answers(&got).len(), 1, "{target}: {got}");
        assert!(!got.contains(CANARY), "{target}: {got}");
    }
    // The control: the form itself is understood.
    let target = format!("{base}/v1/sandboxes");
    assert_eq!(ask(&server, &format!("GET {target} HTTP/1.1"), &key, &[]).await.status, 200);
    for line in
        ["TRACE /v1/sandboxes HTTP/1.1", "OPTIONS * HTTP/1.1", "OPTIONS /v1/sandboxes HTTP/1.1"]
    {
        let got = ask(&server, line, &server.key(), &[]).await;
        assert!((400..500).contains(&got.status), "{line}: {}", got.text);
        assert!(!got.text.contains(&server.key()), "{line} sends the request back");
    }
    let connect = exchange(
        &server,
        format!(
            "CONNECT {host} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n",
            host = base.trim_start_matches("http://"),
            key = server.key()
        ),
    );
    assert!(answers(&connect.await).iter().all(|status| (400..500).contains(status)));
}
