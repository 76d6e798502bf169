//! Git: a repository's files and history, fetched into a sandbox by the sandbox's own git.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{error::ApiError, id::SessionId};

/// Body of `POST /v1/sandboxes/{id}/git/checkout`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"url": "https://github.com/octocat/Hello-World", "depth": 1}))]
pub struct GitCheckout {
    /// The repository: `https://`, `http://`, `git://`, `ssh://`, `user@host:path`, or in the sandbox
    /// itself `file://` or an absolute path. A user and password in it are taken out before git
    /// sees it, and used as `auth`.
    pub url: String,
    /// The branch or tag to check out; the remote's own default unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit to check out, in place of a branch: 7 to 64 hexadecimal digits; with `depth` all
    /// of them. No branch is current then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How many commits of history to fetch, and that of one branch only; all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub depth: Option<u32>,
    /// Where to: a directory that does not exist or is empty; relative paths start at the session's
    /// directory, else at the sandbox's own. The repository's name unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_dir: Option<String>,
    /// The session whose directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Milliseconds until git is killed and what it has made is deleted; ten minutes unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// What to show to a server of `http://` or `https://`, and to no other one: not after a
    /// redirect, and not when a configuration in the sandbox leads elsewhere. It is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<GitAuth>,
}

impl GitCheckout {
    /// A request for all of `url`, as it is by default.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            branch: None,
            commit: None,
            depth: None,
            target_dir: None,
            session: None,
            timeout_ms: None,
            auth: None,
        }
    }
}

impl fmt::Debug for GitCheckout {
    /// Without the URL, which may hold a password, and without `auth`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCheckout")
            .field("branch", &self.branch)
            .field("commit", &self.commit)
            .field("depth", &self.depth)
            .field("target_dir", &self.target_dir)
            .finish_non_exhaustive()
    }
}

/// Credentials: a user and a password, or a header.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitAuth {
    /// The user; `x-access-token` unless given, which servers that look at the token only take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password or token. May be written `token` as well.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A header for every request, for servers that want another form than a user and a password.
    /// Redirects are then not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<GitHeader>,
}

impl fmt::Debug for GitAuth {
    /// Without what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitAuth").finish_non_exhaustive()
    }
}

/// One header.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitHeader {
    /// Its name, as `Authorization`.
    pub name: String,
    /// Its value, as `Bearer TOKEN`.
    pub value: String,
}

impl fmt::Debug for GitHeader {
    /// Without its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A finished checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitCheckoutResult {
    /// Where it came from, without user and password of `http://` and `https://`: what is stored as
    /// the remote `origin`.
    pub url: String,
    /// The branch that is current; absent after a checkout of a tag or commit, and in an empty
    /// repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit that is checked out; absent in an empty repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The absolute path of the directory.
    pub target_dir: String,
}

/// One event of a checkout (`text/event-stream`). The stream ends with exactly one `done` or
/// `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GitEvent {
    /// Git, or the server through it, says how far it is.
    Progress {
        /// What is under way, as `Receiving objects`; absent where the line is about something else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phase: Option<String>,
        /// How much of it is done, 0 to 100; absent where that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
        /// The line, without its end.
        line: String,
    },
    /// The files are there.
    Done(GitCheckoutResult),
    /// They are not. Nothing is left of the attempt, unless the error's details say otherwise
    /// (`leftOver`).
    Failed {
        /// Why, and what to do.
        error: ApiError,
    },
}

impl GitEvent {
    /// The event's name on the `event:` line of the stream.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Progress { .. } => "progress",
            Self::Done(_) => "done",
            Self::Failed { .. } => "failed",
        }
    }

    /// True for the last event of a stream.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_printed() {
        let text = r#"{"url": "https://u:secret@h/x", "auth": {"token": "secret",
            "header": {"name": "X", "value": "secret"}}}"#;
        let request: GitCheckout = serde_json::from_str(text).unwrap();
        assert_eq!(request.auth.as_ref().unwrap().password.as_deref(), Some("secret"));
        let printed = format!("{request:?}{:?}", request.auth);
        assert!(!printed.contains("secret"), "{printed}");
    }

    #[test]
    fn events_read_as_documented() {
        let done = GitEvent::Done(GitCheckoutResult {
            url: "https://h/x".to_owned(),
            branch: Some("main".to_owned()),
            commit: None,
            target_dir: "/workspace/x".to_owned(),
        });
        assert_eq!(
            serde_json::to_value(done).unwrap(),
            serde_json::json!({"type": "done", "url": "https://h/x", "branch": "main",
                "targetDir": "/workspace/x"})
        );
    }
}
