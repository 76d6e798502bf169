//! The code interpreter: contexts, which keep what code defines, and runs of code in them.
//!
//! A context is a process of the sandbox with one language's interpreter. Runs of one context go
//! one at a time, in the order in which they came; contexts run in parallel. Code that fails is an
//! answer, not an error: see [`CodeError`].

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    exec::{Ending, OnDisconnect, Refused},
    id::{ContextId, ProcessId},
};

/// What a context speaks.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python, by the IPython of the image. Also `python3`, `py`.
    #[default]
    #[serde(alias = "python3", alias = "py")]
    Python,
    /// JavaScript, by the Node of the image. Also `js`, `node`.
    #[serde(alias = "js", alias = "node")]
    JavaScript,
    /// TypeScript, by the Node of the image. Also `ts`.
    #[serde(alias = "ts")]
    TypeScript,
    /// The bash of the image. Also `sh`, `shell`.
    #[serde(alias = "sh", alias = "shell")]
    Bash,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Python, Self::JavaScript, Self::TypeScript, Self::Bash];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Bash => "bash",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no [`Language`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a language is python, javascript, typescript or bash")]
pub struct InvalidLanguage;

impl FromStr for Language {
    type Err = InvalidLanguage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        Self::deserialize(name).map_err(|_unknown| InvalidLanguage)
    }
}

/// Body of `POST /v1/sandboxes/{id}/contexts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"language": "python", "env": {"API_URL": "https://example.com"}}))]
pub struct CreateContext {
    /// The id to give it; generated unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ContextId>,
    /// What it speaks; Python unless given.
    #[serde(default)]
    pub language: Language,
    /// Where its interpreter starts; relative paths start at the sandbox's own (`/workspace`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables over those of the sandbox; null leaves one out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// The `timeoutMs` of runs that name none; without it they have
    /// [`crate::limit::RUN_TIMEOUT_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Milliseconds without a run after which the context is deleted; whoever uses it after that
    /// is told `CONTEXT_EXPIRED`. Without it the context stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub idle_timeout_ms: Option<u64>,
}

/// A context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// Its id.
    pub id: ContextId,
    /// What it speaks.
    pub language: Language,
    /// Where its interpreter starts.
    pub cwd: String,
    /// The process id of its interpreter inside the sandbox; none while it has none, because it was
    /// not used yet or ended. Its next run starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Code runs in it.
    pub busy: bool,
    /// Runs that wait for their turn.
    pub waiting: usize,
    /// Runs that its interpreter has begun.
    pub execution_count: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// When a run last began or ended in it. Milliseconds since 1970-01-01 UTC.
    pub last_used_ms: i64,
    /// The `timeoutMs` of runs that name none.
    pub timeout_ms: u64,
    /// Milliseconds without a run after which it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
}

/// Answer of `GET /v1/sandboxes/{id}/contexts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextList {
    /// Sorted by when they were made.
    pub contexts: Vec<Context>,
}

/// Body of `POST /v1/sandboxes/{id}/contexts:warm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"imports": ["sympy"]}))]
pub struct WarmContexts {
    /// Modules of Python to import beside the usual ones, at most
    /// [`crate::limit::WARM_IMPORTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
}

/// Answer of `POST /v1/sandboxes/{id}/contexts:warm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmStart {
    /// Bytes on disk.
    pub bytes: u64,
    /// Milliseconds that it took.
    pub duration_ms: u64,
}

/// Answer of `POST /v1/sandboxes/{id}/contexts/{cid}/interrupt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interrupted {
    /// False when nothing ran.
    pub interrupted: bool,
}

/// Body of `POST /v1/sandboxes/{id}/run` and of `POST /v1/sandboxes/{id}/contexts/{cid}/run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"code": "1 + 1"}))]
pub struct RunCode {
    /// What to run, as in one cell of a notebook.
    pub code: String,
    /// Without a context in the path: the language whose default context is meant (its id is
    /// `default-python`, ...), which is made when it does not exist; Python unless given. With one,
    /// it must be that context's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Variables set (or, with null, unset) for this run only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Milliseconds until the code is interrupted; none means the context's. What does not obey
    /// within [`crate::limit::INTERRUPT_GRACE_MS`] is killed with the context's interpreter, see
    /// `contextReset`. Time that the run waits for its turn does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Colours in tracebacks, as ANSI escapes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub color: bool,
    /// What becomes of the run when the caller's connection closes before its end: it is interrupted
    /// as if its time were over, or it runs on.
    #[serde(default, skip_serializing_if = "OnDisconnect::is_kill")]
    pub on_disconnect: OnDisconnect,
}

impl RunCode {
    /// A request to run `code` with nothing else set.
    #[must_use]
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            language: None,
            env: BTreeMap::new(),
            timeout_ms: None,
            color: false,
            on_disconnect: OnDisconnect::Kill,
        }
    }
}

/// One thing that code showed: the value of its last expression, or what it displayed. It has every
/// representation that the object offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunOutput {
    /// True for the value of the last expression.
    #[serde(default)]
    pub is_main: bool,
    /// `text/plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `text/html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// `text/markdown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub markdown: Option<String>,
    /// `image/svg+xml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svg: Option<String>,
    /// `image/png`, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
    /// `image/jpeg`, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<String>,
    /// `application/pdf`, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdf: Option<String>,
    /// `text/latex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latex: Option<String>,
    /// `application/json`; also of lists, dictionaries and plain objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub json: Option<Value>,
    /// `application/javascript`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub javascript: Option<String>,
    /// What a plot shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<Chart>,
    /// The records of a data frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<TableData>,
    /// Representations of other MIME types, by type; binary ones are base64.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
    /// What the object says of its representations, by MIME type, as the width of an image.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Names an output that is shown once and changed later (`display(..., display_id=...)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_id: Option<String>,
    /// It takes the place of the output of the same `displayId` that was shown before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_update: bool,
    /// MIME types whose representation was over [`crate::limit::REPRESENTATION_BYTES`]: a text has
    /// its beginning and a mark, others are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// What a plot shows, for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// `line`, `scatter`, `bar`, `pie`, `box`, `histogram`; `mixed` where one has several of these;
    /// `unknown` for others. Of the first axes.
    #[serde(rename = "type")]
    pub kind: String,
    /// The figure's title, else that of its first axes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What drew it: `matplotlib`, ...
    pub library: String,
    /// Its coordinate systems.
    pub axes: Vec<ChartAxes>,
}

/// One coordinate system of a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChartAxes {
    /// As [`Chart::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The horizontal axis.
    pub x: ChartAxis,
    /// The vertical axis.
    pub y: ChartAxis,
    /// What is drawn in it.
    pub series: Vec<ChartSeries>,
}

/// One axis of a coordinate system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChartAxis {
    /// What is written at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `linear`, `log`, `categorical`, `datetime`, ...
    pub scale: String,
    /// Its first and last value, where these are numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<[f64; 2]>,
    /// Names of its positions, where it has such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// One series of a plot. Which lists it has depends on its type; those it has are equally long, but
/// for `edges`, which has one more, and `outliers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChartSeries {
    /// As [`Chart::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name in a legend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `line`, `scatter`, `bar`: horizontal positions; numbers, times (RFC 3339) or categories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub x: Vec<Value>,
    /// `line`, `scatter`, `bar`: vertical positions or heights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub y: Vec<Value>,
    /// `pie`: names of the parts; `box`: of the boxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// `pie`: shares of the circle, of 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<f64>,
    /// `histogram`: where its bins begin and end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<f64>,
    /// `histogram`: what is in its bins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<f64>,
    /// `box`: its boxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<ChartBox>,
    /// `bar`: horizontal ones grow along x.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub horizontal: bool,
    /// Points beyond [`crate::limit::CHART_POINTS`] are not here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One box of a box plot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChartBox {
    /// End of the lower whisker.
    pub min: f64,
    /// Lower end of the box.
    pub first_quartile: f64,
    /// The line in it.
    pub median: f64,
    /// Upper end of the box.
    pub third_quartile: f64,
    /// End of the upper whisker.
    pub max: f64,
    /// Points beyond the whiskers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outliers: Vec<f64>,
}

/// The content of a data frame or of a series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableData {
    /// Names of the columns, in their order.
    pub columns: Vec<String>,
    /// Types of the columns as the library names them.
    pub types: Vec<String>,
    /// One object per row, by column. Times are RFC 3339, what is missing is null.
    #[schema(value_type = Vec<Object>)]
    pub records: Vec<Map<String, Value>>,
    /// Names of the rows.
    #[schema(value_type = Vec<Object>)]
    pub index: Vec<Value>,
    /// Rows that there are.
    pub total_rows: u64,
    /// Rows beyond [`crate::limit::TABLE_ROWS`] or their bytes are not in `records`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Why code did not end well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CodeErrorKind {
    /// It raised an exception that nobody caught, or is no code of its language. The context goes on.
    #[default]
    Exception,
    /// Its time was over. It was interrupted, or killed with its interpreter: see `contextReset`.
    Timeout,
    /// It was interrupted on request, or because its caller went away.
    Interrupted,
    /// It ended its interpreter: `os._exit`, `process.exit`, `exit`.
    Exited,
    /// A signal ended its interpreter: a segmentation fault, a kill from outside.
    Crashed,
    /// The kernel killed its interpreter because the sandbox's memory was used up.
    OutOfMemory,
    /// The context was deleted or restarted under it.
    Deleted,
}

/// How code failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeError {
    /// Why, for programs.
    pub kind: CodeErrorKind,
    /// The exception's class, as the language names it: `ZeroDivisionError`; for what is no
    /// exception `TimeoutError`, `KeyboardInterrupt`, `ContextExited`, `ContextCrashed`,
    /// `OutOfMemory`, `ContextDeleted`.
    pub name: String,
    /// What it says.
    pub value: String,
    /// The same as `value`, under the name that the Cloudflare SDK has for it.
    pub message: String,
    /// Where it came from, the way the language shows it; each element one or more lines without
    /// their line ends.
    pub traceback: Vec<String>,
    /// The line of the run's code in which it was raised, from 1, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_number: Option<u32>,
    /// How the interpreter ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// What code wrote, as written. Each element ends with a line end, but perhaps the last; put together
/// they are what was written. U+FFFD stands for what is not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunLogs {
    /// To descriptor 1, by it or by programs it started.
    pub stdout: Vec<String>,
    /// To descriptor 2.
    pub stderr: Vec<String>,
}

/// Answer of `POST .../run` as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// Where it ran.
    pub context_id: ContextId,
    /// Its id among the sandbox's processes, while it runs and as long as its idempotency key is
    /// remembered.
    pub process_id: ProcessId,
    /// True when there is no `error`.
    pub success: bool,
    /// What it wrote.
    pub logs: RunLogs,
    /// What it showed, in that order.
    pub results: Vec<RunOutput>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CodeError>,
    /// Its number among the runs of the context's interpreter, from 1.
    pub execution_count: u64,
    /// Milliseconds from when its turn came to its end.
    pub duration_ms: u64,
    /// Bytes of output and of results past the limit of a buffered answer; 0 means nothing is
    /// missing.
    pub dropped_bytes: u64,
    /// The context's interpreter ended with this run, so what the context kept is lost; its next run
    /// starts a fresh one. Absent unless true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context_reset: bool,
    /// What the network policy refused meanwhile. Absent when it refused nothing, and for code that did
    /// not fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// One event of a streamed run (`text/event-stream`).
///
/// A stream begins with one `start`, unless it goes on after a `Last-Event-ID`, and ends with exactly
/// one `end`, unless the connection breaks. There is at most one `error`, before the `end`. Each event
/// has an `id:` line, its cursor, for `Last-Event-ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RunEvent {
    /// The run's turn has come.
    #[schema(rename_all = "camelCase")]
    Start {
        /// Where it runs.
        context_id: ContextId,
        /// Its id among the sandbox's processes.
        process_id: ProcessId,
    },
    /// It wrote to stdout.
    #[schema(rename_all = "camelCase")]
    Stdout {
        /// What; U+FFFD stands for what is not UTF-8.
        data: String,
        /// Milliseconds since 1970-01-01 UTC.
        time_ms: i64,
    },
    /// It wrote to stderr.
    #[schema(rename_all = "camelCase")]
    Stderr {
        /// What; U+FFFD stands for what is not UTF-8.
        data: String,
        /// Milliseconds since 1970-01-01 UTC.
        time_ms: i64,
    },
    /// It showed something.
    Result(Box<RunOutput>),
    /// What was shown before is to be cleared (`clear_output()`).
    Clear {
        /// Only when the next output comes.
        wait: bool,
    },
    /// It failed.
    Error(CodeError),
    /// Events that were to come here are not kept any more.
    Dropped {
        /// How much, in bytes of the events.
        bytes: u64,
    },
    /// It is over.
    #[schema(rename_all = "camelCase")]
    End {
        /// True when there was no `error`.
        success: bool,
        /// Its number among the runs of the context's interpreter, from 1.
        execution_count: u64,
        /// Milliseconds from when its turn came to its end.
        duration_ms: u64,
        /// The context's interpreter ended with this run. Absent unless true.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        context_reset: bool,
        /// What the network policy refused meanwhile. Absent when it refused nothing, and for code that
        /// did not fail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Refused>,
    },
}

impl RunEvent {
    /// The event's name on the `event:` line of the stream.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stdout { .. } => "stdout",
            Self::Stderr { .. } => "stderr",
            Self::Result(_) => "result",
            Self::Clear { .. } => "clear",
            Self::Error(_) => "error",
            Self::Dropped { .. } => "dropped",
            Self::End { .. } => "end",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn languages_have_their_usual_names() {
        for (text, language) in [
            ("python", Language::Python),
            ("python3", Language::Python),
            ("js", Language::JavaScript),
            ("node", Language::JavaScript),
            ("ts", Language::TypeScript),
            ("sh", Language::Bash),
        ] {
            assert_eq!(text.parse(), Ok(language));
        }
        for language in Language::ALL {
            assert_eq!(language.as_str().parse(), Ok(language));
            assert_eq!(serde_json::to_value(language).unwrap(), language.as_str());
        }
        assert_eq!("ruby".parse::<Language>(), Err(InvalidLanguage));
    }

    #[test]
    fn events_read_as_documented() {
        let output = RunOutput { is_main: true, text: Some("2".into()), ..RunOutput::default() };
        for (event, expected) in [
            (
                RunEvent::Result(Box::new(output)),
                json!({"type": "result", "isMain": true, "text": "2"}),
            ),
            (
                RunEvent::Error(CodeError {
                    name: "E".into(),
                    value: "v".into(),
                    message: "v".into(),
                    ..CodeError::default()
                }),
                json!({"type": "error", "kind": "exception", "name": "E", "value": "v",
                    "message": "v", "traceback": []}),
            ),
            (
                RunEvent::End {
                    success: true,
                    execution_count: 1,
                    duration_ms: 3,
                    context_reset: false,
                    refused: None,
                },
                json!({"type": "end", "success": true, "executionCount": 1, "durationMs": 3}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&event).unwrap(), expected);
            assert_eq!(serde_json::from_value::<RunEvent>(expected).unwrap(), event);
        }
    }
}
