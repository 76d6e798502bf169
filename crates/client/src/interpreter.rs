//! The code interpreter: contexts, and code that runs in them.

use std::time::Duration;

use api::{
    id::{ContextId, SandboxId},
    interpreter::{Context, ContextList, CreateContext, Interrupted, RunCode, RunEvent, RunResult},
    limit::{EXEC_TIMEOUT_MS, INTERRUPT_GRACE_MS},
};
use http::header::ACCEPT;
use reqwest::Method;

use crate::{
    Client, ClientError, EventStream,
    call::{ANSWER_LIMIT, TURN_LIMIT},
};

/// The events of a run; the last is [`RunEvent::End`]. Dropping it interrupts the code.
pub type RunStream = EventStream<RunEvent>;

impl Client {
    /// Makes a context, and returns when its interpreter takes code. The sandbox is created when it
    /// does not exist.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `CONTEXT_EXISTS`, `INTERPRETER_NOT_AVAILABLE`, `FILE_NOT_FOUND` (its
    /// directory), ...
    pub async fn create_context(
        &self,
        id: &SandboxId,
        request: &CreateContext,
    ) -> Result<Context, ClientError> {
        let call = self.request(Method::POST, &contexts(id)).json(request);
        self.send_json("make a context", TURN_LIMIT, call).await
    }

    /// The contexts of a sandbox, oldest first.
    ///
    /// # Errors
    /// [`ClientError`] as for every call.
    pub async fn contexts(&self, id: &SandboxId) -> Result<Vec<Context>, ClientError> {
        let call = self.request(Method::GET, &contexts(id));
        let list: ContextList = self.send_json("list the contexts", ANSWER_LIMIT, call).await?;
        Ok(list.contexts)
    }

    /// One context.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `CONTEXT_NOT_FOUND` or `CONTEXT_EXPIRED`.
    pub async fn context(
        &self,
        id: &SandboxId,
        context: &ContextId,
    ) -> Result<Context, ClientError> {
        let call = self.request(Method::GET, &path(id, context));
        self.send_json("look at a context", ANSWER_LIMIT, call).await
    }

    /// Ends a context with everything that its code started.
    ///
    /// # Errors
    /// As [`Client::context`].
    pub async fn delete_context(
        &self,
        id: &SandboxId,
        context: &ContextId,
    ) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &path(id, context));
        self.send("delete a context", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Interrupts the code that runs in a context; false when none did.
    ///
    /// # Errors
    /// As [`Client::context`].
    pub async fn interrupt_context(
        &self,
        id: &SandboxId,
        context: &ContextId,
    ) -> Result<bool, ClientError> {
        let call = self.request(Method::POST, &format!("{}/interrupt", path(id, context)));
        let answer: Interrupted = self.send_json("interrupt code", ANSWER_LIMIT, call).await?;
        Ok(answer.interrupted)
    }

    /// Gives a context a fresh interpreter.
    ///
    /// # Errors
    /// As [`Client::context`] and [`Client::create_context`].
    pub async fn restart_context(
        &self,
        id: &SandboxId,
        context: &ContextId,
    ) -> Result<Context, ClientError> {
        let call = self.request(Method::POST, &format!("{}/restart", path(id, context)));
        self.send_json("restart a context", TURN_LIMIT, call).await
    }

    /// Runs code to its end, in a context or in its language's default one. Code that fails is a
    /// result, not an error.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `CONTEXT_NOT_FOUND`, `INTERPRETER_NOT_AVAILABLE`, ...
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the code.
    pub async fn run_code(
        &self,
        id: &SandboxId,
        context: Option<&ContextId>,
        request: &RunCode,
    ) -> Result<RunResult, ClientError> {
        let call = self.request(Method::POST, &run(id, context)).json(request);
        self.send_json(ATTEMPT, answer_limit(request), call).await
    }

    /// Runs code and returns its events as they happen.
    ///
    /// # Errors
    /// As [`Client::run_code`], before the code runs; later failures come from the stream.
    pub async fn run_code_stream(
        &self,
        id: &SandboxId,
        context: Option<&ContextId>,
        request: &RunCode,
    ) -> Result<RunStream, ClientError> {
        let call =
            self.request(Method::POST, &run(id, context)).header(ACCEPT, "text/event-stream");
        let response = self.send(ATTEMPT, TURN_LIMIT, call.json(request)).await?;
        let is_end = |event: &RunEvent| matches!(event, RunEvent::End { .. });
        Ok(EventStream::new(self.clone(), ATTEMPT, response, is_end))
    }
}

const ATTEMPT: &str = "run code";

/// Code may take its time and then some, after others in its context that do the same.
fn answer_limit(request: &RunCode) -> Duration {
    let limit = request.timeout_ms.map_or(EXEC_TIMEOUT_MS, |limit| limit + INTERRUPT_GRACE_MS);
    Duration::from_millis(limit).saturating_add(TURN_LIMIT)
}

fn contexts(id: &SandboxId) -> String {
    format!("/v1/sandboxes/{id}/contexts")
}

/// The characters of a context's id stand for themselves in a path.
fn path(id: &SandboxId, context: &ContextId) -> String {
    format!("{}/{context}", contexts(id))
}

fn run(id: &SandboxId, context: Option<&ContextId>) -> String {
    match context {
        Some(context) => format!("{}/run", path(id, context)),
        None => format!("/v1/sandboxes/{id}/run"),
    }
}
