//! The node: is it there, what is it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, or `recovering` while sandboxes of an earlier run are being adopted.
    pub status: String,
    /// Version of the server.
    pub version: String,
}

/// Body of `POST /v1/node:shutdown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// What becomes of the sandboxes.
    #[serde(default)]
    pub sandboxes: ShutdownSandboxes,
}

/// What a shutdown does to the sandboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownSandboxes {
    /// They keep running; the next start adopts them.
    #[default]
    Keep,
    /// Their processes end; files and settings are kept.
    Stop,
    /// They are destroyed with their files.
    Destroy,
}
