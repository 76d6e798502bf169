//! Waits for a process: its end, a line of its output, a port that answers.

mod line;

use std::fmt;

use api::{
    error::ApiError,
    process::{LogMatch, WaitUntil},
};

use self::line::Matcher;
use super::Process;
use crate::port::target::{self, Target, check_length, invalid};

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
        Condition::Port(target) => {
            let end = async {
                process.ended().await;
            };
            target::poll(target, end)
                .await
                .map(|reached| reached.status.map_or(Met::Port, Met::Http))
        }
    }
}
