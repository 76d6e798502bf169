//! The only place that gives failures inside the engine their public codes.
//!
//! Two texts: what is said here goes to callers and names no host paths; the chain of causes is
//! logged where the failure becomes a decision.

use std::{io, time::Duration};

use api::{
    error::{ApiError, ErrorCode},
    id::{CheckpointId, IdPrefix, ImageRef, KeyName, SandboxId, WebhookName},
    limit::{CHECKPOINTS, CREATES_PER_KEY, EXPORT_BYTES, KEYS, WEBHOOKS},
};
use image::ImageError;
use jail::JailError;

use crate::{
    EngineError,
    launch::LaunchError,
    reader::READERS_PER_KEY,
    record::{CheckpointRecord, RecordError},
    state::Failure,
};

/// Seconds after which a caller may try again when the node was busy or full.
const RETRY_AFTER_SECS: u64 = 1;

pub(crate) fn invalid(field: &str, message: &str) -> EngineError {
    ApiError::new(ErrorCode::ValidationFailed, message).with("field", field)
}

pub(crate) fn too_large(field: &str, limit: usize) -> EngineError {
    let message = format!("{field} has more than {limit} bytes");
    ApiError::new(ErrorCode::PayloadTooLarge, message).with("field", field).with("limit", limit)
}

/// The message of an error with those of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) fn not_found(id: &SandboxId) -> EngineError {
    let message = format!("there is no sandbox with the id {id}");
    ApiError::new(ErrorCode::SandboxNotFound, message).with("id", id.as_str())
}

pub(crate) fn exists(id: &SandboxId, differences: &[&str]) -> EngineError {
    let fields = differences.join(", ");
    let message = format!(
        "the sandbox {id} exists with other settings ({fields}); destroy it first, or use another id"
    );
    ApiError::new(ErrorCode::SandboxExists, message).with("id", id.as_str()).with("fields", fields)
}

pub(crate) fn checkpoint_not_found(id: &CheckpointId) -> EngineError {
    let message = format!("the sandbox has no checkpoint with the id {id}");
    ApiError::new(ErrorCode::CheckpointNotFound, message).with("checkpoint", id.as_str())
}

pub(crate) fn checkpoint_exists(id: &CheckpointId) -> EngineError {
    let message = format!("the sandbox has a checkpoint with the id {id} already; use another id");
    ApiError::new(ErrorCode::CheckpointExists, message).with("checkpoint", id.as_str())
}

pub(crate) fn events_missed(after: u64, oldest: u64) -> EngineError {
    let message = format!(
        "the events after {after} are not kept any more, or are of other records of this node; look \
         what the sandboxes are, and go on after {}",
        oldest - 1
    );
    ApiError::new(ErrorCode::EventsMissed, message).with("oldest", oldest)
}

pub(crate) fn too_many_checkpoints() -> EngineError {
    let message = format!("the sandbox has its {CHECKPOINTS} checkpoints; delete one first");
    ApiError::new(ErrorCode::TooManyRequests, message).with("limit", CHECKPOINTS)
}

pub(crate) fn too_many_readers(limit: usize) -> EngineError {
    let text = "as many comparisons, exports and imports are under way on this node as may be; try \
                again when one of them is done";
    EngineError::new(ErrorCode::TooManyRequests, text).with("limit", limit)
}

pub(crate) fn readers_too_many(key: &KeyName) -> EngineError {
    let text = format!(
        "{READERS_PER_KEY} comparisons, exports and imports are under way for the key {key}; try \
         again when one of them is done"
    );
    EngineError::new(ErrorCode::TooManyRequests, text).with("limit", READERS_PER_KEY)
}

pub(crate) fn checkpoint_too_large(checkpoint: &CheckpointRecord) -> EngineError {
    let (id, bytes) = (&checkpoint.id, checkpoint.size_bytes);
    let text =
        format!("the checkpoint {id} has {bytes} bytes; up to {EXPORT_BYTES} can be exported");
    EngineError::new(ErrorCode::TreeTooLarge, text).with("limitBytes", EXPORT_BYTES)
}

pub(crate) fn checkpoints_not_available(why: &str) -> EngineError {
    let message = format!("the files of this sandbox cannot be copied at once: {why}");
    ApiError::new(ErrorCode::CheckpointsNotAvailable, message)
}

pub(crate) fn capacity(limit: usize) -> EngineError {
    let message =
        format!("this node already has its {limit} sandboxes; destroy one or raise its limit");
    ApiError::new(ErrorCode::CapacityExceeded, message)
        .with("limit", limit)
        .with("retryAfterSecs", RETRY_AFTER_SECS)
}

pub(crate) fn no_place() -> EngineError {
    let message = "the node was given fewer addresses or user ids, and has none for this sandbox: it does \
                   not run until they are as they were; its files can be copied by a fork, and it can \
                   be destroyed";
    ApiError::new(ErrorCode::SandboxFailed, message)
}

/// How much is left is nobody's business but the operator's: the log has it.
pub(crate) fn machine_is_full(resource: &str) -> EngineError {
    let message = format!(
        "the machine is short of {resource}, so no sandbox is created or started; those that run go \
         on: end some, or try again"
    );
    ApiError::new(ErrorCode::CapacityExceeded, message)
        .with("resource", resource)
        .with("retryAfterSecs", RETRY_AFTER_SECS)
}

pub(crate) fn creates_too_many(key: &KeyName) -> EngineError {
    let message = format!(
        "{CREATES_PER_KEY} sandboxes are being created or started for the key {key}; try again"
    );
    ApiError::new(ErrorCode::TooManyRequests, message)
        .with("limit", CREATES_PER_KEY)
        .with("retryAfterSecs", RETRY_AFTER_SECS)
}

pub(crate) fn visits_too_many() -> EngineError {
    let message = format!(
        "{CREATES_PER_KEY} sandboxes are being started for visitors of previews; try again"
    );
    ApiError::new(ErrorCode::TooManyRequests, message)
        .with("limit", CREATES_PER_KEY)
        .with("retryAfterSecs", RETRY_AFTER_SECS)
}

pub(crate) fn too_many_creations() -> EngineError {
    let message =
        "this node is creating or starting as many sandboxes at once as it may; try again";
    ApiError::new(ErrorCode::CapacityExceeded, message).with("retryAfterSecs", RETRY_AFTER_SECS)
}

/// `prefix` in the details is for programs that choose ids themselves.
pub(crate) fn out_of_scope(key: &KeyName, prefix: &IdPrefix) -> EngineError {
    let message = format!(
        "the key {key} is for sandboxes whose id begins with {prefix}; use such an id, or leave the \
         id out to get one"
    );
    ApiError::new(ErrorCode::Forbidden, message).with("prefix", prefix.as_str())
}

pub(crate) fn quota(key: &KeyName, limit: usize) -> EngineError {
    let message =
        format!("the key {key} is for {limit} sandboxes at once, and they are there; destroy one");
    ApiError::new(ErrorCode::QuotaExceeded, message).with("limit", limit)
}

pub(crate) fn key_exists(name: &KeyName) -> EngineError {
    let message =
        format!("there is a key called {name}; use another name, or remove that one first");
    ApiError::new(ErrorCode::KeyExists, message).with("name", name.as_str())
}

pub(crate) fn key_not_found(name: &KeyName) -> EngineError {
    let message = format!("there is no key called {name}; `sandbar key ls` lists those there are");
    ApiError::new(ErrorCode::KeyNotFound, message).with("name", name.as_str())
}

pub(crate) fn key_busy(name: &KeyName) -> EngineError {
    let message = format!("the key {name} is being created or removed; try again");
    ApiError::new(ErrorCode::ResourceBusy, message).with("name", name.as_str())
}

pub(crate) fn webhook_not_found(name: &WebhookName) -> EngineError {
    let message =
        format!("there is no webhook called {name}; `sandbar webhook ls` lists those there are");
    ApiError::new(ErrorCode::WebhookNotFound, message).with("name", name.as_str())
}

pub(crate) fn webhook_exists(name: &WebhookName) -> EngineError {
    let message =
        format!("there is a webhook called {name}; use another name, or remove that one first");
    ApiError::new(ErrorCode::WebhookExists, message).with("name", name.as_str())
}

pub(crate) fn webhook_busy(name: &WebhookName) -> EngineError {
    let message = format!("the webhook {name} is being created or removed; try again");
    ApiError::new(ErrorCode::ResourceBusy, message).with("name", name.as_str())
}

pub(crate) fn too_many_webhooks() -> EngineError {
    let message = format!("this node already has its {WEBHOOKS} webhooks; remove one first");
    ApiError::new(ErrorCode::CapacityExceeded, message).with("limit", WEBHOOKS)
}

pub(crate) fn too_many_keys() -> EngineError {
    let message = format!("this node already has its {KEYS} keys; remove one first");
    ApiError::new(ErrorCode::CapacityExceeded, message).with("limit", KEYS)
}

pub(crate) fn local_key_stays() -> EngineError {
    let message = "the key local is how clients on the server's machine get in, so it is not \
                   removed; `sandbar key rotate` replaces it";
    ApiError::new(ErrorCode::Forbidden, message)
}

pub(crate) fn shutting_down() -> EngineError {
    ApiError::new(ErrorCode::ShuttingDown, "the node is stopping and takes no new work")
}

pub(crate) fn late(attempt: &str, limit: Duration) -> EngineError {
    let message = format!("{attempt} took longer than {} s", limit.as_secs());
    ApiError::new(ErrorCode::Timeout, message)
}

pub(crate) fn ended_at_once(id: &SandboxId) -> EngineError {
    let message = format!("the sandbox {id} was stopped as often as it was started");
    ApiError::new(ErrorCode::SandboxFailed, message).with("step", "agent")
}

pub(crate) fn in_use_by_requests(id: &SandboxId, waited: Duration) -> EngineError {
    let message = format!(
        "requests to the sandbox {id} were under way for {} s; close its streams and terminals, or \
         try again",
        waited.as_secs()
    );
    ApiError::new(ErrorCode::ResourceBusy, message).with("id", id.as_str())
}

pub(crate) fn not_ended(failures: &[String]) -> EngineError {
    let message = format!("{} sandboxes could not be ended", failures.len());
    ApiError::new(ErrorCode::InternalError, message).with("failures", failures.to_vec())
}

pub(crate) fn internal(attempt: &str) -> EngineError {
    let message = format!("{attempt} failed; the server's log says why");
    ApiError::new(ErrorCode::InternalError, message)
}

pub(crate) fn state_dir(attempt: &str, error: &io::Error) -> EngineError {
    if is_full(error) {
        return no_space();
    }
    ApiError::new(ErrorCode::InternalError, format!("{attempt} failed: {error}"))
}

pub(crate) fn in_use() -> EngineError {
    let message = "the state directory is in use by another sandbar server; stop it first, or \
                   choose another directory";
    ApiError::new(ErrorCode::ResourceBusy, message)
}

fn no_space() -> EngineError {
    let message = "the disk of the node's state directory is full; destroy sandboxes or images, \
                   or make room";
    ApiError::new(ErrorCode::NoSpace, message)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Failure {
    pub(crate) fn of(error: &EngineError) -> Self {
        let step = error.details.get("step").and_then(|step| step.as_str()).map(str::to_owned);
        Self { code: error.code, step, reason: error.message.clone() }
    }

    pub(crate) fn to_error(&self) -> EngineError {
        let error = ApiError::new(self.code, &self.reason);
        match &self.step {
            Some(step) => error.with("step", step.as_str()),
            None => error,
        }
    }
}

/// The public error of a failure, with what was attempted for the failures that do not say.
pub(crate) trait Publish {
    fn publish(&self, attempt: &str) -> EngineError;
}

impl Publish for RecordError {
    fn publish(&self, attempt: &str) -> EngineError {
        match self {
            Self::Full(_) => no_space(),
            Self::Damaged(_) | Self::Newer { .. } | Self::BadRow(_) => {
                let message = format!(
                    "{self}; nothing was changed. Move it away to start without the sandboxes it \
                     records, or use the version of sandbar that wrote it"
                );
                ApiError::new(ErrorCode::InternalError, message)
            }
            Self::Failed(_) | Self::Closed | Self::Owned(_) => internal(attempt),
            Self::Late => ApiError::new(ErrorCode::Timeout, self.to_string()),
        }
    }
}

impl Publish for JailError {
    fn publish(&self, attempt: &str) -> EngineError {
        match self {
            Self::Step { errno, .. } if is_full(&io::Error::from_raw_os_error(*errno)) => {
                no_space().with("errno", *errno)
            }
            Self::Step { step, errno, .. } => {
                let cause = io::Error::from_raw_os_error(*errno);
                let message = format!("{attempt} failed at the step {step}: {cause}");
                ApiError::new(ErrorCode::SandboxFailed, message)
                    .with("step", step.as_str())
                    .with("errno", *errno)
            }
            Self::Refused(why) => {
                let message = format!("{attempt} was refused: {why}");
                ApiError::new(ErrorCode::SandboxFailed, message).with("step", "check")
            }
            Self::Entry(why) => {
                let message = format!("{attempt} failed: {why}");
                ApiError::new(ErrorCode::SandboxFailed, message).with("step", "enter")
            }
            Self::Lost(_) => {
                let message = format!("{attempt} failed: the launcher process ended under it");
                ApiError::new(ErrorCode::SandboxFailed, message).with("step", "launcher")
            }
        }
    }
}

impl Publish for LaunchError {
    fn publish(&self, attempt: &str) -> EngineError {
        match self {
            Self::Jail(error) => error.publish(attempt),
            Self::Busy => {
                let message = format!("{attempt} waited too long for its turn; try again later");
                ApiError::new(ErrorCode::TooManyRequests, message)
                    .with("retryAfterSecs", RETRY_AFTER_SECS)
            }
            Self::Late(limit) => late(attempt, *limit),
            Self::Claim(_) => {
                let message = format!("{attempt} failed: its agent has ended");
                ApiError::new(ErrorCode::SandboxFailed, message).with("step", "claim")
            }
            Self::Closed => {
                let message = format!(
                    "{attempt} failed: no launcher process is left; restart the server (running \
                     sandboxes stay as they are)"
                );
                ApiError::new(ErrorCode::InternalError, message)
            }
        }
    }
}

pub(crate) fn of_store(error: &ImageError) -> EngineError {
    match error {
        ImageError::Io { source, .. } if is_full(source) => no_space(),
        other => {
            tracing::warn!(
                error = other as &dyn std::error::Error,
                "the image store is not usable"
            );
            internal("reading the image store")
        }
    }
}

pub(crate) fn of_image(name: &ImageRef, error: &ImageError) -> EngineError {
    match error {
        ImageError::NotFound(name) => {
            let message = format!(
                "there is no image called {name}; `sandbar image ls` lists those there are, \
                 `sandbar image build` makes one"
            );
            ApiError::new(ErrorCode::ImageNotFound, message).with("image", name.to_string())
        }
        ImageError::DigestNotFound(digest) => {
            let message = format!(
                "the image {name} that the sandbox was made from is gone from the store; build it \
                 again from the same recipe, or destroy the sandbox"
            );
            ApiError::new(ErrorCode::ImageNotFound, message).with("digest", digest.as_str())
        }
        ImageError::HostNotMerged { .. } => {
            ApiError::new(ErrorCode::SandboxFailed, error.to_string()).with("step", "image")
        }
        other => of_store(other),
    }
}
