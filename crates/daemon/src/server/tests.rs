use std::net::SocketAddr;

use axum::routing::get;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::*;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn start(router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let door = Door { listener, is_previews: false, tls: None, connections_at_once: 1000 };
    let serving = tokio::spawn(run(door, router, async move { drop(stopped.await) }));
    Running { address, stop, serving }
}

/// Writes `request` and reads until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    drop(stream.write_all(request).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

/// A route that streams what the sender gives.
fn streaming() -> (Router, mpsc::Sender<Bytes>) {
    let (send, chunks) = mpsc::channel::<Bytes>(1);
    let chunks = Arc::new(std::sync::Mutex::new(Some(chunks)));
    let handler = move || {
        let chunks = chunks.lock().unwrap().take().unwrap();
        let stream = ReceiverStream::new(chunks).map(Ok::<_, std::io::Error>);
        async move { Body::from_stream(stream) }
    };
    (Router::new().route("/", get(handler)), send)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_head_over_its_limits_is_refused() {
    let server = start(Router::new()).await;
    let line = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 2 * HEAD_BYTES]].concat();
    let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(HEADERS + 1), b"\r\n".to_vec()];

    for head in [line, many.concat()] {
        let answer = exchange(server.address, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let server = start(Router::new()).await;
    let begun = tokio::time::Instant::now();

    exchange(server.address, b"GET / HTTP/1.1\r\nhost:").await;

    assert!(begun.elapsed() >= HEAD_DEADLINE);
}

#[tokio::test]
async fn requests_under_way_are_finished_and_no_new_ones_taken() {
    let (router, send) = streaming();
    let server = start(router).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    send.send(Bytes::from_static(b"one")).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"one\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }

    server.stop.send(()).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    send.send(Bytes::from_static(b"two")).await.unwrap();
    drop(send);

    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"3\r\ntwo\r\n0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&answer));
    server.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_outlast_the_drain_are_cut_off() {
    let (router, send) = streaming();
    let server = start(router).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    send.send(Bytes::from_static(b"one")).await.unwrap();

    server.stop.send(()).unwrap();
    server.serving.await.unwrap();

    // Cut off, not ended: the closing chunk is missing, and what was streamed was dropped.
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(!answer.ends_with(b"0\r\n\r\n"));
    assert!(send.is_closed());
}

#[tokio::test(start_paused = true)]
async fn events_that_only_look_on_end_at_once_and_those_of_work_do_not() {
    let router = || {
        let events = || async {
            let texts = tokio_stream::pending::<Result<Bytes, std::io::Error>>();
            ([("content-type", "text/event-stream")], Body::from_stream(texts))
        };
        Router::new().route("/", get(events).post(events))
    };
    for (method, is_cut) in [("GET", true), ("POST", false)] {
        let server = start(router()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        let begun = tokio::time::Instant::now();

        server.stop.send(()).unwrap();
        server.serving.await.unwrap();

        assert_eq!(begun.elapsed() < DRAIN, is_cut, "{method}");
        drop(stream.read_to_end(&mut answer).await);
        assert!(!answer.ends_with(b"0\r\n\r\n"), "it does not look whole");
    }
}

#[tokio::test]
async fn an_upload_that_is_refused_gets_to_read_why() {
    let refuse = || async { (http::StatusCode::UNAUTHORIZED, "no") };
    let server = start(Router::new().route("/", axum::routing::put(refuse))).await;
    let body = vec![0; 32 * 1024 * 1024];
    let head = format!("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());

    // Sends everything before it reads, as simple clients do.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

/// How many connections [`crowded`] servers take.
const FEW: usize = 4;

/// A server with few places, and the two ends of its work on `/`: it tells that it has begun, and
/// then waits to be let go.
struct Crowded {
    server: Running,
    begun: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

async fn crowded() -> Crowded {
    let (begin, begun) = mpsc::channel::<()>(1);
    let (release, released) = mpsc::channel::<()>(1);
    let released = Arc::new(tokio::sync::Mutex::new(released));
    let handler = move |axum::Extension(seat): axum::Extension<Seat>| async move {
        let _working = seat.work();
        begin.send(()).await.unwrap();
        released.lock().await.recv().await;
        "done"
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let router = Router::new().route("/", get(handler)).route("/public", get(|| async { "here" }));
    let stopped = async move { drop(stopped.await) };
    let door = Door { listener, is_previews: false, tls: None, connections_at_once: FEW };
    let serving = tokio::spawn(run(door, router, stopped));
    Crowded { server: Running { address, stop, serving }, begun, release }
}

#[tokio::test]
async fn idle_connections_keep_nobody_out_and_working_ones_stay() {
    let Crowded { server, mut begun, release } = crowded().await;
    let mut working = TcpStream::connect(server.address).await.unwrap();
    working.write_all(GET).await.unwrap();
    begun.recv().await.unwrap();
    // Heads that never end, from one who holds every other place and more.
    let mut idle = Vec::new();
    for _ in 0..2 * FEW {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        idle.push(stream);
    }

    let public = b"GET /public HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(server.address, public).await;

    assert!(answer.ends_with("here"), "{answer}");
    // The first of the idle ones made room; closed while it had sent half a head, it may be reset.
    let mut rest = Vec::new();
    drop(idle[0].read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    release.send(()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"done") {
        assert_ne!(working.read_buf(&mut answer).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_kept_connection_gives_way_once_its_request_is_done() {
    let Crowded { server, begun: _begun, release } = crowded().await;
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(GET).await.unwrap();
    release.send(()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"done") {
        assert_ne!(kept.read_buf(&mut answer).await.unwrap(), 0);
    }

    // Each later one is behind it in line.
    let mut later = Vec::new();
    for _ in 0..FEW {
        later.push(TcpStream::connect(server.address).await.unwrap());
    }

    assert_eq!(kept.read(&mut [0]).await.unwrap_or(0), 0);
    let public = b"GET /public HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(exchange(server.address, public).await.ends_with("here"));
}
