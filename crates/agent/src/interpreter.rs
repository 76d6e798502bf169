//! The code interpreter: contexts, and code that runs in them.
//!
//! ```text
//! run ─▶ Context: its turn ─▶ Kernel: runs the code ─▶ frames, outputs ─▶ log of a Process
//!            │ one at a time       │ interrupted: goes on       └─▶ JSON at the end, or events
//! delete ────┴─────────────────────┴ ends: its next run starts another
//! ```
//!
//! Owns: who exists, whose turn it is, and what each starts with. [`mod@kernel`] is one interpreter,
//! [`mod@run`] one run, [`mod@language`] what each language takes.
//! Does not: know how output is kept or followed; a run is a [`Process`] like any, with events in its
//! log.
//!
//! Invariant: whoever holds a context's turn is the only one who speaks to its interpreter.
//! Invariant: what a context lost is told to whoever uses it next, before anything runs in an
//! interpreter that has lost it.
//!
//! A context is no boundary: code in one can do to another what it can do to any process.

mod bash;
mod failure;
mod frame;
mod idle;
mod kernel;
mod language;
mod reply;
mod run;
mod table;
pub mod warm;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::OnDisconnect,
    id::ContextId,
    interpreter::{
        Context as Described, ContextList, CreateContext, Interrupted, RunCode, RunEvent,
        RunResult, WarmContexts, WarmStart,
    },
    limit::{EXECS_PER_SANDBOX, INTERRUPT_GRACE_MS, LOG_BYTES, WARM_IMPORTS},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use sys::signal::{SIGINT, SIGKILL};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::{kernel::Kernel, run::Job, table::Context};
use crate::{
    exec::Form,
    extract, file,
    follow::{self, Follow},
    init::Agent,
    key::Key,
    process::{
        About, Attachment, Cause, End, Keep, Kill, Process, Run, environment,
        log::{RESUME_BYTES, Retention},
    },
    refusal::Refusal,
};

pub(crate) use self::table::Contexts;

/// Makes a context.
///
/// Its interpreter starts at once, and the answer comes when it takes code.
#[utoipa::path(post, path = "/contexts", operation_id = "createContext", tag = "interpreter",
    request_body = CreateContext,
    responses(
        (status = 201, description = "Made", body = Described),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: `cwd`", body = ErrorBody),
        (status = 409, description = "CONTEXT_EXISTS", body = ErrorBody),
        (status = 410, description = "CONTEXT_DELETED: while it was made", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: there are too many contexts", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the interpreter did not start", body = ErrorBody),
        (status = 501, description = "INTERPRETER_NOT_AVAILABLE: the image has not what the language needs", body = ErrorBody),
    ))]
pub(crate) async fn create(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<CreateContext>,
) -> Result<(StatusCode, Json<Described>), Refusal> {
    let context = agent.contexts.create(&agent, request)?;
    let started = start(&agent, &context).await;
    if started.is_err() {
        agent.contexts.forget(&context);
    }
    started?;
    Ok((StatusCode::CREATED, Json(context.describe())))
}

/// Lists the contexts.
#[utoipa::path(get, path = "/contexts", operation_id = "listContexts", tag = "interpreter",
    responses((status = 200, description = "All of them", body = ContextList)))]
pub(crate) async fn list(State(agent): State<Arc<Agent>>) -> Json<ContextList> {
    let contexts = agent.contexts.all().iter().map(|context| context.describe()).collect();
    Json(ContextList { contexts })
}

/// Describes a context.
#[utoipa::path(get, path = "/contexts/{cid}", operation_id = "getContext", tag = "interpreter",
    params(("cid" = String, Path, description = "The context's id")),
    responses(
        (status = 200, description = "It", body = Described),
        (status = 404, description = "CONTEXT_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "CONTEXT_EXPIRED", body = ErrorBody),
    ))]
pub(crate) async fn get(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Json<Described>, Refusal> {
    Ok(Json(agent.contexts.get(&id)?.describe()))
}

/// Deletes a context.
///
/// Its interpreter is killed with everything that its code has started. Code that runs in it ends
/// with an error of the kind `deleted`; what waits is answered with `CONTEXT_DELETED`.
#[utoipa::path(delete, path = "/contexts/{cid}", operation_id = "deleteContext", tag = "interpreter",
    params(("cid" = String, Path, description = "The context's id")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "CONTEXT_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "CONTEXT_EXPIRED", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let context = agent.contexts.get(&id)?;
    agent.contexts.forget(&context);
    // Goes on when its caller goes away.
    let (tasks, owner) = (agent.tasks.clone(), agent);
    tasks.spawn(async move { context.bury(&owner).await }).await.unwrap_or(());
    Ok(StatusCode::NO_CONTENT)
}

/// Interrupts the code that runs in a context, as Ctrl-C does.
///
/// The answer does not wait for the code, which ends with an error of the kind `interrupted`; code
/// that does not obey is killed with the context's interpreter. Code that waits is not touched.
#[utoipa::path(post, path = "/contexts/{cid}/interrupt", operation_id = "interruptContext", tag = "interpreter",
    params(("cid" = String, Path, description = "The context's id")),
    responses(
        (status = 200, description = "Interrupted, if something ran", body = Interrupted),
        (status = 404, description = "CONTEXT_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "CONTEXT_EXPIRED", body = ErrorBody),
    ))]
pub(crate) async fn interrupt(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Json<Interrupted>, Refusal> {
    let current = agent.contexts.get(&id)?.current();
    if let Some(process) = &current {
        let grace = Duration::from_millis(INTERRUPT_GRACE_MS);
        process.kill(Kill { cause: Cause::Requested, signal: SIGINT, grace });
    }
    Ok(Json(Interrupted { interrupted: current.is_some() }))
}

/// Starts a context afresh.
///
/// Its interpreter is killed with everything that its code has started, and another one started with
/// the sandbox's variables as they are now. Code that runs ends with an error of the kind
/// `interrupted`; what waits is answered with `CONTEXT_DELETED`.
#[utoipa::path(post, path = "/contexts/{cid}/restart", operation_id = "restartContext", tag = "interpreter",
    params(("cid" = String, Path, description = "The context's id")),
    responses(
        (status = 200, description = "Its new interpreter takes code", body = Described),
        (status = 404, description = "CONTEXT_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "CONTEXT_EXPIRED, CONTEXT_DELETED", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many runs wait in the context", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the interpreter did not start", body = ErrorBody),
        (status = 501, description = "INTERPRETER_NOT_AVAILABLE", body = ErrorBody),
    ))]
pub(crate) async fn restart(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Json<Described>, Refusal> {
    let context = agent.contexts.get(&id)?;
    context.generation.fetch_add(1, Ordering::Relaxed);
    if let Some(process) = context.current() {
        let (cause, grace) = (Cause::Requested, Duration::ZERO);
        process.kill(Kill { cause, signal: SIGKILL, grace });
    }
    start(&agent, &context).await?;
    Ok(Json(context.describe()))
}

/// Keeps a started Python for the contexts that start from now on.
///
/// An interpreter starts, imports NumPy, pandas and Matplotlib where the image has them and the
/// modules of `imports`, and its memory is written to `/var/cache/sandbar/python`. New contexts of
/// this sandbox, and of sandboxes made from it, go on from there within milliseconds. A context whose
/// variables or whose installed packages differ starts from the beginning.
#[utoipa::path(post, path = "/contexts:warm", operation_id = "warmContexts", tag = "interpreter",
    request_body = WarmContexts,
    responses(
        (status = 200, description = "Kept", body = WarmStart),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the interpreter did not start", body = ErrorBody),
        (status = 501, description = "INTERPRETER_NOT_AVAILABLE: there is no Python to be kept, an import fails or starts threads", body = ErrorBody),
    ))]
pub(crate) async fn warm(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<WarmContexts>,
) -> Result<Json<WarmStart>, Refusal> {
    let began = Instant::now();
    if request.imports.len() > WARM_IMPORTS {
        let text = format!("`imports` may have {WARM_IMPORTS} names");
        return Err(ApiError::new(ErrorCode::ValidationFailed, text)
            .with("field", "imports")
            .into());
    }
    let env = environment(&agent.env.now(), BTreeMap::new())?;
    let cwd = file::open_directory("/", &agent.workdir)?;
    let tasks = agent.tasks.clone();
    // Goes on when its caller goes away: an interpreter is not left half started.
    let kept = tasks.spawn(async move { Kernel::keep(&agent, &request.imports, env, cwd).await });
    let bytes = kept.await.unwrap_or_else(|_ended| {
        Err(ApiError::new(ErrorCode::InternalError, "the interpreter's start was given up"))
    })?;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(WarmStart { bytes, duration_ms }))
}

/// Runs code in a language's default context, which is made when it does not exist.
///
/// As `POST .../contexts/{cid}/run`.
#[utoipa::path(post, path = "/run", operation_id = "runCode", tag = "interpreter", request_body = RunCode,
    params(
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that name this request"),
        ("last-event-id" = Option<u64>, Header, description = "With a key, and for an event stream: go on after this cursor"),
    ),
    responses(
        (status = 200, description = "The code has ended, or is being followed",
            content((RunResult = "application/json"), (RunEvent = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND: nothing is known of the stream that is to go on", body = ErrorBody),
        (status = 409, description = "IDEMPOTENCY_CONFLICT: the key was used for another request", body = ErrorBody),
        (status = 410, description = "CONTEXT_DELETED: while the code waited", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too much runs at once, or waits in the context, or there are too many contexts", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the interpreter did not start", body = ErrorBody),
        (status = 501, description = "INTERPRETER_NOT_AVAILABLE: the image has not what the language needs", body = ErrorBody),
    ))]
pub(crate) async fn run_default(
    State(agent): State<Arc<Agent>>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<RunCode>,
) -> Result<Response, Refusal> {
    let language = request.language.unwrap_or_default();
    let context = agent.contexts.default_of(&agent, language)?;
    answer(agent, (context.id.clone(), Ok(context)), &headers, request).await
}

/// Runs code in a context.
///
/// The answer is one JSON document when the code has ended or, with `Accept: text/event-stream`,
/// events while it runs (`start`, `stdout`, `stderr`, `result`, `clear`, `error`, `end`; their `data`
/// is a `RunEvent`). Code that fails is an answer, not an error: see `error` in it. When its time is
/// over or the caller's connection closes, the code is interrupted and the context goes on.
///
/// With an `Idempotency-Key` the request is safe to repeat, as that of an exec.
#[utoipa::path(post, path = "/contexts/{cid}/run", operation_id = "runCodeInContext", tag = "interpreter",
    request_body = RunCode,
    params(
        ("cid" = String, Path, description = "The context's id"),
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters that name this request"),
        ("last-event-id" = Option<u64>, Header, description = "With a key, and for an event stream: go on after this cursor"),
    ),
    responses(
        (status = 200, description = "The code has ended, or is being followed",
            content((RunResult = "application/json"), (RunEvent = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "CONTEXT_NOT_FOUND; PROCESS_NOT_FOUND: nothing is known of the stream that is to go on", body = ErrorBody),
        (status = 409, description = "IDEMPOTENCY_CONFLICT: the key was used for another request", body = ErrorBody),
        (status = 410, description = "CONTEXT_EXPIRED; CONTEXT_DELETED: while the code waited", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too much runs at once, or waits in the context", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the interpreter did not start", body = ErrorBody),
        (status = 501, description = "INTERPRETER_NOT_AVAILABLE: the image has not what the language needs", body = ErrorBody),
    ))]
pub(crate) async fn run(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<RunCode>,
) -> Result<Response, Refusal> {
    let context = agent.contexts.get(&id);
    let id = match &context {
        Ok(context) => context.id.clone(),
        Err(error) => id.parse().map_err(|_not_an_id| error.clone())?,
    };
    answer(agent, (id, context), &headers, request).await
}

/// Starts the interpreter of a context, in its turn and in place of one that it has.
async fn start(agent: &Arc<Agent>, context: &Arc<Context>) -> Result<(), ApiError> {
    let place = context.place()?;
    let (agent, context) = (Arc::clone(agent), Arc::clone(context));
    let tasks = agent.tasks.clone();
    // Goes on when its caller goes away: an interpreter is not left half started.
    let started = tasks.spawn(async move {
        let started = {
            let mut slot = context.turn.lock().await;
            context.end(&agent, &mut slot).await;
            tokio::select! {
                biased;
                () = context.deleted() => {
                    let text = format!("context '{}' was deleted while it started", context.id);
                    Err(ApiError::new(ErrorCode::ContextDeleted, text))
                }
                started = context.start(&agent, &mut slot) => started,
            }
        };
        drop(place);
        idle::watch(&agent, &context);
        started
    });
    started.await.unwrap_or_else(|_ended| {
        Err(ApiError::new(ErrorCode::InternalError, "the context's start was given up"))
    })
}

/// The context of this id. A run outlives it, and who has the run's key still gets the answer.
type Named = (ContextId, Result<Arc<Context>, ApiError>);

/// Runs code for one caller, or for those that have its key.
async fn answer(
    agent: Arc<Agent>,
    context: Named,
    headers: &HeaderMap,
    request: RunCode,
) -> Result<Response, Refusal> {
    let form = Form::of(headers)?;
    match (Key::of(headers)?, form) {
        (Some(key), _) => keyed(agent, context, (key, form), request).await,
        (None, Form::Events { after: Some(_) }) => {
            let text = "a stream goes on by the `Idempotency-Key` of its first request";
            Err(ApiError::new(ErrorCode::ValidationFailed, text).into())
        }
        (None, _) => once(agent, context.1?, form, request).await,
    }
}

async fn once(
    agent: Arc<Agent>,
    context: Arc<Context>,
    form: Form,
    request: RunCode,
) -> Result<Response, Refusal> {
    let on_disconnect = request.on_disconnect;
    let retention = match (form, on_disconnect) {
        (Form::Whole, _) => Retention::Oldest,
        (Form::Events { .. }, OnDisconnect::Kill) => Retention::Unread { behind: 0 },
        (Form::Events { .. }, OnDisconnect::Keep) => Retention::Unread { behind: LOG_BYTES },
    };
    let place = place(&agent)?;
    let process = Process::new(&agent, About::run(&request.code), retention);
    // Generated ids are never taken.
    agent.processes.add(&process, Keep::Nothing).unwrap_or(());
    let attachment = Attachment::new(&process, on_disconnect);
    launch(&agent, &context, &process, request, place).await?;
    match form {
        Form::Whole => Ok(reply::buffered(attachment, context.id.clone()).await),
        Form::Events { .. } => {
            let follow = Follow::new(process, 0, api::exec::Encoding::Utf8).of_run().awaited();
            Ok(follow.respond(attachment, std::future::pending()))
        }
    }
}

/// Answers with the run of a key, which is started if there is none.
async fn keyed(
    agent: Arc<Agent>,
    (id, context): Named,
    (key, form): (Key, Form),
    request: RunCode,
) -> Result<Response, Refusal> {
    let on_disconnect = request.on_disconnect;
    let hash = Key::hash(&(id.as_str(), &request));
    let run = match (agent.processes.run(key.as_str()), form) {
        (Some(run), _) => run,
        (None, Form::Events { after: Some(_) }) => return Err(key.forgotten().into()),
        (None, _) => begin(&agent, &context?, (&key, hash, form), request)?,
    };
    if run.hash != hash {
        return Err(key.conflict().into());
    }
    let attachment = Attachment::of_run(&run, on_disconnect, &agent.tasks);
    run.begun().await?;
    match form {
        Form::Whole => {
            run.process.log.keep_oldest();
            Ok(reply::buffered(attachment, id).await)
        }
        Form::Events { after } => {
            let cursor = after.unwrap_or(0);
            follow::check_cursor(&run.process, cursor)?;
            let process = Arc::clone(&run.process);
            let follow = Follow::new(process, cursor, api::exec::Encoding::Utf8);
            Ok(follow.of_run().awaited().respond(attachment, run.take_over()))
        }
    }
}

/// Starts a run in a task of its own: whoever asked for it first may be gone before it has begun.
fn begin(
    agent: &Arc<Agent>,
    context: &Arc<Context>,
    (key, hash, form): (&Key, u64, Form),
    request: RunCode,
) -> Result<Arc<Run>, ApiError> {
    let place = place(agent)?;
    let retention = match form {
        Form::Whole => Retention::Oldest,
        Form::Events { .. } => Retention::Unread { behind: RESUME_BYTES },
    };
    let process = Process::new(agent, About::run(&request.code), retention);
    let run = agent.processes.add_run(key.as_str(), Run::new(hash, process));
    let (agent, context, kept) = (Arc::clone(agent), Arc::clone(context), Arc::clone(&run));
    agent.tasks.clone().spawn(async move {
        let result = launch(&agent, &context, &kept.process, request, place).await;
        kept.begin(result);
    });
    Ok(run)
}

fn place(agent: &Agent) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&agent.execs).try_acquire_owned().map_err(|_full| {
        let text = format!("{EXECS_PER_SANDBOX} commands run in this sandbox; wait for one to end");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", EXECS_PER_SANDBOX)
    })
}

/// Starts a run, after those that the context has already, and returns when its turn has come. The
/// process ends in any case.
///
/// Cancel safety: the run goes on by itself; the process is what can end it.
async fn launch(
    agent: &Arc<Agent>,
    context: &Arc<Context>,
    process: &Arc<Process>,
    request: RunCode,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let checked = Job::check(context, request, place).and_then(|job| Ok((job, context.place()?)));
    let (job, place) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            process.finish(End::lost());
            return Err(error);
        }
    };
    let (tell, begun) = oneshot::channel();
    let (owner, context) = (Arc::clone(agent), Arc::clone(context));
    agent.tasks.spawn(run::run(owner, context, place, (job, Arc::clone(process), tell)));
    begun.await.unwrap_or_else(|_gone| {
        Err(ApiError::new(ErrorCode::InternalError, "the run's start was not seen"))
    })
}
