//! The API from outside: by people without a key, by tenants with a key for something else, by web
//! pages, and by proxies that read a request in another way than the server does.

mod http;
mod tenant;

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::{
    Answer, Raw, Server,
    reqwest::{Client, Method, Response},
};

use crate::server;

async fn ids(server: &Server) -> BTreeSet<String> {
    let list = server.get("/v1/sandboxes").await;
    let sandboxes = list.json["sandboxes"].as_array().expect("a list").clone();
    sandboxes.iter().map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// One request line with a key on a connection of its own, and everything that came back.
async fn ask(server: &Server, line: &str, key: &str, further: &[&str]) -> Answer {
    let mut raw = Raw::open(server).await;
    raw.send(line, key, further).await;
    raw.answer().await.expect("an answer comes")
}

/// Writes bytes and reads until the server closes; it must do so by itself or when nothing follows.
async fn exchange(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::open(server).await;
    raw.write(bytes).await;
    raw.rest().await
}

fn answers(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// The text of an error without what differs from request to request.
fn without_id(answer: &Answer) -> Value {
    let mut json = answer.json.clone();
    if let Some(error) = json["error"].as_object_mut() {
        error.remove("requestId");
    }
    json
}

/// A01
#[tokio::test]
async fn without_a_key_in_the_one_header_nothing_is_opened_and_nothing_learned() {
    let server = server();
    let (good, gone) = (server.key(), server.new_key("gone", None).await);
    assert_eq!(server.delete("/v1/keys/gone").await.status, 204);
    let bearer = |key: &str| format!("authorization: Bearer {key}");
    let sandboxes = "/v1/sandboxes";
    let wrong = format!("sbk_{}", "0".repeat(64));
    let upper = good.to_uppercase();
    let cut = &good[..good.len() - 1];
    let mut texts = Vec::new();
    for (what, path, headers) in [
        ("no key", sandboxes.to_owned(), vec![]),
        ("a wrong key", sandboxes.to_owned(), vec![bearer(&wrong)]),
        ("a removed key", sandboxes.to_owned(), vec![bearer(&gone)]),
        ("a key in other letters", sandboxes.to_owned(), vec![bearer(&upper)]),
        ("most of a key", sandboxes.to_owned(), vec![bearer(cut)]),
        ("more than a key", sandboxes.to_owned(), vec![bearer(&format!("{good}0"))]),
        ("a key and a list", sandboxes.to_owned(), vec![bearer(&format!("{good}, {good}"))]),
        ("an empty key", sandboxes.to_owned(), vec![bearer("")]),
        ("a key in the query", format!("{sandboxes}?key={good}"), vec![]),
        ("a token in the query", format!("{sandboxes}?access_token={good}"), vec![]),
        (
            "a cookie",
            sandboxes.to_owned(),
            vec![format!("cookie: key={good}; authorization={good}")],
        ),
        ("another header", sandboxes.to_owned(), vec![format!("x-api-key: {good}")]),
        (
            "a proxy's header",
            sandboxes.to_owned(),
            vec![format!("proxy-authorization: Bearer {good}")],
        ),
        ("another scheme", sandboxes.to_owned(), vec![format!("authorization: Basic {good}")]),
        ("no scheme", sandboxes.to_owned(), vec![format!("authorization: {good}")]),
        ("twice the same", sandboxes.to_owned(), vec![bearer(&good), bearer(&good)]),
        ("good, then wrong", sandboxes.to_owned(), vec![bearer(&good), bearer(&wrong)]),
        ("wrong, then good", sandboxes.to_owned(), vec![bearer(&wrong), bearer(&good)]),
        ("a trailer", sandboxes.to_owned(), vec!["trailer: authorization".to_owned()]),
        ("an id in use", format!("{sandboxes}/s/exec"), vec![]),
        ("no route", "/v1/nothing".to_owned(), vec![bearer(&wrong)]),
        ("the metrics", "/metrics".to_owned(), vec![]),
        ("the keys", "/v1/keys".to_owned(), vec![]),
    ] {
        let mut raw = Raw::open(&server).await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", raw.host);
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        raw.write(format!("{head}{lines}\r\n")).await;
        let refused = raw.answer().await.unwrap();
        assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"), "{what}");
        assert!(refused.text.contains("www-authenticate: Bearer"), "{what}");
        texts.push(without_id(&refused));
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "each is told the same: {texts:#?}");
    let head = format!("authorization: Bearer {}", "a".repeat(1 << 20));
    let huge = exchange(&server, format!("GET {sandboxes} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n"));
    assert_eq!(answers(&huge.await), [431]);
    assert!(ids(&server).await.is_empty());
    // What is refused above is refused for the key's sake.
    assert_eq!(ask(&server, "GET /v1/sandboxes HTTP/1.1", &good, &[]).await.status, 200);
}

/// A27
#[tokio::test]
async fn a_request_in_the_name_of_another_host_is_refused_on_every_route() {
    let server = server();
    let (key, url) = (server.key(), server.url());
    let ours = url.trim_start_matches("http://");
    let port = ours.rsplit(':').next().unwrap();
    let host = |text: &str| format!("host: {text}\r\n");
    for path in ["/v1/sandboxes", "/healthz", "/", "/openapi.json"] {
        for (target, hosts, origin) in [
            (path.to_owned(), host("evil.example"), ""),
            (path.to_owned(), host(&format!("evil.example:{port}")), ""),
            (path.to_owned(), host(&format!("localhost.evil.example:{port}")), ""),
            (path.to_owned(), host(&format!("127.0.0.1.evil.example:{port}")), ""),
            (path.to_owned(), host(&format!("10.0.0.1:{port}")), ""),
            (path.to_owned(), host(&format!("localhost:{port}@evil.example")), ""),
            (path.to_owned(), host(&format!("evil.example@{ours}")), ""),
            (path.to_owned(), host("localhost:1"), ""),
            (path.to_owned(), host(""), ""),
            (path.to_owned(), String::new(), ""),
            (path.to_owned(), host(ours) + &host(ours), ""),
            (path.to_owned(), host(ours) + &host("evil.example"), ""),
            (path.to_owned(), host("evil.example") + &host(ours), ""),
            (path.to_owned(), host(&format!("{ours}, evil.example")), ""),
            (format!("http://evil.example{path}"), host(ours), ""),
            (format!("{url}{path}"), host("evil.example"), ""),
            (path.to_owned(), host(ours), "http://evil.example"),
            (path.to_owned(), host(ours), "null"),
            (path.to_owned(), host(ours), "http://localhost:1"),
        ] {
            let origin = if origin.is_empty() { origin } else { &format!("origin: {origin}\r\n") };
            let rest =
                format!("{hosts}{origin}authorization: Bearer {key}\r\nconnection: close\r\n");
            let newer = exchange(&server, format!("GET {target} HTTP/1.1\r\n{rest}\r\n")).await;
            let older = exchange(&server, format!("GET {target} HTTP/1.0\r\n{rest}\r\n")).await;
            for told in [answers(&newer), answers(&older)] {
                assert!(told == [403] || told == [400], "{target} {hosts:?} {origin}: {newer}");
            }
        }
        // The control.
        let line = format!("GET {path} HTTP/1.1");
        assert_eq!(ask(&server, &line, &key, &[]).await.status, 200, "{path}");
    }
}

/// A28, A29
#[tokio::test]
async fn a_web_page_can_neither_act_nor_read() {
    let server = server();
    let url = format!("{}/v1/sandboxes", server.url());
    let web = Client::new();
    let page = "http://3000-box-token.localhost:8787";
    let grants = |response: &Response| {
        response.headers().keys().any(|name| name.as_str().starts_with("access-control"))
    };
    let kinds =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"];
    for (kind, origin) in
        kinds.iter().flat_map(|kind| [None, Some(page), Some("null")].map(|origin| (kind, origin)))
    {
        // A browser sends what it has by itself: cookies, never our header.
        let cookie = format!("authorization=Bearer {}", server.key());
        let mut form = web.post(&url).header("content-type", *kind).header("cookie", cookie);
        if let Some(origin) = origin {
            form = form.header("origin", origin);
        }
        let form = form.body("{}");
        let with_key = form.try_clone().unwrap().bearer_auth(server.key());
        let expected = if origin.is_some() { [403, 403] } else { [401, 415] };
        for (form, status) in [form, with_key].into_iter().zip(expected) {
            let response = form.send().await.unwrap();
            assert_eq!(response.status(), status, "{kind} {origin:?}");
            assert!(!grants(&response), "{:?}", response.headers());
        }
    }
    for origin in [page, &server.url(), "null"] {
        for path in ["/v1/sandboxes", "/v1/keys", "/healthz"] {
            let preflight = web
                .request(Method::OPTIONS, format!("{}{path}", server.url()))
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization, content-type");
            let response = preflight.send().await.unwrap();
            assert!(response.status().is_client_error());
            let granted =
                response.headers().keys().any(|name| name.as_str().starts_with("access-control"));
            assert!(!granted, "{:?}", response.headers());
        }
    }
    assert!(ids(&server).await.is_empty(), "nothing was made");
}

/// A28, A29
#[tokio::test]
async fn a_trusted_page_may_call_with_a_key_and_no_other_page_may() {
    let app = "https://app.example.org";
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("ALLOWED_ORIGINS", app)]);
    let web = Client::new();
    let preflight = |path: &str, origin: &str| {
        web.request(Method::OPTIONS, format!("{}{path}", server.url()))
            .header("origin", origin)
            .header("access-control-request-method", "DELETE")
            .header("access-control-request-headers", "authorization,if-match")
            .send()
    };
    let told = |response: &Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    for path in ["/v1/sandboxes", "/v1/sandboxes/a/files/x", "/v1/keys"] {
        let asked = preflight(path, app).await.unwrap();
        assert!(asked.status().is_success(), "{path}");
        assert_eq!(told(&asked, "access-control-allow-origin").as_deref(), Some(app));
        let headers = told(&asked, "access-control-allow-headers").unwrap();
        assert_eq!(headers, "authorization,if-match");
        assert!(told(&asked, "access-control-allow-methods").unwrap().contains("DELETE"));
        // No cookie is ever taken for a key.
        assert_eq!(told(&asked, "access-control-allow-credentials"), None);
        for other in ["https://app.example.org.evil.example", "http://app.example.org", "null"] {
            let refused = preflight(path, other).await.unwrap();
            assert_eq!(refused.status(), 403, "{other}");
            assert_eq!(told(&refused, "access-control-allow-origin"), None);
        }
    }
    let list = || web.get(format!("{}/v1/sandboxes", server.url()));
    let keyless = list().header("origin", app).send().await.unwrap();
    assert_eq!(keyless.status(), 401);
    // The page's script can read why.
    assert_eq!(told(&keyless, "access-control-allow-origin").as_deref(), Some(app));
    let keyed = list().header("origin", app).bearer_auth(server.key()).send().await.unwrap();
    assert_eq!(keyed.status(), 200);
    assert!(told(&keyed, "vary").unwrap().to_lowercase().contains("origin"));
    let evil = list().header("origin", "https://evil.example").bearer_auth(server.key());
    let evil = evil.send().await.unwrap();
    assert_eq!((evil.status().as_u16(), told(&evil, "access-control-allow-origin")), (403, None));
}

/// A37
#[tokio::test]
async fn nothing_a_caller_sends_makes_a_line_in_the_log() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("LOG_FORMAT", "json")]);
    let evil = "%0d%0a{\"level\":\"error\"}%1b[2J";
    for (line, header) in [
        (format!("GET /v1/{evil} HTTP/1.1"), "x-request-id: a b".to_owned()),
        (
            format!("GET /v1/sandboxes/{evil} HTTP/1.1"),
            "x-request-id: {\"level\":\"error\"}".to_owned(),
        ),
        (format!("GET /v1/sandboxes?{evil} HTTP/1.1"), format!("user-agent: {evil}")),
        (format!("{} /v1/sandboxes HTTP/1.1", "EVIL"), format!("referer: {evil}")),
        (format!("DELETE /v1/keys/{evil} HTTP/1.1"), "x-request-id: \u{1b}[2J".to_owned()),
    ] {
        let mut raw = Raw::open(&server).await;
        raw.send(&line, &server.key(), &[&header]).await;
        drop(raw.answer().await);
    }
    assert_eq!(
        ask(&server, "GET /v1/nothing HTTP/1.1", &server.key(), &["x-request-id: last"])
            .await
            .status,
        404
    );

    let log = server.log_until("\"last\"");

    for line in log.lines() {
        let entry: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no entry: {line}"));
        assert_ne!(entry["level"], "error", "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
    assert!(!log.contains(&server.key()));
}

/// A38
#[tokio::test]
async fn callers_cannot_make_series_in_the_metrics() {
    let server = server();
    for number in 0..200 {
        let path = format!("/v1/nothing-{number}");
        ask(&server, &format!("M{number} {path} HTTP/1.1"), &server.key(), &[]).await;
        ask(&server, &format!("GET /v1/sandboxes/s{number} HTTP/1.1"), &server.key(), &[]).await;
    }

    let metrics = server.get("/metrics").await.text;

    assert!(!metrics.contains("nothing-") && !metrics.contains("M17"), "{metrics}");
    let requests = metrics.lines().filter(|line| line.starts_with("sandbar_http_requests_total"));
    assert!(requests.count() < 20, "{metrics}");
}
