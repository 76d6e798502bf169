//! The table behind its layers, without an engine: everything that is decided before there is a
//! sandbox.

use std::sync::Arc;

use api::error::{ApiError, ErrorBody};
use axum::body::Body;
use engine::{Keys, Place, Places, Presented, Secret};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use link::Links;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::*;
use crate::{
    app::{self, Parts},
    docs::Docs,
    hosts::Hosts,
    key::KeyFile,
    metrics::Metrics,
    middleware,
    preview::{Domain, Previews, TrustedProxies},
};

const KEY: &str = "sbk_0123456789abcdef0123456789abcdef";

struct Server {
    router: Router,
    app: App,
    asked: mpsc::Receiver<api::node::ShutdownSandboxes>,
    document: OpenApi,
    dir: tempfile::TempDir,
}

/// A server whose engine never opens, so that the key `local` is the only one.
fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let secret = Secret::new(KEY).unwrap();
    std::fs::write(dir.path().join("key"), KEY).unwrap();
    std::fs::set_permissions(
        dir.path().join("key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let established = KeyFile::establish(dir.path(), None).unwrap();
    let (router, document) = table();
    let (_, engine) = watch::channel(None);
    let (shutdown, asked) = mpsc::channel(1);
    let app = App::new(Parts {
        engine,
        links: Links::new("/nonexistent".into()),
        keys: Keys::new(&secret, established.created_at_ms, 2),
        key_file: Arc::new(established.file),
        hosts: Hosts::new(
            "127.0.0.1:8787".parse().unwrap(),
            Vec::new(),
            vec!["https://app.example.org".to_owned()],
        ),
        metrics: Metrics::new(),
        previews: Previews::new(
            Domain::new(false, "localhost", 8787),
            false,
            2,
            TrustedProxies::default(),
        ),
        docs: Docs::new(&document, "http://127.0.0.1:8787"),
        requests: Places::new(2, 0),
        bodies: app::bodies(),
        shutdown,
    });
    Server { router: middleware::around(router, &app), app, asked, document, dir }
}

/// A request with the key and a JSON body.
fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:8787")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn without(mut request: Request<Body>, header: &str) -> Request<Body> {
    request.headers_mut().remove(header);
    request
}

fn with(mut request: Request<Body>, header: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

impl Server {
    /// Takes every place.
    fn fill(&self) -> Vec<Place> {
        let Presented::Key(local) = self.app.keys.find(KEY.as_bytes()) else {
            panic!("a known key")
        };
        std::iter::from_fn(|| local.place(&self.app.requests).ok()).collect()
    }

    async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn error(&self, request: Request<Body>) -> ApiError {
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let ErrorBody { error } = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, error.code.status());
        assert_eq!(error.request_id.as_deref(), Some(id.as_str()));
        error
    }
}

#[tokio::test]
async fn who_and_where_are_checked_first() {
    let server = server();
    let list = || request("GET", "/v1/sandboxes", "");
    let exec = |id: &str| request("POST", &format!("/v1/sandboxes/{id}/exec"), "{}");
    let long = "a".repeat(64);
    for (what, request, code) in [
        ("no key", without(list(), "authorization"), ErrorCode::Unauthorized),
        // The keys on record are not read yet, so it may be one.
        ("another key", with(list(), "authorization", "Bearer sbk_no"), ErrorCode::Starting),
        (
            "no key, no route",
            without(request("GET", "/nope", ""), "authorization"),
            ErrorCode::Unauthorized,
        ),
        ("another Host", with(list(), "host", "evil.example:8787"), ErrorCode::HostNotAllowed),
        (
            "another Host, public",
            with(request("GET", "/healthz", ""), "host", "evil.example"),
            ErrorCode::HostNotAllowed,
        ),
        (
            "another Origin",
            with(list(), "origin", "http://evil.example"),
            ErrorCode::HostNotAllowed,
        ),
        ("no route", request("GET", "/v1/nope", ""), ErrorCode::RouteNotFound),
        ("no sandbox route", request("GET", "/v1/sandboxes/a/nope", ""), ErrorCode::RouteNotFound),
        ("an empty id", exec(""), ErrorCode::InvalidSandboxId),
        (
            "double slashes",
            request("POST", "/v1/sandboxes/a//exec", "{}"),
            ErrorCode::RouteNotFound,
        ),
        ("a slash at the end", request("GET", "/v1/sandboxes/", ""), ErrorCode::RouteNotFound),
        ("a method", request("PUT", "/v1/sandboxes", "{}"), ErrorCode::MethodNotAllowed),
        (
            "a sandbox's method",
            request("GET", "/v1/sandboxes/a/exec", ""),
            ErrorCode::MethodNotAllowed,
        ),
        ("a bad id", request("GET", "/v1/sandboxes/-a", ""), ErrorCode::InvalidSandboxId),
        ("a bad name", request("DELETE", "/v1/keys/a%2Fb", ""), ErrorCode::ValidationFailed),
        ("a bad id to forward", exec("8080"), ErrorCode::InvalidSandboxId),
        ("a long id", exec(&long), ErrorCode::InvalidSandboxId),
        ("an encoded id", exec("a%2Fb"), ErrorCode::InvalidSandboxId),
        ("a dotted id", exec(".."), ErrorCode::InvalidSandboxId),
    ] {
        assert_eq!(server.error(request).await.code, code, "{what}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_its_code() {
    let server = server();
    let create = |body| request("POST", "/v1/sandboxes", body);
    let exec = || request("POST", "/v1/sandboxes/a/exec", "{}");
    for (what, request, code) in [
        ("no content type", without(create("{}"), "content-type"), ErrorCode::UnsupportedMediaType),
        (
            "a form",
            with(create("a=b"), "content-type", "application/x-www-form-urlencoded"),
            ErrorCode::UnsupportedMediaType,
        ),
        (
            "a text to forward",
            with(exec(), "content-type", "text/plain"),
            ErrorCode::UnsupportedMediaType,
        ),
        ("malformed JSON", create("{"), ErrorCode::ValidationFailed),
        ("no JSON", create(""), ErrorCode::ValidationFailed),
        ("a wrong type", create("{\"id\": 7}"), ErrorCode::ValidationFailed),
        ("an unknown field", create("{\"imagee\": \"x\"}"), ErrorCode::ValidationFailed),
        ("a bad id in JSON", create("{\"id\": \"-\"}"), ErrorCode::ValidationFailed),
        (
            "an unknown parameter",
            request("GET", "/v1/sandboxes?limmit=1", ""),
            ErrorCode::ValidationFailed,
        ),
        (
            "a wrong parameter",
            request("GET", "/v1/sandboxes?limit=many", ""),
            ErrorCode::ValidationFailed,
        ),
        ("the engine is not open", request("GET", "/v1/sandboxes", ""), ErrorCode::Starting),
    ] {
        assert_eq!(server.error(request).await.code, code, "{what}");
    }
}

#[tokio::test]
async fn a_json_body_over_its_limit_is_refused_whether_or_not_it_says_so() {
    let server = server();
    let huge = "x".repeat(api::limit::JSON_BODY_BYTES + 1);
    let chunks = futures_util::stream::iter(
        huge.as_bytes()
            .chunks(1 << 16)
            .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
            .collect::<Vec<_>>(),
    );
    let mut chunked = request("POST", "/v1/sandboxes", "");
    *chunked.body_mut() = Body::from_stream(chunks);

    let own = server.error(request("POST", "/v1/sandboxes", &huge)).await;
    let forwarded = server.error(request("POST", "/v1/sandboxes/a/exec", &huge)).await;
    let unannounced = server.error(chunked).await;

    assert_eq!(own.code, ErrorCode::PayloadTooLarge);
    assert_eq!(own.details["limitBytes"], api::limit::JSON_BODY_BYTES);
    assert_eq!(forwarded.code, ErrorCode::PayloadTooLarge);
    assert_eq!(unannounced.code, ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = server();
    for (path, allow) in [
        ("/v1/sandboxes", "GET,HEAD,POST"),
        ("/v1/sandboxes/a", "DELETE,GET,HEAD,PATCH"),
        ("/v1/sandboxes/a/exec", "POST"),
        ("/healthz", "GET,HEAD"),
    ] {
        let response = server.send(request("PUT", path, "")).await;

        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let mut allowed: Vec<_> =
            response.headers()["allow"].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{path}");
    }
}

#[tokio::test]
async fn public_routes_need_no_key_and_no_place() {
    let server = server();
    let _all = server.fill();
    for (path, content_type) in [
        ("/healthz", "application/json"),
        ("/openapi.json", "application/json"),
        ("/", "text/html; charset=utf-8"),
    ] {
        let response = server.send(without(request("GET", path, ""), "authorization")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], content_type);
    }
    let metrics = without(request("GET", "/metrics", ""), "authorization");
    assert_eq!(server.error(metrics).await.code, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn a_full_server_says_later_and_serves_again() {
    let server = server();
    let all = server.fill();
    assert_eq!(all.len(), 2);

    let response = server.send(request("GET", "/v1/sandboxes", "")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    drop(all);

    assert_eq!(server.error(request("GET", "/v1/sandboxes", "")).await.code, ErrorCode::Starting);
    assert_eq!(server.app.requests.free(), 2);
}

#[tokio::test]
async fn a_place_is_kept_until_the_answer_is_read() {
    let server = server();

    let response = server.send(request("GET", "/v1/nope", "")).await;
    let while_unread = server.app.requests.free();
    drop(response);

    // A failure's body replaces the one that held the place.
    assert_eq!(while_unread, 2);
    assert_eq!(server.app.requests.free(), 2);
}

#[tokio::test]
async fn the_local_key_is_replaced_and_who_asked_for_it_reads_the_new_one() {
    let server = server();

    let response = server.send(request("POST", "/v1/keys:rotate", "")).await;

    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let new: api::key::NewKey = serde_json::from_slice(&body).unwrap();
    let kept = std::fs::read_to_string(server.dir.path().join("key")).unwrap();
    assert_eq!(kept.trim(), new.secret);
    assert!(!matches!(server.app.keys.find(KEY.as_bytes()), Presented::Key(_)));
    let renewed = request("GET", "/v1/nope", "");
    let (mut head, body) = renewed.into_parts();
    head.headers.insert("authorization", format!("Bearer {}", new.secret).parse().unwrap());
    let error = server.error(Request::from_parts(head, body)).await;
    assert_eq!(error.code, ErrorCode::RouteNotFound);
}

#[tokio::test]
async fn what_is_under_way_with_a_key_that_ends_is_broken_off() {
    let server = server();
    let stream = || async {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("more"));
        Body::from_stream(endless)
    };
    let waiting = || std::future::pending::<()>();
    let table = Router::new()
        .route("/stream", axum::routing::get(stream))
        .route("/waiting", axum::routing::get(waiting));
    let router = middleware::around(table, &server.app);
    let send = |path| router.clone().oneshot(request("GET", path, ""));
    let mut body = send("/stream").await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let waiting = send("/waiting");

    let new = Secret::generate().unwrap();
    let (answer, _) = tokio::join!(waiting, async { server.app.keys.replace_local(&new) });

    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(body.frame().await.unwrap().is_err());
    drop(body);
    assert_eq!(server.app.requests.free(), 2);
}

#[tokio::test]
async fn a_plain_request_id_is_kept_and_another_replaced() {
    let server = server();
    let id = |value| {
        let request = with(request("GET", "/healthz", ""), "x-request-id", value);
        async { server.send(request).await.headers()["x-request-id"].to_str().unwrap().to_owned() }
    };

    assert_eq!(id("trace-1.a_b").await, "trace-1.a_b");
    for bad in ["a b", "<script>", ""] {
        assert_ne!(id(bad).await, bad);
    }
    assert_ne!(id("a b").await, id("a b").await);
}

#[tokio::test]
async fn a_shutdown_is_asked_for_once() {
    let mut server = server();
    let shutdown = |body| request("POST", "/v1/node:shutdown", body);

    let accepted = server.send(shutdown("{\"sandboxes\": \"destroy\"}")).await;
    let again = server.error(shutdown("{}")).await;

    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(again.code, ErrorCode::ShuttingDown);
    assert_eq!(server.asked.recv().await, Some(api::node::ShutdownSandboxes::Destroy));
}

#[tokio::test]
async fn health_says_recovering_until_the_engine_is_open() {
    let response = server().send(request("GET", "/healthz", "")).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let health: api::node::Health = serde_json::from_slice(&body).unwrap();

    assert_eq!(health.status, "recovering");
    assert_eq!(health.version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_document_describes_every_operation_completely() {
    let document = serde_json::to_value(server().document).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let tags: Vec<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            ids.push(operation["operationId"].as_str().expect(&at).to_owned());
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{at}");
            assert!(
                operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"]
                    == "#/components/schemas/ErrorBody",
                "{at}"
            );
            assert!(
                operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag)),
                "{at}"
            );
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                let parameters = operation["parameters"].as_array().expect(&at);
                let declared = parameters.iter().filter(|p| p["name"] == name && p["in"] == "path");
                assert_eq!(declared.count(), 1, "{at}: {name}");
            }
            let is_public = operation["security"] == serde_json::json!([{}]);
            assert_eq!(is_public, super::is_public(path), "{at}");
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
    for needed in [
        "createSandbox",
        "listSandboxes",
        "getSandbox",
        "destroySandbox",
        "buildImage",
        "createKey",
        "listKeys",
        "removeKey",
        "rotateKey",
        "shutdownNode",
    ] {
        assert!(ids.iter().any(|id| id == needed), "{needed}");
    }
    assert!(document["paths"]["/v1/sandboxes/{id}/exec"]["post"].is_object());
    assert!(document["paths"]["/v1/sandboxes/{id}/files/{path}"].is_object());
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn walk(document: &serde_json::Value, value: &serde_json::Value) {
        if let Some(reference) = value["$ref"].as_str() {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        match value {
            serde_json::Value::Object(map) => map.values().for_each(|value| walk(document, value)),
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    let document = serde_json::to_value(server().document).unwrap();
    walk(&document, &document);
}

#[tokio::test]
async fn the_page_names_every_operation_and_loads_nothing() {
    let server = server();
    let response = server.send(request("GET", "/", "")).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let page = std::str::from_utf8(&body).unwrap();

    let document = serde_json::to_value(server.document).unwrap();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(page.contains(&format!("<article id=\"{id}\">")), "{id}");
        }
    }
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    for outside in ["src=", "@import", "url(", "<link", " style=", " onclick="] {
        assert!(!page.contains(outside), "{outside}");
    }
}
