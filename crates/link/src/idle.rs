//! Connections that wait for their next request.
//!
//! Invariant: a connection in here has no request under way and nothing unread.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use crate::{Body, stream::Socket};

/// How long an unused connection is kept. Long enough for a burst of requests, short because each
/// one costs a descriptor here and one in the agent.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// How often connections over [`IDLE_LIMIT`] are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// As [`IDLE_LIMIT`], of a connection to a port: less than the five seconds after which Node's
/// server closes one, so that a request rarely meets that.
const PORT_IDLE_LIMIT: Duration = Duration::from_secs(3);

/// Connections kept per agent: as many as a client's parallel calls usually need. More are made
/// when needed, and closed after use.
const IDLE_PER_AGENT: usize = 4;

/// Connections kept per port: as many as the visitors of one busy application use at once.
const IDLE_PER_PORT: usize = 64;

/// Connections kept for all agents together: a tenth of the 20,000 descriptors that a process is
/// commonly allowed.
const IDLE_TOTAL: usize = 2000;

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    /// The same stream that hyper reads and writes, to ask the kernel about.
    pub(crate) stream: Arc<Socket>,
}

impl Connection {
    /// False when the agent has closed it, or said something unasked. Asks the kernel, because
    /// hyper learns of it only when its task gets to run.
    fn is_usable(&self) -> bool {
        self.sender.is_ready()
            && sys::poll::wait_readable(self.stream.as_fd(), 0).is_ok_and(|heard| !heard)
    }
}

/// Where a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) jail: u64,
    /// A port inside; else the agent itself.
    pub(crate) port: Option<u16>,
}

impl Peer {
    fn idle_limit(self) -> Duration {
        if self.port.is_some() { PORT_IDLE_LIMIT } else { IDLE_LIMIT }
    }

    fn idle_most(self) -> usize {
        if self.port.is_some() { IDLE_PER_PORT } else { IDLE_PER_AGENT }
    }
}

/// The waiting connections of all agents and ports.
#[derive(Debug, Default)]
pub(crate) struct IdleConnections {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Newest last. No empty lists.
    by_peer: HashMap<Peer, Vec<(Connection, Instant)>>,
    total: usize,
}

impl IdleConnections {
    /// The most recently used connection that still works.
    pub(crate) fn take(&self, peer: Peer) -> Option<Connection> {
        let mut kept = self.kept();
        let list = kept.by_peer.get_mut(&peer)?;
        let mut found = None;
        let before = list.len();
        while let Some((connection, since)) = list.pop() {
            if since.elapsed() < peer.idle_limit() && connection.is_usable() {
                found = Some(connection);
                break;
            }
        }
        let taken = before - list.len();
        if list.is_empty() {
            kept.by_peer.remove(&peer);
        }
        kept.total -= taken;
        found
    }

    /// Keeps a connection for later, or closes it when enough are kept.
    pub(crate) fn put(&self, peer: Peer, connection: Connection) {
        let mut kept = self.kept();
        if kept.total >= IDLE_TOTAL {
            return;
        }
        let list = kept.by_peer.entry(peer).or_default();
        if list.len() < peer.idle_most() {
            list.push((connection, Instant::now()));
            kept.total += 1;
        }
    }

    /// Closes what has waited too long or no longer works.
    pub(crate) fn sweep(&self) {
        let mut kept = self.kept();
        let mut total = 0;
        kept.by_peer.retain(|peer, list| {
            list.retain(|(connection, since)| {
                since.elapsed() < peer.idle_limit() && connection.is_usable()
            });
            total += list.len();
            !list.is_empty()
        });
        kept.total = total;
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
