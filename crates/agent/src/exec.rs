//! Exec: start a command, follow it to its end, reply in one of two forms.
//!
//! Owns: the check of a request, and both renderings of the one event stream: JSON when the
//! command has ended, or server-sent events while it runs.
//! Does not: start, follow or kill anything itself; dropping the [`Attachment`] does.

pub(crate) mod check;
mod reply;

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::{ExecRequest, ExecResult},
    limit::EXECS_PER_SANDBOX,
};
use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use sys::{
    errno,
    spawn::{Failure, Step},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    extract::Json,
    follow::Follow,
    init::Agent,
    process::{self, About, Attachment, Process, StartError, log::Retention},
    refusal::Refusal,
    session,
};

pub(crate) use check::default_env;

/// Runs a command and answers with its output and its ending.
///
/// The answer is one JSON document when the command has ended or, with `Accept: text/event-stream`,
/// events while it runs (`start`, `stdout`, `stderr`, `exit`; their `data` is an `ExecEvent`). A
/// command that fails or runs out of time is an answer, not an error: see `ending`. When its time is
/// over or the caller's connection closes, the command's whole process tree is killed. Processes
/// that it leaves in the background when it ends by itself keep running; their output is not kept.
///
/// With `session`, the command runs in that session's shell when its turn comes; the answer begins
/// with the command. What the command is killed for does not end the shell, whose state stays; if
/// that cannot be, `sessionReset` says so. A command that ends the shell itself (`exit`) is answered
/// with `SESSION_TERMINATED`, or in a stream, after its output, with an event `error`.
#[utoipa::path(post, path = "/exec", tag = "exec", request_body = ExecRequest,
    responses(
        (status = 200, description = "The command was started and has ended, or is being followed",
            content((ExecResult = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED, INVALID_COMMAND, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: the program or `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "COMMAND_NOT_FOUND; FILE_NOT_FOUND for `cwd`", body = ErrorBody),
        (status = 410, description = "SESSION_TERMINATED, SESSION_DESTROYED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many commands run at once, or wait in the session, or there are too many sessions", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR", body = ErrorBody),
        (status = 501, description = "SHELL_NOT_AVAILABLE: the image has no bash, which sessions need", body = ErrorBody),
        (status = 507, description = "NO_SPACE: /run, through which sessions get their commands, is full", body = ErrorBody),
    ))]
pub(crate) async fn exec(
    State(agent): State<Arc<Agent>>,
    headers: HeaderMap,
    Json(request): Json<ExecRequest>,
) -> Result<Response, Refusal> {
    let place = Arc::clone(&agent.execs).try_acquire_owned().map_err(|_full| too_many())?;
    let encoding = request.encoding;
    let about = About::exec(&request.command, request.session.clone());
    let wants_events = wants_events(&headers);
    let retention = if wants_events { Retention::Unread { behind: 0 } } else { Retention::Oldest };
    let process = Process::new(&agent, about, retention);
    let attachment = Attachment(Arc::clone(&process));
    match request.session.clone() {
        Some(id) => session::launch(&agent, &process, &id, request, place).await?,
        None => launch(&agent, &process, request, place).await?,
    }
    if wants_events {
        return Ok(Follow::new(process, 0, encoding).awaited().respond(attachment));
    }
    Ok(reply::buffered(attachment, encoding).await)
}

/// Starts the command in a shell of its own, and returns when it runs.
async fn launch(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    request: ExecRequest,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let command = request.command.clone();
    let invocation = check::check(agent, request, place)?;
    let started =
        process::start(agent, invocation, process).map_err(|error| not_started(&error))?;
    match started.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(refused(Some(failure), &command)),
        Err(_unknown) => Err(refused(None, &command)),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/event-stream"))
}

fn too_many() -> ApiError {
    let text = format!("{EXECS_PER_SANDBOX} commands run in this sandbox; wait for one to end");
    ApiError::new(ErrorCode::TooManyRequests, text).with("limit", EXECS_PER_SANDBOX)
}

/// No child could be made.
fn not_started(error: &StartError) -> ApiError {
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
fn refused(failure: Option<Failure>, command: &api::exec::Command) -> ApiError {
    let Some(Failure { step, errno }) = failure else {
        let text = "the command's start was not seen; whether it ran is unknown";
        return ApiError::new(ErrorCode::CommandExecutionError, text);
    };
    let program = match command {
        api::exec::Command::Shell(_) => "/bin/bash or /bin/sh",
        api::exec::Command::Program(argv) => argv.first().map_or("", String::as_str),
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
