//! Variables of a sandbox and of its sessions.
//!
//! A command sees, the first that has it: its own request's, its session's, the sandbox's, the
//! image's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `GET /v1/sandboxes/{id}/env` and `GET /v1/sandboxes/{id}/sessions/{sid}/env`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Env {
    /// All that a program started now would get. U+FFFD stands for what is not UTF-8.
    pub env: BTreeMap<String, String>,
}

/// Body of `PATCH /v1/sandboxes/{id}/env` and `PATCH /v1/sandboxes/{id}/sessions/{sid}/env`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"env": {"API_URL": "https://example.com", "DEBUG": null}}))]
pub struct ChangeEnv {
    /// Variables to set or, with null, to unset. Names are those of a shell: letters, digits and
    /// `_`, not beginning with a digit.
    pub env: BTreeMap<String, Option<String>>,
}
