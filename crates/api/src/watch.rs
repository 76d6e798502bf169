//! Watching files: what changes, as it changes, or whether anything has changed since last time.
//!
//! `include` and `exclude` are lists of patterns ([`crate::pattern`]), of which a request has one or the
//! other. Without `exclude`, [`DEFAULT_EXCLUDE`] is left out.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{error::ApiError, id::SessionId};

/// What is left out unless a request says what is.
pub const DEFAULT_EXCLUDE: [&str; 3] = [".git", "node_modules", ".DS_Store"];

const fn yes() -> bool {
    true
}

/// Query of `GET /v1/sandboxes/{id}/files:watch`. `include` and `exclude` may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WatchFiles {
    /// The directory, or the file, to watch; relative paths start at the session's directory, else
    /// at the sandbox's own. Links are followed once, when the watch begins.
    pub path: String,
    /// The session whose directory relative paths start at.
    pub session: Option<SessionId>,
    /// Watch directories below it too (the default). Links and other mounts are not entered.
    #[param(default = true)]
    pub recursive: bool,
    /// Report only what matches one of these patterns, and directories that move.
    pub include: Vec<String>,
    /// Neither watch nor report what matches one of these patterns. Without it `.git`,
    /// `node_modules` and `.DS_Store` are left out; a single empty one leaves out nothing.
    pub exclude: Option<Vec<String>>,
}

impl WatchFiles {
    /// A watch of `path` and everything below it but [`DEFAULT_EXCLUDE`].
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        let (include, exclude) = (Vec::new(), None);
        Self { path: path.into(), session: None, recursive: true, include, exclude }
    }
}

/// What happened to a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileChangeType {
    /// It was made, or came with a new directory. It may have content already.
    Create,
    /// Its content was written. Writing through a memory mapping is not seen.
    Modify,
    /// Its permission bits, owner, times or extended attributes changed, and not its content.
    Attrib,
    /// It was deleted.
    Delete,
    /// It was moved away from `path`: to `to`, or out of what is watched. What is below a directory
    /// goes with it.
    MoveFrom,
    /// It was moved to `path`, perhaps over a file that was there: from `from`, or from outside. What
    /// is below a directory comes with it, and is reported as created when it comes from outside.
    MoveTo,
}

/// One change of one file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// What happened.
    pub event_type: FileChangeType,
    /// Where: below the path of the request, as the request has it.
    pub path: String,
    /// Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them.
    /// Such bytes are U+FFFD in all other paths of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_path: Option<String>,
    /// True for a directory.
    pub is_directory: bool,
    /// Of `moveTo`: where it was. The `moveFrom` with this path came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Of `moveFrom`: where it is. The `moveTo` with this path follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When it was seen: milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
}

/// Why nothing more can happen in what was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WatchEnd {
    /// It was deleted.
    Deleted,
    /// It, or a directory above it, was moved: the path leads elsewhere or nowhere.
    Moved,
}

/// One event of a watch. The stream begins with `watching` and ends, unless the caller goes, with
/// `stopped` or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WatchEvent {
    /// What happens from here on is reported.
    Watching {
        /// The absolute path that is watched.
        path: String,
        /// Directories that are watched now.
        directories: usize,
    },
    /// Something changed.
    Event(FileChange),
    /// More changed than could be kept, and some of it is not reported. List `path` to know what is
    /// there; what happens from here on is reported again.
    Overflow {
        /// The path that is watched.
        path: String,
    },
    /// Nothing more can happen there.
    Stopped {
        /// Why.
        reason: WatchEnd,
    },
    /// The watch cannot go on.
    Error {
        /// Why, and what to do.
        error: ApiError,
    },
}

impl WatchEvent {
    /// The event's name on the `event:` line of the stream.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Watching { .. } => "watching",
            Self::Event(_) => "event",
            Self::Overflow { .. } => "overflow",
            Self::Stopped { .. } => "stopped",
            Self::Error { .. } => "error",
        }
    }

    /// True for the last event of a stream.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Error { .. })
    }
}

/// Body of `POST /v1/sandboxes/{id}/files:changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"path": "/workspace"}))]
pub struct CheckChanges {
    /// The directory, or the file, to look at; relative paths start at the session's directory, else
    /// at the sandbox's own. Links are followed once, on the first look.
    pub path: String,
    /// The session whose directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Look at directories below it too. Links and other mounts are not entered.
    #[serde(default = "yes")]
    pub recursive: bool,
    /// Only what matches one of these patterns counts, and directories that move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// What matches one of these patterns does not count. Without it `.git`, `node_modules` and
    /// `.DS_Store` do not; an empty list leaves out nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
    /// The `version` of an earlier answer for the same path and patterns. Without it the answer is
    /// `unchanged`, and its version the one to come back with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl CheckChanges {
    /// A first look at `path` and everything below it but [`DEFAULT_EXCLUDE`].
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        let (include, exclude) = (Vec::new(), None);
        let path = path.into();
        Self { path, session: None, recursive: true, include, exclude, since: None }
    }
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChangeStatus {
    /// Nothing has changed since it.
    Unchanged,
    /// Something has changed since it; very many changes that do not count may count here.
    Changed,
    /// It is not known any more: take everything for changed, and go on from the new version.
    Resync,
}

/// Why a version is not known any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ResyncReason {
    /// It was not asked for within [`crate::limit::CHANGES_KEPT_SECS`], gave way to others, belongs
    /// to another path or other patterns, or what it was about was deleted or moved meanwhile.
    Expired,
    /// The sandbox was started again.
    Restarted,
}

/// Whether something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// What became of `since`.
    pub status: ChangeStatus,
    /// What to give as `since` next time. Opaque.
    pub version: String,
    /// Why, for `resync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ResyncReason>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_documented() {
        let change = FileChange {
            event_type: FileChangeType::MoveTo,
            path: "/w/b".to_owned(),
            encoded_path: None,
            is_directory: false,
            from: Some("/w/a".to_owned()),
            to: None,
            timestamp_ms: 7,
        };
        assert_eq!(
            serde_json::to_value(WatchEvent::Event(change)).unwrap(),
            serde_json::json!({
                "type": "event", "eventType": "moveTo", "path": "/w/b", "isDirectory": false,
                "from": "/w/a", "timestampMs": 7
            })
        );
    }

    #[test]
    fn a_look_descends_unless_told_otherwise() {
        let look: CheckChanges = serde_json::from_str(r#"{"path": "/w"}"#).unwrap();
        assert_eq!(look, CheckChanges::new("/w"));
        assert!(serde_json::from_str::<CheckChanges>(r#"{"path": "/w", "deep": 1}"#).is_err());
    }
}
