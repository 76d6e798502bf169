//! HTTP itself: framing that can be read in two ways, sizes, slowness, numbers.

use std::time::{Duration, Instant};

use testkit::{Raw, Server};

use super::{answers, ask, exchange, ids};
use crate::server;

/// A08
#[tokio::test]
async fn no_second_request_hides_in_the_first() {
    let server = server();
    let key = server.key();
    let host = server.url().trim_start_matches("http://").to_owned();
    let hidden = format!(
        "GET /v1/hidden HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    let head = format!(
        "POST /v1/sandboxes/none/none HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
    );
    let chunked = "transfer-encoding: chunked\r\n";
    let end = "0\r\n\r\n";
    let (length, long) = (hidden.len(), hidden.len() + end.len());
    // What follows the head, and what the server must not take for a request of its own.
    let ambiguous = [
        ("CL then TE", format!("{head}content-length: {long}\r\n{chunked}\r\n{end}{hidden}")),
        ("TE then CL", format!("{head}{chunked}content-length: {long}\r\n\r\n{end}{hidden}")),
        ("CL of nothing then TE", format!("{head}content-length: 0\r\n{chunked}\r\n{end}{hidden}")),
    ];
    for (what, bytes) in &ambiguous {
        let got = exchange(&server, bytes).await;
        assert_eq!(answers(&got).len(), 1, "{what}: one answer and the end: {got}");
        assert!(!got.contains("/v1/hidden"), "{what}: {got}");
    }
    let two = format!("content-length: {length}\r\ncontent-length: 0\r\n");
    for (what, field, body) in [
        ("two lengths", two.as_str(), ""),
        ("a list of lengths", "content-length: 0, 5\r\n", ""),
        ("a signed length", "content-length: +5\r\n", ""),
        ("a negative length", "content-length: -1\r\n", ""),
        ("a hexadecimal length", "content-length: 0x5\r\n", ""),
        ("no length", "content-length: \r\n", ""),
        ("a huge length", "content-length: 99999999999999999999999\r\n", ""),
        ("an unknown coding", "transfer-encoding: xchunked\r\n", end),
        ("chunked not last", "transfer-encoding: chunked, identity\r\n", end),
        ("chunked, then another", "transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n", end),
        ("a tab before", "transfer-encoding:\tx\r\n", end),
        ("a space before the colon", "transfer-encoding : chunked\r\n", end),
        ("a space before the length's colon", "content-length : 5\r\n", ""),
        ("a folded line", "x: a\r\n transfer-encoding: chunked\r\n", end),
        ("a NUL", "x: a\0b\r\n", ""),
        ("a bare CR", "x: a\rtransfer-encoding: chunked\r\n", end),
        ("a name with a control character", "x\u{b}: a\r\n", ""),
        ("a nameless field", ": a\r\n", ""),
        ("a chunk of nonsense", chunked, "zz\r\n"),
        ("a signed chunk", chunked, "+5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk over 64 bits", chunked, "fffffffffffffffff\r\n"),
        ("a chunk longer than it says", chunked, "1\r\nab\r\n0\r\n\r\n"),
    ] {
        // To a route that reads its body, so that the framing of the body counts.
        let head = head
            .replace("/none/none", "")
            .replace("\r\nhost", "\r\ncontent-type: application/json\r\nhost");
        let got = exchange(&server, format!("{head}{field}\r\n{body}{hidden}")).await;
        let told = answers(&got);
        assert_eq!(told.len(), 1, "{what}: one answer and the end: {got}");
        assert!((400..500).contains(&told[0]), "{what}: {got}");
        assert!(!got.contains("/v1/hidden"), "{what}: {got}");
    }
    let old = head.replace("HTTP/1.1", "HTTP/1.0");
    let got = exchange(&server, format!("{old}{chunked}\r\n{end}{hidden}")).await;
    assert_eq!(answers(&got), [400], "a coding in HTTP/1.0: {got}");
    // The control: a second request that is one gets its answer.
    let got = exchange(&server, format!("{head}content-length: 0\r\n\r\n{hidden}")).await;
    assert_eq!(answers(&got), [404, 404]);
    assert!(got.contains("/v1/hidden"), "{got}");
    assert!(ids(&server).await.is_empty(), "nothing was made");
}

/// A08, A09
#[tokio::test]
async fn old_and_new_versions_of_http_open_nothing_more() {
    let server = server();
    let host = server.url().trim_start_matches("http://").to_owned();
    let second = format!("GET /v1/hidden HTTP/1.1\r\nhost: {host}\r\n\r\n");

    let old = format!(
        "GET /v1/sandboxes HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\r\n",
        server.key()
    );
    let got = exchange(&server, format!("{old}{second}")).await;
    assert_eq!(answers(&got), [200], "one answer and the end: {got}");
    let got =
        exchange(&server, format!("GET /v1/sandboxes HTTP/1.0\r\nhost: {host}\r\n\r\n")).await;
    assert_eq!(answers(&got), [401]);
    for line in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET / HTTP/2.0\r\nhost: {host}\r\n\r\n"),
        format!("GET / HTTP/0.9\r\nhost: {host}\r\n\r\n"),
        "GET /\r\n".to_owned() + "\r\n",
        format!("\u{16}\u{3}\u{1}{}", "a".repeat(60)),
    ] {
        let got = exchange(&server, &line).await;
        let told = answers(&got);
        assert!(told.is_empty() || told == [400] || told == [505], "{line:?}: {got}");
    }
    let upgrade =
        ["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"];
    let got = ask(&server, "GET /v1/sandboxes HTTP/1.1", &server.key(), &upgrade).await;
    assert_eq!(got.status, 200, "{}", got.text);
}

/// A10
#[tokio::test]
async fn heads_over_their_limits_are_refused() {
    let server = server();
    let host = server.url().trim_start_matches("http://").to_owned();
    for (what, head) in [
        ("a long target", format!("GET /{} HTTP/1.1\r\nhost: {host}\r\n\r\n", "a".repeat(70_000))),
        (
            "a long header",
            format!("GET / HTTP/1.1\r\nhost: {host}\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)),
        ),
        (
            "a long name",
            format!("GET / HTTP/1.1\r\nhost: {host}\r\n{}: x\r\n\r\n", "a".repeat(70_000)),
        ),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\nhost: {host}\r\n{}\r\n", "x: y\r\n".repeat(1000)),
        ),
        ("a long method", format!("{} / HTTP/1.1\r\nhost: {host}\r\n\r\n", "A".repeat(70_000))),
    ] {
        let got = exchange(&server, head).await;
        let told = answers(&got);
        assert_eq!(told.len(), 1, "{what}: {got}");
        assert!(matches!(told[0], 400 | 414 | 431), "{what}: {got}");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

/// Bounds the wait for the end of a body that never ends: several times the server's own deadline.
const PATIENCE: Duration = Duration::from_secs(180);

/// A05, A07
#[tokio::test]
async fn a_body_that_is_too_long_or_too_slow_is_not_waited_for() {
    let server = server();
    let head = |field: &str| {
        format!(
            "POST /v1/sandboxes HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\n{field}\r\n\r\n",
            server.url().trim_start_matches("http://"),
            server.key()
        )
    };
    let kib = "x".repeat(1024);
    let begun = Instant::now();

    // Refused by what they announce, or by what comes.
    let mut announced = Raw::open(&server).await;
    announced.write(head("content-length: 99999999999")).await;
    announced.write(&kib).await;
    let mut endless = Raw::open(&server).await;
    endless.write(head("transfer-encoding: chunked")).await;
    for _ in 0..9 * 1024 {
        if !endless.write(format!("400\r\n{kib}\r\n")).await {
            break;
        }
    }
    assert_eq!(endless.answer().await.unwrap().code(), "PAYLOAD_TOO_LARGE");

    // Ended by the deadline of a whole body: a body that stops, one that was never begun, one that
    // drips.
    let mut stops = Raw::open(&server).await;
    stops.write(head("content-length: 100") + "{").await;
    let mut expects = Raw::open(&server).await;
    expects.write(head("content-length: 2\r\nexpect: 100-continue")).await;
    let mut drips = Raw::open(&server).await;
    drips.write(head("content-length: 1000000")).await;
    let drip = async {
        let mut bytes = 0;
        // Until the server is done with it, which the whole of it would not be before days.
        while drips.write(" ").await {
            bytes += 1;
            assert!(
                begun.elapsed() < PATIENCE,
                "the dripping one is let go on after {bytes} bytes"
            );
            // The point is that something always comes.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let stopped = async { stops.answer().await.unwrap() };
    let expected = async {
        let first = expects.answer().await.unwrap();
        // Asked to go on, it says nothing.
        if first.status == 100 { expects.answer().await.unwrap() } else { first }
    };
    let announced = async { announced.answer().await.unwrap() };
    let ((), stopped, expected, announced) = tokio::join!(drip, stopped, expected, announced);

    assert_eq!((stopped.status, stopped.code()), (504, "TIMEOUT"), "{}", stopped.text);
    assert_eq!((expected.status, expected.code()), (504, "TIMEOUT"), "{}", expected.text);
    assert_eq!(announced.code(), "PAYLOAD_TOO_LARGE", "{}", announced.text);
    assert_eq!(drips.answer().await.unwrap().code(), "TIMEOUT");
    assert!(ids(&server).await.is_empty(), "nothing was made");
}

/// An answer before the server gives up idle connections of its own accord, after 75 s: by then
/// whoever holds them keeps nobody out, and nothing is shown.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), answer).await.expect("an answer in time")
}

/// A06, A07
#[tokio::test]
async fn connections_that_are_held_open_keep_nobody_out() {
    let server = server();
    // More than the server takes at once.
    const HELD: usize = 8192 + 200;
    let mut held = Vec::with_capacity(HELD);
    for number in 0..HELD {
        let mut raw = Raw::open(&server).await;
        // Some say nothing, some begin a head, some keep a public answer unread.
        let begin: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /v1/sandboxes HTTP/1.1\r\nhost: ",
            _ => b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
        };
        raw.write(begin).await;
        held.push(raw);
    }

    for _ in 0..10 {
        assert_eq!(in_time(server.get("/v1/sandboxes")).await.status, 200);
    }
    assert_eq!(server.shell("s", "echo works").await, "works\n");
}

/// A31
#[tokio::test]
async fn a_server_without_free_descriptors_still_answers() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("LOG_LEVEL", "debug")]);
    let pid = server.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // As the server's own user: root may do it to others with a capability that root can lack.
    let user = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(server.state_dir().join("key")).unwrap(),
    );
    let limit = |soft: usize| {
        let limited = std::process::Command::new("setpriv")
            .args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
            .args(["prlimit", "--pid", &pid, &format!("--nofile={soft}:")])
            .status();
        assert!(limited.unwrap().success());
    };
    let before = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let before = before.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let before: usize = before.split_whitespace().nth(3).unwrap().parse().unwrap();
    limit(open + 40);

    let mut held = Vec::new();
    for _ in 0..120 {
        held.push(Raw::open(&server).await);
    }

    assert_eq!(in_time(server.get("/v1/sandboxes")).await.status, 200);
    // The limit was met.
    let _log = server.log_until("an idle connection is closed to accept another");
    drop(held);
    limit(before);
    assert_eq!(server.shell("s", "echo works").await, "works\n");
}
