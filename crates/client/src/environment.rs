//! Finds the server: named by the environment, or by the state directory of this machine.
//!
//! ```text
//! SANDBAR_URL + SANDBAR_KEY ─► those
//! otherwise: endpoint, key in SANDBAR_STATE_DIR, or in /var/lib/sandbar
//! ```
//!
//! A variable set to nothing counts as not set, so that `SANDBAR_URL= sandbar ps` means what it
//! looks like.

use std::{
    env, fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Client, ClientError, EnvironmentError};

/// Bytes of a file of the server's that are read: several times a URL or a key.
const FILE_BYTES: u64 = 64 * 1024;

/// Where a server keeps its state unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/sandbar";

impl Client {
    /// Makes a client of the server that the environment names, or of this machine's.
    ///
    /// # Errors
    /// [`ClientError::Environment`], with a text that says what to do.
    pub fn from_environment() -> Result<Self, ClientError> {
        let key = variable("SANDBAR_KEY")?;
        if let Some(url) = variable("SANDBAR_URL")? {
            return Self::new(&url, &key.ok_or(EnvironmentError::NoKey)?);
        }
        let dir = state_dir();
        let url = read(&dir, "endpoint")?;
        let key = match key {
            Some(key) => key,
            None => read(&dir, "key")?,
        };
        Self::new(&url, &key)
    }

    /// Makes a client of the server whose state is in `dir`.
    ///
    /// # Errors
    /// [`ClientError::Environment`], with a text that says what to do.
    pub fn from_state_dir(dir: &Path) -> Result<Self, ClientError> {
        Self::new(&read(dir, "endpoint")?, &read(dir, "key")?)
    }
}

/// The state directory of this machine's server: `SANDBAR_STATE_DIR`, or [`DEFAULT_STATE_DIR`].
#[must_use]
pub fn state_dir() -> PathBuf {
    let named = env::var_os("SANDBAR_STATE_DIR").filter(|dir| !dir.is_empty());
    named.map_or_else(|| PathBuf::from(DEFAULT_STATE_DIR), PathBuf::from)
}

fn variable(name: &'static str) -> Result<Option<String>, EnvironmentError> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value.into_string().map(Some).map_err(|_value| EnvironmentError::NotText(name))
}

fn read(dir: &Path, name: &str) -> Result<String, EnvironmentError> {
    let file = dir.join(name);
    match read_own(&file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(EnvironmentError::NoServer { dir: dir.to_owned(), file })
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(EnvironmentError::Denied { file })
        }
        Err(source) => Err(EnvironmentError::Unreadable { file, source }),
    }
}

/// What a file says that is one itself, and has no other name. Who runs as root reads files here in a
/// directory in which the server's user makes them: a link would have the reader tell the server what only
/// root may read.
fn read_own(file: &Path) -> io::Result<String> {
    let named = fs::symlink_metadata(file)?;
    if !named.is_file() || named.nlink() != 1 {
        return Err(io::Error::other("it is a link, or no file; the server makes neither"));
    }
    let opened = fs::File::open(file)?;
    let found = opened.metadata()?;
    if (found.dev(), found.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("it was replaced while it was read; try again"));
    }
    let mut text = String::new();
    opened.take(FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_state_directory_are_read_without_their_line_ends() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("endpoint"), "http://127.0.0.1:8787\n").unwrap();
        assert_eq!(read(dir.path(), "endpoint").unwrap(), "http://127.0.0.1:8787");
    }

    #[test]
    fn a_missing_server_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path(), "endpoint").unwrap_err();
        assert!(matches!(error, EnvironmentError::NoServer { .. }));
        assert!(error.to_string().contains("sandbar serve"), "{error}");
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let other = outside.path().join("other");
        fs::write(&other, "of root's").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("key")).unwrap();
        fs::hard_link(&other, dir.path().join("endpoint")).unwrap();
        for name in ["key", "endpoint"] {
            let error = read(dir.path(), name).unwrap_err();
            assert!(matches!(error, EnvironmentError::Unreadable { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn a_directory_in_place_of_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("key")).unwrap();
        let error = read(dir.path(), "key").unwrap_err();
        assert!(matches!(error, EnvironmentError::Unreadable { .. }));
        assert!(error.to_string().contains("/key"), "{error}");
    }
}
