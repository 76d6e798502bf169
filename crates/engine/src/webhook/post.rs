//! One POST to a URL of the operator's: a connection of its own, no redirects, no proxy, and of the
//! answer only its status.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::limit::WEBHOOK_URL_BYTES;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::{EngineError, error};

/// How long one attempt may take, from the question for the host's address to the answer's status: a
/// receiver that does more than to take note does it later.
const DEADLINE: Duration = Duration::from_secs(10);

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("sandbar/", env!("CARGO_PKG_VERSION")));

/// Where something is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    is_secure: bool,
    host: String,
    port: u16,
    /// For the header `Host`.
    authority: HeaderValue,
    path: Uri,
}

/// Why something was not taken, for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("the receiver cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("the connection cannot be encrypted")]
    Encrypt(#[source] std::io::Error),
    #[error("the receiver gave no answer")]
    Send(#[source] hyper::Error),
    #[error("it took longer than {} s", DEADLINE.as_secs())]
    Late,
    #[error("the receiver answered {0}")]
    Status(StatusCode),
    #[error("it cannot be sent")]
    Request(#[source] http::Error),
    #[error("this machine's certificates cannot be used")]
    Certificates(#[source] tokio_rustls::rustls::Error),
}

impl Target {
    /// # Errors
    /// `VALIDATION_FAILED`.
    pub(super) fn of(url: &str) -> Result<Self, EngineError> {
        let invalid = |why: &str| error::invalid("url", &format!("the URL {why}"));
        if url.len() > WEBHOOK_URL_BYTES {
            return Err(invalid(&format!("has more than {WEBHOOK_URL_BYTES} bytes")));
        }
        let uri: Uri = url.parse().map_err(|_not_one| invalid("does not read as one"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("has a user in it; its deliveries are known by their signature"));
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(invalid("has a port that is none"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || (is_secure && ServerName::try_from(host.clone()).is_err()) {
            return Err(invalid("names no host"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_secure,
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_not_one| invalid("names no host"))?,
            path: path.parse().map_err(|_not_one| invalid("does not read as one"))?,
            host,
        })
    }

    /// Sends JSON, with these headers.
    ///
    /// # Errors
    /// Unless the answer is a success.
    pub(super) async fn post(
        &self,
        headers: [(HeaderName, HeaderValue); 3],
        body: Bytes,
    ) -> Result<(), PostError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.path.clone())
            .header(header::HOST, self.authority.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(body))
            .map_err(PostError::Request)?;
        request.headers_mut().extend(headers);
        timeout(DEADLINE, self.send(request)).await.unwrap_or(Err(PostError::Late))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(), PostError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(PostError::Connect)?;
        if !self.is_secure {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(self.host.clone()).expect("it was checked");
        let encrypted = TlsConnector::from(tls()?).connect(name, stream).await;
        exchange(encrypted.map_err(PostError::Encrypt)?, request).await
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), PostError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(PostError::Send)?;
    let (mut answer, mut connection) = (pin!(sender.send_request(request)), pin!(connection));
    // The connection ends with this function: nobody reads more of the answer. One that the receiver
    // ends behind its answer has still brought it.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ended = &mut connection => answer.await,
    };
    let answer = answer.map_err(PostError::Send)?;
    if answer.status().is_success() { Ok(()) } else { Err(PostError::Status(answer.status())) }
}

/// Trusts what the machine trusts. Read once: a change needs a restart of the server.
fn tls() -> Result<Arc<ClientConfig>, PostError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of this machine's certificates cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(PostError::Certificates)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_once() {
        let target = Target::of("https://[::1]:8443/a?b=c").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.is_secure), ("::1", 8443, true));
        assert_eq!(
            (target.authority.as_bytes(), target.path.to_string()),
            (&b"[::1]:8443"[..], "/a?b=c".to_owned())
        );
        let plain = Target::of("http://example.com").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.path.path()), ("example.com", 80, "/"));
        for bad in [
            "",
            "/x",
            "example.com",
            "ftp://example.com/",
            "http://",
            "https://a b/",
            "http://u:p@h/",
            "http://h:99999/",
            "http://h:/",
            "file:///etc/passwd",
            &format!("http://h/{}", "x".repeat(2048)),
        ] {
            assert!(Target::of(bad).is_err(), "{bad}");
        }
    }
}
