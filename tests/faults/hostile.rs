//! Agents that were taken over: another program answers on their socket, however it likes.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
};

use reqwest::Method;
use serde_json::json;
use testkit::{PATIENCE, Server};
use tokio::time::timeout;

use crate::server;

/// Bytes that an answer without an end is read for.
const ENOUGH_BYTES: usize = 64 * 1024 * 1024;

/// What the server may grow by meanwhile: its buffers, and what the allocator keeps.
const GROWTH_KIB: u64 = 24 * 1024;

/// What one connection gets. It ends when the other end is closed.
type Answer = fn(UnixStream) -> std::io::Result<()>;

/// Makes a sandbox of which nothing was asked yet, and has `answer` speak for its agent.
async fn taken_over(server: &Server, id: &str, answer: Answer) {
    let run = server.state_dir().join("run");
    let sockets = || -> Vec<_> {
        let entries = fs::read_dir(&run).expect("the directory of sockets is there");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let before = sockets();
    let made = server.post("/v1/sandboxes", &json!({"id": id})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let own = sockets().into_iter().find(|path| !before.contains(path));
    let own = own.expect("its agent has a socket");
    fs::remove_file(&own).expect("the socket can be replaced");
    let listener = UnixListener::bind(&own).expect("the socket can be replaced");
    // The server is another user.
    fs::set_permissions(&own, Permissions::from_mode(0o666)).expect("it is ours");
    // Ends with the test's process.
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            // An error is the other end that has had enough.
            std::thread::spawn(move || answer(connection).unwrap_or_default());
        }
    });
}

fn read_head(connection: &mut UnixStream) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && connection.read(&mut byte)? > 0 {
        seen.extend_from_slice(&byte);
    }
    Ok(())
}

fn silent(mut connection: UnixStream) -> std::io::Result<()> {
    std::io::copy(&mut connection, &mut std::io::sink()).map(drop)
}

fn hangs_up(connection: UnixStream) -> std::io::Result<()> {
    drop(connection);
    Ok(())
}

fn garbage(mut connection: UnixStream) -> std::io::Result<()> {
    read_head(&mut connection)?;
    let noise: Vec<u8> =
        (0..4096_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    connection.write_all(&noise)
}

fn endless_head(mut connection: UnixStream) -> std::io::Result<()> {
    read_head(&mut connection)?;
    connection.write_all(b"HTTP/1.1 200 OK\r\n")?;
    loop {
        connection.write_all(b"x-more: of the same\r\n")?;
    }
}

fn endless_body(mut connection: UnixStream) -> std::io::Result<()> {
    read_head(&mut connection)?;
    connection.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    loop {
        connection.write_all(&chunk)?;
    }
}

fn resident_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    number.expect("proc(5) says how much")
}

/// The neighbour is served, and the sandbox goes when it is told to, whatever its agent does.
async fn nobody_else_is_harmed(server: &Server, id: &str) {
    let served = async {
        for _ in 0..20 {
            assert_eq!(server.shell("good", "echo ok").await, "ok\n", "beside {id}");
        }
        assert_eq!(server.get("/healthz").await.status, 200);
        let seen = server.get(&format!("/v1/sandboxes/{id}")).await;
        assert_eq!(seen.json["state"], "running", "{}", seen.text);
        let listed = server.get(&format!("/v1/sandboxes/{id}/ports")).await;
        assert_eq!(
            (listed.status, &listed.json["listening"]),
            (200, &json!([])),
            "{}",
            listed.text
        );
    };
    timeout(PATIENCE, served).await.expect("others are served meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_answers_nonsense_or_nothing_harms_nobody_else() {
    let server = server();
    server.shell("good", "true").await;
    let answers: [(&str, Answer); 4] = [
        ("silent", silent),
        ("hangs-up", hangs_up),
        ("garbage", garbage),
        ("endless-head", endless_head),
    ];
    for (id, answer) in answers {
        taken_over(&server, id, answer).await;
        let path = format!("/v1/sandboxes/{id}/exec");
        let asked = server.request(Method::POST, &path).json(&json!({"command": "true"})).send();
        let asked = tokio::spawn(asked);

        nobody_else_is_harmed(&server, id).await;

        let told = timeout(PATIENCE, asked).await.expect("an answer comes").unwrap().unwrap();
        let told = testkit::answer(told).await;
        assert_eq!((told.status, told.code()), (502, "AGENT_UNREACHABLE"), "{id}: {}", told.text);
        let path = format!("/v1/sandboxes/{id}");
        let gone = timeout(PATIENCE, server.delete(&path));
        assert_eq!(gone.await.expect("it is destroyed").status, 204, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_answers_without_end_fills_nobody_s_memory() {
    let server = server();
    server.shell("good", "true").await;
    taken_over(&server, "endless", endless_body).await;
    let before = resident_kib(&server);
    let request = server.request(Method::POST, "/v1/sandboxes/endless/exec");
    let mut answer = request.json(&json!({"command": "true"})).send().await.unwrap();

    // First nobody reads it, then somebody does.
    nobody_else_is_harmed(&server, "endless").await;
    let mut bytes = 0;
    while bytes < ENOUGH_BYTES {
        bytes += answer.chunk().await.unwrap().expect("it has no end").len();
    }

    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the server grew by {grown} KiB");
    let gone = timeout(PATIENCE, server.delete("/v1/sandboxes/endless"));
    assert_eq!(gone.await.expect("it is destroyed").status, 204);
}
