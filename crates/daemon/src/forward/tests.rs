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
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::reply;

/// Bounds every wait for an event, so that a lost one fails a test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(20);

const JAIL: u64 = 7;

fn exec() -> Forward {
    Forward::new(true, true)
}

fn file() -> Forward {
    Forward::new(false, false)
}

/// A daemon that forwards everything below `/v1/sandboxes/{id}` to one agent.
struct Daemon {
    address: SocketAddr,
    activations: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let links = Links::new(run_dir.to_owned());
        let activations = Arc::new(AtomicUsize::new(0));
        let metrics = Arc::new(Metrics::new());
        let (count, counted) = (Arc::clone(&activations), Arc::clone(&metrics));
        let activated = Arc::new(activated);
        let handler = move |request: Request<axum::body::Body>| {
            let (links, count, metrics) = (links.clone(), Arc::clone(&count), Arc::clone(&counted));
            let activated = Arc::clone(&activated);
            async move {
                let activate = || async {
                    activated(count.fetch_add(1, Ordering::SeqCst));
                    Ok((JAIL, ()))
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
        let serving = tokio::spawn(crate::server::run(listener, router, std::future::pending()));
        Self { address, activations, metrics, serving }
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
    let text = daemon.metrics.render(&std::collections::BTreeMap::new());
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
async fn an_agent_that_stays_dead_is_an_error_after_two_tries() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), file(), |_| {}).await;

    assert_eq!(daemon.error("/v1/sandboxes/a/files/x").await, ErrorCode::AgentUnreachable);
    assert_eq!(daemon.activations.load(Ordering::SeqCst), 2);
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
