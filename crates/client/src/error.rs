//! Why a call failed: what was attempted, and which side of the connection it failed on.

use std::{io, path::PathBuf, time::Duration};

use api::error::ApiError;

/// Why a call to the server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server of this machine could not be found.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The given URL or key cannot be used. The text says what is wrong with it.
    #[error("{0}")]
    Address(String),
    /// The server refused or failed; `error` has its code and its reason.
    #[error("{error}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        error: ApiError,
    },
    /// Nobody listens at the server's address.
    #[error("no server answers at {url}; is it running? `sandbar serve` starts one")]
    Unreachable {
        /// Where the server was looked for.
        url: String,
        /// Why the connection failed.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke. For operations that change something it is unknown whether they
    /// happened.
    #[error("could not {attempt}: the connection to the server broke")]
    Transport {
        /// What was being done.
        attempt: String,
        /// Why it broke.
        #[source]
        source: reqwest::Error,
    },
    /// The stream ended before its final event, as it does when the server is stopped.
    #[error("could not {attempt}: the stream ended before its final event")]
    CutOff {
        /// What was being done.
        attempt: String,
    },
    /// A connection that speaks both ways broke.
    #[error("could not {attempt}: the connection to the server broke")]
    Broken {
        /// What was being done.
        attempt: String,
        /// Why it broke.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server said nothing for too long.
    #[error("could not {attempt}: the server said nothing for {limit:?}")]
    Timeout {
        /// What was being done.
        attempt: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer is not one of Sandbar's API: another program listens there, or its version is
    /// far from this one.
    #[error("could not {attempt}: the answer is not one of Sandbar's API: {fault}")]
    Protocol {
        /// What was being done.
        attempt: String,
        /// What is wrong with the answer.
        fault: String,
    },
    /// The answer is larger than what is kept in memory; the streaming form of the call has no
    /// such limit.
    #[error("could not {attempt}: the answer is over {limit} bytes; read it as a stream")]
    TooLarge {
        /// What was being done.
        attempt: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A path that cannot name a file in a sandbox.
    #[error(
        "the path {path:?} is relative; files in a sandbox are named from its root, as /workspace/file"
    )]
    RelativePath {
        /// The path.
        path: String,
    },
    /// The content to send could not be read.
    #[error("could not {attempt}: the content to send could not be read")]
    Content {
        /// What was being done.
        attempt: String,
        /// Why reading failed.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    pub(crate) fn cut_off(attempt: &str) -> Self {
        Self::CutOff { attempt: attempt.to_owned() }
    }
}

/// Why [`crate::Client::from_environment`] found no server. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The state directory names no server.
    #[error(
        "no server has run with the state directory {}: {} is missing. Start one with \
         `sandbar serve`, or set SANDBAR_URL and SANDBAR_KEY (or SANDBAR_STATE_DIR) to reach another",
        dir.display(), file.display()
    )]
    NoServer {
        /// The state directory.
        dir: PathBuf,
        /// The file in it that is missing.
        file: PathBuf,
    },
    /// The files of the server belong to another user.
    #[error(
        "{} may be read only by the user who runs the server. Run this command as that user \
         (with sudo, if that is root), or set SANDBAR_URL and SANDBAR_KEY",
        file.display()
    )]
    Denied {
        /// The file.
        file: PathBuf,
    },
    /// A file of the server could not be read.
    #[error("could not read {}, which says where the server is", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `SANDBAR_URL` names a server but no key goes with it.
    #[error(
        "SANDBAR_URL is set but SANDBAR_KEY is not. Set it to the server's key, which is in the \
         file `key` of its state directory"
    )]
    NoKey,
    /// A variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotText(&'static str),
}
