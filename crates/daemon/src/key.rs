//! The key `local`: the file `key` of the state directory, by which clients on this machine get in.
//!
//! Made on the first start, or written by what the operator configured; replaced on request. The
//! file is the truth: what is in memory follows it.

use std::{
    fs,
    io::{self, Read as _, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use api::{error::ErrorCode, key::NewKey};
use engine::{InvalidSecret, Keys, Secret};
use sys::file::{O_NOFOLLOW, O_NONBLOCK};

use crate::{log, reply::Failure};

/// Bytes of the file that are read: several times what a key has.
const FILE_BYTES: u64 = 4096;

/// The key file of one node.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    /// The operator decides the secret elsewhere, and the next start would write it again.
    is_configured: bool,
    /// Held while file and memory change together.
    turn: Mutex<()>,
}

/// Why the key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file operation failed.
    #[error("{attempt} {}", path.display())]
    Io {
        /// What was being done.
        attempt: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file's text is not a key.
    #[error("{} holds no key; delete it to get a new one", path.display())]
    Invalid {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidSecret,
    },
    /// Others than its owner may read the file, so the key is not secret.
    #[error(
        "{} can be read by others (mode {mode:03o}): whoever could read it has the key; delete it \
         to get a new one", path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// What the key file holds.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) file: KeyFile,
    pub(crate) secret: Secret,
    /// When it was written, in milliseconds since 1970.
    pub(crate) created_at_ms: i64,
}

impl KeyFile {
    /// Where the key of the node in `state_dir` is kept: the file the CLI reads.
    fn of(state_dir: &Path, is_configured: bool) -> Self {
        Self { path: state_dir.join("key"), is_configured, turn: Mutex::new(()) }
    }

    /// The node's local key: `configured`, else the one in the key file, else a new one. The key
    /// file always holds the key in force afterwards, for the clients on this machine.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(crate) fn establish(
        state_dir: &Path,
        configured: Option<&Secret>,
    ) -> Result<Established, KeyError> {
        let file = Self::of(state_dir, configured.is_some());
        let kept = match file.read() {
            Ok(secret) => Some(secret),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            // A configured key replaces whatever is there.
            Err(_) if configured.is_some() => None,
            Err(error) => return Err(error),
        };
        let secret = match (configured, kept) {
            (Some(configured), Some(kept)) if *configured == kept => kept,
            (None, Some(kept)) => kept,
            (Some(configured), _) => file.write(configured.clone())?,
            (None, None) => file.write(file.generate()?)?,
        };
        let created_at_ms = file.written_at_ms()?;
        Ok(Established { file, secret, created_at_ms })
    }

    /// Puts a new secret in place of the present one, in the file and in `keys`. Blocks.
    ///
    /// # Errors
    /// `FORBIDDEN` when the operator decides the key; `INTERNAL_ERROR` when the file cannot be
    /// written: the present key then stays in force.
    pub(crate) fn replace(&self, keys: &Keys) -> Result<NewKey, Failure> {
        if self.is_configured {
            let message = "the key local is set by the server's configuration (key or key_file); \
                           change it there and restart the server";
            return Err(Failure::new(ErrorCode::Forbidden, message));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = self.generate().and_then(|secret| self.write(secret)).map_err(|error| {
            tracing::error!(cause = log::chain(&error), "the local key was not replaced");
            let message = "the key file could not be written, so the key stays as it was; the \
                           server's log says why";
            Failure::new(ErrorCode::InternalError, message)
        })?;
        let key = keys.replace_local(&secret);
        Ok(NewKey { key, secret: secret.reveal().to_owned() })
    }

    fn failed(&self, attempt: &'static str) -> impl Fn(io::Error) -> KeyError {
        move |source| KeyError::Io { attempt, path: self.path.clone(), source }
    }

    fn read(&self) -> Result<Secret, KeyError> {
        let (path, failed) = (&self.path, self.failed("reading the key file"));
        // Root reads it when a server starts, in a directory in which the server's user makes files: no
        // link is followed, and nobody is waited for.
        let mut options = fs::File::options();
        let file = options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
        let file = file.map_err(&failed)?;
        let found = file.metadata().map_err(&failed)?;
        if !found.is_file() {
            return Err(failed(io::Error::other("it is no file")));
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.clone(), mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(&failed)?;
        Secret::new(text.trim()).map_err(|source| KeyError::Invalid { path: path.clone(), source })
    }

    fn written_at_ms(&self) -> Result<i64, KeyError> {
        let written = fs::metadata(&self.path).and_then(|file| file.modified());
        let written = written.map_err(self.failed("reading the key file"))?;
        let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn generate(&self) -> Result<Secret, KeyError> {
        let failed = self.failed("asking the kernel for randomness for");
        Secret::generate().map_err(|error| failed(io::Error::other(error.to_string())))
    }

    /// Written beside and renamed, so that a crash leaves the old key or the new one.
    fn write(&self, secret: Secret) -> Result<Secret, KeyError> {
        let beside = self.path.with_extension("new");
        let attempt = || {
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                fs::File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            writeln!(file, "{}", secret.reveal())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        attempt().map_err(self.failed("writing the key file"))?;
        // A key that was replaced should not come back with a power cut. Past the rename there is no
        // way back: the file has the new key, and so it is the one in force.
        let dir = self.path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all());
        if let Err(error) = dir {
            tracing::warn!(%error, "the key file may be as it was before after a power cut");
        }
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use engine::Presented;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn establish(dir: &tempfile::TempDir, configured: Option<&Secret>) -> Established {
        KeyFile::establish(dir.path(), configured).unwrap()
    }

    fn text(dir: &tempfile::TempDir) -> String {
        fs::read_to_string(dir.path().join("key")).unwrap().trim().to_owned()
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_keeps_it() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

        let first = establish(&dir, None);
        let second = establish(&dir, None);

        assert_eq!(mode(&dir.path().join("key")), 0o600);
        assert_eq!(text(&dir), first.secret.reveal());
        assert_eq!(first.secret, second.secret);
        assert_eq!(first.created_at_ms, second.created_at_ms);
        assert_ne!(first.secret, establish(&other, None).secret);
    }

    #[test]
    fn a_configured_key_replaces_the_kept_one_for_local_clients() {
        let dir = tempfile::tempdir().unwrap();
        establish(&dir, None);
        let configured = Secret::new(&"k".repeat(40)).unwrap();

        let established = establish(&dir, Some(&configured));

        assert_eq!(established.secret, configured);
        assert_eq!(text(&dir), "k".repeat(40));
        assert_eq!(mode(&dir.path().join("key")), 0o600);
    }

    #[test]
    fn what_somebody_put_in_the_place_of_the_key_is_not_read() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (key, other) = (dir.path().join("key"), outside.path().join("other"));
        fs::write(&other, format!("{}\n", "x".repeat(64))).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&other, &key).unwrap();
        KeyFile::establish(dir.path(), None).unwrap_err();
        fs::remove_file(&key).unwrap();
        fs::rename(&other, &key).unwrap();
        KeyFile::establish(dir.path(), None).unwrap();
        // Nobody writes to it.
        fs::remove_file(&key).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
        KeyFile::establish(dir.path(), None).unwrap_err();
    }

    #[test]
    fn a_key_others_could_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        establish(&dir, None);
        fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();

        let error = KeyFile::establish(dir.path(), None).unwrap_err();

        assert!(matches!(error, KeyError::Exposed { mode: 0o644, .. }));
    }

    #[test]
    fn a_damaged_key_file_is_told_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        establish(&dir, None);
        fs::write(dir.path().join("key"), "short").unwrap();

        let error = KeyFile::establish(dir.path(), None).unwrap_err();

        assert!(matches!(error, KeyError::Invalid { source: InvalidSecret::Length, .. }));
    }

    #[test]
    fn a_replaced_key_is_in_the_file_and_the_old_one_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let first = establish(&dir, None);
        let keys = Keys::new(&first.secret, first.created_at_ms, 1);

        let new = first.file.replace(&keys).unwrap();

        assert_eq!(text(&dir), new.secret);
        assert_eq!(mode(&dir.path().join("key")), 0o600);
        assert!(matches!(keys.find(new.secret.as_bytes()), Presented::Key(_)));
        assert!(!matches!(keys.find(first.secret.reveal().as_bytes()), Presented::Key(_)));
        assert_eq!(establish(&dir, None).secret.reveal(), new.secret);
    }

    #[test]
    fn a_key_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = establish(&dir, None);
        let keys = Keys::new(&first.secret, first.created_at_ms, 1);
        // In the way of the file that is renamed.
        fs::create_dir(dir.path().join("key.new")).unwrap();

        let Failure(error) = first.file.replace(&keys).unwrap_err();

        assert_eq!(error.code, ErrorCode::InternalError);
        assert!(matches!(keys.find(first.secret.reveal().as_bytes()), Presented::Key(_)));
        let configured = establish(&tempfile::tempdir().unwrap(), Some(&first.secret));
        let Failure(error) = configured.file.replace(&keys).unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
    }
}
