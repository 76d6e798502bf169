//! Terminals: programs on a pseudoterminal, seen and typed into over WebSocket.
//!
//! ```text
//! viewer ─keystrokes─► pty ─► program
//! viewer ◄─output── the newest bytes, each viewer at its cursor ◄── pty ◄─┘
//! ```
//!
//! Owns: the pseudoterminals, the newest output of each, and the places of their viewers.
//! Does not: understand what is shown; the bytes are between the program and its viewers.
//!
//! Invariant: nobody holds a terminal up for ever: a viewer that does not take its output is given
//! up, and the output goes on without viewers.

mod follow;
mod output;
mod pty;
mod start;
mod state;
mod table;
mod viewer;

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    exec::Command,
    id::TerminalId,
    terminal::{AttachTerminal, CURSOR_HEADER, CreateTerminal, TerminalList},
};
use axum::{
    Json,
    extract::{
        Path, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use self::{state::Terminal, viewer::View};
use crate::{extract, extract::Query, init::Agent, refusal::Refusal};

pub(crate) use table::Terminals;

/// Starts a terminal.
///
/// Its program has a pseudoterminal as stdin, stdout, stderr and controlling terminal. It runs on
/// without viewers; the newest 256 KiB of its output are kept for whoever attaches.
#[utoipa::path(post, path = "/terminals", operation_id = "createTerminal", tag = "terminals", request_body = CreateTerminal,
    responses(
        (status = 201, description = "It runs", body = api::terminal::Terminal),
        (status = 400, description = "VALIDATION_FAILED, INVALID_COMMAND, INVALID_PATH, NOT_DIRECTORY", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: the program or `cwd` may not be used", body = ErrorBody),
        (status = 404, description = "COMMAND_NOT_FOUND; FILE_NOT_FOUND for `cwd`", body = ErrorBody),
        (status = 409, description = "TERMINAL_EXISTS: one with this id runs", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many terminals run", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn create(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<CreateTerminal>,
) -> Result<(StatusCode, Json<api::terminal::Terminal>), Refusal> {
    let terminal = started(&agent, request).await?;
    Ok((StatusCode::CREATED, Json(terminal.describe())))
}

/// Lists the terminals that run or ended a short while ago.
#[utoipa::path(get, path = "/terminals", operation_id = "listTerminals", tag = "terminals",
    responses((status = 200, description = "All of them", body = TerminalList)))]
pub(crate) async fn list(State(agent): State<Arc<Agent>>) -> Json<TerminalList> {
    let all = agent.terminals.all();
    Json(TerminalList { terminals: all.iter().map(|terminal| terminal.describe()).collect() })
}

/// Attaches to a terminal over WebSocket, or describes it.
///
/// A request that asks for a WebSocket becomes a viewer; the terminal is made when it does not
/// exist. The viewer is sent what was kept of the output as one binary message, then the text
/// `{"type":"ready"}`, then output as it comes. Binary messages from it are typed; the text
/// `{"type":"resize","cols":120,"rows":40}` changes the size, and any other text is answered with
/// `{"type":"error","message":"..."}`. When the program ends, the viewer is sent
/// `{"type":"exit","code":137,"signal":"SIGKILL"}` (`signal` only if one ended it), and the
/// connection closes. A viewer that does not take its output is dropped with an `error`, and may
/// attach again. Pings come every 15 s; a viewer that says nothing for 60 s is dropped.
#[utoipa::path(get, path = "/terminals/{tid}", operation_id = "attachTerminal", tag = "terminals",
    params(("tid" = TerminalId, Path, description = "The terminal"), AttachTerminal),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on",
            headers(("x-sandbar-cursor" = u64, description = "Cursor of the first byte that will be sent"))),
        (status = 200, description = "The terminal, to a request that asks for no WebSocket", body = api::terminal::Terminal),
        (status = 400, description = "VALIDATION_FAILED, INVALID_COMMAND", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: `shell` may not be executed", body = ErrorBody),
        (status = 404, description = "TERMINAL_NOT_FOUND; COMMAND_NOT_FOUND for `shell`", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many viewers, or terminals", body = ErrorBody),
        (status = 500, description = "COMMAND_EXECUTION_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn attach(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
    Query(query): Query<AttachTerminal>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let id = parse(&id)?;
    let size = start::size(query.cols, query.rows)?;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) if !headers.contains_key(header::UPGRADE) => {
            return Ok(Json(agent.terminals.get(&id)?.describe()).into_response());
        }
        Err(fault) => {
            let text = format!("this is no request for a WebSocket: {}", fault.body_text());
            return Err(ApiError::new(ErrorCode::ValidationFailed, text).into());
        }
    };
    let terminal = match agent.terminals.get(&id) {
        Ok(terminal) => terminal.started(None).await?,
        Err(error) if query.create == Some(false) => return Err(error.into()),
        Err(_) => {
            let command = query.shell.map(|shell| Command::Program(vec![shell]));
            let (session, cols, rows) = (query.session, query.cols, query.rows);
            let wanted = Some(id.clone());
            let create =
                CreateTerminal { id: wanted, command, session, cols, rows, ..Default::default() };
            match started(&agent, create).await {
                // Another viewer was faster to make it.
                Err(error) if error.code == ErrorCode::TerminalExists => {
                    agent.terminals.get(&id)?.started(None).await?
                }
                started => started?,
            }
        }
    };
    agent.terminals.admit_viewer()?;
    if let Some(size) = size {
        terminal.resize(size);
    }
    let (view, cursor) = View::open(terminal, query.cursor);
    let mut response = view.show(upgrade);
    response.headers_mut().insert(CURSOR_HEADER, HeaderValue::from(cursor));
    Ok(response)
}

/// Ends a terminal with all its processes, and forgets it.
///
/// The program is told that its terminal is going (SIGHUP) and has a second to end; then its whole
/// process tree is killed. Viewers get the `exit`.
#[utoipa::path(delete, path = "/terminals/{tid}", operation_id = "deleteTerminal", tag = "terminals",
    params(("tid" = TerminalId, Path, description = "The terminal")),
    responses(
        (status = 204, description = "Ended and forgotten"),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "TERMINAL_NOT_FOUND", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let terminal = agent.terminals.get(&parse(&id)?)?;
    agent.terminals.remove(&terminal);
    terminal.forget();
    terminal.ended().await;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(id: &str) -> Result<TerminalId, ApiError> {
    id.parse().map_err(|fault: api::id::InvalidName| {
        ApiError::new(ErrorCode::ValidationFailed, fault.to_string()).with("field", "tid")
    })
}

/// Starts a terminal and waits until its program runs.
async fn started(agent: &Arc<Agent>, request: CreateTerminal) -> Result<Arc<Terminal>, ApiError> {
    let command = request.command.clone();
    start::start(agent, request).await?.started(command).await
}
