//! The steps of a checkout.
//!
//! ```text
//! make the target ─▶ clone, or init and fetch ─▶ find the commit ─▶ check out ─▶ what is it now
//! ```
//!
//! Files are written by a step of their own, which has no credentials: what the repository's
//! attributes make git run then (filters of the sandbox's own configuration) cannot see them.
//!
//! A clone is whole or, with `depth`, shallow; never one that fetches contents when they are first
//! looked at (`--filter=blob:none`): that would need the server, and the credentials, later.

use std::{pin::pin, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorCode},
    exec::Ending,
    git::{GitCheckoutResult, GitEvent},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{timeout, timeout_at},
};

use super::{
    fault::fault,
    run::{Git, Ran},
    target::Target,
};
use crate::file::blocking;

/// Hexadecimal digits of a whole commit id, SHA-1 and SHA-256.
pub(super) const COMMIT_DIGITS: [usize; 2] = [40, 64];

/// How long the error waits for the deletion of what was fetched. A million files take longer, and
/// go behind it.
const DISCARD: Duration = Duration::from_secs(10);

/// What is asked for.
pub(super) struct Checkout {
    pub(super) git: Git,
    pub(super) branch: Option<String>,
    pub(super) commit: Option<String>,
    pub(super) depth: Option<u32>,
    pub(super) target: String,
    /// The place of the first run.
    pub(super) place: OwnedSemaphorePermit,
}

/// Carries it out to its end, and tells `events` of it. `begun` comes when the target is made.
///
/// It goes on when nobody listens any more: git is killed, and what it has made is deleted.
pub(super) async fn carry_out(
    checkout: Checkout,
    begun: tokio::sync::oneshot::Sender<Result<(), ApiError>>,
    events: mpsc::Sender<GitEvent>,
) {
    let (path, targets) = (checkout.target.clone(), Arc::clone(&checkout.git.agent.targets));
    let target = match blocking(move || Target::make(&path, targets)).await {
        Ok(target) => target,
        Err(error) => {
            begun.send(Err(error)).ok();
            return;
        }
    };
    // Whoever is gone by now is seen by the first step.
    begun.send(Ok(())).ok();
    let last = match steps(checkout, &events).await {
        Ok(result) => GitEvent::Done(result),
        // Somebody else's files are in there.
        Err(error) if error.code == ErrorCode::DirectoryNotEmpty => GitEvent::Failed { error },
        Err(error) => return give_up(target, error, &events).await,
    };
    // Whoever hears of the end may ask for the same directory again.
    drop(target);
    events.send(last).await.ok();
}

/// Deletes what was made, and tells why.
async fn give_up(target: Target, error: ApiError, events: &mpsc::Sender<GitEvent>) {
    let mut discarded = pin!(blocking(move || target.discard()));
    let left = match timeout(DISCARD, &mut discarded).await {
        Ok(done) => done.err().map(|left| left.message),
        Err(_slow) => {
            let text = "what was fetched is still being deleted".to_owned();
            events.send(failed(error, Some(text))).await.ok();
            // The directory belongs to the checkout until that is done.
            discarded.await.ok();
            return;
        }
    };
    events.send(failed(error, left)).await.ok();
}

fn failed(error: ApiError, left: Option<String>) -> GitEvent {
    let error = match left {
        Some(left) => error.with("leftOver", left),
        None => error,
    };
    GitEvent::Failed { error }
}

async fn steps(
    checkout: Checkout,
    events: &mpsc::Sender<GitEvent>,
) -> Result<GitCheckoutResult, ApiError> {
    let Checkout { git, branch, commit, depth, target, place } = checkout;
    let steps = Steps { git, target, events };
    let depth = depth.map(|depth| format!("--depth={depth}"));
    let mut is_empty = false;
    match (&commit, &depth) {
        (Some(commit), Some(depth)) => steps.fetch(commit, depth, place).await?,
        _ => steps.clone(branch.as_deref(), depth.as_deref(), place).await?,
    }
    let mut found = None;
    if let Some(commit) = &commit {
        let commit = steps.find(&commit.to_ascii_lowercase(), depth.is_some()).await?;
        // The digits alone would be the branch of that name, where there is one.
        found = Some(format!("{commit}^{{commit}}"));
    } else {
        is_empty = steps.look().await?.is_none();
    }
    if !is_empty {
        let mut arguments = vec!["checkout", "--progress"];
        if let Some(commit) = &found {
            arguments.extend(["--detach", commit]);
        }
        steps.expect(&arguments, false, None).await?;
    }
    let (commit, branch) = steps.look().await?.unzip();
    Ok(GitCheckoutResult {
        url: steps.git.remote.url.clone(),
        branch: branch.flatten(),
        commit,
        target_dir: steps.target,
    })
}

struct Steps<'a> {
    git: Git,
    target: String,
    events: &'a mpsc::Sender<GitEvent>,
}

impl Steps<'_> {
    /// All branches, or with `depth` one of them.
    async fn clone(
        &self,
        branch: Option<&str>,
        depth: Option<&str>,
        place: OwnedSemaphorePermit,
    ) -> Result<(), ApiError> {
        let mut arguments = vec!["clone", "--no-checkout", "--progress", "--origin=origin"];
        let branch = branch.map(|branch| format!("--branch={branch}"));
        arguments.extend(branch.as_deref().into_iter().chain(depth));
        arguments.extend(["--", &self.git.remote.url, &self.target]);
        let place = Some(place);
        let ran = self.run(&arguments, true, place).await?;
        self.success(ran).map(drop)
    }

    /// One commit with a part of its history; a clone gets branches and tags only.
    async fn fetch(
        &self,
        commit: &str,
        depth: &str,
        place: OwnedSemaphorePermit,
    ) -> Result<(), ApiError> {
        let ran = self.run(&["init", "--quiet", "--", &self.target], false, Some(place)).await?;
        self.success(ran)?;
        self.expect(&["remote", "add", "origin", &self.git.remote.url], false, None).await?;
        let arguments = ["fetch", "--progress", depth, "origin", commit];
        self.expect(&arguments, true, None).await.map(drop)
    }

    /// Makes sure that the commit is there, and returns its whole id; one that is on no branch is fetched
    /// by that.
    async fn find(&self, commit: &str, is_fetched: bool) -> Result<String, ApiError> {
        if let Some(found) = self.one(commit).await? {
            return Ok(found);
        }
        if !is_fetched && COMMIT_DIGITS.contains(&commit.len()) {
            let arguments = ["fetch", "--progress", "origin", commit];
            self.expect(&arguments, true, None).await?;
            if let Some(found) = self.one(commit).await? {
                return Ok(found);
            }
        }
        let url = &self.git.remote.url;
        let text = format!("cannot check out {url}: it has no commit {commit}");
        let error = ApiError::new(ErrorCode::GitBranchNotFound, text);
        Err(error.with("repository", url.as_str()).with("commit", commit))
    }

    /// The one commit whose id begins with `digits`. Not by a revision: there a branch or tag of this name,
    /// which is the repository's owner's to make, goes before a commit that begins so.
    async fn one(&self, digits: &str) -> Result<Option<String>, ApiError> {
        let prefix = format!("--disambiguate={digits}");
        let known = self.ask(&["rev-parse", &prefix]).await?.unwrap_or_default();
        // Whole ids: a long answer is cut.
        let whole = known.lines().filter(|id| COMMIT_DIGITS.contains(&id.len()));
        let arguments: Vec<&str> = ["rev-list", "--no-walk"].into_iter().chain(whole).collect();
        if arguments.len() == 2 {
            return Ok(None);
        }
        // Commits alone, and that of a tag.
        let commits = self.ask(&arguments).await?.unwrap_or_default();
        let mut commits = commits.lines().filter(|id| id.starts_with(digits));
        let one = commits.next().filter(|_one| commits.next().is_none());
        Ok(one.map(str::to_owned))
    }

    /// The commit that is current, and its branch if one is; none in an empty repository.
    async fn look(&self) -> Result<Option<(String, Option<String>)>, ApiError> {
        let Some(commit) = self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"]).await? else {
            return Ok(None);
        };
        // Not abbreviated: where a tag has the branch's name, that would not be it.
        let reference = self.ask(&["symbolic-ref", "--quiet", "HEAD"]).await?;
        let branch = reference
            .as_deref()
            .map(str::trim_end)
            .map(|reference| reference.strip_prefix("refs/heads/").unwrap_or(reference).to_owned());
        Ok(Some((commit.trim_end().to_owned(), branch)))
    }

    /// What git answers; none when it says no.
    async fn ask(&self, arguments: &[&str]) -> Result<Option<String>, ApiError> {
        let ran = self.within(arguments, false, None).await?;
        match ran.ending {
            Ending::Exited { code: 0 } => Ok(Some(ran.stdout)),
            Ending::Exited { .. } => Ok(None),
            _ => self.success(ran).map(|_ran| None),
        }
    }

    /// Runs git in the target, and takes only success.
    async fn expect(
        &self,
        arguments: &[&str],
        credentials: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Ran, ApiError> {
        let ran = self.within(arguments, credentials, place).await?;
        self.success(ran)
    }

    async fn within(
        &self,
        arguments: &[&str],
        credentials: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Ran, ApiError> {
        let arguments = [&["-C", &self.target], arguments].concat();
        self.run(&arguments, credentials, place).await
    }

    async fn run(
        &self,
        arguments: &[&str],
        credentials: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Ran, ApiError> {
        let place = match place {
            Some(place) => place,
            None => self.place().await?,
        };
        self.git.run(arguments, credentials, place, self.events).await
    }

    /// A place for a later run, which other commands may have to leave first.
    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let places = Arc::clone(&self.git.agent.execs);
        match timeout_at(self.git.deadline, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // They are never closed.
            Ok(Err(_)) | Err(_) => Err(fault(&self.git.remote.url, Ending::Timeout, &[])),
        }
    }

    fn success(&self, ran: Ran) -> Result<Ran, ApiError> {
        if ran.is_success() {
            return Ok(ran);
        }
        let error = fault(&self.git.remote.url, ran.ending, &ran.lines);
        Err(error.with("targetDir", self.target.as_str()))
    }
}
