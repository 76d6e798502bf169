//! Previews: requests to what listens in a sandbox, and what comes back.

use std::{path::Path, process::Command, time::Duration};

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use testkit::{PATIENCE, Preview, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::server;

#[tokio::test]
async fn a_trusted_proxy_says_who_the_visitor_is() {
    let binary = env!("CARGO_BIN_EXE_sandbar");
    let server = Server::start_with(binary, &[("PREVIEW_TRUSTED_PROXIES", "127.0.0.0/8, ::1")]);
    let preview = Preview::with_app(&server).await;

    let request = preview.request(Method::GET, "/headers");
    let seen = preview.seen(request.header("x-forwarded-for", "6.6.6.6, 203.0.113.9")).await;

    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9"]);
    let host = &preview.host;
    assert_eq!(seen.one("forwarded"), format!("for=203.0.113.9;host=\"{host}\";proto=http"));
}

#[tokio::test]
async fn an_application_sees_requests_as_its_own_machine_would_send_them() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let (host, port) = (&preview.host, server.url().rsplit_once(':').unwrap().1.to_owned());

    let request = preview
        .request(Method::GET, "/headers?a=%20b&c")
        .header("origin", format!("http://{host}"))
        .header("referer", format!("http://{host}/page?x"))
        .header("cookie", "a=1; b=2")
        .header("authorization", "Basic abc")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-secret", "1")
        .header("forwarded", "for=1.2.3.4")
        .header("x-real-ip", "1.2.3.4")
        .header("x-sandbar-internal", "1")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("proxy-authorization", "x")
        .header("keep-alive", "5")
        .header("x-own", "kept");
    let seen = preview.seen(request).await;

    assert_eq!((seen.0.as_str(), seen.1.as_str()), ("GET", "/headers?a=%20b&c"));
    for (name, expected) in [
        ("host", "localhost:8080".to_owned()),
        ("origin", "http://localhost:8080".to_owned()),
        ("referer", "http://localhost:8080/page?x".to_owned()),
        ("cookie", "a=1; b=2".to_owned()),
        ("authorization", "Basic abc".to_owned()),
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-forwarded-host", host.clone()),
        ("x-forwarded-port", port),
        ("forwarded", format!("for=127.0.0.1;host=\"{host}\";proto=http")),
        ("via", "1.1 sandbar".to_owned()),
        ("x-sandbox-name", "s".to_owned()),
        ("x-own", "kept".to_owned()),
    ] {
        assert_eq!(seen.one(name), expected, "{name}");
    }
    for name in [
        "x-forwarded-secret",
        "x-real-ip",
        "x-sandbar-internal",
        "x-hop",
        "proxy-authorization",
        "keep-alive",
        "connection",
    ] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    // Another site's page stays another site's.
    let foreign = preview.request(Method::GET, "/headers").header("origin", "http://evil.example");
    assert_eq!(preview.seen(foreign).await.one("origin"), "http://evil.example");
}

#[tokio::test]
async fn every_method_and_body_arrives_whole_both_ways() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = preview.request(method.clone(), "/echo").body("body").send().await.unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()["x-method"], method.as_str());
        assert_eq!(answer.text().await.unwrap(), "body", "{method}");
    }
    let head = preview.request(Method::HEAD, "/headers").send().await.unwrap();
    assert!(head.content_length().unwrap() > 0 || head.headers().contains_key("content-length"));
    assert_eq!(head.text().await.unwrap(), "");

    let large = vec![7_u8; 20_000_000];
    let sent = preview.request(Method::POST, "/length").body(large.clone()).send().await.unwrap();
    assert_eq!(sent.text().await.unwrap(), "20000000");
    let echoed = preview.request(Method::POST, "/echo").body(large.clone()).send().await.unwrap();
    assert!(echoed.bytes().await.unwrap() == large);
}

#[tokio::test]
async fn bodies_stream_both_ways_at_the_same_time() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let (send, pieces) = mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(ReceiverStream::new(pieces));
    let request = preview.request(Method::POST, "/echo").body(body);
    send.send(Ok(b"one".to_vec())).await.unwrap();
    let mut answer = timeout(PATIENCE, request.send()).await.unwrap().unwrap();

    // Each piece is back before the next is sent.
    for (piece, next) in [("one", "two"), ("two", "three"), ("three", "")] {
        let heard = timeout(PATIENCE, answer.chunk()).await.unwrap().unwrap().unwrap();
        assert_eq!(heard, piece);
        if !next.is_empty() {
            send.send(Ok(next.as_bytes().to_vec())).await.unwrap();
        }
    }
    drop(send);
    assert_eq!(timeout(PATIENCE, answer.chunk()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn events_come_when_they_are_sent() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let mut events = preview.get("/events").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let first = timeout(PATIENCE, events.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, "data: first\n\n");
    preview.get("/release").await;
    let second = timeout(PATIENCE, events.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(second, "data: second\n\n");
    assert_eq!(events.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn ranges_trailers_and_expectations_pass() {
    let server = server();
    let preview = Preview::with_app(&server).await;

    let range = preview.request(Method::GET, "/range").header("range", "bytes=5-9");
    let part = range.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 5-9/256");
    assert_eq!(part.bytes().await.unwrap(), [5, 6, 7, 8, 9].as_slice());

    let request =
        "GET /trailers HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\nConnection: close, te\r\n\r\n";
    let answer = preview.raw(request).await;
    assert!(answer.contains("\r\n4\r\nbody\r\n0\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().ends_with("x-sum: 42\r\n\r\n"), "{answer}");

    let request = "POST /trailers HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 24\r\n\r\n";
    let answer = preview.raw(request).await.to_ascii_lowercase();
    assert!(answer.contains("x-heard: x-sum: 24\r\n"), "{answer}");

    // The body is sent only after the 100.
    let mut stream = preview.connect().await;
    let head = format!(
        "POST /length HTTP/1.1\r\nHost: {}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\
         Connection: close\r\n\r\n",
        preview.host
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut interim)).await.unwrap().unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n4"), "{answer}");
}

#[tokio::test]
async fn answers_pass_but_for_what_speaks_of_other_names() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let answer = preview.get("/answer").await;
    let headers = answer.headers();
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Path=/; HttpOnly", "b=2", "c=3; SameSite=Lax"]);
    assert_eq!(headers["x-own"], "kept");
    for name in [
        "alt-svc",
        "strict-transport-security",
        "clear-site-data",
        "x-hop",
        "keep-alive",
        "x-sandbar-cursor",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["referrer-policy"], "same-origin");
    assert_eq!(headers["x-robots-tag"], "noindex");
    assert_eq!(headers["origin-agent-cluster"], "?1");

    let own = format!("http://{}/next?x", preview.host);
    for (location, expected) in [
        ("/next", "/next"),
        ("https://example.com/", "https://example.com/"),
        ("http://localhost:8080/next?x", own.as_str()),
        ("http://127.0.0.1:8080/next?x", own.as_str()),
        ("http://localhost:80801/", "http://localhost:80801/"),
        ("http://localhost:3000/", "http://localhost:3000/"),
    ] {
        let answer = preview.get(&format!("/redirect?{location}")).await;
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.headers()["location"], expected);
    }
}

#[tokio::test]
async fn websockets_and_other_protocols_pass() {
    let server = server();
    let preview = Preview::with_app(&server).await;

    let stream = preview.connect().await;
    let url = format!("ws://{}/ws", preview.host);
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(vec![42; size]);
        socket.send(message.clone()).await.unwrap();
        let echo = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(echo == message, "{size}");
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(message)) = timeout(PATIENCE, socket.next()).await.unwrap() {
        assert!(message.is_close());
    }

    let mut stream = preview.connect().await;
    let head = format!(
        "GET /upgrade HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: shout/1\r\n\r\n",
        preview.host
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: shout/1"), "{answer}");
    stream.write_all(b"hello").await.unwrap();
    let mut shouted = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut shouted)).await.unwrap().unwrap();
    assert_eq!(&shouted, b"HELLO");
}

#[tokio::test]
async fn what_is_not_there_is_told_to_people_and_programs() {
    let server = server();
    let preview = Preview::of(&server).await;
    let page = |host: String| {
        let request =
            Client::new().get(server.url()).header("accept", "text/html").header("host", host);
        async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
            assert_eq!(answer.headers()["cache-control"], "no-store");
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let code = |host: String| {
        let request = Client::new().get(server.url()).header("host", host);
        async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let json: Value = answer.json().await.unwrap();
            (status, json["error"]["code"].as_str().unwrap().to_owned())
        }
    };
    let unknown = preview.host.replace("8080-s-", "8080-s-x");

    let (status, text) = page(preview.host.clone()).await;
    assert_eq!(status, 502);
    assert!(
        text.contains("Nothing answers yet") && text.contains("http-equiv=\"refresh\""),
        "{text}"
    );
    assert_eq!(code(preview.host.clone()).await, (502, "SERVICE_NOT_RESPONDING".to_owned()));
    let (status, text) = page(unknown.clone()).await;
    assert_eq!(status, 404);
    assert!(text.contains("no preview here") && !text.contains("refresh"), "{text}");
    assert_eq!(code(unknown).await, (404, "INVALID_TOKEN".to_owned()));

    assert_eq!(server.delete("/v1/sandboxes/s/ports/8080").await.status, 204);
    assert_eq!(page(preview.host.clone()).await.0, 410);
    assert_eq!(code(preview.host.clone()).await, (410, "STALE_PREVIEW_URL".to_owned()));
    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
    assert_eq!(code(preview.host.clone()).await, (404, "INVALID_TOKEN".to_owned()));
    // Nobody made it again by looking.
    assert_eq!(server.get("/v1/sandboxes/s").await.status, 404);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let answer = preview.get("/break").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    let unasked = preview.get("/unasked").await;
    assert_eq!(unasked.status(), 502);
    // The next visitor is answered as if nothing had been.
    assert_eq!(preview.get("/answer").await.status(), 200);
}

#[tokio::test]
async fn who_leaves_is_gone_for_the_application_too() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let sockets = "ss -tn state established '( sport = :8080 )' | tail -n +2 | wc -l";
    let mut events = preview.get("/events").await;
    events.chunk().await.unwrap();
    assert_ne!(server.shell("s", sockets).await.trim(), "0");
    drop(events);
    drop(preview);
    let gone = async {
        while server.shell("s", sockets).await.trim() != "0" {
            // The sandbox's kernel tells nobody.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_visitor_starts_a_sandbox_that_stopped() {
    let mut server = Server::start_at_one_address(env!("CARGO_BIN_EXE_sandbar"));
    let host = Preview::with_app(&server).await.host;
    let stopped = server.post("/v1/node:shutdown", &json!({"sandboxes": "stop"})).await;
    assert!(stopped.status < 300, "{}", stopped.text);
    server.wait_for_end();
    server.restart();
    let state = |server: &Server| {
        let get = server.request(Method::GET, "/v1/sandboxes/s");
        async move { get.send().await.unwrap().json::<Value>().await.unwrap()["state"].clone() }
    };
    let visit = |host: String| {
        let visit = Client::new().get(server.url()).header("host", host);
        async move { visit.send().await.unwrap().status().as_u16() }
    };

    assert_eq!(visit(host.replace("8080-s-", "8080-s-x")).await, 404);
    assert_eq!(state(&server).await, "stopped", "a wrong token wakes nobody");
    // Its files are back, its processes are not.
    assert_eq!(visit(host.clone()).await, 502);
    assert_eq!(state(&server).await, "running");
    Preview::start_app(&server, "s").await;
    assert_eq!(visit(host).await, 404, "the application has no page at its root");
}

#[tokio::test]
async fn http_2_is_spoken_with_who_begins_so() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let curl = |host: &str, arguments: &[&str], path: &str| {
        let output = Command::new("curl")
            .args(["-s", "-S", "--noproxy", "*", "--max-time", "30", "--http2-prior-knowledge"])
            .args(["-w", " %{http_version} %{http_code}", "--connect-to"])
            .arg(format!("::{}", server.url().trim_start_matches("http://")))
            .args(arguments)
            .arg(format!("http://{host}{path}"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = curl(&preview.host, &["-H", "cookie: a=1", "-H", "cookie: b=2"], "/headers");
    assert!(said.ends_with(" 2 200") && said.contains("\"via\", \"2 sandbar\""), "{said}");
    assert!(said.contains("a=1; b=2") && said.contains("localhost:8080"), "{said}");
    assert_eq!(curl(&preview.host, &["--data-binary", "body"], "/echo"), "body 2 201");
    let unknown = preview.host.replace("8080-s-", "8080-s-x");
    let said = curl(&unknown, &[], "/");
    assert!(said.contains("INVALID_TOKEN") && said.ends_with(" 2 404"), "{said}");
    // What follows the body comes without being asked for.
    let said = curl(&preview.host, &["-i"], "/trailers");
    assert!(said.contains("body") && said.to_ascii_lowercase().contains("x-sum: 42"), "{said}");

    // The API is the same by either.
    let url = server.url();
    let own = url.trim_start_matches("http://");
    assert!(curl(own, &[], "/healthz").ends_with(" 2 200"));
    assert!(curl(own, &[], "/v1/sandboxes").ends_with(" 2 401"));
    let key = format!("authorization: Bearer {}", server.key());
    assert!(curl(own, &["-H", &key], "/v1/sandboxes").ends_with(" 2 200"));
    let said = curl("evil.example", &["-H", &key], "/v1/sandboxes");
    assert!(said.contains("HOST_NOT_ALLOWED"), "{said}");
}

/// Makes a certificate for all names below `preview.example`, its own authority.
fn certify(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=preview.example"])
        .args(["-addext", "subjectAltName=DNS:*.preview.example", "-keyout", "key.pem"])
        .args(["-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn previews_are_encrypted_and_spoken_in_http_2() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let settings = [
        ("PREVIEW_LISTEN", "127.0.0.1:0"),
        ("PREVIEW_URL", "https://preview.example"),
        ("PREVIEW_TLS_CERT", cert.as_str()),
        ("PREVIEW_TLS_KEY", key.as_str()),
    ];
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &settings);
    let preview = Preview::of_app(&server, "s").await;
    let address = server.preview_address();
    // What curl prints, and whether it was content.
    let curl = |arguments: &[&str], path: &str| {
        let output = Command::new("curl")
            .args(["-s", "-S", "--noproxy", "*", "--max-time", "30", "--cacert", &cert])
            .arg("--connect-to")
            .arg(format!("{}:443:{address}", preview.host))
            .args(arguments)
            .arg(format!("https://{}{path}", preview.host))
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (version, expected) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let (done, said) = curl(&[version, "-w", " %{http_version}"], "/headers");
        assert!(done && said.ends_with(&format!(" {expected}")), "{said}");
        assert!(
            said.contains("\"X-Forwarded-Proto\", \"https\"")
                || said.contains("\"x-forwarded-proto\", \"https\""),
            "{said}"
        );
        assert!(said.contains(&format!("\"via\", \"{expected} sandbar\"")), "{said}");
        let (done, said) = curl(&[version, "--data-binary", "body"], "/echo");
        assert!(done && said == "body", "{said}");
    }
    // Cookies that HTTP/2 has sent apart are one line; another host on this connection is refused.
    let (_, said) = curl(&["--http2", "-H", "cookie: a=1", "-H", "cookie: b=2"], "/headers");
    assert!(said.contains("a=1; b=2"), "{said}");
    let other = Preview::of_port(&server, "s", 9000).await.host;
    for version in ["--http1.1", "--http2"] {
        let host = format!("host: {other}");
        let (_, said) = curl(&[version, "-w", " %{http_code}", "-H", &host], "/headers");
        assert!(said.ends_with(" 421"), "{version}: {said}");
    }

    // The files are renewed; who trusts the new certificate gets through before long.
    certify(dir.path());
    let renewed = async {
        while !curl(&[], "/headers").0 {
            // The server looks now and then, and tells nobody.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, renewed).await.unwrap();
}
