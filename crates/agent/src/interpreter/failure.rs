//! How a run failed, in words.

use std::time::Duration;

use api::{
    exec::Ending,
    interpreter::{CodeError, CodeErrorKind},
};

use super::frame::Failed;
use crate::process::Cause;

/// An interpreter ended under a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) ending: Ending,
    pub(super) is_deleted: bool,
}

/// An exception that nobody caught.
pub(super) fn raised(failed: Failed) -> CodeError {
    let Failed { name, value, traceback, line } = failed;
    CodeError {
        kind: CodeErrorKind::Exception,
        name,
        message: value.clone(),
        value,
        traceback,
        line_number: line,
        ending: None,
    }
}

/// Code was interrupted, and the context goes on. What it raised for that says where it was.
pub(super) fn interrupted(cause: Cause, limit: Duration, failed: Option<Failed>) -> CodeError {
    let (kind, name, value) = match cause {
        Cause::Timeout => (
            CodeErrorKind::Timeout,
            "TimeoutError",
            format!("the code ran for {} ms, its time, and was interrupted", limit.as_millis()),
        ),
        Cause::CallerGone => (
            CodeErrorKind::Interrupted,
            "KeyboardInterrupt",
            "the code was interrupted, because its caller went away".to_owned(),
        ),
        Cause::Requested => (
            CodeErrorKind::Interrupted,
            "KeyboardInterrupt",
            "the code was interrupted on request".to_owned(),
        ),
    };
    told(kind, name, value, failed)
}

/// The interpreter is gone.
pub(super) fn lost(
    lost: Lost,
    cause: Option<Cause>,
    limit: Duration,
    failed: Option<Failed>,
) -> CodeError {
    const RESTART: &str = "what the context kept is lost, and its next run starts afresh";
    let Lost { ending, is_deleted } = lost;
    let (kind, name, value) = match (is_deleted, cause) {
        (true, _) => (
            CodeErrorKind::Deleted,
            "ContextDeleted",
            "the context was deleted under the code".to_owned(),
        ),
        (false, Some(Cause::Timeout)) => (
            CodeErrorKind::Timeout,
            "TimeoutError",
            format!(
                "the code ran for {} ms, its time, did not obey an interrupt and was killed: \
                 {RESTART}",
                limit.as_millis()
            ),
        ),
        (false, Some(_)) => (
            CodeErrorKind::Interrupted,
            "KeyboardInterrupt",
            format!("the code was killed: {RESTART}"),
        ),
        (false, None) => by_itself(ending, RESTART),
    };
    CodeError { ending: Some(ending), ..told(kind, name, value, failed) }
}

fn by_itself(ending: Ending, restart: &str) -> (CodeErrorKind, &'static str, String) {
    match ending {
        Ending::OutOfMemory => (
            CodeErrorKind::OutOfMemory,
            "OutOfMemory",
            format!("the sandbox's memory was used up and the code was killed for it: {restart}"),
        ),
        Ending::Exited { code } => (
            CodeErrorKind::Exited,
            "ContextExited",
            format!("the code ended its interpreter with code {code}: {restart}"),
        ),
        Ending::Signaled { signal } | Ending::Killed { signal } => (
            CodeErrorKind::Crashed,
            "ContextCrashed",
            format!("signal {signal} ended the code's interpreter: {restart}"),
        ),
        other => (
            CodeErrorKind::Crashed,
            "ContextCrashed",
            format!("the code's interpreter ended ({other:?}): {restart}"),
        ),
    }
}

/// The interpreter ended between two runs.
pub(super) fn ended_before(ending: Ending) -> CodeError {
    let restart = "this code was not run; what the context kept is lost, and its next run starts \
        afresh";
    let (kind, name, value) = by_itself(ending, restart);
    let value = value.replace("the code ended", "something an earlier run left ended");
    CodeError { ending: Some(ending), ..told(kind, name, value, None) }
}

fn told(kind: CodeErrorKind, name: &str, value: String, failed: Option<Failed>) -> CodeError {
    let (traceback, line_number) =
        failed.map_or((Vec::new(), None), |failed| (failed.traceback, failed.line));
    let (name, message, ending) = (name.to_owned(), value.clone(), None);
    CodeError { kind, name, value, message, traceback, line_number, ending }
}
