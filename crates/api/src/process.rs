//! Processes: commands that run on by themselves, with a log that is read from any position.

mod signal;
mod wait;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    exec::{Command, Encoding, Ending, ExecUsage, Refused},
    id::{ProcessId, SessionId},
    limit::KILL_GRACE_MS,
};

pub use signal::{InvalidSignal, Signal};
pub use wait::{LogMatch, ProcessReady, WaitProcess, WaitUntil};

/// Body of `POST /v1/sandboxes/{id}/processes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"command": "python3 -m http.server 8000", "id": "web"}))]
pub struct StartProcess {
    /// What to run.
    pub command: Command,
    /// The id to give it; generated unless given. A running or remembered process with this id is
    /// an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ProcessId>,
    /// Start with this session's directory and exported variables; waits until the session is
    /// idle. What the process changes does not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Working directory; relative paths start at the session's, else at the sandbox's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables set (or, with null, unset) for this process only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Milliseconds until its whole process tree is killed; none means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// What it reads.
    #[serde(default)]
    pub stdin: ProcessStdin,
    /// Forget the process and its log as soon as it has ended and nobody follows it.
    #[serde(default)]
    pub auto_cleanup: bool,
}

/// What a process reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStdin {
    /// Nothing: `/dev/null`.
    #[default]
    Closed,
    /// What is sent to `.../stdin`, until that is closed.
    Open,
}

/// How a process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// Started to run on by itself.
    Process,
    /// An exec that runs now, or whose answer is kept for its idempotency key.
    Exec,
    /// Code that runs in a context, or whose answer is kept for its idempotency key. `pid` is the
    /// context's interpreter.
    Run,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its id.
    pub id: ProcessId,
    /// How it came to be.
    pub kind: ProcessKind,
    /// Its process id inside the sandbox; the shell's for an exec in a session.
    pub pid: i32,
    /// The shell text, or the arguments with blanks between; its first
    /// [`crate::limit::COMMAND_SHOWN_CHARS`] characters.
    pub command: String,
    /// The session it was started in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// False once it has ended.
    pub running: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The number a shell would give for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Milliseconds since 1970-01-01 UTC.
    pub started_at_ms: i64,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// What it used, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ExecUsage>,
    /// What the network policy refused while it ran, if it failed. Absent when that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Its output so far.
    pub log: LogState,
}

/// What there is of a process's output. A cursor counts the bytes of both outputs that come before
/// it, so it is a position that stays true whoever reads, and however often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogState {
    /// Cursor of the oldest byte that is kept.
    pub first_cursor: u64,
    /// Cursor of the next byte to come.
    pub next_cursor: u64,
    /// Bytes that were dropped because the log was full.
    pub dropped_bytes: u64,
}

/// Query of `GET /v1/sandboxes/{id}/processes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListProcesses {
    /// Only those that run (true) or have ended (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// Only those of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProcessKind>,
}

/// Answer of `GET /v1/sandboxes/{id}/processes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessList {
    /// Oldest first.
    pub processes: Vec<Process>,
}

/// Which of its two outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// Query of `GET /v1/sandboxes/{id}/processes/{pid}/logs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadLogs {
    /// Begin here; at the oldest byte kept unless given. `Last-Event-ID` says the same and wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// For an event stream: go on until the process ends, instead of ending with what there is.
    #[serde(default)]
    pub follow: bool,
    /// How bytes are written.
    #[serde(default)]
    pub encoding: Encoding,
}

/// A piece of a process's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    /// Cursor after it.
    pub cursor: u64,
    /// Where it was written.
    pub stream: OutputStream,
    /// Milliseconds since 1970-01-01 UTC when its first byte was read.
    pub time_ms: i64,
    /// The bytes, in the request's encoding.
    pub data: String,
}

/// Answer of `GET /v1/sandboxes/{id}/processes/{pid}/logs` as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessLogs {
    /// What is kept from the asked cursor on, in the order it was read.
    pub records: Vec<LogRecord>,
    /// Bytes from the asked cursor on that are not kept any more.
    pub dropped_bytes: u64,
    /// Where the next read begins.
    pub next_cursor: u64,
    /// False once the process has ended, so nothing follows.
    pub running: bool,
}

/// Body of `POST /v1/sandboxes/{id}/processes/{pid}/signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignalProcess {
    /// The signal that every process of the tree gets.
    pub signal: Signal,
}

/// Body of `POST /v1/sandboxes/{id}/processes/{pid}/kill` and of `POST .../processes:kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KillProcess {
    /// What the whole tree gets first.
    #[serde(default = "default_signal")]
    pub signal: Signal,
    /// Milliseconds that the tree may take to end of it before SIGKILL.
    #[serde(default = "default_grace")]
    #[schema(minimum = 0, maximum = 60_000)]
    pub grace_ms: u64,
}

fn default_signal() -> Signal {
    Signal::TERM
}

fn default_grace() -> u64 {
    KILL_GRACE_MS
}

impl Default for KillProcess {
    fn default() -> Self {
        Self { signal: default_signal(), grace_ms: default_grace() }
    }
}

/// Answer of `POST /v1/sandboxes/{id}/processes:kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KilledProcesses {
    /// How many processes ran and do so no more.
    pub killed: usize,
}

/// Query of `POST /v1/sandboxes/{id}/processes/{pid}/stdin`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WriteStdin {
    /// Close stdin after the body: the process reads the end of its input.
    #[serde(default)]
    pub close: bool,
}

/// Answer of `POST /v1/sandboxes/{id}/processes/{pid}/stdin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StdinWritten {
    /// Bytes that the pipe to the process took: all of the body.
    pub written_bytes: u64,
}
