//! A tunnel: what a connection becomes when a route answers 101.
//!
//! ```text
//! server: Switch into the request ─► route: 101, agent's write half into the Switch, its read half as body
//! server: head without that body to the caller ─► Tunnel: caller ⇄ agent, in the connection's own task
//! ```
//!
//! The answer's body stays what it is on every route: what comes back. So whatever surrounds a
//! body (its place among the requests, its count, its line in the log, the sandbox's guard) lives
//! as long as the tunnel, and nobody but the server and the route knows of tunnels.
//!
//! A tunnel to a program in a sandbox has no such body: what such a program says is nobody's answer,
//! and many of its tunnels are silent for hours, so they hold no buffers and have no silence to keep.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf},
    time::timeout,
};

use crate::lease::Lease;

/// Bytes read from one side at a time, and so held of it.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;

/// Silence of an agent, or of a caller that does not take what is there for it, after which it
/// counts as gone. Agents of ours send a ping every 15 s.
const SILENCE: Duration = Duration::from_secs(8 * api::limit::HEARTBEAT_SECS);

/// Where the caller's bytes go.
pub(crate) struct Upstream {
    pub(crate) agent: WriteHalf<TokioIo<Upgraded>>,
    /// Counts them.
    pub(crate) sent: Counter,
}

/// Where a tunnel leads.
enum End {
    Agent(Upstream),
    Service { stream: TokioIo<Upgraded>, lease: Lease },
}

/// In the extensions of a request whose caller would change to another protocol; a route that
/// answers 101 puts the agent's side in.
#[derive(Clone, Default)]
pub(crate) struct Switch(Arc<Mutex<Option<End>>>);

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switch")
    }
}

impl Switch {
    pub(crate) fn set(&self, upstream: Upstream) {
        self.put(End::Agent(upstream));
    }

    /// Leads the tunnel to a program, until `lease` ends.
    pub(crate) fn set_service(&self, stream: TokioIo<Upgraded>, lease: Lease) {
        self.put(End::Service { stream, lease });
    }

    fn put(&self, end: End) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// The tunnel that was asked for, from `caller`; `body` is that of the answer.
    pub(super) fn tunnel(&self, caller: OnUpgrade, body: Body) -> Option<Tunnel> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Tunnel { caller, end, body })
    }
}

/// Both sides, and what holds them.
pub(super) struct Tunnel {
    caller: OnUpgrade,
    end: End,
    body: Body,
}

impl Tunnel {
    /// Copies both ways until either side ends.
    ///
    /// # Cancel safety
    /// Dropping the future closes both sides.
    pub(super) async fn run(self) {
        let Self { caller, end, body } = self;
        let Ok(caller) = caller.await else { return };
        let mut caller = TokioIo::new(caller);
        match end {
            // In a box: it is larger than what most tunnels are, and would be room in each.
            End::Agent(upstream) => Box::pin(to_agent(caller, upstream, body)).await,
            End::Service { mut stream, mut lease } => {
                tokio::select! {
                    _ = link::relay(&mut caller, &mut stream, Bytes::new()) => {}
                    () = &mut lease => {}
                }
                drop((lease, body));
            }
        }
    }
}

async fn to_agent(caller: TokioIo<Upgraded>, upstream: Upstream, mut body: Body) {
    let (from_caller, mut to_caller) = tokio::io::split(caller);
    let down = async {
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            let Ok(piece) = frame.into_data() else { continue };
            if !matches!(timeout(SILENCE, to_caller.write_all(&piece)).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = up(from_caller, upstream) => {}
        () = down => {}
    }
    // The caller reads what is on its way to it; see `Lingering`.
    to_caller.shutdown().await.unwrap_or_default();
}

async fn up(mut caller: impl AsyncRead + Unpin, mut upstream: Upstream) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = caller.read(&mut piece).await {
        let piece = piece.get(..length).unwrap_or_default();
        if upstream.agent.write_all(piece).await.is_err() {
            return;
        }
        upstream.sent.inc_by(piece.len() as u64);
    }
}
