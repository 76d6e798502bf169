//! Checkpoints: the files of a sandbox at one moment, to go back to or to begin others from.
//!
//! Files only: processes, their memory and what is in `/run`, `/dev/shm` and other memory file systems
//! are not in a checkpoint. Processes that run while one is made go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    id::{CheckpointId, SandboxId},
    sandbox::Sandbox,
};

/// Body of `POST /v1/sandboxes/{id}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateCheckpoint {
    /// Its id in the sandbox; generated unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CheckpointId>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Its id in the sandbox.
    pub id: CheckpointId,
    /// Whose files it has.
    pub sandbox_id: SandboxId,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// Bytes on disk of the files that are the sandbox's own, at that moment. They are shared with
    /// the sandbox until it overwrites them.
    pub size_bytes: u64,
}

/// What came of `POST /v1/sandboxes/{id}/checkpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointCreated {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Microseconds that the sandbox's processes stood still; 0 when none ran.
    pub pause_us: u64,
}

/// All checkpoints of a sandbox, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointList {
    /// The checkpoints.
    pub checkpoints: Vec<Checkpoint>,
}

/// Body of `POST /v1/sandboxes/{id}/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreCheckpoint {
    /// The checkpoint of this sandbox to go back to.
    pub checkpoint: CheckpointId,
}

/// Body of `POST /v1/sandboxes/{id}/fork`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForkSandbox {
    /// The checkpoint of this sandbox to begin from; its files as they are now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// How many sandboxes to make, 1 to 64; as many as `ids`, or one, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 64)]
    pub count: Option<u32>,
    /// Their ids, none of which exists; generated unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<SandboxId>>,
    /// Their labels; those of this sandbox unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The sandboxes that a fork made. They run, with files and no processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forks {
    /// The sandboxes, in the order of `ids`.
    pub sandboxes: Vec<Sandbox>,
}
