//! Whether anything has changed since last time: trees that are kept between two questions.
//!
//! Nobody reads their events in between; the kernel keeps them, or that there were too many. A
//! question reads them and counts one up if any of them matters.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    limit::{CHANGES_KEPT, CHANGES_KEPT_SECS},
    watch::{ChangeStatus, Changes, ResyncReason},
};
use tokio::time::Instant;

use super::{filter::Filter, pending::Pending, tree::Tree};
use crate::{
    file::{blocking, path::FilePath},
    init::Agent,
};

/// How long a tree stays without being asked about.
const KEPT: Duration = Duration::from_secs(CHANGES_KEPT_SECS);

/// Times a look reads as many events as fit. What is left then, under a storm of changes, is told
/// next time.
const READS: usize = 64;

/// What a version is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) path: FilePath,
    pub(super) is_recursive: bool,
    pub(super) filter: Filter,
}

/// The trees that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Tells this life of the agent from others.
    epoch: u64,
    table: Mutex<Table>,
}

impl Default for Kept {
    fn default() -> Self {
        // The standard library's hashers begin with the kernel's random numbers.
        Self { epoch: RandomState::new().hash_one(0), table: Mutex::default() }
    }
}

impl Kept {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all trees, and returns when what they watched may be watched by others; false if there
    /// was none.
    pub(super) async fn give_way(&self) -> bool {
        let entries = std::mem::take(&mut self.table().entries);
        let is_room = !entries.is_empty();
        let dropped = blocking(move || {
            drop(entries);
            Ok(())
        });
        dropped.await.is_ok_and(|()| is_room)
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    next: u64,
    /// A task waits for the next entry to expire.
    is_swept: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    number: u64,
    used: Instant,
    look: Arc<tokio::sync::Mutex<Look>>,
}

/// A kept tree.
#[derive(Debug)]
struct Look {
    tree: Tree,
    /// How often something had changed.
    count: u64,
    /// The path leads elsewhere; nothing more will be seen.
    is_over: bool,
}

impl Look {
    /// Looks for changes; true while the tree is worth keeping.
    fn again(&mut self) -> Result<bool, ApiError> {
        let mut has_changed = false;
        for _ in 0..READS {
            let mut pending = Pending::default();
            let drained = self.tree.drain(&mut pending)?;
            let is_lost = !drained.has_more && self.tree.settle();
            has_changed |= !pending.is_empty() || drained.has_overflowed;
            self.is_over |= drained.end.is_some();
            if !drained.has_more && !is_lost {
                break;
            }
        }
        self.count += u64::from(has_changed);
        Ok(!self.is_over)
    }
}

/// Answers one question.
pub(super) async fn check(
    agent: &Arc<Agent>,
    key: Key,
    since: Option<&str>,
) -> Result<Changes, ApiError> {
    let kept = &agent.watches.kept;
    let since = since.map(str::parse::<Version>).transpose()?;
    let now = loop {
        let Some((number, look)) = kept.table().find(&key) else {
            let tree = agent.watches.arm(&key).await?;
            let number = keep(agent, key.clone(), tree);
            break Version { epoch: kept.epoch, number, count: 0 };
        };
        let mut look = look.lock_owned().await;
        let looked = blocking(move || {
            let is_good = look.again();
            Ok(is_good.map(|is_good| (is_good, look.count)))
        });
        match looked.await.flatten() {
            Ok((true, count)) => break Version { epoch: kept.epoch, number, count },
            Ok((false, _)) => kept.table().remove(number),
            Err(error) => {
                kept.table().remove(number);
                return Err(error);
            }
        }
    };
    judge(since, now)
}

/// What has become of `since`.
fn judge(since: Option<Version>, now: Version) -> Result<Changes, ApiError> {
    let (status, reason) = match since {
        None => (ChangeStatus::Unchanged, None),
        Some(since) if since.epoch != now.epoch => {
            (ChangeStatus::Resync, Some(ResyncReason::Restarted))
        }
        Some(since) if since.number != now.number => {
            (ChangeStatus::Resync, Some(ResyncReason::Expired))
        }
        Some(since) if since.count > now.count => return Err(InvalidVersion.into()),
        Some(since) if since.count < now.count => (ChangeStatus::Changed, None),
        Some(_) => (ChangeStatus::Unchanged, None),
    };
    Ok(Changes { status, version: now.to_string(), reason })
}

impl Table {
    fn find(&mut self, key: &Key) -> Option<(u64, Arc<tokio::sync::Mutex<Look>>)> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == *key)?;
        entry.used = Instant::now();
        Some((entry.number, Arc::clone(&entry.look)))
    }

    fn remove(&mut self, number: u64) {
        self.drop_where(|entry| entry.number == number);
    }

    /// Closing an instance with many watches takes the kernel some time.
    fn drop_where(&mut self, is_meant: impl FnMut(&mut Entry) -> bool) {
        let gone: Vec<Entry> = self.entries.extract_if(.., is_meant).collect();
        if !gone.is_empty() {
            drop(tokio::task::spawn_blocking(move || drop(gone)));
        }
    }
}

/// Keeps a tree, in place of an equal one or of the one that was not asked for for longest.
fn keep(agent: &Arc<Agent>, key: Key, tree: Tree) -> u64 {
    let mut table = agent.watches.kept.table();
    table.drop_where(|entry| entry.key == key);
    let oldest = table.entries.iter().min_by_key(|entry| entry.used).map(|entry| entry.number);
    if let Some(oldest) = oldest.filter(|_| table.entries.len() >= CHANGES_KEPT) {
        table.remove(oldest);
    }
    let number = table.next;
    table.next += 1;
    let look = Arc::new(tokio::sync::Mutex::new(Look { tree, count: 0, is_over: false }));
    table.entries.push(Entry { key, number, used: Instant::now(), look });
    if !std::mem::replace(&mut table.is_swept, true) {
        agent.tasks.spawn(sweep(Arc::clone(agent)));
    }
    number
}

/// Drops what nobody asks for any more, as long as there is anything.
async fn sweep(agent: Arc<Agent>) {
    loop {
        let next = {
            let mut table = agent.watches.kept.table();
            let now = Instant::now();
            table.drop_where(|entry| entry.used + KEPT <= now);
            let next = table.entries.iter().map(|entry| entry.used + KEPT).min();
            table.is_swept = next.is_some();
            next
        };
        let Some(next) = next else { return };
        tokio::time::sleep_until(next).await;
    }
}

/// A version as callers carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    epoch: u64,
    number: u64,
    count: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.epoch, self.number, self.count)
    }
}

/// A text that no answer had as its version.
#[derive(Debug)]
struct InvalidVersion;

impl From<InvalidVersion> for ApiError {
    fn from(InvalidVersion: InvalidVersion) -> Self {
        let text = "`since` is not the `version` of an earlier answer";
        Self::new(ErrorCode::ValidationFailed, text).with("field", "since")
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = text.split('-').map(|part| {
            let digits = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or(InvalidVersion)
        });
        let mut next = || parts.next().unwrap_or(Err(InvalidVersion));
        let version = Self { epoch: next()?, number: next()?, count: next()? };
        if parts.next().is_some() { Err(InvalidVersion) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_judged_by_all_its_parts() {
        let version = |epoch, number, count| Version { epoch, number, count };
        let now = version(7, 2, 3);
        for (since, status, reason) in [
            (None, ChangeStatus::Unchanged, None),
            (Some(version(7, 2, 3)), ChangeStatus::Unchanged, None),
            (Some(version(7, 2, 2)), ChangeStatus::Changed, None),
            (Some(version(7, 1, 3)), ChangeStatus::Resync, Some(ResyncReason::Expired)),
            (Some(version(6, 2, 3)), ChangeStatus::Resync, Some(ResyncReason::Restarted)),
        ] {
            let changes = judge(since, now).unwrap();
            assert_eq!((changes.status, changes.reason), (status, reason), "{since:?}");
            assert_eq!(changes.version.parse::<Version>().unwrap(), now);
        }
        assert!(judge(Some(version(7, 2, 4)), now).is_err());
    }

    #[test]
    fn other_texts_are_no_versions() {
        for bad in ["", "1", "1-2", "1-2-3-4", "1-2-g", "1--3", "1-2-+3", "1-2-11111111111111111"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
