//! Sends requests to agents, and through them to ports, over kept-alive connections.
//!
//! ```text
//! send ─▶ a waiting connection, else a new one ─▶ response head ─▶ body read to its end ─▶ waits again
//!                                                              └─▶ body dropped ─▶ closed
//! ```
//!
//! A connection to a port is one to the agent that has changed its protocol; the agent makes the
//! other half of it, on the sandbox's loopback.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, HOST, UPGRADE},
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use crate::{
    Body, LinkError, TCP,
    idle::{Connection, IdleConnections, Peer, SWEEP_EVERY},
    socket::Address,
    stream::{Socket, Stream},
};

/// Bytes of an agent's response head. Ours have a few hundred; an agent taken over by its tenant
/// may send anything.
const RESPONSE_HEAD_BYTES: usize = 16 * 1024;

/// Header fields of an agent's response.
const RESPONSE_HEADERS: usize = 64;

/// Bytes of the response head of a server on a port: some set many long cookies.
const PORT_HEAD_BYTES: usize = 64 * 1024;

/// Header fields of such a response.
const PORT_HEADERS: usize = 128;

/// Bytes read ahead of such a server: what a socket's buffer usually has, for large downloads.
const PORT_AHEAD_BYTES: usize = 256 * 1024;

/// Bytes read ahead of one connection at most, so that a reader that is slower than the agent
/// holds the agent back instead of filling memory.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Dead connections tried before a new one is made.
const RETRIES: usize = 4;

/// How long an agent may take to answer a health check. It does so in well under a millisecond
/// unless its sandbox has no CPU left.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an agent may take to connect to a port: it gives up after a second on each of two
/// addresses, if it gets to run at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The Host of requests to agents; it means nothing to them.
const HOST_OF_AGENTS: &str = "agent";

/// Connections to the agents of one node and to ports of their sandboxes, kept alive and reused. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run_dir: PathBuf,
    idle: IdleConnections,
    /// Set by the first connection, which starts the task that closes unused ones.
    is_swept: AtomicBool,
}

impl Links {
    /// Links to the agents whose sockets are in `run_dir`.
    #[must_use]
    pub fn new(run_dir: PathBuf) -> Self {
        let (idle, is_swept) = (IdleConnections::default(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { run_dir, idle, is_swept }) }
    }

    /// The directory of the sockets.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.shared.run_dir
    }

    /// Sends one request to the agent of jail `jail` and returns its response head; the body
    /// streams. The request's URI is a path and query, without a host.
    ///
    /// Sends at most once: a connection found dead before anything was written is replaced
    /// silently, one that breaks later is an error.
    ///
    /// A response of 101 hands its connection over: [`hyper::upgrade::on`] gives the stream.
    ///
    /// # Cancel safety
    /// Dropping the future, the response body or the upgraded stream closes the connection, which
    /// tells the agent.
    ///
    /// # Errors
    /// [`LinkError::Gone`], and [`LinkError::Unreachable`] when something may have been sent.
    pub async fn send(
        &self,
        jail: u64,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        // RFC 9112, section 3.2: a request has a Host; on this socket it means nothing.
        request.headers_mut().insert(HOST, HeaderValue::from_static(HOST_OF_AGENTS));
        self.send_to(Peer { jail, port: None }, request).await
    }

    /// As [`Links::send`], to the HTTP server that listens on `port` of the sandbox's loopback. The
    /// request is sent as it is, with its Host. What comes back is a stranger's: its head is bounded
    /// and well-formed, and nothing else is known of it.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when nothing listens there, [`LinkError::Full`], [`LinkError::Gone`] of
    /// the agent in between, and [`LinkError::Unreachable`] for anything else.
    pub async fn send_to_port(
        &self,
        jail: u64,
        port: u16,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        self.send_to(Peer { jail, port: Some(port) }, request).await
    }

    async fn send_to(
        &self,
        peer: Peer,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        for _ in 0..RETRIES {
            let Some(connection) = self.shared.idle.take(peer) else { break };
            match self.exchange(peer, connection, request).await {
                Ok(response) => return Ok(response),
                Err((_, Some(unsent))) => request = *unsent,
                Err((error, None)) => return Err(unreachable(error)),
            }
        }
        let connection = self.connect(peer).await?;
        self.exchange(peer, connection, request).await.map_err(|(error, unsent)| match unsent {
            Some(_) if peer.port.is_none() => gone(error),
            _ => unreachable(error),
        })
    }

    /// Asks the agent of jail `jail` whether it is there. That it answers at all is what counts:
    /// what it says about itself is worth nothing once its tenant has taken it over.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`]; [`LinkError::Silent`] after 2 s without an answer.
    pub async fn health(&self, jail: u64) -> Result<(), LinkError> {
        let mut request = Request::new(empty());
        *request.uri_mut() = http::Uri::from_static("/health");
        match tokio::time::timeout(HEALTH_TIMEOUT, self.send(jail, request)).await {
            Ok(answer) => answer.map(drop),
            Err(_elapsed) => Err(LinkError::Silent),
        }
    }

    /// Asks the agent of jail `jail` something with GET, and gives the first bytes of what it says, at
    /// most `limit`. They are as trustworthy as its tenant.
    ///
    /// # Errors
    /// [`LinkError`]; an answer that breaks off, is longer or is no success is
    /// [`LinkError::Silent`]. It waits for ever: whoever asks has a deadline.
    pub async fn ask(
        &self,
        jail: u64,
        target: http::Uri,
        limit: usize,
    ) -> Result<bytes::Bytes, LinkError> {
        let mut request = Request::new(empty());
        *request.uri_mut() = target;
        let answer = self.send(jail, request).await?;
        if !answer.status().is_success() {
            return Err(LinkError::Silent);
        }
        let body = http_body_util::Limited::new(answer.into_body(), limit);
        let whole = http_body_util::BodyExt::collect(body).await;
        whole.map(http_body_util::Collected::to_bytes).map_err(|_broken| LinkError::Silent)
    }

    /// One request on one connection, which waits for the next one after the response's body. An
    /// error comes with the request when nothing of it was sent.
    async fn exchange(
        &self,
        peer: Peer,
        mut connection: Connection,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Box<Request<Body>>>)> {
        let response = connection.sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            (error.into_error(), unsent)
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Its connection speaks HTTP no more and belongs to the response.
        } else if connection.sender.is_ready() {
            self.shared.idle.put(peer, connection);
        } else {
            // Ends with the response's body, which its reader owns.
            tokio::spawn(keep(Arc::downgrade(&self.shared), peer, connection));
        }
        Ok(response)
    }

    async fn connect(&self, peer: Peer) -> Result<Connection, LinkError> {
        // A full queue of connections is an error at once (EAGAIN), so this does not wait.
        let dir = Address::open(&self.shared.run_dir).map_err(unreachable)?;
        let stream = UnixStream::connect(dir.of(peer.jail)).await.map_err(unconnected)?;
        let stream = Arc::clone(Stream::new(stream).map_err(unreachable)?.socket());
        let mut sender = handshake(&stream, AGENT_LIMITS).await?;
        if let Some(port) = peer.port {
            change_to_port(sender, port).await?;
            sender = handshake(&stream, PORT_LIMITS).await?;
        }
        if !self.shared.is_swept.swap(true, Ordering::Relaxed) {
            // Ends with the last `Links`.
            tokio::spawn(sweep(Arc::downgrade(&self.shared)));
        }
        Ok(Connection { sender, stream })
    }
}

/// What is believed of a peer's response heads, and what is read ahead of it.
#[derive(Debug, Clone, Copy)]
struct Limits {
    head_bytes: usize,
    headers: usize,
    ahead_bytes: usize,
}

const AGENT_LIMITS: Limits = Limits {
    head_bytes: RESPONSE_HEAD_BYTES,
    headers: RESPONSE_HEADERS,
    ahead_bytes: READ_AHEAD_BYTES,
};

const PORT_LIMITS: Limits =
    Limits { head_bytes: PORT_HEAD_BYTES, headers: PORT_HEADERS, ahead_bytes: PORT_AHEAD_BYTES };

/// Begins to speak HTTP on a stream.
async fn handshake(stream: &Arc<Socket>, limits: Limits) -> Result<SendRequest<Body>, LinkError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits.ahead_bytes)
        .max_header_size(limits.head_bytes)
        .max_headers(limits.headers)
        .handshake(TokioIo::new(SharedStream(Stream::of(Arc::clone(stream)))))
        .await
        .map_err(unreachable)?;
    // Ends with its sender or its peer. Its error reaches whoever waits for a response.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}

/// Has the agent turn the connection into one to `port`. From then on the stream leads there.
async fn change_to_port(mut sender: SendRequest<Body>, port: u16) -> Result<(), LinkError> {
    let mut request = Request::new(empty());
    let target = format!("/ports/{port}/connect");
    *request.uri_mut() = target.parse().expect("a path with a number in it is a target");
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static(HOST_OF_AGENTS));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(TCP));
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, sender.send_request(request)).await;
    // What is to be sent to the port was not.
    let mut response = answer.map_err(|_elapsed| LinkError::Silent)?.map_err(gone)?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::BAD_GATEWAY => return Err(LinkError::Refused),
        StatusCode::TOO_MANY_REQUESTS => return Err(LinkError::Full),
        status => return Err(unreachable(format!("the agent answered {status}"))),
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(unreachable)?;
    let parts = upgraded.downcast::<TokioIo<SharedStream>>();
    let parts = parts.map_err(|_other| unreachable("the connection is none of ours"))?;
    if parts.read_buf.is_empty() {
        return Ok(());
    }
    // An HTTP server that speaks before it is asked is none, and its next answer might be another's.
    Err(unreachable("what listens on the port speaks unasked"))
}

fn empty() -> Body {
    Body::new(Empty::<Bytes>::new().map_err(|never| match never {}))
}

/// Waits for the end of the response, then keeps the connection.
async fn keep(shared: Weak<Shared>, peer: Peer, mut connection: Connection) {
    if connection.sender.ready().await.is_ok()
        && let Some(shared) = shared.upgrade()
    {
        shared.idle.put(peer, connection);
    }
}

async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.idle.sweep();
    }
}

/// The socket of an agent that has ended refuses, until it is removed.
fn unconnected(error: std::io::Error) -> LinkError {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => gone(error),
        _ => unreachable(error),
    }
}

fn gone(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LinkError {
    LinkError::Gone(error.into())
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LinkError {
    LinkError::Unreachable(error.into())
}

/// The outcome of a write. An agent that refuses a body answers and closes before it has read all of
/// it; the answer is then in our buffer, but hyper would give up at the failed write without looking.
/// So what the agent does not hear any more counts as written, and the end, if there is no answer,
/// shows when it is read.
fn unheard(done: std::io::Result<usize>, offered: usize) -> std::io::Result<usize> {
    match done {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(offered)
        }
        done => done,
    }
}

/// A stream that hyper drives while [`Connection`] keeps a look at its socket.
#[derive(Debug)]
struct SharedStream(Stream);

impl AsyncRead for SharedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map(|done| unheard(done, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs).map(|done| unheard(done, offered))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // Dropping the stream closes it.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
