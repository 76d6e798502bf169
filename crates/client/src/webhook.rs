//! Webhooks: create, list, test, remove. All need an admin key.

use api::{
    id::WebhookName,
    webhook::{CreateWebhook, NewWebhook, Webhook, WebhookList, WebhookTested},
};
use reqwest::Method;

use crate::{Client, ClientError, call::ANSWER_LIMIT};

impl Client {
    /// Creates a webhook. Its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `WEBHOOK_EXISTS`, `VALIDATION_FAILED`, `FORBIDDEN`, ...
    pub async fn create_webhook(&self, request: &CreateWebhook) -> Result<NewWebhook, ClientError> {
        let call = self.request(Method::POST, "/v1/webhooks").json(request);
        self.send_json("create a webhook", ANSWER_LIMIT, call).await
    }

    /// All webhooks, sorted by name.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `FORBIDDEN`.
    pub async fn list_webhooks(&self) -> Result<Vec<Webhook>, ClientError> {
        let call = self.request(Method::GET, "/v1/webhooks");
        let list: WebhookList = self.send_json("list the webhooks", ANSWER_LIMIT, call).await?;
        Ok(list.webhooks)
    }

    /// Sends a webhook's receiver a delivery without an event.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `WEBHOOK_NOT_FOUND`, `FORBIDDEN`; that it was not taken is an answer.
    pub async fn test_webhook(&self, name: &WebhookName) -> Result<WebhookTested, ClientError> {
        let call = self.request(Method::POST, &format!("/v1/webhooks/{name}/test"));
        self.send_json("test a webhook", ANSWER_LIMIT, call).await
    }

    /// Removes a webhook.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `WEBHOOK_NOT_FOUND`, `FORBIDDEN`.
    pub async fn remove_webhook(&self, name: &WebhookName) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &format!("/v1/webhooks/{name}"));
        self.send("remove a webhook", ANSWER_LIMIT, call).await.map(drop)
    }
}
