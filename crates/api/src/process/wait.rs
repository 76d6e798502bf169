//! Waiting for a process: its end, a line of its output, a port.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OutputStream, Process};

/// Body of `POST /v1/sandboxes/{id}/processes/{pid}/wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"until": {"type": "log", "text": "listening"}, "timeoutMs": 10_000}))]
pub struct WaitProcess {
    /// What to wait for.
    pub until: WaitUntil,
    /// Milliseconds to wait; a day unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
}

/// What a wait waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum WaitUntil {
    /// The end of the process.
    Exit {},
    /// A line of its output, also one that it wrote before the wait as far as the log has it. Give
    /// `text` or `pattern`. A line longer than [`crate::limit::WAIT_LINE_BYTES`] counts as several.
    Log {
        /// The line holds this text; seen also in a line that has no end yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// The line matches this regular expression, somewhere. Its syntax is that of Rust's crate
        /// `regex-lite`: that of JavaScript and Python without look-around and back-references;
        /// `(?i)` ignores case, classes as `\w` are ASCII's. A match takes linear time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
        /// Only this output; both unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<OutputStream>,
    },
    /// Something accepts TCP connections on this port of the sandbox's loopback, IPv4 or IPv6.
    Port {
        /// The port.
        #[schema(minimum = 1)]
        port: u16,
    },
    /// An HTTP server on this port of the sandbox's loopback answers a GET.
    #[schema(rename_all = "camelCase")]
    Http {
        /// The port.
        #[schema(minimum = 1)]
        port: u16,
        /// The path and query to ask for.
        #[serde(default = "root_path")]
        path: String,
        /// The lowest status that counts.
        #[serde(default = "lowest_status")]
        status_min: u16,
        /// The highest status that counts.
        #[serde(default = "highest_status")]
        status_max: u16,
    },
}

fn root_path() -> String {
    "/".to_owned()
}

fn lowest_status() -> u16 {
    200
}

fn highest_status() -> u16 {
    399
}

/// Answer of `POST /v1/sandboxes/{id}/processes/{pid}/wait`: what was waited for is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReady {
    /// The process, as it is now.
    pub process: Process,
    /// The line of output that was waited for, without its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<LogMatch>,
    /// The status that was answered, of a wait for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A line of output that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogMatch {
    /// Where it was written.
    pub stream: OutputStream,
    /// The line, without its end; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// What the pattern matched, then what each of its groups did, null for one that took no part;
    /// for a text, the text.
    pub groups: Vec<Option<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_read_as_documented() {
        let wait: WaitProcess =
            serde_json::from_str(r#"{"until": {"type": "http", "port": 80}}"#).unwrap();
        let (path, status_min, status_max) = ("/".to_owned(), 200, 399);
        assert_eq!(wait.until, WaitUntil::Http { port: 80, path, status_min, status_max });
        for bad in [
            r#"{"until": {"type": "exit", "port": 80}}"#,
            r#"{"until": {"type": "port"}}"#,
            r#"{"until": {"type": "port", "port": 65536}}"#,
            r#"{"until": {"type": "log", "regex": "x"}}"#,
            r#"{"until": {"type": "never"}}"#,
        ] {
            assert!(serde_json::from_str::<WaitProcess>(bad).is_err(), "{bad}");
        }
    }
}
