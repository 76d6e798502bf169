//! The HTTP server: accepts connections, bounds their number and their heads, ends them kindly.

mod follow;
mod linger;
pub(crate) mod tunnel;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::{
    linger::Lingering,
    tunnel::{Switch, Tunnel},
};
use crate::app::REQUESTS_AT_ONCE;

/// Connections at once: one per request in work, and as many idle ones in clients' pools.
const CONNECTIONS: usize = 2 * REQUESTS_AT_ONCE;

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

/// Pause after a failed accept: nearly always no descriptor is free, and one will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` ends, then gives requests under way [`DRAIN`] and cuts off the rest. At return
/// no connection is left.
pub(crate) async fn run(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let stopping = CancellationToken::new();
    let cut_off = CancellationToken::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, place)) = accepted else { continue };
        let work = serve(stream, router.clone(), stopping.clone());
        let cut_off = cut_off.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = work => {}
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

/// Serves one connection to its end: its requests, of which the last is under way when `stopping`
/// ends, and the tunnel it may become, which ends then.
async fn serve(stream: TcpStream, router: Router, stopping: CancellationToken) {
    let became = Became::default();
    let tunnel = Arc::clone(&became);
    let stop = stopping.clone();
    let service = service_fn(move |request| {
        answer(router.clone(), request, Arc::clone(&tunnel), stop.clone())
    });
    let stream = TokioIo::new(Lingering::new(stream));
    {
        let mut connection = pin!(builder().serve_connection(stream, service).with_upgrades());
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A caller that left, or an answer that broke off: the request's line says it.
            tracing::debug!(%error, "a connection broke");
        }
    }
    let tunnel = became.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tokio::select! {
            () = tunnel.run() => {}
            () = stopping.cancelled() => {}
        }
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
    *became.lock().unwrap_or_else(PoisonError::into_inner) =
        switch.take().map(|upstream| Tunnel { caller, upstream, body });
    Ok(Response::from_parts(head, Body::empty()))
}

/// The next connection and its place; none when there was an error to wait out.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and whole: Nagle's wait would cost a delayed ACK each.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            Some((stream, place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
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
