//! Watching files: a stream of what changes, and the question whether anything has.
//!
//! ```text
//! kernel ─▶ tree.rs: which path, what happened ─▶ pending.rs: merged, bounded ─┬─▶ stream.rs
//!                                                                               └─▶ changes.rs
//! ```
//!
//! Owns: the watches, by an inotify instance of its own for each stream and each kept version.
//! Does not: look at contents, or know who changed them.
//!
//! Nothing is read from the kernel before somebody asks: a reader of a stream who stops reads no
//! more events, and the kernel, which keeps 16,384, says when it had to drop some.

mod changes;
mod filter;
mod pending;
mod stream;
mod tree;

use std::sync::Arc;

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    limit::WATCHES_PER_SANDBOX,
    watch::{Changes, CheckChanges, WatchEvent, WatchFiles},
};
use axum::{
    Json,
    extract::{OriginalUri, State},
    response::Response,
};
use tokio::sync::Semaphore;

use self::{
    changes::{Kept, Key},
    filter::Filter,
    tree::Tree,
};
use super::{base, blocking, path};
use crate::{extract, init::Agent, refusal::Refusal};

/// What is watched in the sandbox.
#[derive(Debug)]
pub(crate) struct Watches {
    /// Streams that may still begin.
    streams: Arc<Semaphore>,
    /// Directories watched by all.
    directories: tree::Watched,
    /// Versions that are known.
    kept: Kept,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(WATCHES_PER_SANDBOX)),
            directories: Arc::default(),
            kept: Kept::default(),
        }
    }
}

impl Watches {
    /// Watches what `key` says. Where there is no room for it, what is only kept for a later question
    /// gives way.
    async fn arm(&self, key: &Key) -> Result<Tree, ApiError> {
        let arm = || {
            let (key, all) = (key.clone(), Arc::clone(&self.directories));
            blocking(move || Tree::arm(key.path, key.is_recursive, key.filter, &all))
        };
        let is_full = |code| matches!(code, ErrorCode::TreeTooLarge | ErrorCode::TooManyRequests);
        match arm().await {
            Err(error) if is_full(error.code) && self.kept.give_way().await => arm().await,
            armed => armed,
        }
    }
}

/// Watches a directory and everything below it, or a file.
///
/// Answers when everything is watched, with events: `watching`, then `event` for each change
/// (a `WatchEvent`), until `stopped` when the path leads there no more, or `error`. Changes of one
/// path within 75 ms are told once where the later says nothing new: what was created and then
/// written is told as created. What comes into view with a directory is told as created, under load
/// perhaps twice; what goes with one is not told. After `overflow` some changes are missing: list
/// the directory again. Writes through a memory mapping, reads, other mounts below the directory,
/// and directories whose path is over 3,839 bytes are not seen. A stream cannot be resumed: what
/// happens between two streams is not told.
#[utoipa::path(get, path = "/files:watch", operation_id = "watchFiles", tag = "files", params(WatchFiles),
    responses(
        (status = 200, description = "Events", content_type = "text/event-stream", body = WatchEvent),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: also for /proc and /sys, which do not tell", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 413, description = "TREE_TOO_LARGE: more directories than may be watched", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many watches at once", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn watch(
    State(agent): State<Arc<Agent>>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Refusal> {
    let request = parse(uri.query().unwrap_or_default())?;
    let place = Arc::clone(&agent.watches.streams).try_acquire_owned().map_err(|_full| {
        let text = format!("{WATCHES_PER_SANDBOX} watches run in this sandbox; end one of them");
        ApiError::new(ErrorCode::TooManyRequests, text).with("limit", WATCHES_PER_SANDBOX)
    })?;
    let base = base(&agent, request.session.as_ref())?;
    let path = path::absolute(&base, &request.path)?.trimmed();
    let filter = Filter::new(&request.include, request.exclude.as_deref())?;
    let key = Key { path, is_recursive: request.recursive, filter };
    Ok(stream::respond(agent.watches.arm(&key).await?, place)?)
}

/// Says whether anything has changed since last time.
///
/// The first call, without `since`, gives a version; a later call with it says `unchanged` or
/// `changed`, with the version to go on with, or `resync` when the version is not known any more.
/// The agent keeps looking for ten minutes after a call, unless another watch needs the room. Changes
/// that do not count may be told as `changed` when there are very many of them; a change that counts is
/// never told as `unchanged`.
#[utoipa::path(post, path = "/files:changes", operation_id = "checkChanges", tag = "files", request_body = CheckChanges,
    responses(
        (status = 200, description = "What became of the version", body = Changes),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED: also for /proc and /sys, which do not tell", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 413, description = "TREE_TOO_LARGE: more directories than may be watched; PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: the kernel has no inotify instance left", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn changes(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<CheckChanges>,
) -> Result<Json<Changes>, Refusal> {
    let base = base(&agent, request.session.as_ref())?;
    let path = path::absolute(&base, &request.path)?.trimmed();
    let filter = Filter::new(&request.include, request.exclude.as_deref())?;
    let key = Key { path, is_recursive: request.recursive, filter };
    Ok(Json(changes::check(&agent, key, request.since.as_deref()).await?))
}

/// Reads the query, whose lists are repeated parameters.
fn parse(query: &str) -> Result<WatchFiles, ApiError> {
    let invalid = |field: &str, text: String| {
        ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
    };
    let mut request = WatchFiles::new("");
    let mut path = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "path" => path = Some(value.into_owned()),
            "session" => {
                let session = value.parse().map_err(|fault| invalid(&name, format!("{fault}")));
                request.session = Some(session?);
            }
            "recursive" => {
                let text = || format!("recursive is true or false, not {value:?}");
                request.recursive = value.parse().map_err(|_fault| invalid(&name, text()))?;
            }
            "include" => request.include.push(value.into_owned()),
            "exclude" => {
                let patterns = request.exclude.get_or_insert_default();
                patterns.extend((!value.is_empty()).then(|| value.into_owned()));
            }
            _ => return Err(invalid(&name, format!("there is no parameter {name:?}"))),
        }
    }
    request.path = path.ok_or_else(|| invalid("path", "give the path to watch".to_owned()))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_lists() {
        let request = parse("path=a%2Fb&include=*.ts&include=c+d&recursive=false").unwrap();
        let expected = WatchFiles {
            recursive: false,
            include: vec!["*.ts".to_owned(), "c d".to_owned()],
            ..WatchFiles::new("a/b")
        };
        assert_eq!(request, expected);
        assert_eq!(parse("path=a&exclude=").unwrap().exclude, Some(Vec::new()));
        assert_eq!(parse("path=a&exclude=x").unwrap().exclude, Some(vec!["x".to_owned()]));
        for bad in
            ["", "recursive=true", "path=a&recursive=1", "path=a&sesion=b", "path=a&session="]
        {
            assert_eq!(parse(bad).unwrap_err().code, ErrorCode::ValidationFailed, "{bad}");
        }
    }
}
