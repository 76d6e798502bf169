//! Changes that are not told yet: merged per path while they wait, and bounded.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use api::watch::FileChangeType;

/// Bytes of changes kept, their paths and [`CHANGE_BYTES`] for each: some 10,000 with usual paths,
/// about as many as the kernel queues. Past it, changes are dropped and an overflow is told.
const PENDING_BYTES: usize = 2 * 1024 * 1024;

/// What a change costs beside its path.
const CHANGE_BYTES: usize = 128;

/// A path below the watched directory.
pub(super) type RelativePath = Arc<[u8]>;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) kind: FileChangeType,
    pub(super) path: RelativePath,
    pub(super) is_directory: bool,
    /// The other end of a move that stays in view.
    pub(super) other: Option<RelativePath>,
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) at_ms: i64,
    /// It was found by looking and not told by the kernel, which may still tell the same.
    pub(super) is_found: bool,
}

/// Changes in their order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// None where a later change has taken the place of one.
    changes: Vec<Option<Change>>,
    /// Where the last change of a path is, if the path still means the same.
    last: HashMap<RelativePath, usize>,
    bytes: usize,
    has_overflowed: bool,
}

/// Where a change is in [`Pending`], until that is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.has_overflowed
    }

    /// True when it is time to tell what there is, whatever the clock says.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes >= PENDING_BYTES / 2
    }

    /// True when changes were dropped since the last [`Pending::forget`].
    pub(super) fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }

    /// Drops everything, because something was lost anyway.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Change> + use<> {
        std::mem::take(self).changes.into_iter().flatten()
    }

    /// Adds what the kernel told.
    pub(super) fn told(
        &mut self,
        kind: FileChangeType,
        path: RelativePath,
        is_directory: bool,
    ) -> Option<Place> {
        self.add(kind, path, is_directory, false)
    }

    /// Adds what was found in a directory that has come into view.
    pub(super) fn found(&mut self, path: RelativePath, is_directory: bool) {
        self.add(FileChangeType::Create, path, is_directory, true);
    }

    /// Gives the change at `place` the other end of its move.
    pub(super) fn link(&mut self, place: Place, other: &RelativePath) {
        if let Some(Some(change)) = self.changes.get_mut(place.0) {
            change.other = Some(Arc::clone(other));
        }
    }

    fn add(
        &mut self,
        kind: FileChangeType,
        path: RelativePath,
        is_directory: bool,
        is_found: bool,
    ) -> Option<Place> {
        use FileChangeType::{Delete, MoveFrom, MoveTo};
        let before = self.last.get(&path).copied();
        let before = before.and_then(|place| Some((place, self.changes.get_mut(place)?)));
        if let Some((_, slot)) = before
            && let Some(known) = slot
        {
            match merge(known, kind, is_found) {
                Merge::Both => {}
                Merge::Known => return None,
                Merge::Changed(kind) => {
                    known.kind = kind;
                    return None;
                }
                Merge::New => *slot = None,
            }
        }
        let cost = path.len() + CHANGE_BYTES;
        if self.bytes + cost > PENDING_BYTES {
            self.has_overflowed = true;
            return None;
        }
        self.bytes += cost;
        if is_directory && matches!(kind, Delete | MoveFrom | MoveTo) {
            // Paths below it mean other things from here on.
            self.last.clear();
        }
        let place = self.changes.len();
        self.last.insert(Arc::clone(&path), place);
        let at_ms = now_ms();
        self.changes.push(Some(Change { kind, path, is_directory, other: None, at_ms, is_found }));
        Some(Place(place))
    }
}

/// What remains of two successive changes of one path.
enum Merge {
    Both,
    Known,
    New,
    Changed(FileChangeType),
}

fn merge(known: &mut Change, kind: FileChangeType, is_found: bool) -> Merge {
    use FileChangeType::{Attrib, Create, Delete, Modify, MoveFrom, MoveTo};
    match (known.kind, kind) {
        // Whoever is told of it looks at it now.
        (Create | Modify | MoveTo, Modify | Attrib) | (Attrib, Attrib) => Merge::Known,
        (Attrib, Modify) => Merge::Changed(Modify),
        (Create | Modify | Attrib | MoveTo, Create) if is_found => Merge::Known,
        (Create, Create) if known.is_found => {
            known.is_found = false;
            Merge::Known
        }
        // It was found where it had been moved to.
        (Create, MoveTo) if known.is_found => Merge::New,
        (_, Create | Delete | Modify | Attrib | MoveFrom | MoveTo) => Merge::Both,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use FileChangeType::{Attrib, Create, Delete, Modify, MoveFrom, MoveTo};

    use super::*;

    fn after(changes: &[(FileChangeType, &str)]) -> Vec<(FileChangeType, String)> {
        let mut pending = Pending::default();
        for (kind, path) in changes {
            match path.strip_prefix("found:") {
                Some(path) => pending.found(path.as_bytes().into(), false),
                None => drop(pending.told(*kind, path.as_bytes().into(), false)),
            }
        }
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        pending.take().map(|change| (change.kind, shown(&change.path))).collect()
    }

    #[test]
    fn what_a_look_at_the_path_shows_is_told_once() {
        for (changes, left) in [
            (&[(Create, "a"), (Modify, "a"), (Attrib, "a"), (Modify, "a")][..], &[Create][..]),
            (&[(Modify, "a"), (Modify, "a")], &[Modify]),
            (&[(Attrib, "a"), (Modify, "a"), (Attrib, "a")], &[Modify]),
            (&[(MoveTo, "a"), (Modify, "a")], &[MoveTo]),
            (&[(Create, "a"), (Delete, "a"), (Create, "a")], &[Create, Delete, Create]),
            (&[(Delete, "a"), (Modify, "a")], &[Delete, Modify]),
            (&[(Create, "found:a"), (Create, "a"), (Modify, "a")], &[Create]),
            (&[(Create, "a"), (Create, "found:a")], &[Create]),
            (&[(Create, "found:a"), (MoveTo, "a")], &[MoveTo]),
            (&[(MoveTo, "a"), (Create, "found:a")], &[MoveTo]),
            (&[(Create, "found:a"), (Delete, "a")], &[Create, Delete]),
            (&[(MoveFrom, "a"), (Create, "found:a")], &[MoveFrom, Create]),
        ] {
            let kinds: Vec<_> = after(changes).into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, left, "{changes:?}");
        }
    }

    #[test]
    fn paths_keep_their_order() {
        let told = after(&[(Create, "b"), (Create, "a"), (Modify, "b"), (Delete, "c")]);
        let paths: Vec<_> = told.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, ["b", "a", "c"]);
    }

    #[test]
    fn a_path_below_a_directory_that_moved_is_another_path() {
        let mut pending = Pending::default();
        for (kind, path, is_directory) in
            [(Create, "a/b", false), (MoveFrom, "a", true), (Create, "a", true)]
        {
            pending.told(kind, path.as_bytes().into(), is_directory);
        }
        pending.found(b"a/b"[..].into(), false);
        assert_eq!(pending.take().count(), 4);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_loss_is_known() {
        let mut pending = Pending::default();
        let most = PENDING_BYTES / (CHANGE_BYTES + 4);
        for number in 0..most {
            assert!(!pending.has_overflowed());
            let path = u32::try_from(number).unwrap().to_le_bytes();
            pending.told(Create, path[..].into(), false);
        }
        assert!(pending.is_half_full());
        pending.told(Create, b"more"[..].into(), false);
        assert!(pending.has_overflowed());
        pending.forget();
        assert!(pending.is_empty() && !pending.has_overflowed());
    }
}
