//! From a request to a running program, or to the error that says why it does not run.

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorCode},
    exec::Command,
    id::SessionId,
};
use sys::{
    errno,
    spawn::{Failure, Step},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    End, Process, StartError,
    check::{Wish, check, surroundings},
    start,
};
use crate::init::Agent;

/// Starts what `wish` describes as `process`, and returns when its program runs. A process that
/// does not get so far has ended, and leaves no record.
///
/// Cancel safety: a process whose start is under way is followed to its end anyway.
pub(crate) async fn launch(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    wish: Wish,
    session: Option<&SessionId>,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let command = wish.command.clone();
    let unstarted = Unstarted(process);
    let invocation = check(&surroundings(agent, session).await?, wish, place)?;
    let begun = start(agent, invocation, process).map_err(|error| not_started(&error))?;
    // From here on it is followed.
    std::mem::forget(unstarted);
    match begun.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(refused(Some(failure), &command)),
        Err(_unknown) => Err(refused(None, &command)),
    }
}

/// Ends a process whose start is given up before there is a child.
struct Unstarted<'a>(&'a Process);

impl Drop for Unstarted<'_> {
    fn drop(&mut self) {
        self.0.finish(End::lost());
    }
}

/// No child could be made.
pub(crate) fn not_started(error: &StartError) -> ApiError {
    let cause = match error.errno() {
        Some(errno::EAGAIN) => "the sandbox has no process ids left; end some of its processes",
        Some(errno::ENOMEM) => "the sandbox has no memory left",
        Some(errno::EMFILE | errno::ENFILE) => "too many files are open",
        _ => "the kernel refused",
    };
    let text = format!("cannot start the command: {error}: {cause}");
    let api = ApiError::new(ErrorCode::CommandExecutionError, text);
    match error.errno() {
        Some(errno) => api.with("errno", errno),
        None => api,
    }
}

/// The child could not become the program.
pub(crate) fn refused(failure: Option<Failure>, command: &Command) -> ApiError {
    let Some(Failure { step, errno }) = failure else {
        let text = "the command's start was not seen; whether it ran is unknown";
        return ApiError::new(ErrorCode::CommandExecutionError, text);
    };
    let program = match command {
        Command::Shell(_) => "/bin/bash or /bin/sh",
        Command::Program(argv) => argv.first().map_or("", String::as_str),
    };
    let (code, why) = match (step, errno) {
        (Step::Exec, errno::ENOENT) => {
            (ErrorCode::CommandNotFound, "no such program in the sandbox, or its interpreter")
        }
        (Step::Exec, errno::EACCES) => (ErrorCode::PermissionDenied, "it may not be executed"),
        (Step::Exec, errno::ENOEXEC) => (
            ErrorCode::CommandExecutionError,
            "it is neither a binary for this machine nor a script with a `#!` line",
        ),
        (Step::Exec, errno::E2BIG) => (
            ErrorCode::PayloadTooLarge,
            "arguments and environment together are over the kernel's limit",
        ),
        (Step::Exec, _) => (ErrorCode::CommandExecutionError, "the kernel refused"),
        _ => (ErrorCode::CommandExecutionError, "its surroundings could not be set up"),
    };
    ApiError::new(code, format!("cannot run {program:?}: {why}"))
        .with("program", program)
        .with("step", format!("{step:?}"))
        .with("errno", errno)
}
