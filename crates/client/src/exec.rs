//! Exec: run a command to its end, buffered or as a stream of events.

use std::time::Duration;

use api::{
    exec::{Encoding, ExecEvent, ExecRequest, ExecResult},
    id::SandboxId,
    limit::EXEC_TIMEOUT_MS,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::ACCEPT;
use reqwest::Method;

use crate::{
    Client, ClientError, EventStream,
    call::{ANSWER_LIMIT, TURN_LIMIT, protocol},
};

/// The events of a command; the last is [`ExecEvent::Exit`]. Dropping it ends the command.
pub type ExecStream = EventStream<ExecEvent>;

impl Client {
    /// Runs a command to its end and returns what it wrote. The sandbox is created when it does
    /// not exist. A command that fails is a result, not an error.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `COMMAND_NOT_FOUND`, `FILE_NOT_FOUND` (the working directory), ...;
    /// with `SESSION_TERMINATED` when the command ended the shell of its session.
    ///
    /// # Cancel safety
    /// Dropping the future ends the command with all its processes.
    pub async fn exec(
        &self,
        id: &SandboxId,
        request: &ExecRequest,
    ) -> Result<ExecResult, ClientError> {
        let attempt = "run a command";
        let limit = Duration::from_millis(request.timeout_ms.unwrap_or(EXEC_TIMEOUT_MS));
        let call = self.request(Method::POST, &path(id)).json(request);
        self.send_json(attempt, limit.saturating_add(start_limit(request)), call).await
    }

    /// Starts a command and returns its events as they happen.
    ///
    /// # Errors
    /// As [`Client::exec`], before the command runs; later failures come from the stream.
    pub async fn exec_stream(
        &self,
        id: &SandboxId,
        request: &ExecRequest,
    ) -> Result<ExecStream, ClientError> {
        let attempt = "run a command";
        let call = self.request(Method::POST, &path(id)).header(ACCEPT, "text/event-stream");
        let response = self.send(attempt, start_limit(request), call.json(request)).await?;
        Ok(EventStream::new(self.clone(), attempt, response, |event| {
            matches!(event, ExecEvent::Exit { .. })
        }))
    }
}

/// How long the start of a command may take: in a session it waits for its turn.
fn start_limit(request: &ExecRequest) -> Duration {
    if request.session.is_some() { TURN_LIMIT } else { ANSWER_LIMIT }
}

fn path(id: &SandboxId) -> String {
    format!("/v1/sandboxes/{id}/exec")
}

/// The bytes of an output text, written in the request's encoding.
///
/// # Errors
/// [`ClientError::Protocol`] when a text in base64 is not.
pub fn decode_output(data: &str, encoding: Encoding) -> Result<Vec<u8>, ClientError> {
    match encoding {
        Encoding::Utf8 => Ok(data.as_bytes().to_vec()),
        Encoding::Base64 => STANDARD.decode(data).map_err(|fault| {
            protocol("run a command", format!("its output is no base64: {fault}"))
        }),
    }
}

/// Any bytes as the `stdin` of a request whose encoding is [`Encoding::Base64`].
#[must_use]
pub fn encode_stdin(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
