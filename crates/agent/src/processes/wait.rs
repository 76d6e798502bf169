//! Waiting for a process.

use std::{sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    limit::{WAIT_TIMEOUT_MS, WAITS_PER_SANDBOX},
    process::{ProcessReady, WaitProcess},
};
use axum::extract::State;

use super::Found;
use crate::{
    extract::Json,
    init::Agent,
    process::{
        Process,
        wait::{Condition, Met, met},
    },
    refusal::Refusal,
};

/// Waits until a process has ended, has written a line, or listens on a port.
///
/// The answer comes when that is so; at once if it was so already.
#[utoipa::path(post, path = "/processes/{pid}/wait", operation_id = "waitForProcess", tag = "processes",
    params(("pid" = String, Path, description = "Its id, or its process id inside the sandbox")),
    request_body = WaitProcess,
    responses(
        (status = 200, description = "It is so", body = ProcessReady),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 404, description = "PROCESS_NOT_FOUND", body = ErrorBody),
        (status = 408, description = "PROCESS_READY_TIMEOUT: not within `timeoutMs`", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many wait", body = ErrorBody),
        (status = 500, description = "PROCESS_EXITED_BEFORE_READY", body = ErrorBody),
    ))]
pub(crate) async fn wait(
    State(agent): State<Arc<Agent>>,
    Found(process): Found,
    Json(request): Json<WaitProcess>,
) -> Result<axum::Json<ProcessReady>, Refusal> {
    let timeout_ms = request.timeout_ms.unwrap_or(WAIT_TIMEOUT_MS);
    if !(1..=WAIT_TIMEOUT_MS).contains(&timeout_ms) {
        let text = format!("timeoutMs is from 1 to {WAIT_TIMEOUT_MS}");
        let error = ApiError::new(ErrorCode::ValidationFailed, text).with("field", "timeoutMs");
        return Err(error.with("limit", WAIT_TIMEOUT_MS).into());
    }
    let mut condition = Condition::check(request.until)?;
    let _place = agent.waits.try_acquire().map_err(|_full| {
        let text = format!("{WAITS_PER_SANDBOX} requests wait for processes of this sandbox");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", WAITS_PER_SANDBOX)
    })?;
    let limit = Duration::from_millis(timeout_ms);
    let found = match tokio::time::timeout(limit, met(&process, &mut condition)).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(exited(&process, &condition).into()),
        Err(_elapsed) => return Err(timed_out(&process, &condition, timeout_ms).into()),
    };
    let process = process.describe();
    Ok(axum::Json(match found {
        Met::Exit | Met::Port => ProcessReady { process, line: None, status: None },
        Met::Line(line) => ProcessReady { process, line: Some(line), status: None },
        Met::Http(status) => ProcessReady { process, line: None, status: Some(status) },
    }))
}

fn timed_out(process: &Process, condition: &Condition, timeout_ms: u64) -> ApiError {
    let text =
        format!("Process did not become ready within {timeout_ms}ms. Waiting for: {condition}");
    about(ApiError::new(ErrorCode::ProcessReadyTimeout, text), process, condition)
        .with("timeout", timeout_ms)
}

fn exited(process: &Process, condition: &Condition) -> ApiError {
    let exit_code = process.end().map_or(0, |end| end.ending.exit_code());
    let text = format!(
        "Process exited with code {exit_code} before it became ready. Waiting for: {condition}"
    );
    about(ApiError::new(ErrorCode::ProcessExitedBeforeReady, text), process, condition)
        .with("exitCode", exit_code)
}

fn about(error: ApiError, process: &Process, condition: &Condition) -> ApiError {
    error
        .with("processId", process.about.id.as_str())
        .with("command", process.about.command.as_str())
        .with("condition", condition.to_string())
}
