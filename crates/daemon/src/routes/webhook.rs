//! Webhooks: create, list, inspect, test, remove.

use std::sync::Arc;

use api::{
    error::ErrorBody,
    webhook::{CreateWebhook, NewWebhook, Webhook, WebhookList, WebhookTested},
};
use axum::{Extension, extract::State};
use engine::Key;
use http::StatusCode;

use crate::{
    app::App,
    extract::{Json, WebhookPath},
    reply::Failure,
};

/// Create a webhook.
///
/// Sends the events from now on to a URL: each as a POST of a `Delivery`, in order, until it is
/// answered with a 2xx within 10 seconds; after a failure again after a second, then after twice as
/// long each time, up to 5 minutes. So each arrives at least once, over restarts of the server too.
/// An event that is not taken before it is too old to be kept is given up, and the next delivery
/// has `missed`. Redirects are not followed.
///
/// The headers are those of Standard Webhooks: `webhook-id` (the same for the same event),
/// `webhook-timestamp` (seconds), and `webhook-signature`: `v1,` and the base64 of the HMAC-SHA256 of
/// `ID.TIMESTAMP.BODY`, under the bytes whose base64 follows `whsec_` in the secret. The answer here
/// holds that secret, which is told this once. For admin keys.
#[utoipa::path(
    post, path = "/v1/webhooks", operation_id = "createWebhook", tag = "webhook",
    request_body = CreateWebhook,
    responses(
        (status = 201, description = "The webhook and its secret", body = NewWebhook),
        (status = 400, description = "`VALIDATION_FAILED`", body = ErrorBody),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 409, description = "`WEBHOOK_EXISTS`; `RESOURCE_BUSY`: it is being created or removed", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXCEEDED`: a node has at most 64 webhooks", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Key>>,
    Json(request): Json<CreateWebhook>,
) -> Result<(StatusCode, axum::Json<NewWebhook>), Failure> {
    let made = app.engine().await?.create_webhook(request).await?;
    tracing::info!(webhook = %made.webhook.name, by = %caller.name(), "a webhook was created");
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// List webhooks.
///
/// All of them, sorted by name, without their secrets; each says how far it has got, and what is wrong
/// with its receiver. For admin keys.
#[utoipa::path(
    get, path = "/v1/webhooks", operation_id = "listWebhooks", tag = "webhook",
    responses(
        (status = 200, description = "The webhooks", body = WebhookList),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
    )
)]
pub(super) async fn list(State(app): State<App>) -> Result<axum::Json<WebhookList>, Failure> {
    let webhooks = app.engine().await?.webhooks();
    Ok(axum::Json(WebhookList { webhooks }))
}

/// Inspect a webhook.
#[utoipa::path(
    get, path = "/v1/webhooks/{name}", operation_id = "getWebhook", tag = "webhook",
    params(("name" = String, Path, description = "The webhook", example = "billing")),
    responses(
        (status = 200, description = "The webhook", body = Webhook),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 404, description = "`WEBHOOK_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<App>,
    WebhookPath(name): WebhookPath,
) -> Result<axum::Json<Webhook>, Failure> {
    Ok(axum::Json(app.engine().await?.webhook(&name)?))
}

/// Remove a webhook.
///
/// From the answer on nothing more is sent to it. For admin keys.
#[utoipa::path(
    delete, path = "/v1/webhooks/{name}", operation_id = "removeWebhook", tag = "webhook",
    params(("name" = String, Path, description = "The webhook", example = "billing")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 404, description = "`WEBHOOK_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`RESOURCE_BUSY`: it is being created or removed", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Key>>,
    WebhookPath(name): WebhookPath,
) -> Result<StatusCode, Failure> {
    app.engine().await?.remove_webhook(&name).await?;
    tracing::info!(webhook = %name, by = %caller.name(), "a webhook was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Test a webhook.
///
/// Sends its receiver a `Delivery` without an event, signed as all are, once, and says what came of it.
/// For admin keys.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/test", operation_id = "testWebhook", tag = "webhook",
    params(("name" = String, Path, description = "The webhook", example = "billing")),
    responses(
        (status = 200, description = "Whether it was taken", body = WebhookTested),
        (status = 403, description = "`FORBIDDEN`", body = ErrorBody),
        (status = 404, description = "`WEBHOOK_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn test(
    State(app): State<App>,
    WebhookPath(name): WebhookPath,
) -> Result<axum::Json<WebhookTested>, Failure> {
    Ok(axum::Json(app.engine().await?.test_webhook(&name).await?))
}
