//! The HTTP server: accepts connections, bounds their number and their heads, ends them kindly.

mod crowd;
mod follow;
mod linger;
mod preface;
pub(crate) mod tls;
pub(crate) mod tunnel;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use http::{Request, StatusCode};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::{
    crowd::Crowd,
    linger::Lingering,
    preface::Begun,
    tls::Tls,
    tunnel::{Switch, Tunnel},
};

pub(crate) use self::crowd::{Seat, Working};
use crate::preview::Arrival;

/// Time for a request's whole head, counted on a kept connection from the end of the last answer, so
/// it is also how long an idle one is kept (R34).
const HEAD_DEADLINE: Duration = Duration::from_secs(75);

/// Bytes of a request's head. The longest path (4095 bytes, each as `%XX`) takes 12 KiB.
const HEAD_BYTES: usize = 32 * 1024;

/// Header lines of a request; hyper's own default, written down.
const HEADERS: usize = 100;

/// Bytes of one connection's read and write buffer, which is also what a slow reader can hold.
const BUFFER_BYTES: usize = 128 * 1024;

/// Time for requests under way when the server stops. Longer ones are cut off; their commands end
/// with the connection. Tunnels, and streams of events that only look on, have no end of their own
/// and are cut off at once.
const DRAIN: Duration = Duration::from_secs(10);

/// Silence of a connection after which the kernel asks the other end whether it is still there, and
/// then between that and the next time; three without an answer end it. An open WebSocket or event
/// stream may be silent for as long as it likes, but not when nobody is there any more.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;

/// Requests at once on one HTTP/2 connection: what browsers expect (RFC 9113, section 6.5.2).
const STREAMS: u32 = 128;

/// Bytes that a request's body, and all bodies of an HTTP/2 connection, may be ahead of us.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// As [`PROBE_AFTER`], of an HTTP/2 connection.
const H2_PING_EVERY: Duration = Duration::from_secs(30);

/// Pause after a failed accept: nearly always no descriptor is free, and one will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come in.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// It answers for previews and nothing else.
    pub(crate) is_previews: bool,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Connections at once. Past it, an idle one is closed for each new one, see [`crowd`].
    pub(crate) connections_at_once: usize,
}

/// The same as [`ACCEPT_PAUSE`], when an idle connection is being closed to free a descriptor.
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// Serves until `stop` ends, then gives requests under way [`DRAIN`] and cuts off the rest. At return
/// no connection is left.
pub(crate) async fn run(door: Door, router: Router, stop: impl Future<Output = ()>) {
    let Door { listener, is_previews, tls, connections_at_once } = door;
    let places = Arc::new(Semaphore::new(connections_at_once));
    let crowd = Crowd::default();
    let connections = TaskTracker::new();
    let stopping = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places, &crowd) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let arrival = Arrival { visitor: peer, is_previews, server_name: None };
        let seat = crowd.enter();
        let host = Host {
            router: router.clone(),
            seat: seat.clone(),
            stopping: stopping.clone(),
            tasks: Tasks(connections.clone()),
        };
        let work = welcome(stream, arrival, tls.clone(), host);
        let cut_off = cut_off.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = work => {}
                () = seat.closed() => tracing::debug!("an idle connection was closed for a new one"),
                () = cut_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    stopping.cancel();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(after_secs = DRAIN.as_secs(), "requests under way were cut off");
    }
    cut_off.cancel();
    connections.wait().await;
}

/// What a connection is served with.
struct Host {
    router: Router,
    seat: Seat,
    stopping: CancellationToken,
    tasks: Tasks,
}

/// Serves one connection to its end, as it wants to be spoken to.
///
/// What serves requests is large and in a box of its own, so that a tunnel, of which there may be
/// thousands, does not keep its room.
async fn welcome(stream: TcpStream, mut arrival: Arrival, tls: Option<Arc<Tls>>, host: Host) {
    let stopping = host.stopping.clone();
    let stream = Lingering::new(stream);
    let tunnel = match tls {
        None => Box::pin(serve_clear(stream, arrival, host)).await,
        Some(tls) => {
            Box::pin(async move {
                let (stream, server_name, is_http2) = match tls.accept(stream).await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be encrypted");
                        return None;
                    }
                };
                arrival.server_name = server_name;
                serve(stream, is_http2, arrival, host).await
            })
            .await
        }
    };
    let Some(tunnel) = tunnel else { return };
    tokio::select! {
        () = tunnel.run() => {}
        () = stopping.cancelled() => {}
    }
}

/// Serves a connection that is not encrypted, on which HTTP/2 is spoken if it begins so.
async fn serve_clear(stream: Lingering, arrival: Arrival, host: Host) -> Option<Tunnel> {
    let begun = tokio::select! {
        begun = timeout(HEAD_DEADLINE, Begun::hear(stream)) => begun.ok()?,
        // It has not asked for anything.
        () = host.stopping.cancelled() => return None,
    };
    let (stream, is_http2) = begun.ok()?;
    serve(stream, is_http2, arrival, host).await
}

/// Serves a connection's requests; the tunnel that it became.
async fn serve(
    stream: impl Stream,
    is_http2: bool,
    arrival: Arrival,
    host: Host,
) -> Option<Tunnel> {
    if is_http2 {
        serve_http2(stream, arrival, host).await;
        return None;
    }
    serve_http1(stream, arrival, host).await
}

/// Serves a connection's requests, of which the last is under way when `stopping` ends, and gives the
/// tunnel that it became.
async fn serve_http1(stream: impl Stream, arrival: Arrival, host: Host) -> Option<Tunnel> {
    let Host { router, seat, stopping, .. } = host;
    let became = Became::default();
    let tunnel = Arc::clone(&became);
    let stop = stopping.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival.clone());
        request.extensions_mut().insert(seat.clone());
        answer(router.clone(), request, Arc::clone(&tunnel), stop.clone())
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection.with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    log_end(ended);
    became.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// As [`serve_http1`], of a connection with many requests at a time and no tunnels.
async fn serve_http2(stream: impl Stream, arrival: Arrival, host: Host) {
    let Host { router, seat, stopping, tasks } = host;
    let stop = stopping.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival.clone());
        request.extensions_mut().insert(seat.clone());
        let (method, stop) = (request.method().clone(), stop.clone());
        let answer = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(follow::until(&method, answer.await?, stop)) }
    });
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(H2_PING_EVERY);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    log_end(ended);
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        // A caller that left, or an answer that broke off: the request's line says it.
        tracing::debug!(%error, "a connection broke");
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Owns the tasks of HTTP/2 connections. Each ends with its connection.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// What a connection became after its last answer.
type Became = Arc<Mutex<Option<Tunnel>>>;

/// Answers one request; a 101 leaves its tunnel in `became`.
async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    became: Became,
    stopping: CancellationToken,
) -> Result<Response, Infallible> {
    let method = request.method().clone();
    let Some(caller) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Ok(follow::until(&method, router.oneshot(request).await?, stopping));
    };
    let switch = Switch::default();
    request.extensions_mut().insert(switch.clone());
    let response = router.oneshot(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(follow::until(&method, response, stopping));
    }
    let (head, body) = response.into_parts();
    *became.lock().unwrap_or_else(PoisonError::into_inner) = switch.tunnel(caller, body);
    Ok(Response::from_parts(head, Body::empty()))
}

/// The next connection and its place; none when there was an error to wait out.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    crowd: &Crowd,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let (stream, peer) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            let gives_way = crowd.close_one();
            if gives_way {
                tracing::debug!(%error, "an idle connection is closed to accept another");
            } else {
                tracing::warn!(%error, "a connection could not be accepted");
            }
            sleep(if gives_way { CLOSE_PAUSE } else { ACCEPT_PAUSE }).await;
            return None;
        }
    };
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "an option of a connection was refused");
    }
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(_full) => {
            crowd.close_one();
            Arc::clone(places).acquire_owned().await.ok()?
        }
    };
    // An IPv4 address in IPv6's clothes is shown as what it is.
    Some((stream, peer.ip().to_canonical(), place))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Answers are small and whole: Nagle's wait would cost a delayed ACK each.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// `half_close` stays off: a caller that closes its side is gone, and what it asked for is dropped.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .half_close(false)
        .keep_alive(true);
    builder
}
