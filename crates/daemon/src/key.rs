//! The API key: made on the first start, kept in the state directory, compared in constant time.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// So that a leaked key is recognised by people and by secret scanners.
const PREFIX: &str = "sbk_";

/// Bytes of randomness (R32).
const RANDOM_BYTES: usize = 32;

/// Characters of a key an operator sets: from what cannot be guessed to what fits a header.
const CHARS: std::ops::RangeInclusive<usize> = 32..=256;

/// The one key of the node. Holds only its digest; the text is in the key file and in the hands of
/// callers.
#[derive(Clone)]
pub struct Key {
    digest: [u8; 32],
    /// For writing it to the key file of this machine's own clients.
    text: String,
}

/// Why a text is not a key. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Too short to be unguessable, or too long for a header.
    #[error("has not {} to {} characters", CHARS.start(), CHARS.end())]
    Length,
    /// It could not be sent in a header.
    #[error("has characters other than printable ASCII without spaces")]
    Character,
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
        source: InvalidKey,
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

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl Key {
    /// The key with this text, which was checked.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { digest: digest(text.as_bytes()), text: text.to_owned() }
    }

    /// Whether `text` can be a key.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn check(text: &str) -> Result<(), InvalidKey> {
        if !CHARS.contains(&text.len()) {
            return Err(InvalidKey::Length);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidKey::Character);
        }
        Ok(())
    }

    /// Where the key of the node in `state_dir` is kept: the file the CLI reads.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("key")
    }

    /// The node's key: `configured`, else the one in the key file, else a new one. The key file
    /// always holds the key in force afterwards, for the clients on this machine.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn establish(state_dir: &Path, configured: Option<&Self>) -> Result<Self, KeyError> {
        let path = Self::path(state_dir);
        let kept = match Self::read(&path) {
            Ok(key) => Some(key),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            // A configured key replaces whatever is there.
            Err(_) if configured.is_some() => None,
            Err(error) => return Err(error),
        };
        let key = match (configured, kept) {
            (Some(configured), Some(kept)) if configured.matches(kept.text.as_bytes()) => {
                return Ok(kept);
            }
            (Some(configured), _) => configured.clone(),
            (None, Some(kept)) => return Ok(kept),
            (None, None) => Self::generate(&path)?,
        };
        key.write(&path)?;
        Ok(key)
    }

    /// The key in the file `path`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            attempt: "reading the key file",
            path: path.to_owned(),
            source,
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let text = text.trim();
        Self::check(text).map_err(|source| KeyError::Invalid { path: path.to_owned(), source })?;
        Ok(Self::new(text))
    }

    /// Whether `presented` is the key. Takes the same time for every wrong text of one length: both
    /// sides are hashed first, so not even the position of the first difference means anything.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        digest(presented).ct_eq(&self.digest).into()
    }

    fn generate(path: &Path) -> Result<Self, KeyError> {
        let mut random = [0_u8; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| KeyError::Io {
            attempt: "asking the kernel for randomness for",
            path: path.to_owned(),
            source: io::Error::other(error.to_string()),
        })?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self::new(&format!("{PREFIX}{hex}")))
    }

    /// Written beside and renamed, so that a crash leaves the old key or the new one.
    fn write(&self, path: &Path) -> Result<(), KeyError> {
        let beside = path.with_extension("new");
        let attempt = || {
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                fs::File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            writeln!(file, "{}", self.text)?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        attempt().map_err(|source| KeyError::Io {
            attempt: "writing the key file",
            path: path.to_owned(),
            source,
        })
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_keeps_it() {
        let dir = tempfile::tempdir().unwrap();

        let first = Key::establish(dir.path(), None).unwrap();
        let second = Key::establish(dir.path(), None).unwrap();

        let path = Key::path(dir.path());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(text.trim().len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert!(text.starts_with(PREFIX));
        assert!(first.matches(text.trim().as_bytes()) && second.matches(text.trim().as_bytes()));
    }

    #[test]
    fn two_nodes_have_different_keys() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

        let a = Key::establish(a.path(), None).unwrap();
        let b = Key::establish(b.path(), None).unwrap();

        assert!(!a.matches(b.text.as_bytes()));
    }

    #[test]
    fn a_configured_key_replaces_the_kept_one_for_local_clients() {
        let dir = tempfile::tempdir().unwrap();
        let generated = Key::establish(dir.path(), None).unwrap();
        let configured = Key::new(&"k".repeat(40));

        let key = Key::establish(dir.path(), Some(&configured)).unwrap();

        assert!(key.matches("k".repeat(40).as_bytes()));
        assert!(!key.matches(generated.text.as_bytes()));
        assert_eq!(fs::read_to_string(Key::path(dir.path())).unwrap().trim(), "k".repeat(40));
        assert_eq!(mode(&Key::path(dir.path())), 0o600);
    }

    #[test]
    fn a_key_others_could_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Key::establish(dir.path(), None).unwrap();
        let path = Key::path(dir.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

        let error = Key::establish(dir.path(), None).unwrap_err();

        assert!(matches!(error, KeyError::Exposed { mode: 0o644, .. }));
    }

    #[test]
    fn a_damaged_key_file_is_told_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        Key::establish(dir.path(), None).unwrap();
        fs::write(Key::path(dir.path()), "short").unwrap();

        let error = Key::establish(dir.path(), None).unwrap_err();

        assert!(matches!(error, KeyError::Invalid { source: InvalidKey::Length, .. }));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", Key::new(&"secret".repeat(8))), "Key(hidden)");
    }
}
