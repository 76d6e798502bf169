//! Runs in a context of bash, whose interpreter is a session's shell: what a session does for a
//! command it does for code here, and what it says is told as a run's.

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorCode},
    exec::{Command, Encoding, Ending, ExecRequest, OnDisconnect},
    interpreter::{CodeErrorKind, RunEvent},
};
use sys::wait::Status;

use super::{
    failure::{self, Lost},
    frame::Failed,
    run::{Begun, Job, announce, found_ended, put, set_current},
    table::{Context, Slot},
};
use crate::{
    init::Agent,
    process::{
        About, Aftermath, Cause, End, Kill, Process,
        log::{Read, Retention},
    },
    session,
};

/// Bytes moved from the command's log to the run's at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Runs code and returns how it ended; nothing when it did not begin, and then the process has ended.
pub(super) async fn run(
    agent: &Arc<Agent>,
    context: &Arc<Context>,
    slot: &mut Slot,
    (job, process, begun): (&mut Job, &Arc<Process>, Begun),
) -> Option<End> {
    let session = context.session(agent, slot);
    let limit = job.limit.unwrap_or(context.timeout);
    let request = request(job, limit);
    let retention = Retention::Unread { behind: 0 };
    let command = Process::new(agent, About::exec(&request.command, None), retention);
    let launched = match job.place.take() {
        Some(place) => session::launch_in(agent, &command, &session, request, place).await,
        None => Err(ApiError::new(ErrorCode::InternalError, "a run has one place")),
    };
    if let Err(error) = launched {
        if error.code == ErrorCode::SessionTerminated {
            // It ended when nobody used it: what it kept is lost, and somebody has to be told.
            context.end(agent, slot).await;
            process.set_pid(1);
            begun.send(Ok(())).ok();
            return Some(found_ended(context, process, Vec::new(), status(&error)));
        }
        process.finish(End::lost());
        // The caller may be gone already.
        begun.send(Err(error)).ok();
        return None;
    }
    context.set_pid(command.pid());
    process.set_pid(command.pid());
    // The caller may be gone already.
    begun.send(Ok(())).ok();
    set_current(context, job, process);
    let count = context.count();
    announce(context, process);
    follow(&command, process, context).await;
    let end = command.ended().await;
    context.set_current(None);
    context.touch();
    let is_lost = end.aftermath != Aftermath::Kept;
    conclude(process, &end, (context, is_lost, limit, count));
    if is_lost {
        context.end(agent, slot).await;
    }
    Some(end)
}

/// How the shell ended of which a session says so.
fn status(error: &ApiError) -> Status {
    let code = error.details.get("exitCode").and_then(serde_json::Value::as_i64);
    let code = code.and_then(|code| i32::try_from(code).ok()).unwrap_or_default();
    // As shells count, and a session with them.
    if code > 128 { Status::Signaled(code - 128) } else { Status::Exited(code) }
}

fn request(job: &Job, limit: std::time::Duration) -> ExecRequest {
    let code = &job.request.code;
    // A session takes no empty command.
    let text = if code.trim().is_empty() { ":".to_owned() } else { code.clone() };
    ExecRequest {
        env: job.request.env.clone(),
        timeout_ms: u64::try_from(limit.as_millis()).ok(),
        encoding: Encoding::Utf8,
        on_disconnect: OnDisconnect::Keep,
        ..ExecRequest::new(Command::Shell(text))
    }
}

/// Moves the command's output into the run's log, and wishes to end it the other way, until the
/// command is over.
async fn follow(command: &Arc<Process>, process: &Process, context: &Context) {
    let mut kills = process.kills();
    kills.mark_changed();
    let mut cursor = 0;
    loop {
        let piece = command.log.read(cursor, PIECE_BYTES, |read| match read {
            Read::Bytes { stream, bytes, .. } => Ok(Some((stream, bytes.to_vec()))),
            Read::Event { .. } | Read::Dropped(_) | Read::Pending => Ok(None),
            Read::End => Err(()),
        });
        let Ok(piece) = piece else { return };
        let is_over = command.end().is_some();
        tokio::select! {
            () = command.log.readable(cursor), if piece.is_none() => {}
            // What is left of one that is over is no more than its log holds ahead of us.
            () = process.log.room_unless(is_over), if piece.is_some() => {
                if let Some((stream, bytes)) = piece {
                    cursor += bytes.len() as u64;
                    process.log.append(stream, bytes);
                    command.log.advance(cursor);
                }
            }
            _ = command.ended(), if !is_over => {}
            () = context.deleted(), if command.kills().borrow().is_none() => {
                command.kill(Kill::now(Cause::Requested));
            }
            Ok(()) = kills.changed() => {
                let kill = *kills.borrow_and_update();
                if let Some(kill) = kill {
                    command.kill(kill);
                }
            }
        }
    }
}

/// Says how the run ended.
fn conclude(
    process: &Process,
    end: &End,
    (context, is_lost, limit, count): (&Context, bool, std::time::Duration, u64),
) {
    let cause = match end.ending {
        Ending::Timeout => Some(Cause::Timeout),
        Ending::Killed { .. } => {
            Some((*process.kills().borrow()).map_or(Cause::Requested, |kill| kill.cause))
        }
        _ => None,
    };
    let error = match (is_lost, cause, end.ending) {
        (true, cause, ending) => {
            let lost = Lost { ending, is_deleted: context.is_deleted() };
            Some(failure::lost(lost, cause, limit, None))
        }
        (false, Some(cause), _) => Some(failure::interrupted(cause, limit, None)),
        (false, None, Ending::Exited { code: 0 }) => None,
        (false, None, ending) => {
            let mut error = failure::raised(failed(ending));
            if ending == Ending::OutOfMemory {
                error.kind = CodeErrorKind::OutOfMemory;
            }
            error.ending = Some(ending);
            Some(error)
        }
    };
    let success = error.is_none();
    if let Some(error) = error {
        put(process, &RunEvent::Error(error), true);
    }
    let end = RunEvent::End {
        success,
        execution_count: count,
        duration_ms: end.duration_ms(),
        context_reset: is_lost,
        refused: end.refused(),
    };
    put(process, &end, true);
}

/// A last command that failed is what an exception is elsewhere.
fn failed(ending: Ending) -> Failed {
    Failed {
        name: "ExitStatus".to_owned(),
        value: format!("the last command ended with status {}", ending.exit_code()),
        traceback: Vec::new(),
        line: None,
    }
}
