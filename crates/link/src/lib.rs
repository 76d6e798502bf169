//! The host's end of the sockets to the agents, and the private contract that goes over them.
//!
//! An agent speaks HTTP/1.1 on one unix socket per sandbox, `run/N.sock` below the state
//! directory; [`Links`] keeps connections to all of them. What an agent answers is hostile input:
//! the limits on its response heads are here, those on bodies with whoever reads them.
//!
//! A connection can also lead through an agent to a port of its sandbox.
//!
//! Does not: know what is asked of an agent, retry a request of which anything was sent, or know
//! whether a sandbox ought to run.

#![forbid(unsafe_code)]

pub mod config;
mod idle;
mod links;
mod relay;
pub mod socket;
mod stream;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use config::{AgentConfig, ConfigSender, config_channel};
pub use hyper::body::Incoming;
pub use links::Links;
pub use relay::relay;
pub use stream::Stream;

/// Header that carries the request's id to the agent, and back in its errors.
pub const REQUEST_ID: &str = "x-request-id";

/// The protocol to which a connection changes that becomes one to a port of the sandbox.
pub const TCP: &str = "tcp";

/// A request body on its way to an agent.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens on its socket any more, or it broke the connection, before a byte of the request
    /// was sent: whoever was there has ended, or is about to.
    #[error("the agent is gone; nothing was sent to it")]
    Gone(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection could not be made, broke before an answer, or the answer was not HTTP within the
    /// limits. The request may have been sent.
    #[error("the agent cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took the connection and has said nothing for longer than it was given: it may be busy.
    #[error("the agent does not answer")]
    Silent,
    /// Nothing listens on the port.
    #[error("nothing listens on the port")]
    Refused,
    /// The sandbox has as many connections to its ports as it may have.
    #[error("too many connections to ports of the sandbox are open")]
    Full,
}
