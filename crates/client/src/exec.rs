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

use tokio::time::{Instant, sleep};

use crate::{
    Client, ClientError, EventStream,
    call::{ANSWER_LIMIT, TURN_LIMIT, protocol},
    stream::{COME_BACK_LIMIT, COME_BACK_PAUSE, LAST_EVENT, WayBack, is_passing},
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
        let call = self.request(Method::POST, &path(id)).json(request);
        self.send_json(ATTEMPT, answer_limit(request), call).await
    }

    /// As [`Client::exec`], safe to repeat: calls with one `key` and one request run the command
    /// once, and each returns its result. When the connection breaks or the server is replaced,
    /// the call comes back by itself for as long as the command waits,
    /// [`api::limit::RESUME_GRACE_SECS`].
    ///
    /// # Errors
    /// As [`Client::exec`], and [`ClientError::Api`] with `IDEMPOTENCY_CONFLICT` when the key was
    /// used for another request.
    ///
    /// # Cancel safety
    /// After dropping the future the command waits for another call with the key before it ends.
    pub async fn exec_once(
        &self,
        id: &SandboxId,
        request: &ExecRequest,
        key: &str,
    ) -> Result<ExecResult, ClientError> {
        let mut broken_at = None;
        loop {
            let call = self.request(Method::POST, &path(id)).header(KEY, key).json(request);
            let begun = Instant::now();
            match self.send_json(ATTEMPT, answer_limit(request), call).await {
                Err(error) if is_passing(&error) => {
                    // What ran for long before it broke has a whole time to come back.
                    let since = broken_at.get_or_insert_with(Instant::now);
                    if begun.elapsed() > COME_BACK_LIMIT {
                        *since = Instant::now();
                    } else if since.elapsed() > COME_BACK_LIMIT {
                        return Err(error);
                    }
                    sleep(COME_BACK_PAUSE).await;
                }
                done => return done,
            }
        }
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
        let call = self.request(Method::POST, &path(id)).header(ACCEPT, "text/event-stream");
        let response = self.send(ATTEMPT, start_limit(request), call.json(request)).await?;
        Ok(EventStream::new(self.clone(), ATTEMPT, response, is_exit))
    }

    /// As [`Client::exec_stream`], safe to repeat and to interrupt: a stream whose connection
    /// breaks goes on by itself where it was, within [`api::limit::RESUME_GRACE_SECS`]. With
    /// `after`, the cursor of an earlier stream with this key and request, it goes on after that.
    ///
    /// # Errors
    /// As [`Client::exec_once`]; `PROCESS_NOT_FOUND` when nothing is known of the stream that is to
    /// go on. From the stream, `RESOURCE_BUSY` when another call with the key reads it now.
    ///
    /// # Cancel safety
    /// After dropping the stream the command waits for another call with the key before it ends.
    pub async fn exec_stream_once(
        &self,
        id: &SandboxId,
        request: &ExecRequest,
        key: &str,
        after: Option<u64>,
    ) -> Result<ExecStream, ClientError> {
        let (url, key, request) = (path(id), key.to_owned(), request.clone());
        let way_back: WayBack = Box::new(move |client, after| {
            let call = client.request(Method::POST, &url).header(ACCEPT, "text/event-stream");
            let call = call.header(KEY, &key).json(&request);
            match after {
                Some(cursor) => call.header(LAST_EVENT, cursor),
                None => call,
            }
        });
        let response = self.send(ATTEMPT, ANSWER_LIMIT, way_back(self, after)).await?;
        Ok(EventStream::resumable(self.clone(), ATTEMPT, response, is_exit, (way_back, after)))
    }
}

const ATTEMPT: &str = "run a command";

const KEY: &str = "idempotency-key";

/// A command may take its time, and then the answer.
fn answer_limit(request: &ExecRequest) -> Duration {
    let limit = Duration::from_millis(request.timeout_ms.unwrap_or(EXEC_TIMEOUT_MS));
    limit.saturating_add(ANSWER_LIMIT)
}

pub(crate) fn is_exit(event: &ExecEvent) -> bool {
    matches!(event, ExecEvent::Exit { .. })
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
