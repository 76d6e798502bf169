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
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::{Client, ClientError, EnvironmentError};

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
    match fs::read_to_string(&file) {
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
    fn a_directory_in_place_of_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("key")).unwrap();
        let error = read(dir.path(), "key").unwrap_err();
        assert!(matches!(error, EnvironmentError::Unreadable { .. }));
        assert!(error.to_string().contains("/key"), "{error}");
    }
}
