//! Stub.

use std::path::PathBuf;

/// Stub.
#[derive(Debug)]
pub struct Config {
    /// Stub.
    pub node: NodeConfig,
}

/// Stub.
#[derive(Debug)]
pub struct NodeConfig {
    /// Stub.
    pub state_dir: PathBuf,
}

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ConfigError;

/// Stub.
#[derive(Debug)]
pub struct Setting {
    /// Stub.
    pub name: &'static str,
    /// Stub.
    pub about: &'static str,
}

/// Stub.
pub const SETTINGS: &[Setting] = &[Setting { name: "listen", about: "stub" }];

impl Config {
    /// Stub.
    ///
    /// # Errors
    /// Stub.
    pub fn load(flags: Vec<(String, String)>) -> Result<Self, ConfigError> {
        drop(flags);
        Err(ConfigError)
    }

    /// Stub.
    #[must_use]
    pub fn print(&self) -> String {
        format!("state_dir = {}", self.node.state_dir.display())
    }
}
