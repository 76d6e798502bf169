//! The directories of a watched tree: which are watched, where they are, and what the kernel's
//! events mean there.
//!
//! The kernel tells what happens in a directory, by a number and a name, and only in directories
//! that were watched when it happened. Events are read later than they happen, so what is on disk
//! is ahead of them. Therefore two things take turns:
//!
//! - Events are *applied* in their order, without a look at the disk: the tree is then as it was at
//!   the last event. A directory that has come into view is noted as fresh at its place.
//! - When no event is left, the disk is *looked at*: fresh directories are watched first and read
//!   then, so that what was made in them before is found and what is made later is told; and
//!   directories that have moved must be found where the events say they are. If one is not, and no
//!   event explains it, events do not tell everything (two directories that change places), which
//!   counts as events lost.
//!
//! A look is exact about what it looks at: the number of a watch says which directory was opened.
//!
//! Invariant: when all events have been applied and looked after, every directory that the request
//! means is watched and known at its place.

mod arm;
mod look;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{CString, OsString},
    fs::File,
    io::{ErrorKind, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use api::{
    error::{ApiError, ErrorCode},
    limit::WATCHED_DIRECTORIES,
    watch::{FileChangeType, WatchEnd},
};
use sys::{
    SysError, errno,
    inotify::{self, Event},
};

use super::{
    filter::Filter,
    pending::{Pending, Place, RelativePath},
};
use crate::file::{fault, path::FilePath};

/// What is said to be attempted when something fails.
pub(super) const WATCH: &str = "watch";

/// Bytes of events read at once: some 300.
const READ_BYTES: usize = 16 * 1024;

/// Directories between a directory and the root at most; more only in a state that contradicts
/// itself. Twice what fits in a path.
const DEPTH: usize = 4096;

/// Events kept that happened in what moves: it moves for microseconds, so there are few. More count
/// as lost.
const DEFERRED: usize = 1024;

/// What a watch tells: everything that is reported, and the end of the directory itself. Writes to
/// a file that was deleted while open are nobody's concern.
const EVENTS: u32 = inotify::IN_CREATE
    | inotify::IN_DELETE
    | inotify::IN_MODIFY
    | inotify::IN_ATTRIB
    | inotify::IN_MOVED_FROM
    | inotify::IN_MOVED_TO
    | inotify::IN_DELETE_SELF
    | inotify::IN_MOVE_SELF
    | inotify::IN_EXCL_UNLINK
    | inotify::IN_ONLYDIR;

/// Directories that all trees of the sandbox watch.
pub(crate) type Watched = Arc<AtomicUsize>;

/// One tree's part of [`Watched`].
#[derive(Debug)]
struct Share {
    all: Watched,
    own: usize,
}

impl Share {
    /// Takes one more; false when all are taken.
    fn grow(&mut self) -> bool {
        if self.all.fetch_add(1, Ordering::Relaxed) >= WATCHED_DIRECTORIES {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.own += 1;
        true
    }

    fn shrink(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.own -= 1;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// A watched directory.
#[derive(Debug)]
struct Node {
    /// Number of the directory that it is in; its own for the root.
    parent: i32,
    name: RelativePath,
    /// The survey that saw it last.
    survey: u32,
}

/// Something that left its directory and may arrive in another.
#[derive(Debug)]
struct Moving {
    cookie: u32,
    /// The change that was told of it, and its path there; none where that is not reported.
    left: Option<(Place, RelativePath)>,
    /// The watched directory that it is.
    directory: Option<i32>,
}

/// An event in something that moves.
#[derive(Debug)]
struct Deferred {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: OsString,
}

/// Where a directory is.
enum Whereabouts {
    At(Vec<u8>),
    /// It, or one above it, has left and not arrived.
    Moving,
    Unknown,
}

/// A watched tree.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: Arc<File>,
    /// As the request has it.
    path: FilePath,
    /// Where the root was when the watch began, without links.
    real: CString,
    root: OwnedFd,
    /// The root's number.
    top: i32,
    /// Only this name in the root is meant: the request is about a file.
    only: Option<Box<[u8]>>,
    is_recursive: bool,
    filter: Filter,
    nodes: HashMap<i32, Node>,
    /// Numbers by place, for all of `nodes` but the root and what moves.
    index: BTreeMap<(i32, RelativePath), i32>,
    /// Directories above the root, and the name in each that leads to it.
    above: HashMap<i32, Box<[u8]>>,
    moving: Vec<Moving>,
    /// What has happened in what moves: it counts when that arrives.
    deferred: Vec<Deferred>,
    /// Places of directories that are to be watched.
    fresh: BTreeSet<(i32, RelativePath)>,
    /// Places where a directory was known that is elsewhere or gone, while no event has said so.
    doubtful: BTreeSet<(i32, RelativePath)>,
    /// Watched directories that are to be read.
    unread: Vec<i32>,
    /// Directories that have arrived and were not looked for yet.
    arrived: Vec<i32>,
    /// The path that was made last.
    last_path: Option<(i32, Vec<u8>)>,
    survey: u32,
    share: Share,
    /// Events were lost.
    is_lost: bool,
    /// The path may not lead to the root any more.
    is_in_doubt: bool,
}

/// What [`Tree::drain`] came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// There may be more to read now.
    pub(super) has_more: bool,
    /// Changes were lost; everything that is there is watched again.
    pub(super) has_overflowed: bool,
    /// Nothing more will come.
    pub(super) end: Option<WatchEnd>,
}

impl Tree {
    /// The instance that becomes readable when there is something to drain.
    pub(super) fn inotify(&self) -> Arc<File> {
        Arc::clone(&self.inotify)
    }

    /// The path of the request.
    pub(super) fn path(&self) -> &FilePath {
        &self.path
    }

    /// True when the request is about one file.
    pub(super) fn is_file(&self) -> bool {
        self.only.is_some()
    }

    pub(super) fn directories(&self) -> usize {
        self.nodes.len()
    }

    /// True while an event is missing that must come: the other half of a move, or one that says
    /// where a directory is.
    pub(super) fn is_waiting(&self) -> bool {
        !self.moving.is_empty() || !self.arrived.is_empty()
    }

    /// Gives up waiting: what has left has left the tree, and what is not where it should be counts
    /// as events lost, which the next [`Tree::drain`] tells. True when it must be called for that.
    pub(super) fn settle(&mut self) -> bool {
        for moving in std::mem::take(&mut self.moving) {
            if let Some(directory) = moving.directory {
                self.detach(directory);
            }
        }
        self.deferred.clear();
        self.is_lost |= !self.arrived.is_empty();
        self.is_lost
    }

    /// Applies all events that there are, or as many as fit, and looks after them.
    pub(super) fn drain(&mut self, pending: &mut Pending) -> Result<Drained, ApiError> {
        let has_more = self.apply_all(pending)?;
        let is_lost = self.is_lost || pending.has_overflowed();
        if is_lost {
            self.survey()?;
            pending.forget();
        } else if !has_more {
            self.look(Some(pending))?;
        }
        let has_overflowed = is_lost || pending.has_overflowed();
        if pending.has_overflowed() {
            // What was found was too much; it is watched all the same.
            pending.forget();
        }
        let end = if std::mem::take(&mut self.is_in_doubt) { self.end() } else { None };
        Ok(Drained { has_more, has_overflowed, end })
    }

    /// True when there may be more.
    fn apply_all(&mut self, pending: &mut Pending) -> Result<bool, ApiError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if pending.is_half_full() && self.moving.is_empty() {
                return Ok(true);
            }
            let length = match (&*self.inotify).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(errno::EIO);
                    return Err(self.fault(SysError { call: "read", errno }));
                }
            };
            for event in inotify::events(buffer.get(..length).unwrap_or_default()) {
                self.apply(&event, pending);
            }
        }
    }

    fn fault(&self, error: SysError) -> ApiError {
        fault::fault(WATCH, &self.path, error)
    }

    /// What one event means.
    fn apply(&mut self, event: &Event<'_>, pending: &mut Pending) {
        const END: u32 = inotify::IN_DELETE_SELF | inotify::IN_MOVE_SELF | inotify::IN_UNMOUNT;
        let is = |flags: u32| event.mask & flags != 0;
        if is(inotify::IN_Q_OVERFLOW) {
            self.is_lost = true;
            return;
        }
        if let Some(name) = self.above.get(&event.watch) {
            self.is_in_doubt |= **name == *event.name.as_bytes();
            return;
        }
        if event.watch == self.top && is(END | inotify::IN_IGNORED) {
            self.is_in_doubt = true;
        }
        if is(inotify::IN_IGNORED) {
            self.doubtful.extend(self.place_of(event.watch));
            self.forget(event.watch);
        } else if !event.name.is_empty() && self.nodes.contains_key(&event.watch) {
            self.apply_named(event, pending);
        }
    }

    /// What an event means that names something in a watched directory.
    fn apply_named(&mut self, event: &Event<'_>, pending: &mut Pending) {
        let name: RelativePath = event.name.as_bytes().into();
        if self.only.as_ref().is_some_and(|only| **only != *name) {
            return;
        }
        let path = match self.path_in(event.watch, &name) {
            Ok(path) => path,
            Err(Whereabouts::Moving) if self.deferred.len() < DEFERRED => {
                let Event { watch, mask, cookie, name } = *event;
                self.deferred.push(Deferred { watch, mask, cookie, name: name.to_owned() });
                return;
            }
            Err(_) => {
                self.is_lost = true;
                return;
            }
        };
        let is_directory = event.mask & inotify::IN_ISDIR != 0;
        let kind = match event.mask & EVENTS {
            inotify::IN_CREATE => FileChangeType::Create,
            inotify::IN_DELETE => FileChangeType::Delete,
            inotify::IN_MODIFY => FileChangeType::Modify,
            inotify::IN_ATTRIB => FileChangeType::Attrib,
            inotify::IN_MOVED_FROM => return self.leave(event, name, path, pending),
            inotify::IN_MOVED_TO => return self.arrive(event, name, &path, pending),
            _ => return,
        };
        if self.filter.reports(&path, is_directory) {
            pending.told(kind, Arc::clone(&path), is_directory);
        }
        if is_directory && matches!(kind, FileChangeType::Create | FileChangeType::Delete) {
            self.vacate(event.watch, &name);
            if kind == FileChangeType::Create {
                self.note_fresh(event.watch, name, &path);
            }
        }
    }

    fn leave(
        &mut self,
        event: &Event<'_>,
        name: RelativePath,
        path: RelativePath,
        pending: &mut Pending,
    ) {
        let is_directory = event.mask & inotify::IN_ISDIR != 0;
        let place = if self.filter.reports_move(&path, is_directory) {
            pending.told(FileChangeType::MoveFrom, Arc::clone(&path), is_directory)
        } else {
            None
        };
        let left = place.map(|place| (place, path));
        self.last_path = None;
        let place = (event.watch, name);
        self.fresh.remove(&place);
        self.doubtful.remove(&place);
        let directory = self.index.remove(&place);
        self.moving.push(Moving { cookie: event.cookie, left, directory });
    }

    fn arrive(
        &mut self,
        event: &Event<'_>,
        name: RelativePath,
        path: &RelativePath,
        pending: &mut Pending,
    ) {
        let is_directory = event.mask & inotify::IN_ISDIR != 0;
        let moving = self.moving.iter().position(|moving| moving.cookie == event.cookie);
        let (left, directory) = match moving.map(|at| self.moving.swap_remove(at)) {
            Some(moving) => (moving.left, moving.directory),
            None => (None, None),
        };
        if self.filter.reports_move(path, is_directory) {
            let place = pending.told(FileChangeType::MoveTo, Arc::clone(path), is_directory);
            if let (Some(to), Some((from, old_path))) = (place, left) {
                pending.link(from, path);
                pending.link(to, &old_path);
            }
        }
        if is_directory {
            self.vacate(event.watch, &name);
            match directory {
                Some(directory) if self.filter.leaves_out(path) => self.detach(directory),
                Some(directory) => {
                    self.place(directory, event.watch, name);
                    self.arrived.push(directory);
                }
                None => self.note_fresh(event.watch, name, path),
            }
        }
        for Deferred { watch, mask, cookie, name } in std::mem::take(&mut self.deferred) {
            self.apply(&Event { watch, mask, cookie, name: &name }, pending);
        }
    }

    /// Notes that a directory has come into view, if it is meant.
    fn note_fresh(&mut self, parent: i32, name: RelativePath, path: &[u8]) {
        if self.is_recursive && !self.filter.leaves_out(path) {
            self.fresh.insert((parent, name));
            self.is_lost |= self.fresh.len() > WATCHED_DIRECTORIES;
        }
    }

    /// Nothing that was known is at this place any more.
    fn vacate(&mut self, parent: i32, name: &RelativePath) {
        let place = (parent, Arc::clone(name));
        self.fresh.remove(&place);
        self.doubtful.remove(&place);
        if let Some(directory) = self.index.get(&place) {
            self.detach(*directory);
        }
    }

    /// The path of `name` in the directory `watch`, or why it has none.
    fn path_in(&mut self, watch: i32, name: &[u8]) -> Result<RelativePath, Whereabouts> {
        let directory = match self.last_path.take() {
            Some((last, path)) if last == watch => path,
            _ => match self.whereabouts(watch) {
                Whereabouts::At(path) => path,
                elsewhere => return Err(elsewhere),
            },
        };
        let path = join(&directory, name).into();
        self.last_path = Some((watch, directory));
        Ok(path)
    }

    fn path_of(&self, watch: i32) -> Option<Vec<u8>> {
        match self.whereabouts(watch) {
            Whereabouts::At(path) => Some(path),
            Whereabouts::Moving | Whereabouts::Unknown => None,
        }
    }

    fn whereabouts(&self, watch: i32) -> Whereabouts {
        let mut names = Vec::new();
        let mut at = watch;
        while at != self.top {
            let Some(node) = self.nodes.get(&at) else { return Whereabouts::Unknown };
            if self.moving.iter().any(|moving| moving.directory == Some(at)) {
                return Whereabouts::Moving;
            }
            if names.len() == DEPTH {
                return Whereabouts::Unknown;
            }
            names.push(&*node.name);
            at = node.parent;
        }
        names.reverse();
        Whereabouts::At(names.join(&b'/'))
    }

    /// Notes that `directory` is `name` in `parent`, wherever it was and whatever was there.
    fn place(&mut self, directory: i32, parent: i32, name: RelativePath) {
        self.last_path = None;
        self.unindex(directory);
        let before = self.index.insert((parent, Arc::clone(&name)), directory);
        self.nodes.insert(directory, Node { parent, name, survey: self.survey });
        if let Some(before) = before {
            self.detach(before);
        }
    }

    /// The place of a directory that does not move.
    fn place_of(&self, directory: i32) -> Option<(i32, RelativePath)> {
        let node = self.nodes.get(&directory)?;
        let place = (node.parent, Arc::clone(&node.name));
        (self.index.get(&place) == Some(&directory)).then_some(place)
    }

    fn unindex(&mut self, directory: i32) {
        if let Some(place) = self.place_of(directory) {
            self.index.remove(&place);
        }
        for moving in &mut self.moving {
            moving.directory = moving.directory.filter(|moving| *moving != directory);
        }
    }

    /// Forgets a directory whose watch is gone.
    fn forget(&mut self, directory: i32) {
        self.last_path = None;
        self.unindex(directory);
        if self.nodes.remove(&directory).is_some() {
            self.share.shrink();
        }
    }

    /// Stops watching a directory and everything known below it.
    fn detach(&mut self, directory: i32) {
        let mut all = vec![directory];
        while let Some(directory) = all.pop() {
            let empty: RelativePath = Arc::default();
            let below = (directory, Arc::clone(&empty))..(directory.saturating_add(1), empty);
            all.extend(self.index.range(below).map(|(_, below)| *below));
            self.forget(directory);
            self.unwatch(directory);
        }
    }

    fn unwatch(&self, watch: i32) {
        // EINVAL: its file is gone, and the watch with it.
        inotify::unwatch(self.inotify.as_fd(), watch).unwrap_or(());
    }
}

/// `name` in the directory `path`, both relative to the root.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}

fn too_large(path: &FilePath, limit: &str) -> ApiError {
    let shown = path.shown();
    let text = format!(
        "cannot watch {shown}: it has more directories than may be watched ({limit}); watch a \
         smaller part, exclude some directories, or end other watches"
    );
    ApiError::new(ErrorCode::TreeTooLarge, text).with("path", shown)
}
