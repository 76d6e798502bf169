//! Webhooks: which there are, and how far each has got.
//!
//! ```text
//! create ─▶ record ─▶ task: follow the events after its cursor ─▶ send until taken ─▶ record the cursor
//! ```
//!
//! Owns: their table, their secrets, one task each. Does not: know what an event means.
//!
//! Invariants:
//! - The cursor on record is that of an event that was taken, and all before it were, or were given up
//!   and said to be missed; so after any crash each event arrives at least once, in order.
//! - A name has one change at a time, for changes hold the table's claim to their end.

mod deliver;
mod post;
mod secret;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    id::WebhookName,
    limit::WEBHOOKS,
    webhook::{
        CreateWebhook, Delivery, NewWebhook, Webhook as Description, WebhookFailure, WebhookTested,
    },
};
use tokio_util::sync::CancellationToken;

use self::post::Target;
pub(crate) use self::secret::WebhookSecret;
use crate::{
    EngineError,
    error::{self, Publish},
    event::{self, Filter},
    node::{Node, now_ms},
    record::{Change, WebhookRecord},
};

/// The webhooks of a node.
#[derive(Debug, Default)]
pub(crate) struct Webhooks(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<WebhookName, Arc<Webhook>>,
    /// Names that are being created or removed.
    changing: BTreeSet<WebhookName>,
}

/// One webhook.
#[derive(Debug)]
struct Webhook {
    request: CreateWebhook,
    filter: Filter,
    target: Target,
    secret: WebhookSecret,
    created_at_ms: i64,
    progress: Mutex<Progress>,
    /// It was removed.
    ended: CancellationToken,
}

#[derive(Debug, Clone)]
struct Progress {
    cursor: u64,
    failure: Option<WebhookFailure>,
}

impl Webhook {
    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    fn new(record: WebhookRecord) -> Result<Self, EngineError> {
        let WebhookRecord { request, secret, created_at_ms, cursor } = record;
        let (target, filter) = check(&request)?;
        Ok(Self {
            request,
            filter,
            target,
            secret,
            created_at_ms,
            progress: Mutex::new(Progress { cursor, failure: None }),
            ended: CancellationToken::new(),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self) -> Description {
        let CreateWebhook { name, url, kinds, prefix, label } = self.request.clone();
        let Progress { cursor, failure } = self.progress().clone();
        let created_at_ms = self.created_at_ms;
        Description { name, url, kinds, prefix, label, created_at_ms, cursor, failure }
    }
}

/// # Errors
/// `VALIDATION_FAILED` naming the field.
fn check(request: &CreateWebhook) -> Result<(Target, Filter), EngineError> {
    let CreateWebhook { name: _, url, kinds, prefix, label } = request;
    let target = Target::of(url)?;
    let filter = Filter::new(prefix.as_ref(), None, label.as_deref(), kinds.clone())?;
    Ok((target, filter))
}

impl Webhooks {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic happens under the lock, so a poisoned one holds whole data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &WebhookName) -> Result<Arc<Webhook>, EngineError> {
        let found = self.table().by_name.get(name).cloned();
        found.ok_or_else(|| error::webhook_not_found(name))
    }
}

/// A name that is being changed, until this is dropped.
struct Claim {
    node: Arc<Node>,
    name: WebhookName,
}

impl Claim {
    fn take(
        node: &Arc<Node>,
        name: &WebhookName,
        check: impl FnOnce(&Table) -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        node.check_open()?;
        let mut table = node.webhooks.table();
        if table.changing.contains(name) {
            return Err(error::webhook_busy(name));
        }
        check(&table)?;
        table.changing.insert(name.clone());
        Ok(Self { node: Arc::clone(node), name: name.clone() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.node.webhooks.table().changing.remove(&self.name);
    }
}

/// Puts back those on record, and lets them go on.
pub(crate) fn restore(node: &Arc<Node>, records: Vec<WebhookRecord>) {
    for record in records {
        let name = record.request.name.clone();
        match Webhook::new(record) {
            Ok(webhook) => drop(start(node, webhook)),
            Err(error) => tracing::error!(webhook = %name, %error, "a webhook cannot be used"),
        }
    }
}

fn start(node: &Arc<Node>, webhook: Webhook) -> Arc<Webhook> {
    let webhook = Arc::new(webhook);
    node.webhooks.table().by_name.insert(webhook.request.name.clone(), Arc::clone(&webhook));
    deliver::spawn(node, Arc::clone(&webhook));
    webhook
}

/// Makes a webhook, for the events from now on.
pub(crate) async fn create(
    node: &Arc<Node>,
    request: CreateWebhook,
) -> Result<NewWebhook, EngineError> {
    let name = request.name.clone();
    check(&request)?;
    let claim = Claim::take(node, &name, |table| {
        if table.by_name.contains_key(&name) {
            return Err(error::webhook_exists(&name));
        }
        let taken = table.by_name.len() + table.changing.len();
        if taken < WEBHOOKS { Ok(()) } else { Err(error::too_many_webhooks()) }
    })?;
    let secret = WebhookSecret::generate()?;
    let told = secret.reveal();
    let owner = Arc::clone(node);
    let work = async move {
        let failed = "recording the webhook";
        let cursor = event::newest(&owner).await?;
        let record = WebhookRecord { request, secret, created_at_ms: now_ms(), cursor };
        let change = Change::CreateWebhook(Box::new(record.clone()));
        if let Err(fault) = owner.records.write(change).await {
            // A write that came late after all is taken back by this one.
            owner.records.submit(Change::RemoveWebhook(claim.name.clone())).await;
            return Err(fault.publish(failed));
        }
        let webhook = start(&owner, Webhook::new(record)?);
        drop(claim);
        Ok(webhook.describe())
    };
    let made = node.work.spawn(work).await;
    let webhook = made.map_err(|_panicked| error::internal("recording the webhook"))??;
    Ok(NewWebhook { webhook, secret: told })
}

/// All webhooks, sorted by name.
pub(crate) fn list(node: &Node) -> Vec<Description> {
    node.webhooks.table().by_name.values().map(|webhook| webhook.describe()).collect()
}

/// The webhook with this name.
pub(crate) fn get(node: &Node, name: &WebhookName) -> Result<Description, EngineError> {
    node.webhooks.find(name).map(|webhook| webhook.describe())
}

/// Removes a webhook. At return nothing more is sent to it, now or after a restart.
pub(crate) async fn remove(node: &Arc<Node>, name: &WebhookName) -> Result<(), EngineError> {
    let claim = Claim::take(node, name, |table| match table.by_name.contains_key(name) {
        true => Ok(()),
        false => Err(error::webhook_not_found(name)),
    })?;
    let owner = Arc::clone(node);
    let work = async move {
        let written = owner.records.write(Change::RemoveWebhook(claim.name.clone())).await;
        written.map_err(|fault| fault.publish("recording that the webhook is gone"))?;
        let gone = owner.webhooks.table().by_name.remove(&claim.name);
        if let Some(webhook) = gone {
            webhook.ended.cancel();
        }
        Ok(())
    };
    let removed = node.work.spawn(work).await;
    removed.map_err(|_panicked| error::internal("removing the webhook"))?
}

/// Sends a delivery without an event to the webhook's receiver, once, beside those of events.
pub(crate) async fn test(node: &Node, name: &WebhookName) -> Result<WebhookTested, EngineError> {
    node.check_open()?;
    let webhook = node.webhooks.find(name)?;
    let delivery = Delivery { webhook: name.clone(), event: None, missed: false };
    let id = format!("test-{}", now_ms());
    let sent = deliver::send(&webhook, &id, &delivery).await;
    let message = sent.err().map(|error| error::chain(&error));
    Ok(WebhookTested { taken: message.is_none(), message })
}
