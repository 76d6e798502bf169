//! Every long-lived part of the running daemon, by name.

use std::{sync::Arc, time::Duration};

use api::{error::ErrorCode, limit::JSON_BYTES_PER_KEY, node::ShutdownSandboxes};
use engine::{BODY_PLACE_BYTES, Engine, Keys, Places};
use link::Links;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    docs::Docs, hosts::Hosts, key::KeyFile, metrics::Metrics, preview::Previews, reply::Failure,
};

/// Requests that are worked on at once. Each may hold a connection, a link to an agent and a few
/// buffers; enough for every sandbox of a full node to stream, few enough for 256 MiB.
pub(crate) const REQUESTS_AT_ONCE: usize = 4096;

/// Bytes of JSON bodies that are read at once, of all requests together: what those of eight keys may
/// take, and no more than what the requests themselves do.
pub(crate) const JSON_BYTES_AT_ONCE: usize = 8 * JSON_BYTES_PER_KEY;

/// One place in so many is for admin keys alone, so that the node can be seen to and others' work
/// ended however much of it there is.
pub(crate) const KEPT: usize = 16;

/// Visits of previews that are worked on at once for each such request: an open WebSocket or event
/// stream is one.
pub(crate) const VISITS_PER_REQUEST: usize = 3;

/// Connections for each two requests or visits in work: theirs, and one that waits, as in clients'
/// pools. More that wait give way when descriptors are wanted, see [`crate::server`].
pub(crate) const CONNECTIONS_PER_TWO: usize = 3;

/// Descriptors for each two requests in work: the connections, their links to agents, and two for
/// everything else there is; and for the visits beside them: the connections and the links.
const FILES_PER_TWO_REQUESTS: u64 =
    (CONNECTIONS_PER_TWO + 4 + (CONNECTIONS_PER_TWO + 2) * VISITS_PER_REQUEST) as u64;

/// Requests that this process works on at once, where it may have so many files open.
pub(crate) fn requests_at_once(open_files: u64) -> usize {
    let requests = open_files.saturating_mul(2) / FILES_PER_TWO_REQUESTS;
    let requests = usize::try_from(requests).unwrap_or(usize::MAX);
    requests.clamp(1, REQUESTS_AT_ONCE)
}

/// Room for JSON bodies, [`JSON_BYTES_AT_ONCE`] in all.
pub(crate) fn bodies() -> Places {
    let places = JSON_BYTES_AT_ONCE / BODY_PLACE_BYTES;
    Places::new(places, places / KEPT)
}

/// How long a request waits for the engine of a daemon that has just been started. Adopting a
/// thousand sandboxes takes well under a second.
const START_WAIT: Duration = Duration::from_secs(10);

/// Every long-lived part of the running daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

/// The parts themselves.
#[derive(Debug)]
pub(crate) struct Parts {
    /// None until the engine has adopted the sandboxes of an earlier run.
    pub(crate) engine: watch::Receiver<Option<Engine>>,
    pub(crate) links: Links,
    pub(crate) keys: Keys,
    pub(crate) key_file: Arc<KeyFile>,
    pub(crate) hosts: Hosts,
    pub(crate) metrics: Metrics,
    pub(crate) previews: Previews,
    pub(crate) docs: Docs,
    /// A place per request in work, [`REQUESTS_AT_ONCE`] in all.
    pub(crate) requests: Places,
    /// [`bodies`]: for JSON that is read and not forwarded.
    pub(crate) bodies: Places,
    /// Where `POST /v1/node:shutdown` asks for the end; room for one, because one is enough.
    pub(crate) shutdown: mpsc::Sender<ShutdownSandboxes>,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The engine, once it is open.
    pub(crate) async fn engine(&self) -> Result<Engine, Failure> {
        let mut engine = self.0.engine.clone();
        let opened = timeout(START_WAIT, engine.wait_for(Option::is_some)).await;
        match opened {
            Ok(Ok(engine)) => {
                Ok(Engine::clone(engine.as_ref().expect("waited until there is one")))
            }
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                ErrorCode::Starting,
                "the server is starting: it adopts the sandboxes of its last run; try again",
            )),
        }
    }

    /// False while the sandboxes of an earlier run are being adopted.
    pub(crate) fn is_open(&self) -> bool {
        self.0.engine.borrow().is_some()
    }
}
