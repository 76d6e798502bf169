//! Checkpoints: the files of a sandbox at one moment, to go back to or to begin others from.
//!
//! Files only: processes, their memory and what is in `/run`, `/dev/shm` and other memory file systems
//! are not in a checkpoint. Processes that run while one is made go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    archive::{ArchiveFormat, Unpacked},
    id::{CheckpointId, ImageRef, SandboxId},
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
    /// They start nothing by themselves: neither `onStart` nor services of this sandbox are theirs.
    #[serde(default)]
    pub bare: bool,
}

/// The sandboxes that a fork made. They run, with files and no processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forks {
    /// The sandboxes, in the order of `ids`.
    pub sandboxes: Vec<Sandbox>,
}

/// What the export of a checkpoint says about itself, first of all: a pax record for all entries,
/// `SANDBAR.about`, in JSON.
///
/// The export is a layer of an image as in the OCI image specification, version 1.1: with `.wh.NAME` for
/// what is deleted and `.wh..wh..opq` for directories of which the image shows nothing. It has owners,
/// permission bits, times to the nanosecond, further names of files, pipes, and attributes of users
/// (`SCHILY.xattr.user.*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointExport {
    /// Name of the image that it lies over.
    pub image: ImageRef,
    /// What that image is, whatever its name: only over this one the export means anything.
    pub image_digest: String,
    /// The sandbox it was made of.
    pub sandbox_id: SandboxId,
    /// The checkpoint it was.
    pub checkpoint: CheckpointId,
    /// Milliseconds since 1970-01-01 UTC when that was made.
    pub created_at_ms: i64,
}

/// Query of `GET /v1/sandboxes/{id}/checkpoints/{checkpoint}/export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportCheckpoint {
    /// How the stream is written; `tar` without it.
    #[serde(default)]
    #[param(inline)]
    pub format: ArchiveFormat,
}

/// Query of `POST /v1/sandboxes/{id}/checkpoints:import`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportCheckpoint {
    /// Its id in the sandbox; generated unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub checkpoint: Option<CheckpointId>,
    /// How the stream is written; `tar` without it.
    #[serde(default)]
    #[param(inline)]
    pub format: ArchiveFormat,
}

/// Answer of `POST /v1/sandboxes/{id}/checkpoints:import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointImported {
    /// What was made.
    pub checkpoint: Checkpoint,
    /// What came, and what of the first checkpoint did not: what its export left out, and what is not
    /// taken from one.
    pub unpacked: Unpacked,
}
