//! Services: programs that a sandbox runs whenever it runs.
//!
//! They are started with the sandbox, at its creation, after a stop, and as a fork, and again when they
//! end, as their policy says: first after a second, then after twice as long each time, up to a minute;
//! one that ran for a minute begins anew. A service is the process of its name: its log, its signals
//! and waits for it are those of processes. When the sandbox is stopped it gets its notice as every
//! process does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    exec::{Command, Ending},
    id::ProcessId,
};

/// When a service is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Restart {
    /// Whenever it ends.
    #[default]
    Always,
    /// When it ends with another exit code than 0, or is killed.
    OnFailure,
    /// Never: it runs once for each start of the sandbox.
    Never,
}

/// A service, as it is defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "web", "command": "python3 -m http.server 8000", "port": 8000}))]
pub struct Service {
    /// Its name, which no other service of the sandbox has: the id of its process.
    pub name: ProcessId,
    /// What runs, with the variables and in the directory of the sandbox.
    pub command: Command,
    /// It is ready when something listens on this port; without one, when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// When it is started again.
    #[serde(default)]
    pub restart: Restart,
}

/// Where a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ServiceState {
    /// It is being started, or nothing listens on its port yet.
    Starting,
    /// It runs, and something listens on its port if it has one.
    Ready,
    /// It has ended, or could not be started, and will be started again.
    Waiting,
    /// It has ended and will not be started again before the sandbox is.
    Ended,
}

/// A service of a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// As it is defined. A definition that was changed since is in force from the sandbox's next
    /// start on.
    pub service: Service,
    /// Where it is.
    pub state: ServiceState,
    /// Of its process inside the sandbox, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How often it was started again since the sandbox was started.
    pub restarts: u32,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Why it could not be started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it is started again, in milliseconds since 1970-01-01 UTC, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start_at_ms: Option<i64>,
}

/// The services of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceList {
    /// In the order of their definition.
    pub services: Vec<ServiceStatus>,
}
