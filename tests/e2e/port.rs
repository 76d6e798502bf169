//! Ports: exposed, listed, hidden, rotated, waited for.

use std::io::{BufRead, BufReader};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Raw, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server;

const PORTS: &str = "/v1/sandboxes/s/ports";

/// Starts something that listens on `port` of sandbox `s`, and waits for it.
async fn listen(server: &Server, port: u16) {
    let command = format!("python3 -m http.server {port} --bind 127.0.0.1");
    let process = json!({"command": command, "id": format!("web{port}")});
    assert_eq!(server.post("/v1/sandboxes/s/processes", &process).await.status, 201);
    let wait = server.post(&format!("{PORTS}/{port}/wait"), &json!({"timeoutMs": 60_000})).await;
    assert_eq!((wait.status, &wait.json["port"]), (200, &json!(port)), "{}", wait.text);
}

fn url(answer: &Value) -> String {
    answer["url"].as_str().expect("it has a URL").to_owned()
}

#[tokio::test]
async fn a_port_is_exposed_listed_and_hidden() {
    let server = server();

    let exposed = server.post(PORTS, &json!({"port": 8080, "name": "web"})).await;
    assert_eq!(exposed.status, 201, "{}", exposed.text);
    let address = server.url().rsplit_once(':').unwrap().1.to_owned();
    let first = url(&exposed.json);
    assert!(first.starts_with("http://8080-s-"), "{first}");
    assert!(first.ends_with(&format!(".localhost:{address}/")), "{first}");
    assert_eq!(exposed.json["name"], "web");
    assert_eq!(exposed.json["status"], "inactive");
    assert!(exposed.json["exposedAtMs"].as_i64().unwrap() > 1_700_000_000_000);

    let twice = server.post(PORTS, &json!({"port": 8080})).await;
    assert_eq!((twice.status, twice.code()), (409, "PORT_ALREADY_EXPOSED"));
    assert_eq!(twice.json["error"]["details"]["url"], first);

    listen(&server, 8080).await;
    let list = server.get(PORTS).await;
    assert_eq!(list.json["ports"][0]["url"], first, "{}", list.text);
    assert_eq!(list.json["ports"][0]["status"], "active");
    assert_eq!(list.json["listening"], json!([{"port": 8080, "address": "127.0.0.1"}]));
    let one = server.get(&format!("{PORTS}/8080")).await;
    assert_eq!(one.json, list.json["ports"][0]);

    assert_eq!(server.delete(&format!("{PORTS}/8080")).await.status, 204);
    let hidden = server.delete(&format!("{PORTS}/8080")).await;
    assert_eq!((hidden.status, hidden.code()), (404, "PORT_NOT_EXPOSED"));
    let list = server.get(PORTS).await;
    assert_eq!(list.json["ports"], json!([]));
    // Still there, though nobody outside reaches it.
    assert_eq!(list.json["listening"][0]["port"], 8080);

    let again = server.post(PORTS, &json!({"port": 8080})).await;
    assert_eq!(url(&again.json), first, "the URL is stable");
}

#[tokio::test]
async fn tokens_are_custom_checked_and_rotated() {
    let server = server();
    let expose = |body: Value| {
        let server = &server;
        async move { server.post(PORTS, &body).await }
    };
    let valid = |port: u16, token: &str| {
        let (server, body) = (&server, json!({"token": token}));
        async move {
            let answer = server.post(&format!("{PORTS}/{port}/validate-token"), &body).await;
            answer.json["valid"].as_bool().expect("it says whether")
        }
    };

    let own = expose(json!({"port": 8080, "token": "my_token"})).await;
    assert!(url(&own.json).starts_with("http://8080-s-my_token."), "{}", own.text);
    assert!(valid(8080, "my_token").await);
    for wrong in ["", "my_toke", "my_tokenn", "MY_TOKEN", "ä"] {
        assert!(!valid(8080, wrong).await, "{wrong}");
    }
    assert!(!valid(8081, "my_token").await);
    let taken = expose(json!({"port": 8081, "token": "my_token"})).await;
    assert_eq!((taken.status, taken.code()), (400, "VALIDATION_FAILED"));

    let rotated = server.post(&format!("{PORTS}/8080/rotate"), &json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert_ne!(url(&rotated.json), url(&own.json));
    assert!(!valid(8080, "my_token").await);
    let token = url(&rotated.json)["http://8080-s-".len()..].split('.').next().unwrap().to_owned();
    assert_eq!(token.len(), 16);
    assert!(valid(8080, &token).await);
    let named = server.post(&format!("{PORTS}/8080/rotate"), &json!({"token": "other"})).await;
    assert!(url(&named.json).starts_with("http://8080-s-other."));
    let none = server.post(&format!("{PORTS}/9999/rotate"), &json!({})).await;
    assert_eq!((none.status, none.code()), (404, "PORT_NOT_EXPOSED"));

    let public = expose(json!({"port": 9000, "public": true})).await;
    assert!(url(&public.json).starts_with("http://s-9000.localhost:"), "{}", public.text);
    assert_eq!(public.json["public"], true);
}

#[tokio::test]
async fn what_cannot_be_exposed_is_refused() {
    let server = server();
    for (body, status, code) in [
        (json!({"port": 80}), 400, "INVALID_PORT"),
        (json!({"port": 1023}), 400, "INVALID_PORT"),
        (json!({"port": 65536}), 400, "INVALID_PORT"),
        (json!({"port": 0}), 400, "INVALID_PORT"),
        (json!({"port": -1}), 400, "VALIDATION_FAILED"),
        (json!({"port": "8080"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080.5}), 400, "VALIDATION_FAILED"),
        (json!({}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "hostname": "x"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "token": "NO"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "token": "a-b"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "token": "3000"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "token": "abcdefgh012345678"}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "name": ""}), 400, "VALIDATION_FAILED"),
        (json!({"port": 8080, "name": "a\nb"}), 400, "VALIDATION_FAILED"),
    ] {
        let answer = server.post(PORTS, &body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}: {}", answer.text);
    }
    for path in ["/80", "/08080", "/+8080", "/x", "/65536"] {
        let answer = server.delete(&format!("{PORTS}{path}")).await;
        assert_eq!((answer.status, answer.code()), (400, "INVALID_PORT"), "{path}");
    }
    // Host names have no upper case and no dots, and a label ends somewhere.
    for id in ["Upper", "a.b", "xn--a", &"a".repeat(42)] {
        let path = format!("/v1/sandboxes/{id}/ports");
        let answer = server.post(&path, &json!({"port": 8080})).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_FAILED"), "{id}");
        assert_eq!(answer.json["error"]["details"]["field"], "id");
    }
    // None of it has made a sandbox.
    for path in [PORTS, "/v1/sandboxes/Upper", "/v1/sandboxes/s/ports/8080"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.code()), (404, "SANDBOX_NOT_FOUND"), "{path}");
    }
    let none = server.delete(&format!("{PORTS}/8080")).await;
    assert_eq!((none.status, none.code()), (404, "SANDBOX_NOT_FOUND"));
}

#[tokio::test]
async fn so_many_ports_are_exposed_and_no_more() {
    let server = server();
    for port in 0..api::limit::EXPOSED_PORTS {
        let answer = server.post(PORTS, &json!({"port": 2000 + port})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    let full = server.post(PORTS, &json!({"port": 5000})).await;
    assert_eq!((full.status, full.code()), (429, "TOO_MANY_REQUESTS"));
    assert_eq!(server.delete(&format!("{PORTS}/2000")).await.status, 204);
    assert_eq!(server.post(PORTS, &json!({"port": 5000})).await.status, 201);
}

#[tokio::test]
async fn urls_outlive_the_server_but_not_the_sandbox() {
    let mut server = Server::start_at_one_address(env!("CARGO_BIN_EXE_sandbar"));
    let before = server.post(PORTS, &json!({"port": 8080, "name": "web"})).await;
    let rotated = server.post(&format!("{PORTS}/8080/rotate"), &json!({})).await;
    assert_eq!(server.post(PORTS, &json!({"port": 8081})).await.status, 201);
    assert_eq!(server.delete(&format!("{PORTS}/8081")).await.status, 204);

    server.kill();
    server.restart();

    let list = server.get(PORTS).await;
    assert_eq!(list.json["ports"], json!([rotated.json]), "{}", list.text);

    assert_eq!(server.delete("/v1/sandboxes/s").await.status, 204);
    let after = server.post(PORTS, &json!({"port": 8080})).await;
    assert_eq!(after.status, 201);
    assert_ne!(url(&after.json), url(&before.json), "another sandbox, another token");
    assert_ne!(url(&after.json), url(&rotated.json));
}

#[tokio::test]
async fn a_port_is_waited_for() {
    let server = server();
    let wait = |port: u16, body: Value| {
        let server = &server;
        async move { server.post(&format!("{PORTS}/{port}/wait"), &body).await }
    };
    let early = wait(8000, json!({"timeoutMs": 50})).await;
    assert_eq!((early.status, early.code()), (408, "PROCESS_READY_TIMEOUT"));

    let waiting = wait(8000, json!({"http": {}, "timeoutMs": 60_000}));
    let (ready, ()) = tokio::join!(waiting, listen(&server, 8000));
    assert_eq!(ready.json, json!({"port": 8000, "status": 200}));

    let missing = json!({"http": {"path": "/none"}, "timeoutMs": 50});
    assert_eq!(wait(8000, missing).await.code(), "PROCESS_READY_TIMEOUT");
    let expected = json!({"http": {"path": "/none", "statusMin": 404, "statusMax": 404}});
    assert_eq!(wait(8000, expected).await.json["status"], 404);
    for (port, body) in [
        (0, json!({})),
        (8000, json!({"timeoutMs": 0})),
        (8000, json!({"http": {"path": "none"}})),
        (8000, json!({"http": {"statusMin": 400, "statusMax": 300}})),
    ] {
        assert_eq!(wait(port, body.clone()).await.status, 400, "{port} {body}");
    }
}

/// A close frame of code 1000 without a mask, as a text that is not UTF-8 is shown.
const CLOSED: &str = "\u{fffd}\u{2}\u{3}\u{fffd}";

#[tokio::test]
async fn a_web_socket_that_is_closed_is_closed_in_turn() {
    let server = server();
    listen(&server, 8000).await;
    for path in [format!("{PORTS}/8000/connect"), "/v1/sandboxes/s/terminals/t".to_owned()] {
        let mut caller = Raw::open(&server).await;
        let upgrade = [
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        ];
        assert!(caller.send(&format!("GET {path} HTTP/1.1"), &server.key(), &upgrade).await);
        let opened = caller.answer().await.expect("it answers");
        assert_eq!(opened.status, 101, "{}", opened.text);

        assert!(caller.write(b"\x88\x82\0\0\0\0\x03\xe8").await);

        let heard = caller.rest().await;
        assert!(heard.ends_with(CLOSED), "{path}: {heard:?}");
    }
}

#[tokio::test]
async fn what_listens_inside_is_nobody_else_s_route() {
    let server = server();
    server.shell("s", "true").await;
    let internal = server.get("/v1/sandboxes/s/listening").await;
    assert_eq!((internal.status, internal.code()), (404, "ROUTE_NOT_FOUND"));
    // The raw protocol between daemon and agent is not the caller's either.
    let raw = server
        .request(Method::GET, &format!("{PORTS}/8000/connect"))
        .header("connection", "upgrade")
        .header("upgrade", "tcp")
        .send()
        .await
        .unwrap();
    assert_eq!(raw.status(), 400);
}

/// Sends back in upper case what it hears, when it has heard all of it.
const SHOUT: &str = "import socket
s = socket.create_server(('127.0.0.1', 7000))
print('ready', flush=True)
while True:
    c, _ = s.accept()
    heard = b''
    while piece := c.recv(65536):
        heard += piece
    c.sendall(heard.upper())
    c.close()
";

#[tokio::test]
async fn tcp_ports_are_forwarded_to_this_machine() {
    let server = server();
    let process = json!({"command": ["python3", "-c", SHOUT], "id": "shout"});
    assert_eq!(server.post("/v1/sandboxes/s/processes", &process).await.status, 201);
    let wait = json!({"until": {"type": "log", "text": "ready"}});
    assert_eq!(server.post("/v1/sandboxes/s/processes/shout/wait", &wait).await.status, 200);
    let mut forward = server
        .command(["port-forward", "s", "0:7000", "0:7001"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let mut address = |inside: &str| {
        let line = lines.next().unwrap().unwrap();
        let (here, there) = line.split_once(" -> ").unwrap();
        assert_eq!(there, inside);
        here.to_owned()
    };
    let (shout, nothing) = (address("7000"), address("7001"));

    let sent = vec![b'a'; 3_000_000];
    let one = async {
        let mut stream = TcpStream::connect(&shout).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut heard = Vec::new();
        let (said, read) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut heard)
        );
        said.and(read).unwrap();
        assert!(heard == vec![b'A'; sent.len()]);
    };
    tokio::time::timeout(testkit::PATIENCE, one).await.unwrap();
    // Nothing listens there: the connection ends at once, and the next one works.
    let mut stream = TcpStream::connect(&nothing).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    let mut stream = TcpStream::connect(&shout).await.unwrap();
    stream.write_all(b"once more").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "ONCE MORE");

    // It says why behind the end of the connection.
    let mut complaints = BufReader::new(forward.stderr.take().unwrap()).lines();
    let said = complaints.next().unwrap().unwrap();
    assert!(said.contains("port 7001") && said.contains("nothing answers"), "{said}");
    forward.kill().unwrap();
    forward.wait().unwrap();
}

#[tokio::test]
async fn the_command_line_exposes_lists_and_hides() {
    let server = server();
    let run = |arguments: &[&str]| {
        let output = server.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, url, _) = run(&["port", "expose", "s", "8080", "--name", "web", "--token", "mine"]);
    assert_eq!(code, Some(0));
    assert!(url.starts_with("http://8080-s-mine.localhost:"), "{url}");
    listen(&server, 9000).await;
    let (_, list, _) = run(&["port", "ls", "s"]);
    assert!(list.contains("8080  web   inactive  http://8080-s-mine."), "{list}");
    assert!(list.contains("9000  -     active    not exposed; listens on 127.0.0.1"), "{list}");
    let (code, rotated, _) = run(&["port", "rotate", "s", "8080"]);
    assert!(
        code == Some(0) && rotated != url && rotated.starts_with("http://8080-s-"),
        "{rotated}"
    );
    assert_eq!(run(&["port", "hide", "s", "8080"]), (Some(0), "8080\n".to_owned(), String::new()));
    let (code, _, complaint) = run(&["port", "hide", "s", "8080"]);
    assert!(code == Some(1) && complaint.contains("not exposed"), "{complaint}");
}
