//! Links against small agents made of plain sockets, kind and hostile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use link::{Body, LinkError, Links};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const JAIL: u64 = 3;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An agent that handles its connections one after the other, on a thread of its own: it makes
/// progress while the test's runtime does not.
fn agent(run_dir: &Path, mut serve: impl FnMut(UnixStream) + Send + 'static) {
    let listener = UnixListener::from(link::socket::listen(run_dir, JAIL).unwrap());
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            serve(stream);
        }
    });
}

/// Reads one request head; its first line, or nothing when the peer closed.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap() == 0 {
        return None;
    }
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    Some(first)
}

fn get(path: &str) -> Request<Body> {
    let body = Body::new(Empty::<Bytes>::new().map_err(|never| match never {}));
    Request::get(path).body(body).unwrap()
}

async fn text(links: &Links, path: &str) -> Result<String, LinkError> {
    let body = links.send(JAIL, get(path)).await?.into_body().collect().await.unwrap();
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn requests_in_turn_share_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (accepted, connections) = mpsc::channel();
    agent(dir.path(), move |stream| {
        accepted.send(()).unwrap();
        let mut reader = BufReader::new(&stream);
        while let Some(line) = read_head(&mut reader) {
            assert_eq!(line, "GET /x?y HTTP/1.1\r\n");
            (&stream).write_all(OK).unwrap();
        }
    });
    let links = Links::new(dir.path().to_owned());
    for _ in 0..5 {
        assert_eq!(text(&links, "/x?y").await.unwrap(), "ok");
    }
    assert_eq!(connections.try_iter().count(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_died_unseen_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (close, closing) = mpsc::channel();
    let (closed, closes) = mpsc::channel();
    agent(dir.path(), move |stream| {
        read_head(&mut BufReader::new(&stream));
        (&stream).write_all(OK).unwrap();
        closing.recv().unwrap();
        drop(stream);
        closed.send(()).unwrap();
    });
    let links = Links::new(dir.path().to_owned());
    for _ in 0..20 {
        assert_eq!(text(&links, "/").await.unwrap(), "ok");
        // Lets the link put the connection aside, more often than it needs.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        // Blocks the runtime's only thread: hyper cannot learn that the connection is closed.
        close.send(()).unwrap();
        closes.recv().unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_gone_and_was_sent_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let links = Links::new(dir.path().to_owned());
    assert!(matches!(links.send(JAIL, get("/")).await, Err(LinkError::Gone(_))));

    drop(link::socket::listen(dir.path(), JAIL).unwrap());
    // The socket is there, its listener is gone.
    assert!(matches!(links.send(JAIL, get("/")).await, Err(LinkError::Gone(_))));
    assert!(matches!(links.send_to_port(JAIL, 1, get("/")).await, Err(LinkError::Gone(_))));
    assert!(matches!(links.health(JAIL).await, Err(LinkError::Gone(_))));
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, requests) = mpsc::channel();
    agent(dir.path(), move |stream| {
        read_head(&mut BufReader::new(&stream));
        seen.send(()).unwrap();
    });
    let links = Links::new(dir.path().to_owned());
    assert!(matches!(links.send(JAIL, get("/")).await, Err(LinkError::Unreachable(_))));
    assert_eq!(requests.try_iter().count(), 1);
}

#[tokio::test]
async fn hostile_heads_are_refused() {
    let long_value =
        [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'a'; 20 * 1024], b"\r\n\r\n"].concat();
    let many_fields =
        [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"x: y\r\n".repeat(65), b"\r\n"].concat();
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &vec![b'a'; 4 * 1024 * 1024]].concat();
    for head in [
        long_value,
        many_fields,
        endless,
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n".to_vec(),
        b"\0\0\0\0".to_vec(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let sent = head.clone();
        agent(dir.path(), move |stream| {
            read_head(&mut BufReader::new(&stream));
            // The link hangs up in the middle of what is too long.
            drop((&stream).write_all(&sent));
        });
        let answer = Links::new(dir.path().to_owned()).send(JAIL, get("/")).await;
        let start = String::from_utf8_lossy(&head[..head.len().min(40)]).into_owned();
        assert!(answer.is_err(), "{start:?} gave {answer:?}");
    }
}

#[tokio::test]
async fn words_after_the_answer_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (accepted, connections) = mpsc::channel();
    agent(dir.path(), move |stream| {
        accepted.send(()).unwrap();
        read_head(&mut BufReader::new(&stream));
        (&stream)
            .write_all(&[OK, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother"].concat())
            .unwrap();
    });
    let links = Links::new(dir.path().to_owned());
    for _ in 0..3 {
        assert_eq!(text(&links, "/").await.unwrap(), "ok");
    }
    assert_eq!(connections.try_iter().count(), 3);
}

#[tokio::test]
async fn an_upgraded_connection_is_the_caller_s_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (accepted, connections) = mpsc::channel();
    agent(dir.path(), move |stream| {
        accepted.send(()).unwrap();
        let mut reader = BufReader::new(&stream);
        if read_head(&mut reader) == Some("GET /plain HTTP/1.1\r\n".to_owned()) {
            (&stream).write_all(OK).unwrap();
            return;
        }
        // What follows the head in the same write belongs to the stream.
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        (&stream).write_all(format!("{head}first ").as_bytes()).unwrap();
        std::io::copy(&mut reader, &mut &stream).unwrap();
    });
    let links = Links::new(dir.path().to_owned());
    let mut request = get("/tunnel");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "x".parse().unwrap());

    let response = links.send(JAIL, request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"echo").await.unwrap();
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).await.unwrap();
    drop(stream);

    assert_eq!(&heard, b"first echo");
    assert_eq!(text(&links, "/plain").await.unwrap(), "ok");
    assert_eq!(connections.try_iter().count(), 2);
}

/// Reports the end of the connection after sending `answer`.
fn agent_that_reports_the_end(dir: &Path, answer: &'static [u8]) -> mpsc::Receiver<&'static str> {
    let (report, reports) = mpsc::channel();
    agent(dir, move |stream| {
        read_head(&mut BufReader::new(&stream));
        (&stream).write_all(answer).unwrap();
        report.send("asked").unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0, "the peer closes and says nothing");
        report.send("closed").unwrap();
    });
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_future_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let reports = agent_that_reports_the_end(dir.path(), b"");
    let links = Links::new(dir.path().to_owned());
    let request = tokio::spawn(async move { links.send(JAIL, get("/")).await.is_ok() });
    assert_eq!(reports.recv().unwrap(), "asked");
    request.abort();
    assert_eq!(reports.recv_timeout(Duration::from_secs(60)).unwrap(), "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_body_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
    let reports = agent_that_reports_the_end(dir.path(), head);
    let links = Links::new(dir.path().to_owned());
    let mut response = links.send(JAIL, get("/")).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "ok");
    drop(response);
    assert_eq!(reports.recv().unwrap(), "asked");
    assert_eq!(reports.recv_timeout(Duration::from_secs(60)).unwrap(), "closed");
}

#[tokio::test]
async fn health_gives_up_on_a_silent_agent() {
    let dir = tempfile::tempdir().unwrap();
    let reports = agent_that_reports_the_end(dir.path(), b"");
    let links = Links::new(dir.path().to_owned());
    assert!(links.health(JAIL).await.is_err());
    assert_eq!(reports.recv().unwrap(), "asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_connections_are_closed_and_many_at_once_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (report, reports) = mpsc::channel();
    let listener = UnixListener::from(link::socket::listen(dir.path(), JAIL).unwrap());
    thread::spawn(move || {
        // All connections are open before the first answer.
        let streams: Vec<_> = (0..8).map(|_| listener.accept().unwrap().0).collect();
        for stream in &streams {
            read_head(&mut BufReader::new(stream));
            (&*stream).write_all(OK).unwrap();
        }
        for stream in streams {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            report.send((&stream).read(&mut [0]).unwrap()).unwrap();
        }
    });
    let links = Links::new(dir.path().to_owned());
    let requests = (0..8).map(|_| text(&links, "/"));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.unwrap(), "ok");
    }
    for _ in 0..8 {
        assert_eq!(reports.recv_timeout(Duration::from_secs(60)).unwrap(), 0);
    }
}
