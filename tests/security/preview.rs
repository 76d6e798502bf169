//! Previews: what a visitor, or a program behind one, must not be able to do.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{PATIENCE, Preview, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::server;

/// Sends one request head and returns the whole answer.
async fn ask(server: &Server, head: &str) -> String {
    let url = server.url();
    let address: SocketAddr = url.trim_start_matches("http://").parse().expect("it is an address");
    let mut stream = TcpStream::connect(address).await.expect("the server takes connections");
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes").expect("the answer is whole");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    assert!(status.is_some(), "no answer: {answer:?}");
    status.unwrap_or_default()
}

/// Puts a listener in the sandbox that counts its connections in the file /tmp/count.
const COUNTER: &str = "python3 -c \"
import socket
s = socket.create_server(('127.0.0.1', 8080))
print('ready', flush=True)
n = 0
while True:
    c, _ = s.accept()
    n += 1
    open('/tmp/count', 'w').write(str(n))
    c.recv(65536)
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok')
    c.close()
\"";

/// P05. Behind a proxy here, so that visitors have addresses of their own.
#[tokio::test]
async fn guesses_at_a_token_are_slowed_down_for_whoever_makes_them() {
    let binary = env!("CARGO_BIN_EXE_sandbar");
    let server = Server::start_with(binary, &[("PREVIEW_TRUSTED_PROXIES", "127.0.0.1")]);
    // Nothing listens: a right URL is 502, a wrong one 404.
    let (preview, other) = (Preview::of(&server).await, Preview::of_port(&server, "s", 8081).await);
    let (label, domain) = preview.host.split_once('.').expect("it has a domain");
    let end = if label.ends_with('a') { 'b' } else { 'a' };
    let wrong = format!("{}{end}.{domain}", &label[..label.len() - 1]);
    let ask = async |host: &str, from: &str| {
        let request = preview.request(Method::GET, "/").header("x-forwarded-for", from);
        let mut request = request.build().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        let answer = reqwest::Client::new().execute(request).await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
    };

    let begun = std::time::Instant::now();
    let mut guesses = 0;
    while guesses < 1000 && ask(&wrong, "203.0.113.7").await == (404, false) {
        guesses += 1;
    }
    let earned = begun.elapsed().as_secs() + 1;
    assert!((20..=20 + earned).contains(&guesses), "{guesses} guesses");
    // Whether the next one is right cannot be found out, nor is it another visitor's word. One is earned each
    // second: what was asked before one that is refused, none had been earned for.
    let slowed = async |host: &str, from: &str| {
        loop {
            let answer = ask(host, from).await;
            if ask(&wrong, "203.0.113.7").await == (429, true) {
                return answer;
            }
        }
    };
    for (host, from) in [
        (&wrong, "203.0.113.7"),
        (&preview.host, "203.0.113.7"),
        (&preview.host, "198.51.100.1, 203.0.113.7"),
    ] {
        let answer = timeout(PATIENCE, slowed(host, from)).await.expect("a guess is refused");
        assert_eq!(answer, (429, true), "{host} from {from}");
    }
    for (host, from) in [(&preview.host, "203.0.113.8"), (&other.host, "203.0.113.7")] {
        assert_eq!(ask(host, from).await.0, 502, "{host} from {from}");
    }

    // It gets better by itself: there is no event for that.
    let again = async {
        while ask(&preview.host, "203.0.113.7").await.0 == 429 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("a visitor is let in again");
}

/// P02, P03, P04, P06, P24.
#[tokio::test]
async fn a_wrong_url_connects_to_nothing() {
    let server = server();
    server.start_process("s", COUNTER, "ready").await;
    let preview = Preview::of(&server).await;
    // Another port's token, and another sandbox's.
    let other_port = Preview::of_port(&server, "s", 8081).await;
    let other_sandbox = Preview::of_sandbox(&server, "t").await;
    let (label, domain) = preview.host.split_once('.').expect("it has a domain");
    let token = label.rsplit('-').next().expect("it has a token").to_owned();
    let of = |other: &Preview<'_>| {
        let label = other.host.split('.').next().unwrap_or_default().to_owned();
        label.rsplit('-').next().unwrap_or_default().to_owned()
    };
    let cut = &token[1..];
    let labels = [
        format!("8080-s-{cut}"),
        format!("8080-s-{token}a"),
        format!("8080-s-{}", token.to_uppercase()),
        format!("8080-S-{token}"),
        format!("8080-s-{}", of(&other_port)),
        format!("8080-s-{}", of(&other_sandbox)),
        format!("8080-t-{token}"),
        format!("8081-s-{token}"),
        format!("08080-s-{token}"),
        format!("+8080-s-{token}"),
        format!("0x1f90-s-{token}"),
        format!("65536-s-{token}"),
        format!("80-s-{token}"),
        format!("73616-s-{token}"),
        format!("8080--s-{token}"),
        format!("8080-s--{token}"),
        format!("8080-s-{token}-"),
        format!("8080.s.{token}"),
        "8080-s-".to_owned(),
        "8080-s".to_owned(),
        "s-8080".to_owned(),
        "8080".to_owned(),
        "a".repeat(300),
    ];
    let mut told = None;
    for label in &labels {
        for upgrade in ["", "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n"] {
            let head = format!("GET / HTTP/1.1\r\nHost: {label}.{domain}\r\n{upgrade}");
            let answer = ask(&server, &head).await;
            assert_eq!(status(&answer), 404, "{label} {upgrade}: {answer}");
            assert!(answer.contains("INVALID_TOKEN"), "{answer}");
            // The answer to each is the same: nobody learns what there is.
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            assert_eq!(*told.get_or_insert(body.clone()), body, "{label}");
        }
    }
    // Nobody connected, and no sandbox was made.
    assert_eq!(server.shell("s", "cat /tmp/count 2>/dev/null || echo 0").await.trim(), "0");
    let all = server.get("/v1/sandboxes").await;
    assert_eq!(all.json["sandboxes"].as_array().map(Vec::len), Some(2), "{}", all.text);
    // And the right one works.
    assert_eq!(preview.get("/").await.status(), 200);
}

/// P06, P20.
#[tokio::test]
async fn a_host_is_one_name_and_a_preview_no_proxy() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let other = Preview::of_sandbox(&server, "t").await;
    let (host, other) = (&preview.host, &other.host);
    for (head, expected) in [
        (format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nHost: {other}\r\n"), 400),
        (format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n"), 400),
        (format!("GET http://{other}/headers HTTP/1.1\r\nHost: {host}\r\n"), 400),
        (format!("GET http://169.254.169.254/ HTTP/1.1\r\nHost: {host}\r\n"), 400),
        (format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n"), 400),
        (format!("GET /headers HTTP/1.1\r\nHost: {host}, {other}\r\n"), 404),
        (format!("GET /headers HTTP/1.1\r\nHost: user@{host}\r\n"), 404),
        (
            format!("GET /headers HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: {host}\r\n"),
            403,
        ),
        (format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: {other}\r\n"), 200),
        (format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nForwarded: host={other}\r\n"), 200),
    ] {
        let answer = ask(&server, &head).await;
        assert_eq!(status(&answer), expected, "{head}: {answer}");
    }
    let name = host.split(':').next().expect("it has a name");
    let dot = ask(&server, &format!("GET /headers HTTP/1.1\r\nHost: {name}.\r\n")).await;
    assert_eq!(status(&dot), 403, "{dot}");
}

/// P08, I24: the key is the API's alone, and tokens are nobody's but their visitors'.
#[tokio::test]
async fn keys_and_tokens_do_not_leak() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let key = server.key();
    for value in [format!("Bearer {key}"), format!("bearer  {key}"), key.clone()] {
        let request = preview.request(Method::GET, "/headers").header("authorization", &value);
        assert_eq!(preview.seen(request).await.all("authorization"), [""; 0], "{value}");
    }
    // It is no way into the API either, whoever asks there.
    let api = preview.request(Method::GET, "/v1/sandboxes").bearer_auth(&key).send().await;
    assert_eq!(api.expect("a response comes").status(), 404, "the application's own 404");

    let token = preview.host.split('.').next().and_then(|label| label.rsplit('-').next());
    let token = token.expect("it has a token");
    let log = server.log();
    assert!(log.contains("previews"), "the log is there: {log}");
    assert!(!log.contains(token) && !log.contains(&key), "{log}");
    for file in ["sandbar.db", "sandbar.db-wal"] {
        let database = std::fs::read(server.state_dir().join(file)).unwrap_or_default();
        assert!(!database.windows(token.len()).any(|bytes| bytes == token.as_bytes()), "{file}");
    }
    let metrics = server.get("/metrics").await;
    assert!(!metrics.text.contains(token) && metrics.text.contains("preview"), "{}", metrics.text);
    let answer = preview.get("/headers").await;
    assert_eq!(answer.headers()["referrer-policy"], "same-origin");
}

/// A28, P13: a page of a preview asks the API, and a page of a preview another preview.
#[tokio::test]
async fn a_page_of_a_preview_speaks_for_nobody() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let other = Preview::of_app(&server, "t").await;
    let origin = format!("http://{}", other.host);

    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let api = server.request(method.clone(), "/v1/sandboxes").header("origin", &origin);
        let answer = api.send().await.expect("a response comes");
        assert_eq!(answer.status(), 403, "{method}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
    }
    // The visitor's cookies of one preview do not go along with another sandbox's requests.
    let cookies = |headers: &[(&str, &str)], method: Method| {
        let mut request = preview.request(method, "/headers").header("cookie", "session=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let preview = &preview;
        async move { preview.seen(request).await.all("cookie").len() }
    };
    let own = format!("http://{}", preview.host);
    let sibling = Preview::of_port(&server, "s", 9000).await;
    let sibling = format!("http://{}", sibling.host);
    let image = [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")];
    let link = [
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let frame = [
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "iframe"),
    ];
    for (headers, method, expected) in [
        (&[][..], Method::GET, 1),
        (&[("origin", own.as_str())], Method::POST, 1),
        (&[("origin", sibling.as_str())], Method::POST, 1),
        (&[("origin", origin.as_str())], Method::POST, 0),
        (&[("origin", origin.as_str())], Method::GET, 0),
        (&image, Method::GET, 0),
        (&frame, Method::GET, 0),
        (&link, Method::GET, 1),
        (&link, Method::POST, 0),
        (&[("sec-fetch-site", "same-origin")], Method::GET, 1),
        (&[("origin", "null")], Method::POST, 0),
        (&[("origin", "null"), ("sec-fetch-site", "same-site")], Method::POST, 0),
        (&[("origin", "null"), ("sec-fetch-site", "same-origin")], Method::POST, 1),
        (&[("origin", "null"), ("sec-fetch-site", "none")], Method::POST, 1),
    ] {
        assert_eq!(cookies(headers, method.clone()).await, expected, "{method} {headers:?}");
    }
}

/// P05.
#[tokio::test]
async fn what_goes_on_by_a_url_ends_with_it() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let port = "/v1/sandboxes/s/ports/8080";
    for (is_hidden, refused) in [(false, b"HTTP/1.1 404"), (true, b"HTTP/1.1 410")] {
        let exposed = server.get("/v1/sandboxes/s/ports").await;
        let url = exposed.json["ports"][0]["url"].as_str().expect("it has a URL").to_owned();
        let host = url.split("://").nth(1).expect("it has a host").trim_end_matches('/');
        // A stream, a tunnel and a request whose answer does not come.
        let mut open = Vec::new();
        for (path, more, begins) in [
            ("/events", "", "first\n\n"),
            ("/upgrade", "Connection: Upgrade\r\nUpgrade: shout/1\r\n", "\r\n\r\n"),
            ("/poll", "", ""),
        ] {
            let mut stream = preview.connect().await;
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
            stream.write_all(head.as_bytes()).await.expect("the request is sent");
            let mut answer = Vec::new();
            while !answer.ends_with(begins.as_bytes()) {
                let byte = timeout(PATIENCE, stream.read_u8()).await.expect("it comes");
                answer.push(byte.expect("the connection stays"));
            }
            open.push((stream, begins.is_empty()));
        }
        if is_hidden {
            assert_eq!(server.delete(port).await.status, 204);
        } else {
            assert_eq!(server.post(&format!("{port}/rotate"), &json!({})).await.status, 200);
        }
        for (mut stream, is_unanswered) in open {
            if is_unanswered {
                let mut status = [0; 12];
                let read = timeout(PATIENCE, stream.read_exact(&mut status)).await;
                read.expect("an answer comes").expect("the connection stays");
                assert_eq!(&status, refused);
                continue;
            }
            let mut rest = Vec::new();
            let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "it goes on although hidden is {is_hidden}");
        }
    }
}

/// P05.
#[tokio::test]
async fn a_url_ends_with_its_port_and_its_sandbox() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    let path = "/v1/sandboxes/s/ports";
    let visit = || async { preview.get("/headers").await.status().as_u16() };
    assert_eq!(visit().await, 200);
    let rotated = server.post(&format!("{path}/8080/rotate"), &json!({})).await;
    assert_eq!((rotated.status, visit().await), (200, 404));
    assert_eq!(server.delete(&format!("{path}/8080")).await.status, 204);
    assert_eq!(visit().await, 404, "the token that was rotated away is unknown, hidden or not");
    assert_eq!(server.post(path, &json!({"port": 8080})).await.status, 201);
    assert_eq!(visit().await, 404);

    let before = Preview::of_app(&server, "t").await;
    assert_eq!(before.get("/headers").await.status(), 200);
    assert_eq!(server.delete("/v1/sandboxes/t").await.status, 204);
    let after = Preview::of_app(&server, "t").await;
    assert_eq!(before.get("/headers").await.status(), 404);
    assert_eq!(after.get("/headers").await.status(), 200);
}

/// Answers each connection with the bytes of the file that the path names, and says nothing more.
const HOSTILE: &str = "python3 -c \"
import socket, threading
s = socket.create_server(('127.0.0.1', 8080))
print('ready', flush=True)
def serve(c):
    while head := c.recv(65536):
        name = head.split()[1].decode().split('?')
        body = open('/tmp' + name[0], 'rb').read()
        if len(name) > 1: body = body.replace(b'NONCE', name[1].encode())
        try: c.sendall(body)
        except OSError: return
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=[c], daemon=True).start()
\"";

/// P10: what an application answers is told as what it is, and never to somebody else.
#[tokio::test]
async fn a_broken_answer_is_nobody_else_s() {
    let server = server();
    server.start_process("s", HOSTILE, "ready").await;
    let preview = Preview::of(&server).await;
    let write = |name: &str, answer: Vec<u8>| {
        let path = format!("/v1/sandboxes/s/files/tmp/{name}");
        let server = &server;
        async move { assert!(server.put(&path, answer).await.status < 300) }
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    for (name, answer) in [
        ("two-lengths", format!("{ok}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("huge-head", format!("{ok}X: {}\r\n\r\n", "a".repeat(10_000_000))),
        ("many-headers", format!("{ok}{}\r\n", "X: y\r\n".repeat(10_000))),
        ("status-99", "HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("status-1000", "HTTP/1.1 1000 No\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("unasked-101", "HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_owned()),
        ("nul", format!("{ok}X: a\0b\r\nContent-Length: 0\r\n\r\n")),
        ("folded", format!("{ok}X: a\r\n b\r\nContent-Length: 0\r\n\r\n")),
        ("space", format!("{ok}X : a\r\nContent-Length: 0\r\n\r\n")),
        ("bad-length", format!("{ok}Content-Length: -1\r\n\r\n")),
        ("ssh", "SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
    ] {
        write(name, answer.into_bytes()).await;
        let answer = preview.get(&format!("/{name}")).await;
        assert_eq!(answer.status(), 502, "{name}");
        let json: Value = answer.json().await.expect("it is JSON");
        assert_eq!(json["error"]["code"], "SERVICE_NOT_RESPONDING", "{name}");
    }
    // Interim answers are between neighbours.
    let hints =
        format!("{}{ok}Content-Length: 2\r\n\r\nok", "HTTP/1.1 103 Hints\r\n\r\n".repeat(99));
    write("hints", hints.into_bytes()).await;
    let hinted = preview.get("/hints").await;
    assert_eq!(
        (hinted.status().as_u16(), hinted.text().await.unwrap_or_default().as_str()),
        (200, "ok")
    );
    // A chunked answer with a length as well is chunked.
    let both =
        format!("{ok}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    write("both", both.into_bytes()).await;
    let both = preview.get("/both").await.text().await;
    assert!(both.is_ok_and(|text| text == "ok"));

    // More than was promised: the rest is not the next visitor's answer.
    let more = format!("{ok}Content-Length: 5\r\n\r\nNONCE{ok}Content-Length: 6\r\n\r\npoison");
    write("more", more.into_bytes()).await;
    let visits = (10_000..10_400_u32).map(|nonce| {
        let preview = &preview;
        async move {
            let answer = preview.get(&format!("/more?{nonce}")).await;
            // A connection may have been given up for what was heard on it too early.
            if answer.status() != 502 {
                assert_eq!(answer.text().await.unwrap_or_default(), nonce.to_string());
            }
        }
    });
    futures_util::stream::StreamExt::for_each_concurrent(
        futures_util::stream::iter(visits),
        8,
        |visit| visit,
    )
    .await;
}

/// P15.
#[tokio::test]
async fn a_preview_of_itself_ends() {
    let server = server();
    let url = server.url();
    let address = url.trim_start_matches("http://");
    let preview = Preview::of(&server).await;
    // The server is not to be reached from inside; so the circle is played from outside.
    let via = |passes: usize| {
        let via = vec!["1.1 sandbar"; passes].join(", ");
        preview.request(Method::GET, "/").header("via", via).send()
    };
    assert!(!address.is_empty());
    for (passes, expected) in [(0, 502), (4, 502), (5, 508), (9, 508)] {
        let status = via(passes).await.expect("a response comes").status();
        assert_eq!(status, expected, "{passes}");
    }
}

/// P07, R55: what is asked for in Upgrade must be meant, and no other way to speak HTTP.
#[tokio::test]
async fn a_change_to_another_http_is_not_passed_on() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    for upgrade in ["h2c", "H2C", "TLS/1.0", "HTTP/2.0", "websocket, h2c", "a b"] {
        let head = format!(
            "GET /headers HTTP/1.1\r\nHost: HOST\r\nConnection: upgrade, close\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let answer = preview.raw(&head).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{upgrade}: {answer}");
        let answer = answer.to_ascii_lowercase();
        assert!(!answer.contains("\"upgrade\"") && !answer.contains("http2-settings"), "{answer}");
    }
    // Without the option it is not meant.
    let head =
        "GET /headers HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n";
    let answer = preview.raw(head).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && !answer.contains("\"upgrade\""), "{answer}");
}

/// P13, R54: previews on a listener of their own answer nothing of the API, and the API no previews.
#[tokio::test]
async fn a_listener_of_previews_answers_nothing_else() {
    let settings = [("PREVIEW_LISTEN", "127.0.0.1:0"), ("PREVIEW_URL", "http://preview.example")];
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &settings);
    let preview = Preview::with_app(&server).await;
    assert!(preview.host.ends_with(".preview.example"), "{}", preview.host);
    assert_eq!(preview.get("/headers").await.status(), 403, "the API knows no such host");
    let own = server.preview_address();
    let ask = |host: &str, path: &str| {
        let request = reqwest::Client::new().get(format!("http://{own}{path}"));
        let request = request.header("host", host).bearer_auth(server.key());
        async move { request.send().await.expect("a response comes").status().as_u16() }
    };
    assert_eq!(ask(&preview.host, "/headers").await, 200);
    for host in [
        "localhost",
        &own.to_string(),
        "preview.example",
        "x.preview.example",
        "8080-s-a.localhost",
    ] {
        for path in ["/", "/v1/sandboxes", "/healthz"] {
            assert_eq!(ask(host, path).await, 404, "{host}{path}");
        }
    }
}

/// P12: whoever leaves takes the connection to the application along.
#[tokio::test]
async fn a_thousand_visitors_who_leave_hold_nothing() {
    let server = server();
    let preview = Preview::with_app(&server).await;
    for _ in 0..20 {
        let visits = (0..50).map(|_| async {
            let mut stream = preview.connect().await;
            let head = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host);
            stream.write_all(head.as_bytes()).await.expect("it is sent");
            let mut first = [0];
            stream.read_exact(&mut first).await.expect("an answer begins");
        });
        futures_util::future::join_all(visits).await;
    }
    let sockets = "ss -tn state established '( sport = :8080 )' | tail -n +2 | wc -l";
    let gone = async {
        while server.shell("s", sockets).await.trim() != "0" {
            // The sandbox's kernel tells nobody.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("all are gone");
}

/// P12: whoever opens all that can be opened of one sandbox keeps nobody from another. With few
/// descriptors here, so that few are all.
#[tokio::test]
async fn one_sandbox_s_visitors_take_no_others_places() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let binary = dir.path().join("sandbar");
    let script =
        format!("#!/bin/sh\nulimit -n 550 && exec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_sandbar"));
    std::fs::write(&binary, script).expect("it is written");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    let server = Server::start(binary.to_str().expect("it is text"));
    let preview = Preview::with_app(&server).await;
    let other = Preview::of_app(&server, "t").await;
    let open = async || {
        let mut stream = preview.connect().await;
        let head = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", preview.host);
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        let mut answer = vec![0; 2048];
        let length = stream.read(&mut answer).await.expect("an answer begins");
        answer.truncate(length);
        (stream, String::from_utf8_lossy(&answer).into_owned())
    };

    let mut held = Vec::new();
    let refusal = loop {
        let (stream, answer) = open().await;
        if status(&answer) != 200 {
            break answer;
        }
        held.push(stream);
        assert!(held.len() < 550, "there is an end");
    };

    assert_eq!(status(&refusal), 429, "{refusal}");
    let (_, refusal) = refusal.split_once("\r\n\r\n").expect("it has a body");
    let refusal: Value = serde_json::from_str(refusal).expect("it is JSON");
    assert_eq!(refusal["error"]["code"], "TOO_MANY_REQUESTS", "{refusal}");
    assert_eq!(refusal["error"]["details"]["limit"], held.len(), "{refusal}");
    assert_eq!(other.get("/headers").await.status(), 200);
    assert_eq!(server.shell("t", "echo here").await, "here\n");
    // As soon as some have left there is room.
    held.truncate(held.len() / 2);
    let begins = async {
        while status(&open().await.1) != 200 {
            // The server learns of their leaving a moment later.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, begins).await.expect("there is room again");
}
