//! Git: repositories checked out inside a sandbox.

use std::time::Duration;

use api::{
    git::{GitCheckout, GitCheckoutResult, GitEvent},
    id::SandboxId,
    limit::GIT_TIMEOUT_MS,
};
use http::header::ACCEPT;
use reqwest::{Method, RequestBuilder};

use crate::{Client, ClientError, EventStream, call::ANSWER_LIMIT};

/// The events of a checkout; the last is [`GitEvent::Done`] or [`GitEvent::Failed`]. Dropping it
/// ends the checkout, and what git has made is deleted.
pub type GitStream = EventStream<GitEvent>;

const CHECK_OUT: &str = "check a repository out";

impl Client {
    /// Checks a repository out and returns when its files are there.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `GIT_REPOSITORY_NOT_FOUND`, `GIT_AUTH_FAILED`,
    /// `DIRECTORY_NOT_EMPTY`, ...
    ///
    /// # Cancel safety
    /// Dropping the future ends git, and what it has made is deleted.
    pub async fn git_checkout(
        &self,
        id: &SandboxId,
        request: &GitCheckout,
    ) -> Result<GitCheckoutResult, ClientError> {
        let limit = Duration::from_millis(request.timeout_ms.unwrap_or(GIT_TIMEOUT_MS));
        let call = self.checkout(id, request);
        self.send_json(CHECK_OUT, limit.saturating_add(ANSWER_LIMIT), call).await
    }

    /// Checks a repository out and returns what git says while it works.
    ///
    /// # Errors
    /// As [`Client::git_checkout`] for what is refused before git runs; later failures are the event
    /// [`GitEvent::Failed`].
    pub async fn git_checkout_stream(
        &self,
        id: &SandboxId,
        request: &GitCheckout,
    ) -> Result<GitStream, ClientError> {
        let call = self.checkout(id, request).header(ACCEPT, "text/event-stream");
        let response = self.send(CHECK_OUT, ANSWER_LIMIT, call).await?;
        Ok(EventStream::new(self.clone(), CHECK_OUT, response, GitEvent::is_final))
    }

    fn checkout(&self, id: &SandboxId, request: &GitCheckout) -> RequestBuilder {
        let path = format!("/v1/sandboxes/{id}/git/checkout");
        self.request(Method::POST, &path).json(request)
    }
}
