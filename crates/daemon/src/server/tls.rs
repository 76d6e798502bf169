//! Encrypted connections, with the operator's own certificate.
//!
//! The files are looked at again now and then: whoever renews the certificate need tell nobody.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

/// Time for a connection to agree on its keys: a few round trips around the world.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How often the files are looked at, when connections come: renewed certificates overlap by days.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How HTTP/2 is called among the protocols of a connection (RFC 7301, section 6).
const HTTP2: &[u8] = b"h2";

/// The certificate in force, and where it comes from.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    changed: Changed,
    looked: Instant,
}

/// When the two files were last changed.
type Changed = (Option<SystemTime>, Option<SystemTime>);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{}, which cannot be read as PEM: {source}", path.display())]
    File { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("a certificate and a key that do not go together: {0}")]
    Pair(#[from] rustls::Error),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// The certificate chain and the key in these PEM files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let changed = changed(&certificate, &key);
        let config = read(&certificate, &key)?;
        let current = Mutex::new(Current { config, changed, looked: Instant::now() });
        Ok(Self { certificate, key, current })
    }

    /// Agrees on keys with the other end. Returns also the host name it asked for, in lower case, and
    /// whether it speaks HTTP/2.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<str>>, bool)> {
        let acceptor = TlsAcceptor::from(self.config());
        let stream = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await??;
        let (_, connection) = stream.get_ref();
        let server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into());
        let is_http2 = connection.alpn_protocol() == Some(HTTP2);
        Ok((stream, server_name, is_http2))
    }

    /// The configuration in force, of the files as they were at most [`LOOK_EVERY`] ago. Reads small
    /// local files at most that often, which is too little to move to another thread.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() < LOOK_EVERY {
            return Arc::clone(&current.config);
        }
        current.looked = Instant::now();
        let changed = changed(&self.certificate, &self.key);
        if changed != current.changed {
            match read(&self.certificate, &self.key) {
                Ok(config) => {
                    tracing::info!("the certificate of the previews was renewed");
                    (current.config, current.changed) = (config, changed);
                }
                // One of the two may not be written yet: the next look may find both.
                Err(error) => tracing::warn!(%error, "a new certificate cannot be used"),
            }
        }
        Arc::clone(&current.config)
    }
}

fn changed(certificate: &Path, key: &Path) -> Changed {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (modified(certificate), modified(key))
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(failed(certificate))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
