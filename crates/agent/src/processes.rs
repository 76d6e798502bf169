//! Processes over HTTP: start, list, look, signal, kill, forget.
//!
//! Owns: what a request means, and the forms of a log.
//! Does not: start, follow or remember anything itself; [`crate::process`] does.

mod logs;
mod stdin;
mod wait;

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    limit::{KILL_GRACE_MOST_MS, PROCESSES_PER_SANDBOX},
    process::{
        KillProcess, KilledProcesses, ListProcesses, Process, ProcessKind, ProcessList,
        ProcessStdin, SignalProcess, StartProcess,
    },
};
use axum::{
    body::Body,
    extract::{FromRequestParts, Path, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use futures_util::{future::join_all, stream};

use crate::{
    extract::{Json, Query},
    init::Agent,
    process::{self, About, Cause, IdTaken, Keep, Kill, Wish, WishedStdin, launch, log::Retention},
    refusal::Refusal,
};

pub(crate) use logs::*;
pub(crate) use stdin::*;
pub(crate) use wait::*;

/// The process that the path names.
#[derive(Debug)]
pub(crate) struct Found(Arc<process::Process>);

impl FromRequestParts<Arc<Agent>> for Found {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, agent: &Arc<Agent>) -> Result<Self, Refusal> {
        let name = Path::<String>::from_request_parts(parts, agent).await;
        // What is not text names nothing either.
        let name = name.map_or_else(|_not_text| String::new(), |Path(name)| name);
        agent.processes.find(&name).map(Self).ok_or_else(|| {
            let text = format!(
                "there is no process {name:?}; it never was, or ended long ago, or was forgotten"
            );
            ApiError::new(ErrorCode::ProcessNotFound, text).with("process", name).into()
        })
    }
}

/// Starts a process and answers once its program runs.
///
/// Its output is kept in a log, see `.../logs`. It runs until it ends, is killed, or its sandbox
/// stops; nobody needs to stay connected. When it cannot be started, nothing is left of it.
#[utoipa::path(post, path = "/processes", operation_id = "startProcess", tag = "processes",
    request_body = StartProcess,
    responses(
        (status = 201, description = "It runs", body = Process),
        (status = 400, description = "VALIDATION_FAILED, INVALID_COMMAND, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: the program or `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "COMMAND_NOT_FOUND; FILE_NOT_FOUND for `cwd`", body = ErrorBody),
        (status = 409, description = "PROCESS_EXISTS: the id is that of a process that runs or is remembered", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many processes run", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn start(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<StartProcess>,
) -> Result<(StatusCode, axum::Json<Process>), Refusal> {
    let place = Arc::clone(&agent.places).try_acquire_owned().map_err(|_full| {
        let text = format!("{PROCESSES_PER_SANDBOX} processes run in this sandbox; end some");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", PROCESSES_PER_SANDBOX)
    })?;
    let about = About::process(request.id, &request.command, request.session.clone());
    let process = process::Process::new(&agent, about, Retention::Newest);
    let keep = if request.auto_cleanup { Keep::WhileFollowed } else { Keep::Record };
    agent.processes.add(&process, keep).map_err(exists)?;
    let stdin = match request.stdin {
        ProcessStdin::Closed => WishedStdin::Null,
        ProcessStdin::Open => WishedStdin::Open,
    };
    let wish = Wish {
        command: request.command,
        cwd: request.cwd,
        env: request.env,
        timeout_ms: request.timeout_ms,
        stdin,
    };
    launch(&agent, &process, wish, request.session.as_ref(), place).await?;
    Ok((StatusCode::CREATED, axum::Json(process.describe())))
}

fn exists(IdTaken(other): IdTaken) -> ApiError {
    let id = &other.about.id;
    let text = match other.end() {
        None => format!("a process {id} runs; kill it, or choose another id"),
        Some(_) => {
            format!("a process {id} has ended and is remembered; delete it, or choose another id")
        }
    };
    ApiError::new(ErrorCode::ProcessExists, text).with("process", id.as_str())
}

/// Lists the processes that run, the commands of `exec` that run, and those that are remembered.
///
/// Of `exec`, the commands with an `Idempotency-Key` are remembered, and those whose callers left
/// them running.
#[utoipa::path(get, path = "/processes", operation_id = "listProcesses", tag = "processes",
    params(ListProcesses),
    responses(
        (status = 200, description = "All, oldest first", body = ProcessList),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
    ))]
pub(crate) async fn list(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<ListProcesses>,
) -> Response {
    let is_wanted = move |process: &Arc<process::Process>| {
        query.running.is_none_or(|running| running == process.end().is_none())
            && query.kind.is_none_or(|kind| kind == process.about.kind)
    };
    // Each is written when it is asked for: all of them at once are large in JSON.
    let entries = agent.processes.all().into_iter().filter(is_wanted).enumerate();
    let entries = entries.map(|(index, process)| {
        let json = serde_json::to_string(&process.describe()).expect("names and numbers are JSON");
        Bytes::from(if index == 0 { json } else { format!(",{json}") })
    });
    let pieces = std::iter::once(Bytes::from_static(br#"{"processes":["#))
        .chain(entries)
        .chain(std::iter::once(Bytes::from_static(b"]}")));
    json_in_pieces(pieces)
}

/// An answer whose pieces are made as it is sent.
fn json_in_pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Response {
    let mut response =
        Response::new(Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Tells what is known of a process.
///
/// `{pid}` is its id or its process id inside the sandbox. Several of the past may have had the
/// same process id; the one that runs is meant, or the last.
#[utoipa::path(get, path = "/processes/{pid}", operation_id = "getProcess", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox")),
    responses(
        (status = 200, description = "The process", body = Process),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
    ))]
pub(crate) async fn get(Found(process): Found) -> axum::Json<Process> {
    axum::Json(process.describe())
}

/// Forgets a process that has ended, with its log and its idempotency key.
#[utoipa::path(delete, path = "/processes/{pid}", operation_id = "deleteProcess", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox")),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
        (status = 409, description = "RESOURCE_BUSY: it runs", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    State(agent): State<Arc<Agent>>,
    Found(process): Found,
) -> Result<StatusCode, Refusal> {
    if process.end().is_none() {
        let text = format!("the process {} runs; kill it first", process.about.id);
        return Err(ApiError::new(ErrorCode::ResourceBusy, text).into());
    }
    agent.processes.forget(&process);
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a signal to every process of a process's tree.
#[utoipa::path(post, path = "/processes/{pid}/signal", operation_id = "signalProcess", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox")),
    request_body = SignalProcess,
    responses(
        (status = 204, description = "It was sent"),
        (status = 400, description = "VALIDATION_FAILED: there is no such signal, or the process is a command in a session's shell, which can only be killed", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
        (status = 409, description = "PROCESS_ENDED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
    ))]
pub(crate) async fn signal(
    Found(process): Found,
    Json(request): Json<SignalProcess>,
) -> Result<StatusCode, Refusal> {
    if process.end().is_some() {
        return Err(has_ended(&process).into());
    }
    if !process.signal(request.signal.number()) {
        let text = "a command in a session's shell takes no signal of its own; kill it instead";
        return Err(ApiError::new(ErrorCode::ValidationFailed, text).into());
    }
    Ok(StatusCode::NO_CONTENT)
}

fn has_ended(process: &process::Process) -> ApiError {
    let text = format!("the process {} has ended", process.about.id);
    ApiError::new(ErrorCode::ProcessEnded, text).with("process", process.about.id.as_str())
}

/// Ends a process with its whole tree and answers when it is dead.
///
/// Every process of the tree gets the signal and, when some have not ended after `graceMs`, SIGKILL.
/// For a process that has ended already this ends what it left running.
#[utoipa::path(post, path = "/processes/{pid}/kill", operation_id = "killProcess", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox")),
    request_body = KillProcess,
    responses(
        (status = 200, description = "It has ended", body = Process),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
    ))]
pub(crate) async fn kill(
    State(agent): State<Arc<Agent>>,
    Found(process): Found,
    Json(request): Json<KillProcess>,
) -> Result<axum::Json<Process>, Refusal> {
    end(&agent, &process, wish(request)?).await;
    Ok(axum::Json(process.describe()))
}

/// Ends all processes, with what those that ended before left running; commands of `exec` go on.
#[utoipa::path(post, path = "/processes:kill", operation_id = "killProcesses", tag = "processes",
    request_body = KillProcess,
    responses(
        (status = 200, description = "They have ended", body = KilledProcesses),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
    ))]
pub(crate) async fn kill_all(
    State(agent): State<Arc<Agent>>,
    Json(request): Json<KillProcess>,
) -> Result<axum::Json<KilledProcesses>, Refusal> {
    let kill = wish(request)?;
    let mut all = agent.processes.all();
    all.retain(|process| process.about.kind == ProcessKind::Process);
    let killed = all.iter().filter(|process| process.end().is_none()).count();
    join_all(all.iter().map(|process| end(&agent, process, kill))).await;
    Ok(axum::Json(KilledProcesses { killed }))
}

fn wish(request: KillProcess) -> Result<Kill, ApiError> {
    if request.grace_ms > KILL_GRACE_MOST_MS {
        let text = format!("graceMs is at most {KILL_GRACE_MOST_MS}");
        let error = ApiError::new(ErrorCode::ValidationFailed, text).with("field", "graceMs");
        return Err(error.with("limit", KILL_GRACE_MOST_MS));
    }
    let (signal, grace) = (request.signal.number(), Duration::from_millis(request.grace_ms));
    Ok(Kill { cause: Cause::Requested, signal, grace })
}

/// Ends a process and what it leaves.
///
/// Cancel safety: it ends also when nobody waits for it any more.
async fn end(agent: &Arc<Agent>, process: &Arc<process::Process>, kill: Kill) {
    process.kill(kill);
    process.ended().await;
    if let Some(rest) = process.rest() {
        let agent = Arc::clone(agent);
        let tasks = agent.tasks.clone();
        let task = tasks.spawn(async move { process::end_rest(&agent, &rest, kill).await });
        // It is not aborted and cannot panic.
        task.await.unwrap_or(());
    }
}
