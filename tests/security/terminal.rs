//! Terminals and the connections that lead to them.

use serde_json::json;
use testkit::{PATIENCE, Server, Viewer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::server;

/// Tries to type `id` into the terminal of descriptor 0, or of `path`, and says how that went.
fn type_into(path: &str) -> String {
    format!(
        "python3 -c 'import fcntl,os\nfd=os.open(\"{path}\",os.O_RDWR)\nfor request in (0x5412,0x541c,0x5423):\n try: fcntl.ioctl(fd,request,b\"i\\0\\0\\0\"); print(\"typed\")\n except OSError as e: print(\"refused\",e.errno)'"
    )
}

#[tokio::test]
async fn cannot_type_into_a_terminal_as_its_user() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;

    viewer.type_in(format!("{}\n", type_into("/dev/tty"))).await;
    viewer.until("refused 1\r\nrefused 1\r\nrefused 1\r\n").await;
    let beside = server.shell("s", &type_into("/dev/pts/0")).await;

    assert_eq!(beside, "refused 1\nrefused 1\nrefused 1\n");
}

#[tokio::test]
async fn cannot_see_or_reach_the_terminal_of_a_neighbour() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    viewer.type_in("stty -echo; echo se''cret\n").await;
    viewer.until("secret\r\n").await;
    let other = "/v1/sandboxes/other/terminals";

    let list = server.get(other).await;
    assert_eq!(list.json["terminals"], json!([]), "{}", list.text);
    for id in ["t", "..%2F..%2Fs%2Fterminals%2Ft", "%2E%2E"] {
        let answer = server.get(&format!("{other}/{id}")).await;
        assert!(
            matches!(answer.code(), "TERMINAL_NOT_FOUND" | "VALIDATION_FAILED" | "ROUTE_NOT_FOUND"),
            "{id}: {}",
            answer.text
        );
        assert_ne!(server.delete(&format!("{other}/{id}")).await.status, 204, "{id}");
    }
    assert_eq!(
        server.shell("other", "ls /dev/pts; ls -l /proc/*/fd 2>&1 | grep -c pts || true").await,
        "ptmx\n0\n"
    );
    assert!(server.terminal("t").await.running);
}

#[tokio::test]
async fn cannot_take_the_terminals_of_the_machine() {
    let server = server();
    let grab = "python3 -c 'import os\nfds=[]\ntry:\n while True: fds.append(os.open(\"/dev/ptmx\",os.O_RDWR))\nexcept OSError as e: print(len(fds),e.errno)'";

    // ENOSPC: the sandbox's own have run out, and a neighbour has all of its own.
    assert_eq!(server.shell("s", grab).await, "128 28\n");
    assert_eq!(server.shell("other", grab).await, "128 28\n");
}

/// Sends raw bytes to the server and reads the head of the answer.
async fn raw(server: &Server, request: &[u8]) -> (TcpStream, String) {
    let address = server.url();
    let stream = TcpStream::connect(address.trim_start_matches("http://")).await;
    let mut stream = stream.expect("the server listens");
    stream.write_all(request).await.expect("the server reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match timeout(PATIENCE, stream.read_u8()).await.expect("an answer comes") {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

fn upgrade(server: &Server, path: &str) -> String {
    let host = server.url();
    let host = host.trim_start_matches("http://");
    format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        server.key()
    )
}

#[tokio::test]
async fn cannot_open_a_web_socket_without_the_key_or_from_another_site() {
    let server = server();
    let path = "/v1/sandboxes/s/terminals/t";
    let good = upgrade(&server, path);
    let key = format!("authorization: Bearer {}\r\n", server.key());
    let origin = "connection: Upgrade\r\norigin: http://evil.example";
    for (what, request, status) in [
        ("no key", good.replace(&key, ""), 401),
        ("a wrong key", good.replace(&server.key(), "wrong"), 401),
        ("a key in the query", good.replace(&key, "").replace("/t ", "/t?key=x "), 401),
        ("another origin", good.replace("connection: Upgrade", origin), 403),
        ("another host", good.replace("host: 127.0.0.1", "host: evil.example"), 403),
        ("an unknown route", good.replace("terminals/t", "nothing/t"), 404),
    ] {
        let (_stream, head) = raw(&server, request.as_bytes()).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head}");
    }
    assert_eq!(server.get("/v1/sandboxes").await.json["sandboxes"], json!([]), "none was made");

    for (what, request, status) in [
        ("no WebSocket key", good.replace("sec-websocket-key", "x-key"), 400),
        ("another version", good.replace("version: 13", "version: 8"), 400),
        ("another protocol", good.replace("upgrade: websocket", "upgrade: h2c"), 404),
        ("another route", good.replace("terminals/t", "terminals"), 200),
        ("a file", good.replace("terminals/t", "files/etc/hostname"), 200),
        ("everything right", good.clone(), 101),
    ] {
        let (_stream, head) = raw(&server, request.as_bytes()).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head}");
    }
}

#[tokio::test]
async fn garbage_in_the_place_of_frames_costs_its_sender_its_connection_and_nothing_else() {
    let server = server();
    let mut viewer = Viewer::attach(&server, "t").await;
    let masked = |first: u8, second: u8| [&[first, 0x80 | second][..], &[0; 4]].concat();
    let huge = [&[0x82, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    let too_long = [&[0x82, 0xff][..], &((1_u64 << 20) + 1).to_be_bytes(), &[0; 4]].concat();
    for (what, bytes) in [
        ("noise", (0..=255).collect::<Vec<u8>>()),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("an unmasked frame", vec![0x82, 1, b'x']),
        ("an unknown kind", masked(0x83, 0)),
        ("a continuation of nothing", masked(0x80, 0)),
        ("a ping of more than it may hold", [masked(0x89, 126), vec![0; 200]].concat()),
        ("text that is none", [masked(0x81, 1), vec![0xff]].concat()),
        ("a frame that never ends", huge),
        ("a message over the limit", too_long),
    ] {
        let (mut stream, head) =
            raw(&server, upgrade(&server, "/v1/sandboxes/s/terminals/t").as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{what}: {head}");
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "{what}: the connection stays");
        let said = String::from_utf8_lossy(&rest);
        assert!(said.contains("{\"type\":\"error\",\"message\":\""), "{what}: {said}");
    }
    server.terminal_until("t", |terminal| terminal.viewers == 1).await;

    viewer.type_in("echo sti''ll\n").await;
    viewer.until("still\r\n").await;

    // Texts that are no control message are told, and cost nothing.
    let (mut stream, _) =
        raw(&server, upgrade(&server, "/v1/sandboxes/s/terminals/t").as_bytes()).await;
    for text in [
        "{",
        "[]",
        "{\"type\":\"run\"}",
        "{\"type\":\"resize\"}",
        "{\"type\":\"resize\",\"cols\":\"x\",\"rows\":1}",
    ] {
        let length = u8::try_from(text.len()).unwrap();
        stream.write_all(&[masked(0x81, length), text.as_bytes().to_vec()].concat()).await.unwrap();
        let mut said = Vec::new();
        while !said.windows(23).any(|window| window == b"Invalid control message") {
            said.push(timeout(PATIENCE, stream.read_u8()).await.expect("it is told").unwrap());
        }
    }
    server.terminal_until("t", |terminal| terminal.viewers == 2).await;
}
