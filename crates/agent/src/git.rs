//! Git: checking a repository out into the sandbox.
//!
//! ```text
//! remote.rs: what is asked for ─▶ checkout.rs: the steps ─▶ run.rs: git in the sandbox
//!                                   target.rs: where to        progress.rs, fault.rs: what it says
//! ```
//!
//! Owns: what git is told of the sandbox's configuration, credentials while git runs, the target
//! until it is whole.
//! Does not: speak git; the sandbox's own git does, as a command like any other.

mod checkout;
mod fault;
mod progress;
mod remote;
mod run;
mod target;

use std::{sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    git::{GitCheckout, GitCheckoutResult, GitEvent},
    limit::{EXEC_TIMEOUT_MS, GIT_TEXT_BYTES, GIT_TIMEOUT_MS},
};
use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::target::Targets;
use self::{
    checkout::{COMMIT_DIGITS, Checkout, carry_out},
    remote::Remote,
    run::Git,
};
use crate::{event, exec, extract, file, init::Agent, refusal::Refusal};

/// Events between git and whoever follows it: a slow reader slows nothing but itself, and git's
/// lines wait in its log.
const EVENTS: usize = 16;

/// Hexadecimal digits of an abbreviated commit id at least, as git has it.
const SHORT_COMMIT_DIGITS: usize = 7;

/// Checks a git repository out.
///
/// The answer is one JSON document at the end or, with `Accept: text/event-stream`, events while git
/// works (`progress`, then `done` or `failed`; their `data` is a `GitEvent`). Git runs in the sandbox,
/// as a command does, without questions and without hooks. When it fails, when its time is over or
/// when the caller's connection closes, it is killed and what it has made is deleted. Credentials
/// are shown to the server that the URL names and to nobody else, and are not stored.
#[utoipa::path(post, path = "/git/checkout", operation_id = "gitCheckout", tag = "git", request_body = GitCheckout,
    responses(
        (status = 200, description = "Checked out, or being followed",
            content((GitCheckoutResult = "application/json"), (GitEvent = "text/event-stream"))),
        (status = 400, description = "VALIDATION_FAILED, INVALID_GIT_URL, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG", body = ErrorBody),
        (status = 403, description = "GIT_AUTH_FAILED; PERMISSION_DENIED, READ_ONLY: the target", body = ErrorBody),
        (status = 404, description = "GIT_REPOSITORY_NOT_FOUND, GIT_BRANCH_NOT_FOUND, SESSION_NOT_FOUND; FILE_NOT_FOUND: no directory can be made there; COMMAND_NOT_FOUND: no git, or no ssh, in the sandbox", body = ErrorBody),
        (status = 409, description = "DIRECTORY_NOT_EMPTY, FILE_EXISTS: the target is there; RESOURCE_BUSY: another checkout into it", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many commands run at once", body = ErrorBody),
        (status = 500, description = "GIT_CLONE_FAILED, COMMAND_EXECUTION_ERROR, FILESYSTEM_ERROR", body = ErrorBody),
        (status = 502, description = "GIT_NETWORK_ERROR", body = ErrorBody),
        (status = 504, description = "TIMEOUT", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn checkout(
    State(agent): State<Arc<Agent>>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<GitCheckout>,
) -> Result<Response, Refusal> {
    let checkout = check(&agent, request)?;
    let (begin, begun) = oneshot::channel();
    let (tell, mut events) = mpsc::channel(EVENTS);
    agent.tasks.spawn(carry_out(checkout, begin, tell));
    begun.await.unwrap_or_else(|_lost| Err(lost()))?;
    if event::is_wanted(&headers) {
        let texts = stream::poll_fn(move |context| events.poll_recv(context));
        return Ok(event::respond(
            texts.map(|event| event::render(event.name(), None, &event).into()),
        ));
    }
    loop {
        match events.recv().await {
            Some(GitEvent::Progress { .. }) => {}
            Some(GitEvent::Done(result)) => return Ok(Json(result).into_response()),
            Some(GitEvent::Failed { error }) => return Err(error.into()),
            None => return Err(lost().into()),
        }
    }
}

/// What is said of a checkout whose task is gone: only a fault of the agent can cause it.
fn lost() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "the checkout was given up")
}

/// Checks a request: everything that can be refused before anything is made.
fn check(agent: &Arc<Agent>, request: GitCheckout) -> Result<Checkout, ApiError> {
    let GitCheckout { url, branch, commit, depth, target_dir, session, timeout_ms, auth } = request;
    let remote = Remote::new(&url, auth)?;
    if let Some(branch) = &branch {
        check_branch(branch)?;
    }
    if let Some(commit) = &commit {
        check_commit(commit, depth.is_some())?;
    }
    if branch.is_some() && commit.is_some() {
        return Err(invalid("commit", "give a branch or a commit, not both".to_owned()));
    }
    if depth == Some(0) {
        return Err(invalid("depth", "depth is at least 1".to_owned()));
    }
    let timeout_ms = timeout_ms.unwrap_or(GIT_TIMEOUT_MS);
    if !(1..=EXEC_TIMEOUT_MS).contains(&timeout_ms) {
        let text = format!("timeoutMs is from 1 to {EXEC_TIMEOUT_MS}");
        return Err(invalid("timeoutMs", text).with("limit", EXEC_TIMEOUT_MS));
    }
    let base = file::base(agent, session.as_ref())?;
    let target = file::absolute_text(&base, target_dir.as_deref().unwrap_or(&remote.name))?;
    let git = Git::new(Arc::clone(agent), remote, Duration::from_millis(timeout_ms))?;
    let place = exec::place(agent)?;
    Ok(Checkout { git, branch, commit, depth, target, place })
}

fn invalid(field: &str, text: String) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

/// Refuses what no branch can be called, git-check-ref-format(1); above all, what git would take for
/// an option.
fn check_branch(branch: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    let is_name = (1..=GIT_TEXT_BYTES).contains(&branch.len())
        && branch.chars().all(is_allowed)
        && !branch.starts_with(['-', '/'])
        && !branch.ends_with(['/', '.'])
        && !["..", "@{", "//"].iter().any(|part| branch.contains(part));
    if is_name {
        Ok(())
    } else {
        Err(invalid("branch", "it is no name of a branch or tag".to_owned()))
    }
}

fn check_commit(commit: &str, is_shallow: bool) -> Result<(), ApiError> {
    let is_whole = COMMIT_DIGITS.contains(&commit.len());
    let is_short = (SHORT_COMMIT_DIGITS..64).contains(&commit.len());
    if !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) || !(is_whole || is_short) {
        let text = "a commit is 7 to 64 hexadecimal digits; name a tag or branch in `branch`";
        return Err(invalid("commit", text.to_owned()));
    }
    if is_shallow && !is_whole {
        let text = "with depth, a commit is given with all its digits, 40 or 64";
        return Err(invalid("commit", text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_and_commits_are_no_options() {
        for good in ["main", "v1.0", "feature/x-1", "ä", &"x".repeat(GIT_TEXT_BYTES)] {
            assert!(check_branch(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=id",
            "a b",
            "a..b",
            "a:b",
            "a~1",
            "a^",
            "@{1}",
            "/a",
            "a/",
            "a\n",
        ] {
            assert!(check_branch(bad).is_err(), "{bad:?}");
        }
        assert!(check_commit(&"a".repeat(40), true).is_ok());
        assert!(check_commit("abcdef1", false).is_ok());
        for (bad, is_shallow) in [
            ("abcdef1", true),
            ("abcdef", false),
            ("", false),
            ("-abcdef1", false),
            ("HEAD~123", false),
        ] {
            assert!(check_commit(bad, is_shallow).is_err(), "{bad:?}");
        }
    }
}
