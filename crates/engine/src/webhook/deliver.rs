//! Sends one webhook its events, each until it is taken.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    error::{ApiError, ErrorCode},
    event::Event,
    webhook::{Delivery, WebhookFailure},
};
use http::{HeaderName, HeaderValue};
use tokio::time::timeout;

use super::{Webhook, post::PostError};
use crate::{
    error, event,
    node::{Node, now_ms},
    record::Change,
};

/// Pause after the first attempt that failed. It doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: how long a receiver that is back waits for what it missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How often it is recorded which events were passed over because the webhook does not ask for them:
/// they may be dropped, and none of them is one that it missed.
const PASSED_INTERVAL: Duration = Duration::from_secs(60);

/// Pause before events that cannot be read are read again.
const READ_PAUSE: Duration = Duration::from_secs(10);

/// Sends until the webhook is removed or the node takes no new work.
pub(super) fn spawn(node: &Arc<Node>, webhook: Arc<Webhook>) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        tokio::select! {
            () = owner.closing.cancelled() => {}
            () = webhook.ended.cancelled() => {}
            () = deliver_all(&owner, &webhook) => {}
        }
    });
}

async fn deliver_all(node: &Node, webhook: &Webhook) {
    let mut missed = false;
    loop {
        let cursor = webhook.progress().cursor;
        let mut follower =
            match event::follow_from(node, webhook.filter.clone(), Some(cursor)).await {
                Ok(follower) => follower,
                Err(error) => {
                    missed |= skip_missed(webhook, &error).await;
                    continue;
                }
            };
        loop {
            let event = match timeout(PASSED_INTERVAL, follower.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => {
                    missed |= skip_missed(webhook, &error).await;
                    break;
                }
                Ok(None) => return,
                Err(_elapsed) => {
                    pass(node, webhook, follower.cursor()).await;
                    continue;
                }
            };
            let cursor = event.cursor;
            deliver(webhook, event, missed).await;
            missed = false;
            pass(node, webhook, cursor).await;
        }
    }
}

/// Nothing up to this event is to be sent any more, also after a restart.
async fn pass(node: &Node, webhook: &Webhook, cursor: u64) {
    if webhook.progress().cursor < cursor {
        webhook.progress().cursor = cursor;
        let name = webhook.request.name.clone();
        node.records.submit(Change::WebhookCursor(name, cursor)).await;
    }
}

/// Goes on with the oldest event that is kept, if the error says that there are gone ones before.
async fn skip_missed(webhook: &Webhook, error: &ApiError) -> bool {
    let oldest = error.details.get("oldest").and_then(serde_json::Value::as_u64);
    if let (ErrorCode::EventsMissed, Some(oldest)) = (error.code, oldest) {
        webhook.progress().cursor = oldest.saturating_sub(1);
        return true;
    }
    tracing::warn!(webhook = %webhook.request.name, %error, "a webhook's events cannot be read");
    tokio::time::sleep(READ_PAUSE).await;
    false
}

/// Sends an event until it is taken.
async fn deliver(webhook: &Webhook, event: Event, missed: bool) {
    let id = format!("event-{}", event.cursor);
    let delivery = Delivery { webhook: webhook.request.name.clone(), event: Some(event), missed };
    let (mut pause, mut attempts) = (FIRST_PAUSE, 0);
    while let Err(error) = send(webhook, &id, &delivery).await {
        attempts += 1;
        let message = error::chain(&error);
        if attempts == 1 {
            tracing::warn!(webhook = %webhook.request.name, message, "a webhook's receiver takes nothing");
        }
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let next_attempt_at_ms = now_ms().saturating_add(pause_ms);
        webhook.progress().failure = Some(WebhookFailure { attempts, message, next_attempt_at_ms });
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    webhook.progress().failure = None;
}

/// Sends a delivery once. It is signed for the time at which it is.
pub(super) async fn send(
    webhook: &Webhook,
    id: &str,
    delivery: &Delivery,
) -> Result<(), PostError> {
    let body = serde_json::to_vec(delivery).expect("a delivery is texts and numbers");
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = webhook.secret.sign(id, timestamp, &body);
    let value =
        |text: &str| HeaderValue::from_str(text).map_err(|error| PostError::Request(error.into()));
    let headers = [
        (HeaderName::from_static("webhook-id"), value(id)?),
        (HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp)),
        (HeaderName::from_static("webhook-signature"), value(&signature)?),
    ];
    webhook.target.post(headers, body.into()).await
}
