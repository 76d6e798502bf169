//! Looking at the disk: watching directories, and finding in them what the kernel did not tell.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    sync::Arc,
};

use api::{
    error::ApiError,
    limit::{PATH_BYTES, WATCHED_DIRECTORIES},
};
use sys::{
    SysError, errno,
    file::{self, How},
    inotify,
};

use super::{EVENTS, Tree, join, too_large};
use crate::file::watch::pending::{Pending, RelativePath};

/// Bytes of the path of the deepest directory that is entered: the path of what is in it must
/// itself fit in a path, and a name has up to 255 bytes.
const DEEPEST_BYTES: usize = PATH_BYTES - 256;

/// Directories read in one look: more than there can be, unless they move while it goes on.
const READS: usize = 2 * WATCHED_DIRECTORIES;

/// What came of looking for a directory.
enum Look<T> {
    Found(T),
    /// It is not there now. An event will say where it is, or that it is gone.
    Ahead,
    /// It is not to be watched: of another file system, too deep, or closed to the agent.
    NotMeant,
}

impl Tree {
    /// Watches what is fresh and reads it, and looks for what has arrived; what is found goes to
    /// `pending`, if anybody is to know. What is ahead of the events is left for the next look.
    pub(super) fn look(&mut self, mut pending: Option<&mut Pending>) -> Result<(), ApiError> {
        let mut reads = 0..READS;
        loop {
            self.resolve_doubts()?;
            let ahead = self.enter_fresh()?;
            let mut unreadable = Vec::new();
            let mut has_read = false;
            while let Some(directory) = self.unread.pop() {
                if reads.next().is_none() {
                    self.is_lost = true;
                    return Ok(());
                }
                match self.open(directory)? {
                    Look::Found(opened) => {
                        self.read(directory, &opened, pending.as_deref_mut())?;
                        has_read = true;
                    }
                    Look::Ahead if self.nodes.contains_key(&directory) => {
                        unreadable.push(directory);
                    }
                    Look::Ahead | Look::NotMeant => {}
                }
            }
            self.fresh.extend(ahead);
            self.unread = unreadable;
            // What was ahead may be in a directory that has just been found.
            if !has_read {
                break;
            }
        }
        // Last: what they have arrived in may have been found just now.
        for directory in std::mem::take(&mut self.arrived) {
            let is_known = self.nodes.contains_key(&directory);
            if is_known && matches!(self.open(directory)?, Look::Ahead) {
                self.arrived.push(directory);
            }
        }
        Ok(())
    }

    /// Looks who is where somebody is not: nobody, or what was told of the place was about another.
    fn resolve_doubts(&mut self) -> Result<(), ApiError> {
        for place in std::mem::take(&mut self.doubtful) {
            if self.index.contains_key(&place) {
                continue;
            }
            match self.enter(&place)? {
                Look::Found(_) => self.is_lost = true,
                Look::Ahead if self.nodes.contains_key(&place.0) => {
                    self.doubtful.insert(place);
                }
                Look::Ahead | Look::NotMeant => {}
            }
        }
        Ok(())
    }

    /// Watches what is fresh; returns what is ahead.
    fn enter_fresh(&mut self) -> Result<Vec<(i32, RelativePath)>, ApiError> {
        let mut ahead = Vec::new();
        for place in std::mem::take(&mut self.fresh) {
            match self.enter(&place)? {
                Look::Found(directory) => self.unread.push(directory),
                Look::Ahead if self.nodes.contains_key(&place.0) => ahead.push(place),
                Look::Ahead | Look::NotMeant => {}
            }
        }
        Ok(ahead)
    }

    /// Looks at everything, because events were lost, and stops watching what is not there.
    pub(super) fn survey(&mut self) -> Result<(), ApiError> {
        self.is_lost = false;
        self.survey = self.survey.wrapping_add(1);
        self.moving.clear();
        self.deferred.clear();
        self.fresh.clear();
        self.doubtful.clear();
        self.arrived.clear();
        self.unread = vec![self.top];
        self.look(None)?;
        let gone = self
            .nodes
            .iter()
            .filter(|(number, node)| **number != self.top && node.survey != self.survey);
        let gone: Vec<i32> = gone.map(|(number, _)| *number).collect();
        gone.into_iter().for_each(|number| self.detach(number));
        Ok(())
    }

    /// Reads a directory: what is in it is news, and directories in it are watched and to be read.
    fn read(
        &mut self,
        directory: i32,
        opened: &OwnedFd,
        mut pending: Option<&mut Pending>,
    ) -> Result<(), ApiError> {
        let Some(path) = self.path_of(directory) else { return Ok(()) };
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd())) else {
            return Ok(());
        };
        for entry in entries {
            let Ok(entry) = entry else { return Ok(()) };
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_directory && pending.is_none() {
                continue;
            }
            let name: RelativePath = entry.file_name().into_vec().into();
            let path: RelativePath = join(&path, &name).into();
            if let Some(pending) = &mut pending
                && self.filter.reports(&path, is_directory)
            {
                pending.found(Arc::clone(&path), is_directory);
            }
            if is_directory
                && self.is_recursive
                && let Look::Found(found) = self.attach(opened.as_fd(), directory, name, &path)?
            {
                self.unread.push(found);
            }
        }
        Ok(())
    }

    /// Watches the directory at a place.
    fn enter(&mut self, (parent, name): &(i32, RelativePath)) -> Result<Look<i32>, ApiError> {
        let opened = match self.open(*parent)? {
            Look::Found(opened) => opened,
            Look::Ahead => return Ok(Look::Ahead),
            Look::NotMeant => return Ok(Look::NotMeant),
        };
        let Some(path) = self.path_of(*parent) else { return Ok(Look::Ahead) };
        self.attach(opened.as_fd(), *parent, Arc::clone(name), &join(&path, name))
    }

    /// Watches the directory `name` in `parent`, which is open as `opened`.
    fn attach(
        &mut self,
        opened: BorrowedFd<'_>,
        parent: i32,
        name: RelativePath,
        path: &[u8],
    ) -> Result<Look<i32>, ApiError> {
        if self.filter.leaves_out(path) || path.len() > DEEPEST_BYTES {
            return Ok(Look::NotMeant);
        }
        let found = match self.open_below(opened, &name)? {
            Look::Found(found) => found,
            Look::Ahead => return Ok(Look::Ahead),
            Look::NotMeant => return Ok(Look::NotMeant),
        };
        let Some(number) = self.watch(&found)? else { return Ok(Look::NotMeant) };
        if !self.nodes.contains_key(&number) && !self.share.grow() {
            self.unwatch(number);
            let error = too_large(&self.path, &format!("{WATCHED_DIRECTORIES} in a sandbox"));
            return Err(error.with("limit", WATCHED_DIRECTORIES));
        }
        self.doubt_elsewhere(number, (parent, &name));
        self.place(number, parent, name);
        Ok(Look::Found(number))
    }

    /// A directory was found at `place`. Where it was known to be until now there may be another.
    fn doubt_elsewhere(&mut self, directory: i32, place: (i32, &RelativePath)) {
        let before = self.place_of(directory);
        self.doubtful.extend(before.filter(|before| (before.0, &before.1) != place));
    }

    /// Opens a watched directory where it is known to be, if it is there.
    fn open(&self, directory: i32) -> Result<Look<OwnedFd>, ApiError> {
        let Some(path) = self.path_of(directory) else { return Ok(Look::Ahead) };
        let path = if path.is_empty() { b"." } else { &path[..] };
        let Look::Found(opened) = self.open_below(self.root.as_fd(), path)? else {
            return Ok(Look::Ahead);
        };
        match self.watch(&opened)? {
            Some(number) if number == directory => return Ok(Look::Found(opened)),
            Some(number) if !self.nodes.contains_key(&number) => self.unwatch(number),
            _ => {}
        }
        Ok(Look::Ahead)
    }

    /// Opens a directory without following links or leaving the file system.
    fn open_below(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<Look<OwnedFd>, ApiError> {
        use errno::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EXDEV};
        let how = How {
            flags: file::O_PATH | file::O_DIRECTORY,
            mode: 0,
            resolve: file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS | file::RESOLVE_NO_XDEV,
        };
        match file::c_name(path).and_then(|path| file::open(dir, &path, how)) {
            Ok(opened) => Ok(Look::Found(opened)),
            Err(error) => match error.errno {
                ENOENT | ENOTDIR | ELOOP => Ok(Look::Ahead),
                EACCES | EPERM | EXDEV | ENAMETOOLONG => Ok(Look::NotMeant),
                _ => Err(self.fault(error)),
            },
        }
    }

    /// Watches an open directory; none when it cannot be.
    fn watch(&self, opened: &OwnedFd) -> Result<Option<i32>, ApiError> {
        match inotify::watch(self.inotify.as_fd(), opened.as_fd(), EVENTS) {
            Ok(number) => Ok(Some(number)),
            Err(SysError { errno: errno::ENOSPC, .. }) => {
                Err(too_large(&self.path, "the kernel's fs.inotify.max_user_watches"))
            }
            // Gone, or not to be read.
            Err(SysError { errno: errno::ENOENT | errno::EACCES, .. }) => Ok(None),
            Err(error) => Err(self.fault(error)),
        }
    }
}
