//! Stub.

use std::path::Path;

/// Stub.
#[derive(Debug)]
pub struct Config {
    /// Stub.
    pub state_dir: std::path::PathBuf,
}

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ConfigErrors;

impl Config {
    /// Stub.
    ///
    /// # Errors
    /// Stub.
    pub fn load(path: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigErrors> {
        drop((path, flags));
        Err(ConfigErrors)
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "state_dir = {:?}", self.state_dir)
    }
}
