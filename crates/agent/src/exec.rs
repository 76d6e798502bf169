//! Exec: start a command, follow it to its end, reply in one of two forms.
//!
//! ```text
//!             no key ─▶ launch ──────────────────┐
//! request ─┤                                     ├─▶ Attachment ─▶ JSON or events
//!             key ──▶ its run, or launch a new one ┘
//! ```
//!
//! Owns: the two renderings of a command's log, JSON when it has ended or events while it runs, and
//! what an idempotency key means.
//! Does not: start, follow or kill anything itself; dropping the [`Attachment`] does.

pub(crate) mod reply;

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::{ExecEvent, ExecRequest, ExecResult, OnDisconnect},
    limit::{EXECS_PER_SANDBOX, LOG_BYTES},
};
use axum::{extract::State, http::HeaderMap, response::Response};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    event,
    extract::Json,
    follow::{self, Follow},
    init::Agent,
    key::Key,
    process::{
        About, Attachment, Keep, Process, Run, Wish, WishedStdin, launch,
        log::{RESUME_BYTES, Retention},
    },
    refusal::Refusal,
    session,
};

/// Runs a command and answers with its output and its ending.
///
/// The answer is one JSON document when the command has ended or, with `Accept: text/event-stream`,
/// events while it runs (`start`, `stdout`, `stderr`, `exit`; their `data` is an `ExecEvent`). A
/// command that fails or runs out of time is an answer, not an error: see `ending`. When its time is
/// over or the caller's connection closes, the command's whole process tree is killed. Processes
/// that it leaves in the background when it ends by itself keep running; their output is not kept.
///
/// With an `Idempotency-Key` the request is safe to repeat: one with the same key and the same body
/// gets the answer of the first, which runs once, and a stream goes on after its `Last-Event-ID`.
/// A command whose caller's connection broke waits a minute for it to come back with the key; its
/// answer is remembered for ten minutes after its end.
///
/// With `session`, the command runs in that session's shell when its turn comes; the answer begins
/// with the command. What the command is killed for does not end the shell, whose state stays; if
/// that cannot be, `sessionReset` says so. A command that ends the shell itself (`exit`) is answered
/// with `SESSION_TERMINATED`, or in a stream, after its output, with an event `error`.
#[utoipa::path(post, path = "/exec", tag = "exec", request_body = ExecRequest,
    params(
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that name this request"),
        ("last-event-id" = Option<u64>, Header, description = "With a key, and for an event stream: go on after this cursor"),
    ),
    responses(
        (status = 200, description = "The command was started and has ended, or is being followed",
            content((ExecResult = "application/json"), (ExecEvent = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED, INVALID_COMMAND, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: the program or `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "COMMAND_NOT_FOUND; FILE_NOT_FOUND for `cwd`; PROCESS_NOT_FOUND: nothing is known of the stream that is to go on", body = ErrorBody),
        (status = 409, description = "IDEMPOTENCY_CONFLICT: the key was used for another request", body = ErrorBody),
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
    let form = Form::of(&headers)?;
    match (Key::of(&headers)?, form) {
        (Some(key), _) => keyed(agent, key, form, request).await,
        (None, Form::Events { after: Some(_) }) => {
            let text = "a stream goes on by the `Idempotency-Key` of its first request";
            Err(ApiError::new(ErrorCode::ValidationFailed, text).into())
        }
        (None, _) => once(agent, form, request).await,
    }
}

/// How an answer is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// One JSON document at the end.
    Whole,
    /// Events, perhaps only those after a cursor.
    Events { after: Option<u64> },
}

impl Form {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        if !event::is_wanted(headers) {
            return Ok(Self::Whole);
        }
        Ok(Self::Events { after: follow::last_event(headers)? })
    }
}

/// Runs a command for one caller.
async fn once(agent: Arc<Agent>, form: Form, request: ExecRequest) -> Result<Response, Refusal> {
    let place = place(&agent)?;
    let (encoding, on_disconnect) = (request.encoding, request.on_disconnect);
    let retention = match (form, on_disconnect) {
        (Form::Whole, _) => Retention::Oldest,
        (Form::Events { .. }, OnDisconnect::Kill) => Retention::Unread { behind: 0 },
        (Form::Events { .. }, OnDisconnect::Keep) => Retention::Unread { behind: LOG_BYTES },
    };
    let process = new_process(&agent, &request, retention);
    // Generated ids are never taken.
    agent.processes.add(&process, Keep::Nothing).unwrap_or(());
    let attachment = Attachment::new(&process, on_disconnect);
    run(&agent, &process, request, place).await?;
    match form {
        Form::Whole => Ok(reply::buffered(attachment, encoding).await),
        Form::Events { .. } => {
            let follow = Follow::new(process, 0, encoding).awaited().announced();
            Ok(follow.respond(attachment, std::future::pending()))
        }
    }
}

/// Answers with the run of `key`, which is started if there is none.
async fn keyed(
    agent: Arc<Agent>,
    key: Key,
    form: Form,
    request: ExecRequest,
) -> Result<Response, Refusal> {
    let (hash, encoding, on_disconnect) =
        (Key::hash(&request), request.encoding, request.on_disconnect);
    let run = match (agent.processes.run(key.as_str()), form) {
        (Some(run), _) => run,
        (None, Form::Events { after: Some(_) }) => return Err(key.forgotten().into()),
        (None, _) => begin(&agent, &key, form, request)?,
    };
    if run.hash != hash {
        return Err(key.conflict().into());
    }
    let attachment = Attachment::of_run(&run, on_disconnect, &agent.tasks);
    run.begun().await?;
    match form {
        Form::Whole => {
            run.process.log.keep_oldest();
            Ok(reply::buffered(attachment, encoding).await)
        }
        Form::Events { after } => {
            let cursor = after.unwrap_or(0);
            follow::check_cursor(&run.process, cursor)?;
            let mut follow = Follow::new(Arc::clone(&run.process), cursor, encoding).awaited();
            if after.is_none() {
                follow = follow.announced();
            }
            Ok(follow.respond(attachment, run.take_over()))
        }
    }
}

/// Starts a run in a task of its own: whoever asked for it first may be gone before it has begun,
/// and another may have come.
fn begin(
    agent: &Arc<Agent>,
    key: &Key,
    form: Form,
    request: ExecRequest,
) -> Result<Arc<Run>, ApiError> {
    let place = place(agent)?;
    let retention = match form {
        Form::Whole => Retention::Oldest,
        Form::Events { .. } => Retention::Unread { behind: RESUME_BYTES },
    };
    let process = new_process(agent, &request, retention);
    let run = agent.processes.add_run(key.as_str(), Run::new(Key::hash(&request), process));
    let (task_agent, task_run) = (Arc::clone(agent), Arc::clone(&run));
    agent.tasks.spawn(async move {
        let result = self::run(&task_agent, &task_run.process, request, place).await;
        task_run.begin(result);
    });
    Ok(run)
}

/// A place among the sandbox's commands.
pub(crate) fn place(agent: &Agent) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&agent.execs).try_acquire_owned().map_err(|_full| {
        let text = format!("{EXECS_PER_SANDBOX} commands run in this sandbox; wait for one to end");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", EXECS_PER_SANDBOX)
    })
}

fn new_process(agent: &Agent, request: &ExecRequest, retention: Retention) -> Arc<Process> {
    Process::new(agent, About::exec(&request.command, request.session.clone()), retention)
}

/// Starts the command as `process`, and returns when it runs.
async fn run(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    request: ExecRequest,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    if let Some(id) = request.session.clone() {
        return session::launch(agent, process, &id, request, place).await;
    }
    let stdin =
        request.stdin.map_or(WishedStdin::Null, |text| WishedStdin::Text(text, request.encoding));
    let wish = Wish {
        command: request.command,
        cwd: request.cwd,
        env: request.env,
        timeout_ms: request.timeout_ms,
        stdin,
    };
    launch(agent, process, wish, None, place).await
}
