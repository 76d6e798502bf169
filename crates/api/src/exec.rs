//! Exec: start a command, follow it to its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{ProcessId, SessionId};

/// What to run: a shell text, or a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a command is a text or a list of texts")]
pub enum Command {
    /// Run by `bash -c`, or by `sh -c` in an image without bash.
    Shell(String),
    /// Run as it is, found on `PATH`; no shell, no quoting.
    Program(Vec<String>),
}

/// How bytes of a program are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Text; bytes that are not UTF-8 become U+FFFD.
    #[default]
    Utf8,
    /// RFC 4648 base64, byte for byte.
    Base64,
}

/// Body of `POST /v1/sandboxes/{id}/exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"command": "echo hello"}))]
pub struct ExecRequest {
    /// What to run.
    pub command: Command,
    /// Run it in this session's shell, which keeps what the command changes, after the commands
    /// that the session has already. The session is made when it does not exist. Without it the
    /// command has a shell of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Working directory, for this command only; relative paths start at the session's, else at
    /// the sandbox's own (`/workspace`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables set (or, with null, unset) for this command only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Milliseconds until the command's whole process tree is killed; none means the session's
    /// `commandTimeoutMs`, else no limit. Time that the command waits for its session's turn does
    /// not count. A session's shell outlives this, see `sessionReset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// What the command reads; nothing (`/dev/null`) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How `stdin` is written in this request, and the output in the reply.
    #[serde(default)]
    pub encoding: Encoding,
    /// What becomes of the command when the caller's connection closes before its end.
    #[serde(default, skip_serializing_if = "OnDisconnect::is_kill")]
    pub on_disconnect: OnDisconnect,
}

/// What becomes of a command whose caller goes away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// Its process tree is killed: at once, or, for a request with an `Idempotency-Key`, when
    /// nobody has come back with that key within [`crate::limit::RESUME_GRACE_SECS`].
    #[default]
    Kill,
    /// It runs on. Its output is kept as that of a process; the key or the process's log leads
    /// back to it.
    Keep,
}

impl OnDisconnect {
    /// Not written, because sandboxes that were started before it was known refuse it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn is_kill(&self) -> bool {
        *self == Self::Kill
    }
}

impl ExecRequest {
    /// A request to run `command` with nothing else set.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            session: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout_ms: None,
            stdin: None,
            encoding: Encoding::Utf8,
            on_disconnect: OnDisconnect::Kill,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Ending {
    /// It returned.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// Signal number, signal(7).
        signal: i32,
    },
    /// Its time was over; its tree was killed.
    Timeout,
    /// The kernel killed it, or a process of its tree, because the sandbox's memory was used up.
    OutOfMemory,
    /// It failed and the sandbox had no process ids left.
    PidsLimit,
    /// It failed and the sandbox's disk was full.
    DiskFull,
    /// It was killed on request, or because its caller went away.
    Killed {
        /// The signal that ended it: 15 when it obeyed SIGTERM, 9 when it had to be forced.
        signal: i32,
    },
    /// The sandbox ended under it; what it did until then is unknown.
    Lost,
}

impl Ending {
    /// The number a shell would give: 124 for a timeout, 128 + n for signal n.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited { code } => code,
            Self::Signaled { signal } | Self::Killed { signal } => 128 + signal,
            Self::Timeout => 124,
            Self::OutOfMemory | Self::Lost => 137,
            Self::PidsLimit | Self::DiskFull => 1,
        }
    }
}

/// What a command used, its children included. Of a command in a session, whose shell lives on, the
/// memory is not known and 0, and `cpuMs` counts in steps of 10.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecUsage {
    /// Milliseconds on a CPU, user and system.
    pub cpu_ms: u64,
    /// Largest resident set of one process of the tree, in bytes (`ru_maxrss`, getrusage(2)). The kernel
    /// counts what a process touched before it became the command: some 7 MB of the agent's program.
    pub peak_memory_bytes: u64,
}

/// What the network policy refused to a sandbox while a command ran that failed. It is the sandbox's:
/// what other commands tried at the same time counts too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Attempts to connect, datagrams and other packets; at least this many, when there were more than
    /// a few dozen at once.
    pub connections: u64,
    /// Where they were to go, the newest first, each once, at most 8: `ADDRESS:PORT/PROTOCOL`, or
    /// `ADDRESS/PROTOCOL` of a protocol without ports.
    pub destinations: Vec<String>,
    /// Names that were asked for and that no rule allows, the newest first, each once, at most 8; in
    /// lower case, what is no letter, digit, `-` or `_` as `\DDD`. Absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// A finished command. Exit codes other than 0 are results, not errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecResult {
    /// The id it had, and keeps as long as its idempotency key is remembered.
    pub process_id: ProcessId,
    /// True when the command returned 0.
    pub success: bool,
    /// The number a shell would give, see `ending` for the truth.
    pub exit_code: i32,
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to stdout, in the request's encoding.
    pub stdout: String,
    /// What it wrote to stderr, in the request's encoding.
    pub stderr: String,
    /// Bytes of stdout and stderr past the limit of a buffered result; 0 means nothing is missing.
    pub dropped_bytes: u64,
    /// Milliseconds from start to end.
    pub duration_ms: u64,
    /// What it used.
    pub usage: ExecUsage,
    /// The session's shell had to be killed with the command, so what the session kept is lost; its
    /// next use gets a fresh shell. Absent unless true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session_reset: bool,
    /// What the network policy refused meanwhile. Absent when it refused nothing, and for a command
    /// that returned 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// One event of a streamed exec or of a followed log (`text/event-stream`).
///
/// Each event of output has an `id:` line, its cursor: a stream that breaks is resumed after it by
/// sending it as `Last-Event-ID`. A stream of an exec begins with one `start`, unless it goes on after
/// a `Last-Event-ID`; a stream that follows to the end ends, unless the connection breaks, with
/// exactly one `exit`, or with one `error` (an [`crate::error::ErrorBody`]) when the command ended its
/// session or the session was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ExecEvent {
    /// The command runs.
    #[schema(rename_all = "camelCase")]
    Start {
        /// Its process id inside the sandbox; the shell's for an exec in a session.
        pid: i32,
        /// Its id among the sandbox's processes.
        process_id: ProcessId,
    },
    /// It wrote to stdout.
    #[schema(rename_all = "camelCase")]
    Stdout {
        /// The bytes, in the request's encoding.
        data: String,
        /// Milliseconds since 1970-01-01 UTC.
        time_ms: i64,
    },
    /// It wrote to stderr.
    #[schema(rename_all = "camelCase")]
    Stderr {
        /// The bytes, in the request's encoding.
        data: String,
        /// Milliseconds since 1970-01-01 UTC.
        time_ms: i64,
    },
    /// Output that was to come here is not kept any more.
    Dropped {
        /// How much.
        bytes: u64,
    },
    /// It ended.
    #[schema(rename_all = "camelCase")]
    Exit {
        /// True when it returned 0.
        success: bool,
        /// The number a shell would give.
        exit_code: i32,
        /// How it ended.
        ending: Ending,
        /// Milliseconds from start to end.
        duration_ms: u64,
        /// What it used.
        usage: ExecUsage,
        /// The session's shell had to be killed with the command. Absent unless true.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        session_reset: bool,
        /// What the network policy refused meanwhile. Absent when it refused nothing, and for a
        /// command that returned 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
    },
}

impl ExecEvent {
    /// The event's name on the `event:` line of the stream.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stdout { .. } => "stdout",
            Self::Stderr { .. } => "stderr",
            Self::Dropped { .. } => "dropped",
            Self::Exit { .. } => "exit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_documented() {
        let exit = ExecEvent::Exit {
            success: false,
            exit_code: 124,
            ending: Ending::Timeout,
            duration_ms: 5,
            usage: ExecUsage::default(),
            session_reset: false,
            refused: None,
        };
        assert_eq!(
            serde_json::to_value(exit).unwrap(),
            serde_json::json!({
                "type": "exit", "success": false, "exitCode": 124, "ending": {"type": "timeout"},
                "durationMs": 5, "usage": {"cpuMs": 0, "peakMemoryBytes": 0}
            })
        );
    }

    #[test]
    fn a_command_is_a_text_or_a_list() {
        let shell: ExecRequest = serde_json::from_str(r#"{"command": "ls"}"#).unwrap();
        assert_eq!(shell.command, Command::Shell("ls".into()));
        let program: ExecRequest = serde_json::from_str(r#"{"command": ["ls", "-l"]}"#).unwrap();
        assert_eq!(program.command, Command::Program(vec!["ls".into(), "-l".into()]));
        assert!(serde_json::from_str::<ExecRequest>(r#"{"command": "ls", "cmd": 1}"#).is_err());
    }
}
