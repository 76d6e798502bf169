//! The host's end of the sockets to the agents, and the private contract that goes over them.
//!
//! An agent speaks HTTP/1.1 on one unix socket per sandbox, `run/N.sock` below the state
//! directory; [`Links`] keeps connections to all of them. What an agent answers is hostile input:
//! the limits on it are here.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

/// What the agent is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Environment of every command: the image's, under the sandbox's own.
    pub env: BTreeMap<String, String>,
    /// Absolute path of the directory commands start in; made when missing.
    pub workdir: String,
}

/// Header that carries the request's id to the agent, and back in its errors.
pub const REQUEST_ID: &str = "x-request-id";

/// A request body on its way to an agent.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Connections to the agents of one node, kept alive and reused. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links {
    run_dir: PathBuf,
}

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens on its socket, or the connection broke before an answer.
    #[error("the agent cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Links {
    /// Links to the agents whose sockets are in `run_dir`.
    #[must_use]
    pub fn new(run_dir: PathBuf) -> Self {
        Self { run_dir }
    }

    /// Sends one request to the agent of jail `jail` and returns its response head; the body
    /// streams. The request's URI is a path and query, without a host.
    ///
    /// # Cancel safety
    /// Dropping the future or the response body closes the connection, which tells the agent.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`].
    #[expect(clippy::unused_async, reason = "being written")]
    pub async fn send(
        &self,
        jail: u64,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, LinkError> {
        todo!("{jail} {request:?} {:?}", self.run_dir)
    }
}
