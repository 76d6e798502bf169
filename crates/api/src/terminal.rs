//! Terminals: programs on a pseudoterminal that viewers come to and leave.
//!
//! A viewer is a WebSocket on `GET /v1/sandboxes/{id}/terminals/{tid}`. What it sends as binary
//! messages is typed, what it gets as binary messages is the output; text messages are JSON, a
//! [`TerminalControl`] to the terminal and a [`TerminalEvent`] from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    exec::{Command, Ending},
    id::{SessionId, TerminalId},
};

/// Response header of a viewer's 101: cursor of the first byte of output that it is sent. A cursor
/// counts the bytes of output before it, so a viewer that adds what it was sent knows where to go on.
pub const CURSOR_HEADER: &str = "x-sandbar-cursor";

/// Body of `POST /v1/sandboxes/{id}/terminals`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "main", "cols": 120, "rows": 40}))]
pub struct CreateTerminal {
    /// The id to give it; generated unless given. A running terminal with this id is an error, an
    /// ended one makes way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TerminalId>,
    /// What to run; an interactive bash, or sh in an image without bash, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Start with this session's directory and exported variables. What the terminal changes does
    /// not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Working directory; relative paths start at the session's, else at the sandbox's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables set (or, with null, unset) for this terminal only. `TERM` is `xterm-256color`
    /// unless set here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Columns; 80 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub cols: Option<u16>,
    /// Rows; 24 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub rows: Option<u16>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// Process id, inside the sandbox, of the program it was made for.
    pub pid: i32,
    /// The shell text, or the arguments with blanks between.
    pub command: String,
    /// The session it was started in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// Viewers connected now.
    pub viewers: usize,
    /// False once the program has ended.
    pub running: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The number a shell would give for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// Cursor of the oldest byte of output that is kept.
    pub first_cursor: u64,
    /// Cursor of the next byte to come.
    pub next_cursor: u64,
}

/// Answer of `GET /v1/sandboxes/{id}/terminals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalList {
    /// Oldest first.
    pub terminals: Vec<Terminal>,
}

/// Query of `GET /v1/sandboxes/{id}/terminals/{tid}` when it asks for a WebSocket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttachTerminal {
    /// The viewer's columns, which the terminal takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub cols: Option<u16>,
    /// The viewer's rows, which the terminal takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub rows: Option<u16>,
    /// Make the terminal when it does not exist; true unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<bool>,
    /// For a terminal made now: the session to start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// For a terminal made now: the program to run in place of bash or sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Replay from here instead of from the oldest byte of output that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// A text message from a terminal to a viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum TerminalEvent {
    /// What was kept of the output has been sent; what follows is live.
    Ready,
    /// The program has ended and all its output was sent. The connection closes.
    Exit {
        /// The number a shell would give.
        code: i32,
        /// Name of the signal that ended it, as `SIGKILL`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// Something the viewer sent was not understood; or, before the connection closes, why it does.
    Error {
        /// What was wrong and what to do.
        message: String,
    },
}

/// A text message from a viewer to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum TerminalControl {
    /// The viewer's size has changed. Of several viewers the last to say so decides.
    Resize {
        /// Columns, from 1 to 1000.
        cols: i64,
        /// Rows, from 1 to 1000.
        rows: i64,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_read_as_documented() {
        let exit = |signal: Option<&str>| TerminalEvent::Exit {
            code: 137,
            signal: signal.map(str::to_owned),
        };
        for (event, text) in [
            (TerminalEvent::Ready, json!({"type": "ready"})),
            (exit(None), json!({"type": "exit", "code": 137})),
            (exit(Some("SIGKILL")), json!({"type": "exit", "code": 137, "signal": "SIGKILL"})),
            (
                TerminalEvent::Error { message: "no".to_owned() },
                json!({"type": "error", "message": "no"}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&event).unwrap(), text);
            assert_eq!(serde_json::from_value::<TerminalEvent>(text).unwrap(), event);
        }
        let resize = json!({"type": "resize", "cols": 80, "rows": -1});
        let control = TerminalControl::Resize { cols: 80, rows: -1 };
        assert_eq!(serde_json::from_value::<TerminalControl>(resize).unwrap(), control);
    }
}
