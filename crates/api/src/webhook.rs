//! Webhooks: events sent to a URL of the operator's, signed, in order, until they are taken.
//!
//! Each event is a POST of a [`Delivery`] in JSON. It is taken when the answer is a 2xx, within ten
//! seconds; redirects are not followed. Anything else is tried again, first after a second, then after
//! twice as long each time, up to five minutes; later events wait for it. So each event arrives at
//! least once and in order, over restarts of the server too. One that is not taken before it is too
//! old to be kept is given up, and the next delivery says so.
//!
//! The headers are those of the Standard Webhooks specification: `webhook-id` is the same whenever
//! the same event is sent, `webhook-timestamp` is the time of sending in seconds since 1970-01-01 UTC,
//! and `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 of `ID.TIMESTAMP.BODY` under the
//! secret, whose bytes are the base64 behind its `whsec_`. A receiver compares the signature and
//! refuses timestamps that are some minutes off.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    event::{Event, EventKind},
    id::{IdPrefix, WebhookName},
};

/// Body of `POST /v1/webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "billing", "url": "https://example.com/sandbar",
    "kinds": ["created", "destroyed"]}))]
pub struct CreateWebhook {
    /// Its name, which no other webhook has.
    pub name: WebhookName,
    /// Where events are sent: `http://` or `https://`, without a user in it. Certificates are checked
    /// against those that the server's machine trusts.
    pub url: String,
    /// Only events of these kinds; all, unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<EventKind>,
    /// Only events of sandboxes whose ids begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IdPrefix>,
    /// Only events of sandboxes that had this label, as `name` or `name=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A webhook, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its name.
    pub name: WebhookName,
    /// Where events are sent.
    pub url: String,
    /// Only events of these kinds; all, if empty.
    #[serde(default)]
    pub kinds: Vec<EventKind>,
    /// Only events of sandboxes whose ids begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IdPrefix>,
    /// Only events of sandboxes that had this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// The last event that was taken, or the last there was when it was created.
    pub cursor: u64,
    /// Why the event after that is not taken, while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<WebhookFailure>,
}

/// Why an event is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookFailure {
    /// How often it was sent, since the server's start.
    pub attempts: u32,
    /// What went wrong last.
    pub message: String,
    /// When it is sent again, in milliseconds since 1970-01-01 UTC.
    pub next_attempt_at_ms: i64,
}

/// A webhook that was just made, with its secret, which is told this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// What its deliveries are signed with. Begins with `whsec_`.
    pub secret: String,
}

impl std::fmt::Debug for NewWebhook {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewWebhook").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// All webhooks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookList {
    /// Sorted by name.
    pub webhooks: Vec<Webhook>,
}

/// What came of `POST /v1/webhooks/{name}/test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookTested {
    /// It was answered with a 2xx.
    pub taken: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a webhook's receiver is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The webhook.
    pub webhook: WebhookName,
    /// What happened. None: somebody tests the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Some events before this one were given up: they were not taken while they were kept.
    #[serde(default)]
    pub missed: bool,
}
