//! One call: address, key, bounded waits, and the answer's status read in one place.

use std::{fmt, time::Duration};

use api::error::{ApiError, ErrorBody};
use http::{HeaderValue, header::AUTHORIZATION};
use reqwest::{Method, RequestBuilder, Response, Url, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Time to reach the server. Loopback needs microseconds; this allows for a lost SYN or two.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Time for the head of an answer, unless the operation has a limit of its own. Above the server's
/// own limits, so that its typed error arrives and not this.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(180);

/// The same for what waits until a session has done what it was asked before: a command may take a
/// day.
pub(crate) const TURN_LIMIT: Duration =
    Duration::from_millis(api::limit::EXEC_TIMEOUT_MS).saturating_add(ANSWER_LIMIT);

/// Silence on a stream or an upload after which the server counts as gone: four heartbeats.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(4 * api::limit::HEARTBEAT_SECS);

/// Bytes of an answer that a call collects in memory: a buffered exec result at its limit, each
/// byte written as six (`\u0000`), and room for the rest.
pub const MAX_ANSWER_BYTES: usize = 2 * api::limit::EXEC_OUTPUT_BYTES * 6 + 1024 * 1024;

/// Idle connections kept for the next call, and for how long; less than servers keep them, so
/// that a call rarely meets a connection that the server is closing.
const IDLE_CONNECTION_LIMIT: Duration = Duration::from_secs(20);

/// A server, as its user sees it. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    authorization: HeaderValue,
}

impl fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client of the server at `url` (as `http://127.0.0.1:8787`). Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`] for a URL or a key that no server can have.
    pub fn new(url: &str, key: &str) -> Result<Self, ClientError> {
        let parsed = Url::parse(url).map_err(|fault| {
            ClientError::Address(format!("the server's URL {url:?} is malformed: {fault}"))
        })?;
        if parsed.scheme() != "http" {
            return Err(ClientError::Address(format!(
                "the server's URL {url:?} does not begin with http://; to reach a server over \
                 TLS, put a tunnel (ssh -L) before it"
            )));
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_fault| {
                ClientError::Address("the key holds characters that no key has".to_owned())
            })?;
        authorization.set_sensitive(true);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(IDLE_CONNECTION_LIMIT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("sandbar/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&parsed) {
            // A proxy named by the environment cannot mean this machine's loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|source| ClientError::Transport {
            attempt: "prepare connections".to_owned(),
            source,
        })?;
        Ok(Self { http, base: parsed.as_str().trim_end_matches('/').to_owned(), authorization })
    }

    /// The server's URL, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// True when the server runs on this machine, as far as its URL tells.
    #[must_use]
    pub fn is_local(&self) -> bool {
        Url::parse(&self.base).is_ok_and(|url| is_loopback(&url))
    }

    /// A request for `path`, which is encoded already and begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.authorization.clone())
    }

    /// Sends a request and returns the answer's head when it is a success.
    pub(crate) async fn send(
        &self,
        attempt: &str,
        limit: Duration,
        request: RequestBuilder,
    ) -> Result<Response, ClientError> {
        let answer = within(attempt, limit, request.send()).await?;
        self.check(attempt, answer.map_err(|source| self.broken(attempt, source))?).await
    }

    /// Sends a request and reads the answer's JSON.
    pub(crate) async fn send_json<T: DeserializeOwned>(
        &self,
        attempt: &str,
        limit: Duration,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(attempt, limit, request).await?;
        self.json(attempt, response).await
    }

    /// Reads an answer's JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        attempt: &str,
        response: Response,
    ) -> Result<T, ClientError> {
        let body = self.collect(attempt, response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|fault| protocol(attempt, format!("its body does not read: {fault}")))
    }

    /// Turns an answer that is not a success into the error it holds.
    pub(crate) async fn check(
        &self,
        attempt: &str,
        response: Response,
    ) -> Result<Response, ClientError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or("no content type").to_owned();
        let body = self.collect(attempt, response, MAX_ANSWER_BYTES).await?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => Err(ClientError::Api { status, error }),
            Err(_not_ours) => Err(protocol(attempt, format!("status {status} with {kind}"))),
        }
    }

    /// Reads a whole body into memory, up to `limit` bytes.
    pub(crate) async fn collect(
        &self,
        attempt: &str,
        mut response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        loop {
            let chunk = within(attempt, SILENCE_LIMIT, response.chunk()).await?;
            let Some(chunk) = chunk.map_err(|source| self.broken(attempt, source))? else {
                return Ok(body);
            };
            if body.len() + chunk.len() > limit {
                return Err(ClientError::TooLarge { attempt: attempt.to_owned(), limit });
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// What a failure below HTTP means.
    pub(crate) fn broken(&self, attempt: &str, source: reqwest::Error) -> ClientError {
        if source.is_connect() {
            return ClientError::Unreachable {
                url: self.base.clone(),
                source: source.without_url(),
            };
        }
        ClientError::Transport { attempt: attempt.to_owned(), source: source.without_url() }
    }
}

/// An answer that breaks the contract.
pub(crate) fn protocol(attempt: &str, fault: impl Into<String>) -> ClientError {
    ClientError::Protocol { attempt: attempt.to_owned(), fault: fault.into() }
}

/// What an event of the name `error` in a stream says.
pub(crate) fn stream_error(attempt: &str, data: &str) -> ClientError {
    let read = serde_json::from_str::<ErrorBody>(data).map(|body| body.error);
    match read.or_else(|_not_wrapped| serde_json::from_str::<ApiError>(data)) {
        Ok(error) => ClientError::Api { status: error.code.status(), error },
        Err(fault) => protocol(attempt, format!("its error does not read: {fault}")),
    }
}

pub(crate) async fn within<F: Future>(
    attempt: &str,
    limit: Duration,
    work: F,
) -> Result<F::Output, ClientError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_elapsed| ClientError::Timeout { attempt: attempt.to_owned(), limit })
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_at_once() {
        assert_eq!(Client::new("http://h:1/", "k").unwrap().url(), "http://h:1");
        assert_eq!(Client::new("http://h/prefix/", "k").unwrap().url(), "http://h/prefix");
        for (url, key) in [("127.0.0.1:8787", "k"), ("https://h", "k"), ("http://h", "a\nb")] {
            assert!(matches!(Client::new(url, key), Err(ClientError::Address(_))), "{url} {key}");
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let client = Client::new("http://127.0.0.1:1", "secret-key").unwrap();
        assert!(!format!("{client:?}").contains("secret-key"));
    }

    #[test]
    fn loopback_is_known_by_its_names() {
        for (url, local) in [
            ("http://127.0.0.1:8787", true),
            ("http://[::1]:8787", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(Client::new(url, "k").unwrap().is_local(), local, "{url}");
        }
    }
}
