//! What a process reads, sent from outside.

use std::{io, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    process::{StdinWritten, WriteStdin},
};
use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use tokio::net::unix::pipe;

use super::{Found, has_ended};
use crate::{extract::Query, process::Process, refusal::Refusal};

/// How long an end may come after the end of stdin, which is a part of it: then the end is the answer. It
/// takes less than a millisecond; a machine may be very busy.
const END_WAIT: Duration = Duration::from_secs(1);

/// Writes the request's body to a process's stdin, and closes it if asked.
///
/// Only for a process that was started with `"stdin": "open"`. The body is passed on as the process
/// reads it, and the answer comes when the pipe to it has taken all. Of writers at the same time the
/// first comes first, whole. A writer that breaks off leaves what it has written. A body of which
/// the process takes nothing for two minutes is given up with TIMEOUT.
#[utoipa::path(post, path = "/processes/{pid}/stdin", operation_id = "writeProcessStdin", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox"), WriteStdin),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is written", body = StdinWritten),
        (status = 400, description = "VALIDATION_FAILED; also for a body that breaks off", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
        (status = 409, description = "STDIN_CLOSED, PROCESS_ENDED; `writtenBytes` is what was written before", body = ErrorBody),
    ))]
pub(crate) async fn stdin(
    Found(process): Found,
    Query(query): Query<WriteStdin>,
    body: Body,
) -> Result<axum::Json<StdinWritten>, Refusal> {
    let mut written_bytes = 0;
    tokio::select! {
        // An end that is known is an answer, whatever else is.
        biased;
        _ = process.ended() => {
            // This writer has held it open, for whatever the process has left behind too.
            *process.stdin().lock().await = None;
            Err(has_ended(&process))
        }
        result = write(&process, body, query.close, &mut written_bytes) => result,
    }
    .map_err(|error| error.with("writtenBytes", written_bytes))?;
    Ok(axum::Json(StdinWritten { written_bytes }))
}

/// Cancel safety: what is written is in `written`.
async fn write(
    process: &Arc<Process>,
    mut body: Body,
    close: bool,
    written: &mut u64,
) -> Result<(), ApiError> {
    // Held to the end, so that writers do not mix.
    let mut stdin = process.stdin().lock().await;
    let Some(pipe) = &*stdin else { return Err(closed(process).await) };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken| {
            ApiError::new(ErrorCode::ValidationFailed, "the body broke off before its end")
        })?;
        // Trailers are no content.
        let Ok(mut bytes) = frame.into_data() else { continue };
        if let Err(_closed) = feed(pipe, &mut bytes, written).await {
            *stdin = None;
            return Err(closed(process).await);
        }
    }
    if close {
        *stdin = None;
    }
    Ok(())
}

async fn feed(pipe: &pipe::Sender, bytes: &mut Bytes, written: &mut u64) -> io::Result<()> {
    while bytes.has_remaining() {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Ok(length) => {
                bytes.advance(length);
                *written += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn closed(process: &Process) -> ApiError {
    tokio::time::sleep(END_WAIT).await;
    let id = process.about.id.as_str();
    let text = format!(
        "the stdin of {id} is closed: it was started without one, somebody closed it, or the \
         process did"
    );
    ApiError::new(ErrorCode::StdinClosed, text).with("process", id)
}
