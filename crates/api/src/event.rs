//! Events: what happened in the lives of a node's sandboxes, in the order in which it did, and why.
//!
//! An event is on disk in the transaction that records the change it tells of, so neither is there
//! without the other. What changes nothing on record (freezing, thawing) is told once it is done; a
//! server that dies in between does not tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::id::{CheckpointId, KeyName, SandboxId};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// The sandbox exists from now on, and is being started. Each sandbox has one.
    Created,
    /// It runs, for the first time or again.
    Started,
    /// Its processes stopped where they are.
    Frozen,
    /// They go on.
    Thawed,
    /// Its processes have ended; files and settings are there.
    Stopped,
    /// The kernel killed processes of it because its memory was used up; `message` says how many. Told
    /// within some seconds.
    OutOfMemory,
    /// It could not be started or ended; `message` says why. The next use tries again.
    Failed,
    /// Settings of it were changed.
    Changed,
    /// A checkpoint of it was made.
    CheckpointCreated,
    /// A checkpoint of it was removed.
    CheckpointRemoved,
    /// It has the files of a checkpoint.
    Restored,
    /// It is gone, and its id free. What runs of it is ended within a second. The last of a sandbox.
    Destroyed,
    /// Something was there that nobody has, or that runs of a sandbox that does not run, and is removed;
    /// `message` says what. Told to whoever may see all sandboxes, with a sandbox where it is known whose
    /// it was.
    RemainsFound,
    /// Firewall rules of the node were missing: somebody took them away. They are there again, and what
    /// each sandbox may reach is put in force again. Told to whoever may see all sandboxes.
    NetworkRestored,
}

/// Why it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum EventCause {
    /// Somebody asked for this, with `key`.
    Request,
    /// A request to the sandbox, with `key`, needed it.
    Use,
    /// A visitor of a preview needed it.
    Preview,
    /// Nobody used it for as long as its settings say.
    Idle,
    /// Its time to live was over.
    Ttl,
    /// Its agent ended by itself: it was killed, from inside or by an administrator of the machine.
    AgentEnded,
    /// Its memory was used up.
    OutOfMemory,
    /// It could not be done; `message` says why.
    Failure,
    /// The server was told to end its sandboxes as it stops.
    Shutdown,
    /// The server found it so when it started.
    Recovery,
    /// The server found it so as it looked, which it does from time to time.
    Reconcile,
    /// The machine was started again.
    Reboot,
}

/// One change in the life of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"cursor": 42, "atMs": 1_764_000_000_000_i64, "kind": "frozen",
    "cause": "idle", "sandboxId": "my-sandbox", "labels": {"team": "a"}}))]
pub struct Event {
    /// Its place among the events of the node, from 1 on: a later one has a higher. No other event
    /// ever has it.
    pub cursor: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// What happened.
    pub kind: EventKind,
    /// Why.
    pub cause: EventCause,
    /// To which sandbox: always there but with `remainsFound` and `networkRestored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<SandboxId>,
    /// Its labels at that time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// In whose name, where it was somebody's with a key. Not told to a key with a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyName>,
    /// The checkpoint that was made, removed or restored, or that the new sandbox began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// The sandbox whose files the new one began with. Not told, nor its checkpoint, to a key whose
    /// prefix it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SandboxId>,
    /// For people: why it failed, or how much of it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Query of `GET /v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEvents {
    /// Only events after this cursor. Without it, a list begins with the oldest event that is kept,
    /// and a stream with the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only events of this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// Only events of sandboxes that had this label, as `name` or `name=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Only events of these kinds, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(example = "created,destroyed")]
    pub kind: Option<String>,
    /// Events in this page, 1 to 1000. A stream has no pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Some of the events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// The events; also none, when none of those that were looked at was asked for.
    pub events: Vec<Event>,
    /// Where to go on: `after` of the next request, now or later.
    pub cursor: u64,
    /// There are more now.
    pub more: bool,
}
