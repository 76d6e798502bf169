//! The node: is it there; stop it.

use api::node::{Health, Shutdown};
use reqwest::Method;

use crate::{
    Client, ClientError,
    call::{ANSWER_LIMIT, MAX_ANSWER_BYTES, protocol},
};

impl Client {
    /// Asks the server how it is.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when none listens.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.send_json("reach the server", ANSWER_LIMIT, self.request(Method::GET, "/healthz"))
            .await
    }

    /// The server's metrics, in the `OpenMetrics` text format.
    ///
    /// # Errors
    /// [`ClientError`]; `FORBIDDEN` for a key with a scope.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        const ATTEMPT: &str = "read the metrics";
        let response =
            self.send(ATTEMPT, ANSWER_LIMIT, self.request(Method::GET, "/metrics")).await?;
        let bytes = self.collect(ATTEMPT, response, MAX_ANSWER_BYTES).await?;
        String::from_utf8(bytes).map_err(|fault| protocol(ATTEMPT, fault.to_string()))
    }

    /// Asks the server to end. It answers before it has: it is gone when [`Client::health`] is
    /// [`ClientError::Unreachable`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shut_down(&self, request: &Shutdown) -> Result<(), ClientError> {
        let call = self.request(Method::POST, "/v1/node:shutdown").json(request);
        self.send("shut the server down", ANSWER_LIMIT, call).await.map(drop)
    }
}
