//! The HTTP server: accepts connections, bounds their number and their heads, ends them kindly.

mod crowd;
mod linger;

#[cfg(test)]
mod tests;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tower::{ServiceExt, service_fn};

use self::{crowd::Crowd, linger::Lingering};
use crate::app::requests_at_once;

pub(crate) use self::crowd::{Seat, Working};

/// Connections at once per request in work: as many idle ones in clients' pools. Past it, an idle one
/// is closed for each new one, see [`crowd`].
const PER_REQUEST: usize = 2;

/// Open files of a process unless raised, on every distribution.
const USUAL_FILES: u64 = 1024;

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
/// with the connection.
const DRAIN: Duration = Duration::from_secs(10);

/// Pause after a failed accept: nearly always no descriptor is free, and one will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The same, when an idle connection is being closed to free one.
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// Serves until `stop` ends, then gives requests under way [`DRAIN`] and cuts off the rest. At return
/// no connection is left.
pub(crate) async fn run(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    // Where there is no such limit to be read, the usual one.
    let files = sys::limits::raise_open_files().unwrap_or(USUAL_FILES);
    run_with(listener, router, PER_REQUEST * requests_at_once(files), stop).await;
}

async fn run_with(
    listener: TcpListener,
    router: Router,
    connections_at_once: usize,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(connections_at_once));
    let crowd = Crowd::default();
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let cut_off = tokio_util::sync::CancellationToken::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places, &crowd) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, place)) = accepted else { continue };
        let seat = crowd.enter();
        let (router, own_seat) = (router.clone(), seat.clone());
        let service =
            TowerToHyperService::new(service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(own_seat.clone());
                router.clone().oneshot(request)
            }));
        let connection = builder().serve_connection(TokioIo::new(Lingering::new(stream)), service);
        let connection = graceful.watch(connection);
        let cut_off = cut_off.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    // A caller that left, or an answer that broke off: the request's line says it.
                    tracing::debug!(%error, "a connection broke");
                },
                () = seat.closed() => tracing::debug!("an idle connection was closed for a new one"),
                () = cut_off.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(after_secs = DRAIN.as_secs(), "requests under way were cut off");
    }
    cut_off.cancel();
    connections.wait().await;
}

/// The next connection and its place; none when there was an error to wait out.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    crowd: &Crowd,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let stream = match listener.accept().await {
        Ok((stream, _)) => stream,
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
    // Answers are small and whole: Nagle's wait would cost a delayed ACK each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(_full) => {
            crowd.close_one();
            Arc::clone(places).acquire_owned().await.ok()?
        }
    };
    Some((stream, place))
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
