//! Sessions: shells that keep their state between commands.
//!
//! ```text
//! exec ─▶ Session: its turn ─▶ Shell: sources the command ─▶ report ─▶ answer
//!            │ one at a time        │ cut off: comes back       │ ends: 410, next use starts anew
//! delete ────┴──────────────────────┴──────────────────────────┴─▶ everything of it is killed
//! ```
//!
//! Owns: who exists, whose turn it is, and what each starts with. [`shell`] is one shell, [`run`] one
//! command.
//! Does not: know how output is kept or rendered; a command of a session is a [`Process`] like any.
//!
//! Invariant: whoever holds a session's turn is the only one who speaks to its shell.
//! Invariant: what the shell lost is told to whoever uses the session next, before anything runs in
//! a shell that has lost it.
//!
//! A session is no boundary: code in one can do to another what it can do to any process.

mod dir;
mod proc;
mod report;
mod run;
mod shell;
mod table;
mod text;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    env::{ChangeEnv, Env},
    error::{ApiError, ErrorBody, ErrorCode},
    exec::ExecRequest,
    id::SessionId,
    session::{CreateSession, Session as Described, SessionList},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use sys::{SysError, errno, wait::Status};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::table::{Place, Slot};
use crate::{
    env::{check_bytes, check_names},
    extract,
    init::Agent,
    process::{
        Aftermath, End, Process, Surroundings,
        check::{environment, invalid},
    },
    refusal::Refusal,
};

pub(crate) use self::table::{Session, Sessions};

/// The shell does not answer as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken;

/// Makes a session.
///
/// Its shell starts at once. The session outlives stops and restarts of the sandbox, and goes into
/// checkpoints and forks: its id, name, directory, variables and timeout, with a new shell at its next
/// use. Sessions are also made by naming them in an exec request, then with the
/// sandbox's own variables and directory.
#[utoipa::path(post, path = "/sessions", operation_id = "createSession", tag = "sessions", request_body = CreateSession,
    responses(
        (status = 201, description = "Made", body = Described),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: `cwd`", body = ErrorBody),
        (status = 409, description = "SESSION_ALREADY_EXISTS", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: there are too many sessions", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the shell did not start", body = ErrorBody),
        (status = 501, description = "SHELL_NOT_AVAILABLE: the image has no bash", body = ErrorBody),
        (status = 507, description = "NO_SPACE: /run is full", body = ErrorBody),
    ))]
pub(crate) async fn create(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<CreateSession>,
) -> Result<(StatusCode, Json<Described>), Refusal> {
    check_names(&request.env)?;
    environment(&BTreeMap::new(), request.env.clone())?;
    let session = agent.sessions.create(&agent, request)?;
    let place = session.place()?;
    let started = task(&agent, {
        let (agent, session) = (Arc::clone(&agent), Arc::clone(&session));
        async move {
            let mut slot = session.turn.lock().await;
            let started = session.shell(&agent, &mut slot).await.map(drop);
            drop((slot, place));
            match started {
                Ok(()) => agent.definitions.keep().await,
                Err(error) => {
                    agent.sessions.forget(&session);
                    Err(error)
                }
            }
        }
    });
    started.await?;
    Ok((StatusCode::CREATED, Json(session.describe())))
}

/// Lists the sessions.
#[utoipa::path(get, path = "/sessions", operation_id = "listSessions", tag = "sessions",
    responses((status = 200, description = "All of them", body = SessionList)))]
pub(crate) async fn list(State(agent): State<Arc<Agent>>) -> Json<SessionList> {
    let sessions = agent.sessions.all().iter().map(|session| session.describe()).collect();
    Json(SessionList { sessions })
}

/// Describes a session.
#[utoipa::path(get, path = "/sessions/{sid}", operation_id = "getSession", tag = "sessions",
    params(("sid" = String, Path, description = "The session's id, or its name")),
    responses(
        (status = 200, description = "It", body = Described),
        (status = 404, description = "SESSION_NOT_FOUND", body = ErrorBody),
    ))]
pub(crate) async fn get(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Json<Described>, Refusal> {
    Ok(Json(agent.sessions.known(&id)?.describe()))
}

/// Deletes a session.
///
/// Its shell, its running command and everything that it left in the background are killed, and who
/// waits for a command of it gets `SESSION_DESTROYED`. The default session cannot be deleted.
#[utoipa::path(delete, path = "/sessions/{sid}", operation_id = "deleteSession", tag = "sessions",
    params(("sid" = String, Path, description = "The session's id, or its name")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "VALIDATION_FAILED: the default session", body = ErrorBody),
        (status = 404, description = "SESSION_NOT_FOUND", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let session = agent.sessions.known(&id)?;
    if session.is_default() {
        let text = "the default session cannot be deleted; `exit` in it starts it anew";
        return Err(ApiError::new(ErrorCode::ValidationFailed, text).into());
    }
    let deleted = task(&agent, {
        let agent = Arc::clone(&agent);
        async move {
            agent.sessions.forget(&session);
            let kept = agent.definitions.keep().await;
            session.bury(&agent).await;
            kept
        }
    });
    deleted.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The exported variables of a session's shell.
///
/// Waits until the session is idle. A session without a shell gets one.
#[utoipa::path(get, path = "/sessions/{sid}/env", operation_id = "getSessionEnv", tag = "env",
    params(("sid" = String, Path, description = "The session's id, or its name")),
    responses(
        (status = 200, description = "All of them", body = Env),
        (status = 404, description = "SESSION_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "SESSION_TERMINATED, SESSION_DESTROYED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE: more than any program is started with", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many commands wait in the session", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR: the shell did not start", body = ErrorBody),
        (status = 501, description = "SHELL_NOT_AVAILABLE: the image has no bash", body = ErrorBody),
        (status = 507, description = "NO_SPACE: /run is full", body = ErrorBody),
    ))]
pub(crate) async fn get_env(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Json<Env>, Refusal> {
    let session = agent.sessions.known(&id)?;
    Ok(Json(Env { env: look(&agent, session).await?.env }))
}

/// Sets and unsets variables of a session.
///
/// Done in the session's shell by `export` and `unset`, after the commands that the session has
/// already. A shell that the session is given later has them too.
#[utoipa::path(patch, path = "/sessions/{sid}/env", operation_id = "changeSessionEnv", tag = "env",
    params(("sid" = String, Path, description = "The session's id, or its name")),
    request_body = ChangeEnv,
    responses(
        (status = 204, description = "Changed"),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "SESSION_NOT_FOUND", body = ErrorBody),
        (status = 410, description = "SESSION_TERMINATED, SESSION_DESTROYED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many commands wait in the session", body = ErrorBody),
    ))]
pub(crate) async fn change_env(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
    extract::Json(request): extract::Json<ChangeEnv>,
) -> Result<StatusCode, Refusal> {
    check_names(&request.env)?;
    environment(&BTreeMap::new(), request.env.clone())?;
    let session = agent.sessions.known(&id)?;
    let place = session.place()?;
    session.change(&request.env)?;
    let exported = task(&agent, {
        let agent = Arc::clone(&agent);
        async move {
            export(&session, place, &request.env).await?;
            agent.definitions.keep().await
        }
    });
    exported.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts the command of `request` in its session, after those that the session has already, and
/// returns when it runs. The process ends in any case.
///
/// Cancel safety: the command goes on by itself; the process is what can end it.
pub(crate) async fn launch(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    id: &SessionId,
    request: ExecRequest,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let checked = run::Job::check(request, place).and_then(|job| {
        let session = agent.sessions.find_or_make(agent, id)?;
        let place = session.place()?;
        Ok((job, session, place))
    });
    begin(agent, process, checked).await
}

async fn begin(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    checked: Result<(run::Job, Arc<Session>, Place), ApiError>,
) -> Result<(), ApiError> {
    let (job, session, place) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            process.finish(End::lost());
            return Err(error);
        }
    };
    let (tell, begun) = oneshot::channel();
    let command = (job, Arc::clone(process), tell);
    agent.tasks.spawn(run::run(Arc::clone(agent), session, place, command));
    begun.await.unwrap_or_else(|_gone| {
        Err(ApiError::new(ErrorCode::InternalError, "the command's start was not seen"))
    })
}

/// A session that is a context's interpreter, and nobody else's.
pub(crate) fn of_context(context: &str, request: CreateSession, workdir: &str) -> Arc<Session> {
    let id: SessionId = context.parse().expect("ids of contexts and sessions have one form");
    Arc::new(Session::new(id, request, workdir))
}

/// Starts the shell of a session, if it has none.
pub(crate) async fn start(agent: &Arc<Agent>, session: &Session) -> Result<i32, ApiError> {
    let mut slot = session.own_turn().await?;
    Ok(session.shell(agent, &mut slot).await?.pid)
}

/// As [`launch`], in a session that a context has.
pub(crate) async fn launch_in(
    agent: &Arc<Agent>,
    process: &Arc<Process>,
    session: &Arc<Session>,
    request: ExecRequest,
    place: OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let checked = run::Job::check(request, place).and_then(|job| Ok((job, session.place()?)));
    begin(agent, process, checked.map(|(job, place)| (job, Arc::clone(session), place))).await
}

/// The variables and the directory of a session's shell, when the session is idle.
pub(crate) async fn surroundings(
    agent: &Arc<Agent>,
    id: &SessionId,
) -> Result<Surroundings, ApiError> {
    look(agent, agent.sessions.find_or_make(agent, id)?).await
}

/// The current directory of a session, without waiting; of one that does not exist, the one it
/// would start in.
pub(crate) fn cwd(agent: &Agent, id: &SessionId) -> Result<String, ApiError> {
    let Some(session) = agent.sessions.find(id.as_str()) else {
        return Ok(agent.workdir.clone());
    };
    let path = session.cwd();
    path.into_os_string().into_string().map_err(|path| {
        let shown = path.to_string_lossy().into_owned();
        let text = format!("the directory of session '{id}' is not UTF-8: {shown}");
        ApiError::new(ErrorCode::InvalidPath, text).with("path", shown)
    })
}

/// A place in the default session for a change of the sandbox's variables.
pub(crate) fn place_for_variables(agent: &Agent) -> Result<Place, ApiError> {
    agent.sessions.default_session().place()
}

/// Gives a change of the sandbox's variables to the default session, whose own go before them.
pub(crate) fn pass_on(
    agent: &Arc<Agent>,
    place: Place,
    mut changes: BTreeMap<String, Option<String>>,
) {
    let session = agent.sessions.default_session();
    changes.retain(|name, _| !session.has_own(name));
    agent.tasks.spawn(async move {
        // A shell that could not take them is told of when it is used next.
        drop(export(&session, place, &changes).await);
    });
}

async fn look(agent: &Arc<Agent>, session: Arc<Session>) -> Result<Surroundings, ApiError> {
    let place = session.place()?;
    let looked = task(agent, {
        let agent = Arc::clone(agent);
        async move {
            let mut slot = session.own_turn().await?;
            let shell = session.shell(&agent, &mut slot).await?;
            let variables = shell.variables().await;
            if variables.is_err() {
                shell.kill().await;
            }
            drop(place);
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let variables = variables.map_err(|_broken| lost(&session.id))?;
            let variables = variables.ok_or_else(|| too_long(&session.id))?;
            // A shell has no variables of other names, but passes on what it was given.
            let others = BTreeMap::clone(&agent.env.now());
            let others = others.into_iter().filter(|(name, _)| {
                let one = BTreeMap::from([(name.clone(), None)]);
                check_names(&one).is_err()
            });
            let own = variables.into_iter().map(|(name, value)| (text(name), text(value)));
            let cwd = session.cwd().to_string_lossy().into_owned();
            Ok(Surroundings { env: others.chain(own).collect(), cwd })
        }
    });
    looked.await
}

/// Sets and unsets variables in the session's shell, if there is one, in its turn.
async fn export(
    session: &Session,
    place: Place,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), ApiError> {
    let mut slot = session.own_turn().await?;
    let Some(shell) = &mut slot.shell else { return Ok(()) };
    let exported = shell.export(changes).await;
    if exported.is_err() {
        shell.kill().await;
    }
    drop(place);
    match exported.map_err(|_broken| lost(&session.id))?.as_slice() {
        [] => Ok(()),
        refused => Err(read_only(&session.id, refused)),
    }
}

/// Work on a session that goes on when its caller goes away: a shell is not left half spoken to.
async fn task<T: Send + 'static>(
    agent: &Agent,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    agent.tasks.spawn(work).await.unwrap_or_else(|_ended| {
        Err(ApiError::new(ErrorCode::InternalError, "the session's work was given up"))
    })
}

/// The error in place of a result, if the command's end was the end of its session.
pub(crate) fn loss(process: &Process, end: &End) -> Option<ApiError> {
    let id = process.about.session.as_ref()?;
    match end.aftermath {
        Aftermath::Kept | Aftermath::Reset => None,
        Aftermath::Destroyed => Some(destroyed(id)),
        Aftermath::Terminated => {
            let ending = serde_json::to_value(end.ending).unwrap_or_default();
            Some(terminated(id, end.ending.exit_code()).with("ending", ending))
        }
    }
}

fn terminated(id: &SessionId, exit_code: i32) -> ApiError {
    let text = format!("Session '{id}' shell exited (exit code: {exit_code})");
    ApiError::new(ErrorCode::SessionTerminated, text)
        .with("sessionId", id.as_str())
        .with("exitCode", exit_code)
}

/// Its shell ended while nothing ran in it.
fn ended(id: &SessionId, status: Status) -> ApiError {
    let code = match status {
        Status::Exited(code) => code,
        Status::Signaled(signal) => 128 + signal,
    };
    terminated(id, code).with("stdout", "").with("stderr", "")
}

/// The shell does not answer, and was killed for that.
fn lost(id: &SessionId) -> ApiError {
    ended(id, Status::Signaled(sys::signal::SIGKILL))
}

fn destroyed(id: &SessionId) -> ApiError {
    ApiError::new(ErrorCode::SessionDestroyed, format!("Session '{id}' was deleted"))
        .with("sessionId", id.as_str())
}

/// A command of the session has made these variables read-only.
fn read_only(id: &SessionId, names: &[Vec<u8>]) -> ApiError {
    let names = String::from_utf8_lossy(&names.join(&b", "[..])).into_owned();
    let text = format!(
        "the shell of session '{id}' does not change {names}, which a command has made read-only; \
         what else was asked for is done. Use other names, or another session"
    );
    ApiError::new(ErrorCode::ValidationFailed, text).with("variables", names)
}

/// What it exports is more than programs are started with.
fn too_long(id: &SessionId) -> ApiError {
    let text = format!(
        "the exported variables of session '{id}' are too long for a program to be started with; \
         unset the large ones, or take their export back (export -n NAME)"
    );
    ApiError::new(ErrorCode::PayloadTooLarge, text).with("sessionId", id.as_str())
}

/// A command could not be put where the shell finds it.
fn no_room(error: &SysError) -> ApiError {
    let (code, cause) = match error.errno {
        errno::ENOSPC => (ErrorCode::NoSpace, "/run is full"),
        errno::ENOMEM => (ErrorCode::CommandExecutionError, "the sandbox has no memory left"),
        _ => (ErrorCode::CommandExecutionError, "the kernel refused"),
    };
    let text = format!("cannot hand the command to the session's shell: {cause}");
    ApiError::new(code, text).with("errno", error.errno)
}

/// A name that is free, from a request that gives none.
fn name_as_id(name: Option<&str>) -> Option<SessionId> {
    name?.parse().ok()
}

/// Checks the variables that a session has for itself.
fn check_own(env: &BTreeMap<String, Option<String>>) -> Result<(), ApiError> {
    check_bytes(env.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)))
}

fn not_found(id: &str) -> ApiError {
    ApiError::new(ErrorCode::SessionNotFound, format!("there is no session '{id}'"))
        .with("sessionId", id)
}

fn invalid_name(text: impl Into<String>) -> ApiError {
    invalid("name", text)
}
