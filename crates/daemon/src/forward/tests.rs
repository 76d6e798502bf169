//! Forwarding to agents that are real sockets: one that is what it should be, and worse ones.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use api::error::ErrorBody;
use axum::{Router, body::HttpBody, response::IntoResponse};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::reply;

/// Bounds every wait for an event, so that a lost one fails a test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);

const JAIL: u64 = 7;

fn exec() -> Forward {
    Forward::new(true, true)
}

fn file() -> Forward {
    Forward::new(false, false)
}

fn tunnel() -> Forward {
    Forward { may_switch: true, ..file() }
}

/// Held by one request; `noticed` says when the engine knows that the agent has ended, and whether there
/// will be another.
struct Noticing {
    asked: Arc<Notify>,
    noticed: watch::Receiver<Option<bool>>,
    _held: Arc<()>,
}

impl Guard for Noticing {
    async fn outlived(&self) -> bool {
        self.asked.notify_one();
        let mut noticed = self.noticed.clone();
        noticed.wait_for(Option::is_some).await.is_ok_and(|another| *another == Some(true))
    }
}

/// A daemon that forwards everything below `/v1/sandboxes/{id}` to one agent.
struct Daemon {
    address: SocketAddr,
    activations: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// From the beginning: an agent's end is noticed before anybody asks, and there will be another.
    noticed: watch::Sender<Option<bool>>,
    /// Told when a request waits for that.
    asked: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Daemon {
    /// `activated` is called with the number of earlier activations, each time.
    async fn start(
        run_dir: &Path,
        route: Forward,
        activated: impl Fn(usize) + Send + Sync + 'static,
    ) -> Self {
        Self::start_guarded(run_dir, route, activated, Arc::default()).await
    }

    /// As `start`; each request holds a copy of `guard`, and the daemon one.
    async fn start_guarded(
        run_dir: &Path,
        route: Forward,
        activated: impl Fn(usize) + Send + Sync + 'static,
        guard: Arc<()>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let links = Links::new(run_dir.to_owned());
        let activations = Arc::new(AtomicUsize::new(0));
        let metrics = Arc::new(Metrics::new());
        let (count, counted) = (Arc::clone(&activations), Arc::clone(&metrics));
        let activated = Arc::new(activated);
        let ((noticed, notices), asked) = (watch::channel(Some(true)), Arc::new(Notify::new()));
        let asks = Arc::clone(&asked);
        let handler = move |request: Request<axum::body::Body>| {
            let (links, count, metrics) = (links.clone(), Arc::clone(&count), Arc::clone(&counted));
            let (activated, guard) = (Arc::clone(&activated), Arc::clone(&guard));
            let (notices, asks) = (notices.clone(), Arc::clone(&asks));
            async move {
                let activate = || async {
                    activated(count.fetch_add(1, Ordering::SeqCst));
                    let (noticed, asked) = (notices.clone(), Arc::clone(&asks));
                    Ok((JAIL, Noticing { asked, noticed, _held: Arc::clone(&guard) }))
                };
                let mut response = match admit(route, &request) {
                    Ok(()) => relay(route, activate, &links, &metrics, request)
                        .await
                        .unwrap_or_else(IntoResponse::into_response),
                    Err(failure) => failure.into_response(),
                };
                reply::render(&mut response, "r-1");
                response
            }
        };
        let router = Router::new().fallback(handler);
        let door = crate::server::Door {
            listener,
            is_previews: false,
            tls: None,
            connections_at_once: 100,
        };
        let serving = tokio::spawn(crate::server::run(door, router, std::future::pending()));
        Self { address, activations, metrics, noticed, asked, serving }
    }

    async fn send<B>(&self, request: Request<B>) -> Result<http::Response<Incoming>, hyper::Error>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time")
    }

    async fn get(&self, path: &str) -> http::Response<Incoming> {
        let request = Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        self.send(request).await.unwrap()
    }

    async fn error(&self, path: &str) -> ErrorCode {
        let body = self.get(path).await.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<ErrorBody>(&body).unwrap().error.code
    }
}

fn socket(run_dir: &Path) -> UnixListener {
    UnixListener::bind(run_dir.join(format!("{JAIL}.sock"))).unwrap()
}

type AgentBody = UnsyncBoxBody<Bytes, std::io::Error>;

fn full(text: &'static str) -> AgentBody {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|error: Infallible| match error {})
        .boxed_unsync()
}

/// An agent that speaks HTTP and answers with `answer`.
fn agent<F>(
    run_dir: &Path,
    answer: impl Fn(Request<Incoming>) -> F + Send + Clone + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = http::Response<AgentBody>> + Send + 'static,
{
    let listener = socket(run_dir);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    })
}

/// An agent that reads one request's head, writes `bytes`, and then calls `then`.
fn raw_agent<F>(
    run_dir: &Path,
    bytes: Vec<u8>,
    then: impl Fn(UnixStream) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = socket(run_dir);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap() == 0 {
                    break;
                }
            }
            // The daemon may hang up in the middle of nonsense.
            drop(stream.write_all(&bytes).await);
            then(stream).await;
        }
    })
}

async fn hang_up(stream: UnixStream) {
    drop(stream);
}

/// Ends when the daemon closes the connection.
async fn closed(mut stream: UnixStream) {
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);
}

#[test]
fn paths_reach_the_agent_byte_for_byte() {
    for (public, expected) in [
        ("/v1/sandboxes/a/exec", "/exec"),
        ("/v1/sandboxes/a/files/etc/passwd", "/files/etc/passwd"),
        ("/v1/sandboxes/a/files/a%2Fb", "/files/a%2Fb"),
        ("/v1/sandboxes/a/files/a%00b", "/files/a%00b"),
        ("/v1/sandboxes/a/files/%FF", "/files/%FF"),
        ("/v1/sandboxes/a/files//etc", "/files//etc"),
        ("/v1/sandboxes/a/files/../exec", "/files/../exec"),
        ("/v1/sandboxes/a/files/%2e%2e/x", "/files/%2e%2e/x"),
        ("/v1/sandboxes/a/files/x?mode=755&a=%26", "/files/x?mode=755&a=%26"),
        ("/v1/sandboxes/a/files:list?path=%2F", "/files:list?path=%2F"),
        ("/v1/sandboxes/a/files/x?", "/files/x?"),
        ("http://localhost:8787/v1/sandboxes/a/exec?x", "/exec?x"),
    ] {
        let target = agent_target(&public.parse().unwrap()).unwrap();
        assert_eq!(target.to_string(), expected);
        assert!(target.authority().is_none());
    }
    for none in
        ["/v1/sandboxes/a", "/v1/sandboxes/", "/v1/sandboxesa/exec", "/exec", "/V1/sandboxes/a/x"]
    {
        assert!(agent_target(&none.parse().unwrap()).is_err(), "{none}");
    }
}

#[tokio::test]
async fn only_listed_headers_cross_the_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, mut saw) = mpsc::channel(1);
    let _agent = agent(dir.path(), move |request| {
        let seen = seen.clone();
        async move {
            seen.send(request.into_parts().0).await.unwrap();
            http::Response::builder()
                .status(206)
                .header("content-type", "text/html")
                .header("content-range", "bytes 0-3/9")
                .header("etag", "\"1\"")
                .header("x-sandbar-size", "4")
                .header("set-cookie", "a=b")
                .header("location", "http://evil.example")
                .header("access-control-allow-origin", "*")
                .header("server", "evil")
                .header("x-request-id", "forged")
                .body(full("data"))
                .unwrap()
        }
    });
    let daemon = Daemon::start(dir.path(), file(), |_| {}).await;
    let request = Request::get("/v1/sandboxes/a/files/x%2Fy?q=1")
        .header("host", "localhost")
        .header("authorization", "Bearer secret")
        .header("cookie", "a=b")
        .header("x-forwarded-for", "10.0.0.1")
        .header("te", "trailers")
        .header("range", "bytes=0-3")
        .header("accept", "text/event-stream")
        .header("x-request-id", "r-1")
        .header("x-sandbar-note", "kept")
        .body(Empty::<Bytes>::new())
        .unwrap();

    let response = daemon.send(request).await.unwrap();

    let head = saw.recv().await.unwrap();
    assert_eq!(head.uri, "/files/x%2Fy?q=1");
    let mut names: Vec<_> = head.headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host", "range", "x-request-id", "x-sandbar-note"]);
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    let mut names: Vec<_> = response.headers().keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-length",
            "content-range",
            "content-security-policy",
            "content-type",
            "date",
            "etag",
            "x-content-type-options",
            "x-sandbar-size"
        ]
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "data");
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let _agent = agent(dir.path(), |request| async move {
        let echo = request.into_body().map_err(std::io::Error::other);
        http::Response::new(echo.boxed_unsync())
    });
    let daemon = Daemon::start(dir.path(), file(), |_| {}).await;
    let (send, chunks) = mpsc::channel::<Bytes>(1);
    let chunks = tokio_stream::wrappers::ReceiverStream::new(chunks)
        .map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let request = Request::put("/v1/sandboxes/a/files/x")
        .header("host", "x")
        .body(StreamBody::new(chunks))
        .unwrap();

    let mut body = daemon.send(request).await.unwrap().into_body();
    for chunk in ["one", "two", "three"] {
        send.send(Bytes::from(chunk)).await.unwrap();
        // Each piece comes back before the next is sent: nothing waits for the whole.
        let frame = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    drop(send);

    assert!(body.frame().await.is_none());
    let text = daemon.metrics.render(&std::collections::BTreeMap::new(), 0, (0, 0));
    assert!(text.contains("sandbar_forwarded_bytes_total{direction=\"to_agent\"} 11"), "{text}");
    assert!(text.contains("sandbar_forwarded_bytes_total{direction=\"from_agent\"} 11"), "{text}");
}

#[tokio::test]
async fn a_slow_reader_holds_the_agent_back() {
    /// Far more than every buffer on the way together.
    const ENOUGH: usize = 64 * 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let _agent = agent(dir.path(), move |_| {
        let count = Arc::clone(&count);
        async move {
            let chunk = Bytes::from(vec![0_u8; 64 * 1024]);
            let chunks = stream::repeat_with(move || {
                count.fetch_add(chunk.len(), Ordering::SeqCst);
                Ok(Frame::data(chunk.clone()))
            });
            http::Response::new(StreamBody::new(chunks.take(ENOUGH / (64 * 1024))).boxed_unsync())
        }
    });
    let daemon = Daemon::start(dir.path(), file(), |_| {}).await;

    let mut body = daemon.get("/v1/sandboxes/a/files/x").await.into_body();
    body.frame().await.unwrap().unwrap();
    // The agent stops on its own: wait until two looks in a row see the same.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = made.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
    }

    assert!(before < ENOUGH / 2, "{before} bytes were made for a reader that took one chunk");
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_request_along() {
    for stage in ["before the head", "within the body"] {
        let dir = tempfile::tempdir().unwrap();
        let (gone, left) = oneshot::channel();
        let gone = std::sync::Mutex::new(Some(gone));
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
        let bytes = if stage == "before the head" { Vec::new() } else { head.to_vec() };
        let (asked, mut was_asked) = mpsc::channel(1);
        let _agent = raw_agent(dir.path(), bytes, move |stream| {
            let gone = gone.lock().unwrap().take();
            let asked = asked.clone();
            async move {
                asked.send(()).await.unwrap();
                closed(stream).await;
                gone.into_iter().for_each(|gone| gone.send(()).unwrap());
            }
        });
        let daemon = Daemon::start(dir.path(), exec(), |_| {}).await;
        let mut caller = TcpStream::connect(daemon.address).await.unwrap();
        let request = "POST /v1/sandboxes/a/exec HTTP/1.1\r\nhost: x\r\n\
                       content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        caller.write_all(request.as_bytes()).await.unwrap();
        timeout(PATIENCE, was_asked.recv()).await.unwrap();
        if stage == "within the body" {
            let mut head = Vec::new();
            while !head.ends_with(b"x\r\n") {
                assert_ne!(caller.read_buf(&mut head).await.unwrap(), 0);
            }
        }

        drop(caller);

        timeout(PATIENCE, left).await.expect(stage).unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_talks_nonsense_is_an_error_not_an_answer() {
    let endless =
        [b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-pad: 0123456789\r\n".repeat(100_000)].concat();
    let long_line = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    for (what, bytes) in [
        ("garbage", b"\x00\x01\x02 nonsense\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
        ("an endless head", endless),
        ("an endless line", long_line),
        (
            "a redirect",
            b"HTTP/1.1 307 Go\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        ),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(),
        ),
        (
            "a question for the key",
            b"HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        ("a status beyond all", b"HTTP/1.1 799 What\r\ncontent-length: 0\r\n\r\n".to_vec()),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let _agent = raw_agent(dir.path(), bytes, hang_up);
        let daemon = Daemon::start(dir.path(), file(), |_| {}).await;
        daemon.noticed.send(Some(false)).unwrap();

        assert_eq!(
            daemon.error("/v1/sandboxes/a/files/x").await,
            ErrorCode::AgentUnreachable,
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for (what, bytes) in [
        ("a length", &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"[..]),
        ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        (
            "a bad chunk",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let _agent = raw_agent(dir.path(), bytes.to_vec(), hang_up);
        let daemon = Daemon::start(dir.path(), file(), |_| {}).await;

        let response = daemon.get("/v1/sandboxes/a/files/x").await;

        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.into_body().collect().await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_silent_agent_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, mut left) = mpsc::channel(1);
    let _agent = raw_agent(dir.path(), Vec::new(), move |stream| {
        let gone = gone.clone();
        async move {
            closed(stream).await;
            gone.send(()).await.unwrap();
        }
    });
    let route = Forward { head_deadline: Duration::from_millis(50), ..file() };
    let daemon = Daemon::start(dir.path(), route, |_| {}).await;

    let error = daemon.error("/v1/sandboxes/a/files/x").await;

    assert_eq!(error, ErrorCode::Timeout);
    timeout(PATIENCE, left.recv()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_endless_route_waits_for_its_answer_but_not_for_its_body_to_be_taken() {
    let limit = Duration::from_secs(120);
    let counter = || Metrics::new().bytes_to_agents();
    let whole = Upload::new(Body::empty(), 9, counter());
    assert!(timeout(limit * 100, whole.silence(limit, true)).await.is_err());
    assert!(timeout(limit * 2, whole.silence(limit, false)).await.is_ok());
    let untaken = Upload::new(Body::from("body"), 9, counter());
    assert!(timeout(limit * 2, untaken.silence(limit, true)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_nothing_at_all_ends_even_an_endless_wait() {
    let dir = tempfile::tempdir().unwrap();
    let _agent = raw_agent(dir.path(), Vec::new(), closed);
    let daemon = Daemon::start(dir.path(), exec(), |_| {}).await;
    let begun = tokio::time::Instant::now();

    let response = daemon.send(exec_request()).await.unwrap();

    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_merely_busy_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(tokio::sync::Semaphore::new(0));
    let _agent = agent(dir.path(), move |request| {
        let asked = Arc::clone(&asked);
        async move {
            if request.uri() == "/health" {
                asked.add_permits(1);
                return http::Response::new(full("{}"));
            }
            // Once more than silence would be borne.
            drop(asked.acquire_many(UNANSWERED + 1).await.unwrap());
            http::Response::new(full("done"))
        }
    });
    let daemon = Daemon::start(dir.path(), exec(), |_| {}).await;

    let response = daemon.send(exec_request()).await.unwrap();

    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
}

fn exec_request() -> Request<Full<Bytes>> {
    Request::post("/v1/sandboxes/a/exec")
        .header("host", "x")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap()
}

const SWITCH: &str = "GET /v1/sandboxes/a/t HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
    upgrade: WebSocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\
    authorization: Bearer secret\r\norigin: http://x\r\n\r\n";

/// Agrees to another protocol, says what it was asked, then echoes until the other side ends.
fn switching_agent(run_dir: &Path) -> JoinHandle<()> {
    let listener = socket(run_dir);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
                upgrade: evil\r\nsec-websocket-accept: a\r\nset-cookie: a=b\r\n\r\n";
            stream.write_all(&[&answer[..], &head].concat()).await.unwrap();
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    })
}

/// Reads up to and with `end`, and no further.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_caller_and_an_agent_change_protocol_and_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _agent = switching_agent(dir.path());
    let daemon = Daemon::start(dir.path(), tunnel(), |_| {}).await;
    let mut caller = TcpStream::connect(daemon.address).await.unwrap();
    caller.write_all(SWITCH.as_bytes()).await.unwrap();

    let head = read_until(&mut caller, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: a"] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} is not in {head}");
    }
    assert!(!head.contains("cookie") && !head.contains("evil"), "{head}");
    let asked = read_until(&mut caller, "\r\n\r\n").await.to_lowercase();
    let mut asked: Vec<_> = asked.trim_end().lines().collect();
    asked.sort_unstable();
    assert_eq!(
        asked,
        [
            "connection: upgrade",
            "get /t http/1.1",
            "host: agent",
            "sec-websocket-key: k",
            "sec-websocket-version: 13",
            "upgrade: websocket",
        ]
    );
    let piece = vec![b'x'; 3 * 1024 * 1024];
    let (mut from, mut to) = caller.split();
    let mut back = vec![0; piece.len()];
    let (sent, heard) = tokio::join!(to.write_all(&piece), from.read_exact(&mut back));
    sent.unwrap();
    heard.unwrap();
    assert_eq!(back, piece);
    let text = daemon.metrics.render(&std::collections::BTreeMap::new(), 0, (0, 0));
    let sent = format!("sandbar_forwarded_bytes_total{{direction=\"to_agent\"}} {}", piece.len());
    assert!(text.contains(&sent), "{text}");
    // What the agent echoed, and the head it was asked with.
    let counted: usize = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("sandbar_forwarded_bytes_total{direction=\"from_agent\"} ")
        })
        .and_then(|count| count.parse().ok())
        .unwrap();
    assert!(counted > piece.len(), "{text}");
}

#[tokio::test]
async fn a_tunnel_ends_with_either_of_its_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, mut left) = mpsc::channel(1);
    let hangs_up = Arc::new(AtomicUsize::new(0));
    let is_first = Arc::clone(&hangs_up);
    let head = b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nlast words";
    let _agent = raw_agent(dir.path(), head.to_vec(), move |stream| {
        let (gone, is_first) = (gone.clone(), is_first.fetch_add(1, Ordering::SeqCst) == 0);
        async move {
            if !is_first {
                closed(stream).await;
                gone.send(()).await.unwrap();
            }
        }
    });
    let guard = Arc::new(());
    let daemon = Daemon::start_guarded(dir.path(), tunnel(), |_| {}, Arc::clone(&guard)).await;
    let held = Arc::strong_count(&guard);
    let mut caller = TcpStream::connect(daemon.address).await.unwrap();
    caller.write_all(SWITCH.as_bytes()).await.unwrap();
    read_until(&mut caller, "last words").await;
    let mut rest = Vec::new();
    timeout(PATIENCE, caller.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());

    let mut caller = TcpStream::connect(daemon.address).await.unwrap();
    caller.write_all(SWITCH.as_bytes()).await.unwrap();
    read_until(&mut caller, "last words").await;
    assert!(Arc::strong_count(&guard) > held, "the sandbox is held while the tunnel is open");
    drop(caller);
    timeout(PATIENCE, left.recv()).await.unwrap();
    let freed = async {
        while Arc::strong_count(&guard) > held {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_agent_says_nothing_at_all_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let head = b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nlast words";
    let _agent = raw_agent(dir.path(), head.to_vec(), closed);
    let daemon = Daemon::start(dir.path(), tunnel(), |_| {}).await;
    let mut caller = TcpStream::connect(daemon.address).await.unwrap();
    caller.write_all(SWITCH.as_bytes()).await.unwrap();
    let begun = tokio::time::Instant::now();

    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).await.unwrap();

    assert!(answer.ends_with(b"last words"));
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn only_terminals_and_ports_are_tunnels() {
    let document = table::published();
    let tunnels: Vec<_> = document
        .paths
        .paths
        .iter()
        .flat_map(|(path, item)| {
            let get = item.get.iter().filter(|get| get.responses.responses.contains_key("101"));
            get.map(move |_| path.as_str())
        })
        .collect();
    assert_eq!(tunnels, ["/ports/{port}/connect", "/terminals/{tid}"]);
}

#[tokio::test]
async fn a_change_of_protocol_passes_only_where_it_may() {
    let plain = SWITCH.replace("connection: Upgrade\r\n", "");
    let other = SWITCH.replace("WebSocket", "h2c");
    let with_body = SWITCH.replace("\r\n\r\n", "\r\ncontent-length: 1\r\n\r\nx");
    for (what, route, request) in [
        ("another route", file(), SWITCH),
        ("no upgrade", tunnel(), &*plain),
        ("another protocol", tunnel(), &*other),
        ("a body", tunnel(), &*with_body),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let _agent = switching_agent(dir.path());
        let daemon = Daemon::start(dir.path(), route, |_| {}).await;
        let mut caller = TcpStream::connect(daemon.address).await.unwrap();
        caller.write_all(request.as_bytes()).await.unwrap();

        // An agent that answers 101 to what was no such question answers nonsense.
        let head = read_until(&mut caller, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{what}: {head}");
    }
}

#[tokio::test]
async fn a_json_body_over_its_limit_is_cut_off_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let _agent = agent(dir.path(), |request| async move {
        // What an agent that reads everything gets is an error.
        let _gets_an_error = request.into_body().collect().await;
        std::future::pending().await
    });
    let daemon = Daemon::start(dir.path(), exec(), |_| {}).await;
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = stream::repeat(chunk).take(9).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let request = Request::post("/v1/sandboxes/a/exec")
        .header("host", "x")
        .header("content-type", "application/json")
        .body(StreamBody::new(chunks))
        .unwrap();

    let response = daemon.send(request).await.unwrap();

    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_agent_found_dead_is_replaced_once_without_the_caller_noticing() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().to_owned();
    // The first activation names a sandbox whose agent has just died; the second starts it.
    let daemon = Daemon::start(dir.path(), exec(), move |earlier| {
        if earlier == 1 {
            drop(agent(&run_dir, |request| async move {
                let echo = request.into_body().map_err(std::io::Error::other);
                http::Response::new(echo.boxed_unsync())
            }));
        }
    })
    .await;
    let request = Request::post("/v1/sandboxes/a/exec")
        .header("host", "x")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{\"command\": \"ls\"}")))
        .unwrap();

    let response = daemon.send(request).await.unwrap();

    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"command\": \"ls\"}");
    assert_eq!(daemon.activations.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_that_was_not_sent_waits_until_the_end_of_its_agent_is_known() {
    let dir = tempfile::tempdir().unwrap();
    drop(socket(dir.path()));
    let run_dir = dir.path().to_owned();
    let daemon = Daemon::start(dir.path(), exec(), move |earlier| {
        if earlier == 1 {
            std::fs::remove_file(run_dir.join(format!("{JAIL}.sock"))).unwrap();
            drop(agent(&run_dir, |_| async { http::Response::new(full("run once")) }));
        }
    })
    .await;
    daemon.noticed.send(None).unwrap();

    let waits = async {
        daemon.asked.notified().await;
        assert_eq!(daemon.activations.load(Ordering::SeqCst), 1);
        daemon.noticed.send(Some(true)).unwrap();
    };
    let (answer, ()) = tokio::join!(daemon.send(exec_request()), waits);

    let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "run once");
    assert_eq!(daemon.activations.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_notices_is_not_waited_for_for_ever() {
    let (gone, broken) = (LinkError::Gone("".into()), LinkError::Unreachable("".into()));
    let mut patience = Patience::default();
    let begun = Instant::now();

    assert!(patience.allows(&broken, true, std::future::pending()).await, "at once, once");
    assert!(patience.allows(&gone, false, async { true }).await);
    tokio::time::sleep(END_DEADLINE / 2).await;
    assert!(patience.allows(&broken, true, async { true }).await);
    assert!(!patience.allows(&gone, false, std::future::pending()).await);
    assert_eq!(begun.elapsed(), END_DEADLINE);
    // Agents that die one after the other are not started for ever either.
    assert!(!patience.allows(&gone, true, async { true }).await);
}

#[tokio::test]
async fn what_may_not_be_sent_again_or_has_nobody_to_be_sent_to_is_not() {
    let (gone, broken) = (LinkError::Gone("".into()), LinkError::Unreachable("".into()));
    assert!(!Patience::default().allows(&broken, false, async { true }).await);
    assert!(!Patience::default().allows(&LinkError::Silent, true, async { true }).await);
    assert!(!Patience::default().allows(&gone, true, Once(()).outlived()).await);
}

#[tokio::test]
async fn a_command_that_may_have_run_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    // Takes the request and dies. The link writes the head together with what it has of the body.
    let _agent = raw_agent(dir.path(), Vec::new(), hang_up);
    let daemon = Daemon::start(dir.path(), exec(), |_| {}).await;
    let request = Request::post("/v1/sandboxes/a/exec")
        .header("host", "x")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();

    let response = daemon.send(request).await.unwrap();

    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(daemon.activations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upload_that_the_agent_refuses_halfway_gets_to_read_why() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = b"HTTP/1.1 404 No\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnope";
    let _agent = raw_agent(dir.path(), refusal.to_vec(), hang_up);
    let daemon = Daemon::start(dir.path(), file(), |_| {}).await;
    // More often than once: who is first, the refusal or the failed write, is a race.
    for _ in 0..50 {
        let request = Request::put("/v1/sandboxes/a/files/x")
            .header("host", "x")
            .body(Full::new(Bytes::from(vec![0; 4 * 1024 * 1024])))
            .unwrap();

        let response = daemon.send(request).await.unwrap();

        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "nope");
    }
}
