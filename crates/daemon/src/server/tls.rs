//! Encrypted connections, with the operator's own certificate.
//!
//! The files are looked at again now and then: whoever renews the certificate need tell nobody. The key is
//! for root to read, so a server that is not root any more has the keeper open them.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use jail::{JailError, Keeper};
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
    keeper: OnceLock<Arc<Keeper>>,
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
    #[error("{}, which cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("files that cannot be opened: {0}")]
    Keeper(#[from] JailError),
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
        let open = |path: &Path| {
            File::open(path).map_err(|source| TlsError::Open { path: path.to_owned(), source })
        };
        let (chain, private) = (open(&certificate)?, open(&key)?);
        let changed = changed(&chain, &private);
        let config = read((&certificate, chain), (&key, private))?;
        let current = Mutex::new(Current { config, changed, looked: Instant::now() });
        Ok(Self { certificate, key, keeper: OnceLock::new(), current })
    }

    /// Has the keeper open the files from now on. Without one they are not looked at again.
    pub(crate) fn ask(&self, keeper: &Arc<Keeper>) {
        self.keeper.get_or_init(|| Arc::clone(keeper));
    }

    /// Agrees on keys with the other end. Returns also the host name it asked for, in lower case, and
    /// whether it speaks HTTP/2.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<str>>, bool)> {
        if self.is_due() {
            let own = Arc::clone(self);
            // A panic there has been reported, and leaves the certificate as it is.
            drop(tokio::task::spawn_blocking(move || own.look()).await);
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current().config));
        let stream = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await??;
        let (_, connection) = stream.get_ref();
        let server_name = connection.server_name().map(|name| name.to_ascii_lowercase().into());
        let is_http2 = connection.alpn_protocol() == Some(HTTP2);
        Ok((stream, server_name, is_http2))
    }

    /// Whether the files are to be looked at: by one of those who ask at once.
    fn is_due(&self) -> bool {
        let mut current = self.current();
        let is_due = current.looked.elapsed() >= LOOK_EVERY;
        if is_due {
            current.looked = Instant::now();
        }
        is_due
    }

    /// Looks at the files, and takes what is new in them. Blocks.
    fn look(&self) {
        let Some(keeper) = self.keeper.get() else { return };
        let read = keeper.certificate().map_err(TlsError::from).and_then(|(chain, private)| {
            let changed = changed(&chain, &private);
            if changed == self.current().changed {
                return Ok(None);
            }
            let config = read((&self.certificate, chain), (&self.key, private))?;
            Ok(Some((config, changed)))
        });
        match read {
            Ok(None) => {}
            Ok(Some(new)) => {
                tracing::info!("the certificate of the previews was renewed");
                let mut current = self.current();
                (current.config, current.changed) = new;
            }
            // One of the two may not be written yet: the next look may find both.
            Err(error) => tracing::warn!(%error, "a new certificate cannot be used"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn changed(certificate: &File, key: &File) -> Changed {
    let modified = |file: &File| file.metadata().and_then(|metadata| metadata.modified()).ok();
    (modified(certificate), modified(key))
}

fn read(
    (certificate, chain): (&Path, File),
    (key, private): (&Path, File),
) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let chain = CertificateDer::pem_reader_iter(BufReader::new(chain))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed(certificate))?;
    let private = PrivateKeyDer::from_pem_reader(BufReader::new(private)).map_err(failed(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
