//! The daemon: configuration, wiring, HTTP.

#![forbid(unsafe_code)]

pub mod config;

use config::Config;

/// Stub.
#[derive(Debug)]
pub struct DownReport {
    /// Stub.
    pub sandboxes: usize,
}

/// Stub.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct ServeError;

/// Stub.
///
/// # Errors
/// Stub.
pub fn serve(config: Config) -> Result<(), ServeError> {
    drop(config);
    Err(ServeError)
}

/// Stub.
///
/// # Errors
/// Stub.
pub fn down(config: Config, destroy: bool) -> Result<DownReport, ServeError> {
    drop((config, destroy));
    Err(ServeError)
}
