//! What becomes of a sandbox that nobody uses.
//!
//! A sandbox is **in use** while a request to it is under way, to the last byte of its answer: an
//! exec or code until its end or until its caller goes, a stream, a terminal with a viewer, a request
//! or a WebSocket through a preview. With `countVisits` off, a request through a preview is a use in
//! the moment it comes and none after, however long it stays open. What runs in it by itself
//! (processes, commands whose caller has gone, terminals without viewers) counts only with
//! `countProcesses`. Looking at a sandbox, listing its ports, freezing and thawing it is no use. Idle
//! time begins with the end of the last use, or with the start of the sandbox.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Milliseconds without use before anything happens, unless asked otherwise: ten minutes.
pub const SLEEP_AFTER_MS: u64 = 10 * 60 * 1000;

/// Milliseconds that a sandbox stays frozen before it is stopped, unless asked otherwise: a day.
pub const STOP_AFTER_MS: u64 = 24 * 60 * 60 * 1000;

/// Least milliseconds of any of the times: freezing and thawing takes about one.
pub const LEAST_MS: u64 = 100;

/// Most milliseconds of any of the times: a year.
pub const MOST_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// What happens first to a sandbox that nobody uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnIdle {
    /// Its processes stop where they are; the next use lets them go on. Later it is stopped.
    #[default]
    Freeze,
    /// Its processes are ended, its files stay.
    Stop,
    /// It goes, with its files.
    Destroy,
}

/// What should become of a sandbox that nobody uses. Absent values are the defaults at a creation,
/// and stay as they are at a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"sleepAfterMs": 180_000}))]
pub struct IdleSettings {
    /// Never freeze, stop or destroy it for being idle. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// What happens first. Default `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_idle: Option<OnIdle>,
    /// After this many milliseconds without use that happens. Default ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 31_622_400_000_u64)]
    pub sleep_after_ms: Option<u64>,
    /// A sandbox that has been frozen this many milliseconds is stopped; 0: never. Default a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31_622_400_000_u64)]
    pub stop_after_ms: Option<u64>,
    /// A sandbox that has been stopped this many milliseconds is destroyed; 0: never. Default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 31_622_400_000_u64)]
    pub destroy_after_ms: Option<u64>,
    /// Processes that run by themselves are a use too. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_processes: Option<bool>,
    /// A request through a preview is a use as long as it, or the WebSocket it became, is open. Default
    /// true; else only in the moment it comes, and one that is open when the sandbox is frozen goes on
    /// when that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_visits: Option<bool>,
}

impl IdleSettings {
    /// True when nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The same, all filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveIdle {
    /// It is never frozen, stopped or destroyed for being idle.
    pub keep_alive: bool,
    /// What happens first.
    pub on_idle: OnIdle,
    /// Milliseconds without use after which that happens.
    pub sleep_after_ms: u64,
    /// Milliseconds frozen after which it is stopped; 0: never.
    pub stop_after_ms: u64,
    /// Milliseconds stopped after which it is destroyed; 0: never.
    pub destroy_after_ms: u64,
    /// Processes that run by themselves are a use too.
    pub count_processes: bool,
    /// A request through a preview is a use as long as it, or the WebSocket it became, is open.
    #[serde(default = "counted")]
    #[schema(required = true)]
    pub count_visits: bool,
}

/// What counted before it could be said.
fn counted() -> bool {
    true
}

impl Default for EffectiveIdle {
    fn default() -> Self {
        Self {
            keep_alive: false,
            on_idle: OnIdle::default(),
            sleep_after_ms: SLEEP_AFTER_MS,
            stop_after_ms: STOP_AFTER_MS,
            destroy_after_ms: 0,
            count_processes: false,
            count_visits: counted(),
        }
    }
}

impl EffectiveIdle {
    /// These settings with what `asked` says in place of theirs.
    #[must_use]
    pub fn with(self, asked: &IdleSettings) -> Self {
        Self {
            keep_alive: asked.keep_alive.unwrap_or(self.keep_alive),
            on_idle: asked.on_idle.unwrap_or(self.on_idle),
            sleep_after_ms: asked.sleep_after_ms.unwrap_or(self.sleep_after_ms),
            stop_after_ms: asked.stop_after_ms.unwrap_or(self.stop_after_ms),
            destroy_after_ms: asked.destroy_after_ms.unwrap_or(self.destroy_after_ms),
            count_processes: asked.count_processes.unwrap_or(self.count_processes),
            count_visits: asked.count_visits.unwrap_or(self.count_visits),
        }
    }
}

/// What will happen to a sandbox by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Rung {
    /// It is frozen.
    Freeze,
    /// The memory of a frozen one is pushed out, as far as the host has room for it.
    Reclaim,
    /// Its processes are ended.
    Stop,
    /// It goes.
    Destroy,
}

/// Why something will happen to a sandbox by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RungReason {
    /// Nobody uses it.
    Idle,
    /// Its time to live is over.
    Ttl,
}

/// What will happen to a sandbox by itself next, unless somebody uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextRung {
    /// What.
    pub rung: Rung,
    /// When: milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Why.
    pub reason: RungReason,
}

/// How a sandbox is used, and what will become of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Requests under way. While there are any, it is in use.
    pub requests: usize,
    /// When the last use ended: milliseconds since 1970-01-01 UTC.
    pub last_used_at_ms: i64,
    /// What happens by itself next; absent when nothing will as long as nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextRung>,
}
