//! Waits for a process: its end, a line of its output, a port that answers.
//!
//! Ports are tried from inside, on the sandbox's loopback; a server that listens there only is seen
//! too. The kernel tells nobody that a port was opened, so they are tried again and again.

mod line;
mod port;

use std::fmt;

use api::{
    error::{ApiError, ErrorCode},
    limit::WAIT_PATTERN_BYTES,
    process::{LogMatch, WaitUntil},
};

use self::{line::Matcher, port::Target};
use super::Process;

/// What is waited for, checked.
#[derive(Debug)]
pub(crate) enum Condition {
    Exit,
    Line(Matcher),
    Port(Target),
}

/// What came.
#[derive(Debug)]
pub(crate) enum Met {
    Exit,
    Line(LogMatch),
    Port,
    Http(u16),
}

impl Condition {
    pub(crate) fn check(until: WaitUntil) -> Result<Self, ApiError> {
        match until {
            WaitUntil::Exit {} => Ok(Self::Exit),
            WaitUntil::Log { text, pattern, stream } => {
                Matcher::check(text, pattern, stream).map(Self::Line)
            }
            WaitUntil::Port { port } => Target::port(port).map(Self::Port),
            WaitUntil::Http { port, path, status_min, status_max } => {
                Target::page(port, path, status_min..=status_max).map(Self::Port)
            }
        }
    }
}

fn invalid(field: &str, text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

/// Bounds a text that a wait looks for.
fn check_length(field: &str, text: &str) -> Result<(), ApiError> {
    if (1..=WAIT_PATTERN_BYTES).contains(&text.len()) {
        return Ok(());
    }
    let fault = format!("{field} has 1 to {WAIT_PATTERN_BYTES} bytes");
    Err(invalid(field, fault).with("limit", WAIT_PATTERN_BYTES))
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit => f.write_str("its end"),
            Self::Line(matcher) => matcher.fmt(f),
            Self::Port(target) => target.fmt(f),
        }
    }
}

/// Returns when `condition` is so; nothing when the process ended before.
///
/// Cancel safe.
pub(crate) async fn met(process: &Process, condition: &mut Condition) -> Option<Met> {
    match condition {
        Condition::Exit => {
            process.ended().await;
            Some(Met::Exit)
        }
        Condition::Line(matcher) => line::find(&process.log, matcher).await.map(Met::Line),
        Condition::Port(target) => port::poll(process, target).await,
    }
}
