//! Sandboxes: what to ask for, what one is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    exec::Command,
    id::{ImageRef, SandboxId},
    idle::{Activity, EffectiveIdle, IdleSettings},
    network::NetworkPolicy,
    service::Service,
};

/// What a sandbox may use. Absent values come from the node's configuration; values over the
/// node's ceiling are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory for all its processes and their page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16_777_216)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 8)]
    pub pids: Option<u32>,
    /// CPU time per second of wall time, in thousandths of one CPU: 1500 is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10)]
    pub cpu_millis: Option<u32>,
    /// Its share of the processors where all together want more than there are, beside the others: with
    /// 200 it gets twice what one with 100 gets. Where nobody else wants it, it gets all of `cpuMillis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub cpu_weight: Option<u32>,
    /// Bytes on disk of its own files: what it wrote over its image, with the file system's own
    /// bookkeeping. A fork's begin at zero. Refused where the node cannot limit them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16_777_216)]
    pub disk_bytes: Option<u64>,
}

/// Body of `POST /v1/sandboxes`. Everything is optional: an empty object makes a sandbox with a
/// generated id and the node's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "my-sandbox"}))]
pub struct CreateSandbox {
    /// The id to create; generated unless given. Creating an existing id with the same settings
    /// returns it; with other settings it is refused with `SANDBOX_EXISTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SandboxId>,
    /// The image of its files; the node's default unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// What it may reach.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// Environment of every command, over the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The caller's own names for it, to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Started by itself, as the process `on-start`, whenever the sandbox is started: at its creation,
    /// and when it comes back after a stop. Nobody waits for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<Command>,
    /// Programs that it runs whenever it runs, up to 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What becomes of it when nobody uses it.
    #[serde(default, skip_serializing_if = "IdleSettings::is_empty")]
    pub idle: IdleSettings,
    /// Destroy it this many milliseconds after its creation, whatever happens; 0 or absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31_622_400_000_u64)]
    pub ttl_ms: Option<u64>,
}

/// What becomes of a request that would be the first use of a sandbox: `creates` it with the node's
/// defaults, as without this header, or is `refused` with `SANDBOX_NOT_FOUND`, `details.firstUse`
/// saying so. Of a request that is refused nothing was done. For whoever makes sandboxes in a way of their own, without a network, say,
/// and does not want one made otherwise when theirs is gone.
pub const FIRST_USE_HEADER: &str = "x-sandbar-first-use";

/// Body of `PATCH /v1/sandboxes/{id}`: what is to change; the rest stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"network": {"allow": ["pypi.org:443", "*.pythonhosted.org:443"]}}))]
pub struct UpdateSandbox {
    /// What it may reach from now on. Connections that this does not allow end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkPolicy>,
    /// What becomes of it when nobody uses it; what is not given stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleSettings>,
    /// The caller's own names for it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What is started by itself whenever it is started; an empty text: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<Command>,
    /// Programs that it runs whenever it runs, all of them: in force from its next start on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// Milliseconds from its creation to its destruction; 0: as long as it is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31_622_400_000_u64)]
    pub ttl_ms: Option<u64>,
}

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// Being made.
    Creating,
    /// Its agent answers.
    Running,
    /// Its processes are all there and none of them runs: no CPU is used. The next request to it, or
    /// to a preview of it, lets them go on.
    Frozen,
    /// Its processes ended (it was stopped, the host restarted, or its agent was killed); its files and settings
    /// are kept and the next request starts it again.
    Stopped,
    /// It could not be made; `failure` says why. The next request tries again.
    Failed,
}

/// The limits in force, all filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveResources {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Its share of the processors beside the others; most have [`CPU_WEIGHT`].
    #[serde(default = "cpu_weight")]
    pub cpu_weight: u32,
    /// Bytes on disk of its own files; absent where the node cannot limit them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// The share of the processors that a sandbox has which was not made to have another.
pub const CPU_WEIGHT: u32 = 100;

fn cpu_weight() -> u32 {
    CPU_WEIGHT
}

/// What a running sandbox uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxUsage {
    /// Bytes charged to it, page cache included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Milliseconds of CPU since it started.
    pub cpu_ms: u64,
    /// Times the kernel killed one of its processes for want of memory.
    pub oom_kills: u64,
    /// Bytes on disk of its own files, some seconds ago at most; absent where the node does not
    /// count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// What it was refused.
    #[serde(default)]
    pub network: NetworkUsage,
}

/// What a running sandbox was refused by its network policy since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkUsage {
    /// Packets to where it may not go. An attempt to open a TCP connection is one packet, because
    /// it is refused at once.
    pub refused_packets: u64,
    /// Questions for names that its allow-list does not hold.
    pub refused_names: u64,
    /// Those names, the newest first, each once, at most 8; in lower case, what is no letter, digit,
    /// `-` or `_` as `\DDD`. Absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newest_refused_names: Vec<String>,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Where it is in its life.
    pub state: SandboxState,
    /// Why it failed, in the state `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The image it was made from.
    pub image: ImageRef,
    /// The limits in force.
    pub resources: EffectiveResources,
    /// What it may reach.
    pub network: NetworkPolicy,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// The caller's own names for it.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// What is started by itself, as the process `on-start`, whenever it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<Command>,
    /// Programs that it runs whenever it runs; where each is, `GET .../services` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What becomes of it when nobody uses it.
    #[serde(default)]
    pub idle: EffectiveIdle,
    /// Milliseconds from its creation to its destruction; 0: as long as it is wanted.
    #[serde(default)]
    pub ttl_ms: u64,
    /// How it is used, and what will become of it.
    #[serde(default)]
    pub activity: Activity,
    /// What it uses now; absent unless it has processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<SandboxUsage>,
}

/// Query of `GET /v1/sandboxes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSandboxes {
    /// Only sandboxes with this label, as `name` or `name=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Continue after this id, taken from `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Sandboxes in this page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page of sandboxes, sorted by id, without `usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxList {
    /// The sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Where the next page starts; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
