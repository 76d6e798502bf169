//! Sessions: shells that keep directory, variables, functions, aliases and options between commands.
//!
//! A command runs in a session by naming it in an exec request. Commands of one session run one at
//! a time, in the order in which they came; sessions run in parallel. Background jobs of a command
//! neither delay its answer nor stand in the way of the next one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::SessionId;

/// The session that every sandbox has. Its shell starts when it is first used.
pub const DEFAULT_SESSION: &str = "default";

/// Body of `POST /v1/sandboxes/{id}/sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "build", "cwd": "/workspace/app", "env": {"CI": "1"}}))]
pub struct CreateSession {
    /// The id to give it; else `name` if that is an id nobody has, else generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SessionId>,
    /// A name for people. A session is also found by its name, where no session has it as its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Variables over those of the sandbox; null leaves one out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Where its shell starts; relative paths start at the sandbox's own (`/workspace`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The `timeoutMs` of commands that name none; without it they have no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub command_timeout_ms: Option<u64>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The name it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The current directory of its shell; where the shell will start while there is none. U+FFFD
    /// stands for what is not UTF-8.
    pub cwd: String,
    /// The process id of its shell inside the sandbox; none until it is used, and again after its
    /// shell has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// A command runs in it.
    pub busy: bool,
    /// Commands that wait for their turn.
    pub waiting: usize,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// When a command last began or ended in it. Milliseconds since 1970-01-01 UTC.
    pub last_used_ms: i64,
    /// The `timeoutMs` of commands that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_timeout_ms: Option<u64>,
}

/// Answer of `GET /v1/sandboxes/{id}/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// Sorted by id.
    pub sessions: Vec<Session>,
}
