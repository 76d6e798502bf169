//! Accepts connections and speaks HTTP/1.1 on them. The only peer is the daemon.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use link::Stream;
use sys::errno;
use tokio::{net::UnixListener, sync::Semaphore, task::JoinSet};

use crate::{init::Agent, routes};

/// Connections at once. The daemon keeps one per request in flight; this leaves room for every
/// exec and as many file requests, and bounds memory against a peer that only connects.
const CONNECTIONS: usize = 1024;

/// Bytes of a connection's read buffer, and so of a request's head.
const BUFFER_BYTES: usize = 128 * 1024;

/// How long to wait when the kernel has no descriptor or memory for a connection now.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the listener breaks; returns only with its error.
///
/// A connection that becomes a viewer's leaves its place; viewers are counted by themselves.
///
/// A connection that its peer closes drops the request it carries, whatever that waits for: this
/// is how a caller's going away reaches a command.
pub(crate) async fn serve(
    listener: UnixListener,
    (agent, router): (Arc<Agent>, Router),
) -> Result<Infallible, io::Error> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        while connections.try_join_next().is_some() {}
        let accepted = listener.accept().await;
        let stream = match accepted.and_then(|(stream, _)| Stream::new(stream)) {
            Ok(stream) => stream,
            Err(error) if is_passing(&error) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let (agent, router) = (Arc::clone(&agent), router.clone());
        let service = service_fn(move |request| {
            let answer = routes::answer(&agent, router.clone(), request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        connections.spawn(async move {
            // A broken connection concerns its peer alone, which knows.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .max_buf_size(BUFFER_BYTES)
                    // The daemon answers callers with its own.
                    .auto_date_header(false)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await,
            );
            drop(place);
        });
    }
}

/// True for what says nothing about the listener, accept(2).
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, OutOfMemory, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | OutOfMemory | WouldBlock)
        || matches!(error.raw_os_error(), Some(errno::EMFILE | errno::ENFILE | errno::ENOBUFS))
}
