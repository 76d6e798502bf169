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
use tokio::net::UnixStream;

use crate::Body;

/// How long an unused connection is kept. Long enough for a burst of requests, short because each
/// one costs a descriptor here and one in the agent.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// How often connections over [`IDLE_LIMIT`] are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Connections kept per agent: as many as a client's parallel calls usually need. More are made
/// when needed, and closed after use.
const IDLE_PER_AGENT: usize = 4;

/// Connections kept for all agents together: a tenth of the 20,000 descriptors that a process is
/// commonly allowed.
const IDLE_TOTAL: usize = 2000;

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    /// The same stream that hyper reads and writes, to ask the kernel about.
    pub(crate) stream: Arc<UnixStream>,
}

impl Connection {
    /// False when the agent has closed it, or said something unasked. Asks the kernel, because
    /// hyper learns of it only when its task gets to run.
    fn is_usable(&self) -> bool {
        self.sender.is_ready()
            && sys::poll::wait_readable(self.stream.as_fd(), 0).is_ok_and(|heard| !heard)
    }
}

/// The waiting connections of all agents.
#[derive(Debug, Default)]
pub(crate) struct IdleConnections {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Newest last. No empty lists.
    by_jail: HashMap<u64, Vec<(Connection, Instant)>>,
    total: usize,
}

impl IdleConnections {
    /// The most recently used connection that still works.
    pub(crate) fn take(&self, jail: u64) -> Option<Connection> {
        let mut kept = self.kept();
        let list = kept.by_jail.get_mut(&jail)?;
        let mut found = None;
        let before = list.len();
        while let Some((connection, _)) = list.pop() {
            if connection.is_usable() {
                found = Some(connection);
                break;
            }
        }
        let taken = before - list.len();
        if list.is_empty() {
            kept.by_jail.remove(&jail);
        }
        kept.total -= taken;
        found
    }

    /// Keeps a connection for later, or closes it when enough are kept.
    pub(crate) fn put(&self, jail: u64, connection: Connection) {
        let mut kept = self.kept();
        if kept.total >= IDLE_TOTAL {
            return;
        }
        let list = kept.by_jail.entry(jail).or_default();
        if list.len() < IDLE_PER_AGENT {
            list.push((connection, Instant::now()));
            kept.total += 1;
        }
    }

    /// Closes what has waited too long or no longer works.
    pub(crate) fn sweep(&self) {
        let mut kept = self.kept();
        let mut total = 0;
        kept.by_jail.retain(|_, list| {
            list.retain(|(connection, since)| {
                since.elapsed() < IDLE_LIMIT && connection.is_usable()
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
