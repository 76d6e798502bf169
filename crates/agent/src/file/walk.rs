//! A walk through a tree, resumed at any entry, in memory that does not grow with the tree.
//!
//! A directory comes before what is in it; otherwise the order is the file system's. The innermost
//! directories are held open; one further out is found again by its path, and its place in it by the
//! position of the entry it had come to. Links are not followed, and there is no way out of the root.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use api::limit::PATH_BYTES;
use sys::{
    SysError, errno,
    file::{self, How, Kind, Names},
};

use super::path;

/// Directories held open, each with 32 KiB of names.
pub(super) const OPEN_DIRECTORIES: usize = 16;

/// Bytes of the path of the deepest directory that is entered: the path of what is in it must itself
/// fit in a path, and a name has up to 255 bytes.
const DEEPEST_BYTES: usize = PATH_BYTES - 256;

/// An entry of a directory, as a place to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the kernel had it, see [`sys::file::Name::at`].
    pub(super) at: u64,
    pub(super) name: CString,
}

impl Position {
    /// Moves `names` to what follows this entry.
    ///
    /// The entry may be gone. Most file systems then go on with what followed it. Overlayfs counts
    /// names in directories that it merges, and a count shifts when something before it goes: there
    /// the directory begins again, so that nothing is missed.
    fn resume(&self, names: &mut Names) -> Result<(), SysError> {
        let mut follows_count = true;
        match names.seek(self.at) {
            // No position of this directory, or not any more.
            Err(SysError { errno: errno::EINVAL, .. }) => {}
            sought => {
                sought?;
                if let Some(found) = names.read()? {
                    if found.name == &*self.name {
                        return Ok(());
                    }
                    follows_count = found.next == found.at + 1;
                }
            }
        }
        names.seek(0)?;
        while let Some(found) = names.read()? {
            if found.name == &*self.name {
                return Ok(());
            }
        }
        names.seek(if follows_count { 0 } else { self.at })
    }
}

/// A directory on the way of the walk.
#[derive(Debug)]
struct Level {
    /// Bytes of its path.
    path: usize,
    /// The entry it has come to; none before the first.
    position: Option<Position>,
    /// What the directory says that this is.
    kind: Kind,
    /// None when it is not held open.
    names: Option<Names>,
}

/// A walk through a tree.
#[derive(Debug)]
pub(super) struct Walk {
    root: OwnedFd,
    levels: Vec<Level>,
    /// Path of the innermost directory, without a slash at its end.
    path: Vec<u8>,
    hidden: bool,
    /// The next step stays where it is.
    stays: bool,
}

impl Walk {
    /// Begins in the directory `root`, whose path is `path`. With `hidden` it comes to names that
    /// begin with a dot.
    pub(super) fn new(root: OwnedFd, path: &[u8], hidden: bool) -> Self {
        let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let first = Level { path: path.len(), position: None, kind: Kind::Unknown, names: None };
        Self { root, levels: vec![first], path, hidden, stays: false }
    }

    /// Goes on after an entry: one position in each directory from the root to it. With `within` the
    /// next step is into it, if it is a directory.
    pub(super) fn resume(&mut self, positions: Vec<Position>, within: bool) {
        let last = positions.len();
        for (index, position) in positions.into_iter().enumerate() {
            let name = position.name.clone();
            if let Some(level) = self.levels.last_mut() {
                level.position = Some(position);
            }
            if index + 1 < last || within {
                self.push(&name, None);
            }
        }
    }

    /// The entry it has come to, as [`Walk::resume`] takes it.
    pub(super) fn positions(&self) -> impl Iterator<Item = &Position> {
        self.levels.iter().filter_map(|level| level.position.as_ref())
    }

    /// Makes the next step come to the same entry once more.
    pub(super) fn stay(&mut self) {
        self.stays = true;
    }

    /// Goes to the next entry; false at the end.
    pub(super) fn step(&mut self) -> Result<bool, SysError> {
        if std::mem::take(&mut self.stays) {
            return Ok(true);
        }
        while !self.levels.is_empty() {
            self.reopen()?;
            let Some(level) = self.levels.last_mut() else { break };
            let names = level.names.as_mut();
            let found = names.map(Names::read).transpose()?.flatten();
            let Some(found) = found else {
                self.leave();
                continue;
            };
            if self.hidden || !found.name.to_bytes().starts_with(b".") {
                level.position = Some(Position { at: found.at, name: found.name.to_owned() });
                level.kind = found.kind;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The entry it has come to: directory and name.
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &CStr) {
        let level = self.levels.last();
        let dir = level.and_then(|level| level.names.as_ref()).map(Names::dir);
        let position = level.and_then(|level| level.position.as_ref());
        (dir.unwrap_or(self.root.as_fd()), position.map_or(c"", |position| &*position.name))
    }

    /// The directory of the entry it has come to, to be held open however the walk goes on.
    pub(super) fn dir(&self) -> Option<Arc<File>> {
        self.levels.last()?.names.as_ref().map(Names::shared_dir)
    }

    /// True when the entry it has come to is a directory, or was when its name was read.
    pub(super) fn is_at_directory(&self) -> bool {
        match self.levels.last().map_or(Kind::Unknown, |level| level.kind) {
            Kind::Directory => true,
            Kind::Unknown => {
                let (dir, name) = self.place();
                file::stat(dir, name).is_ok_and(|stat| stat.mode & file::S_IFMT == file::S_IFDIR)
            }
            Kind::File | Kind::Link | Kind::Special => false,
        }
    }

    /// Path of the entry it has come to.
    pub(super) fn path(&self) -> Vec<u8> {
        let (_, name) = self.place();
        [&self.path, &b"/"[..], name.to_bytes()].concat()
    }

    /// Directories on the way, the root included.
    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Path of the directory at `depth`, below the root.
    pub(super) fn below_root(&self, depth: usize) -> &[u8] {
        let start = self.levels.first().map_or(0, |level| level.path + 1);
        let end = depth.checked_sub(1).and_then(|index| self.levels.get(index));
        end.and_then(|level| self.path.get(start..level.path)).unwrap_or_default()
    }

    /// Goes into the entry it has come to, a directory.
    ///
    /// # Errors
    /// `ENAMETOOLONG` where no path would name what is in it.
    pub(super) fn enter(&mut self) -> Result<(), SysError> {
        let (dir, name) = self.place();
        if self.path.len() + name.count_bytes() >= DEEPEST_BYTES {
            return Err(SysError { call: "openat2", errno: errno::ENAMETOOLONG });
        }
        let (names, name) = (Names::new(open_below(dir, name)?), name.to_owned());
        self.push(&name, Some(names));
        Ok(())
    }

    fn push(&mut self, name: &CStr, names: Option<Names>) {
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        self.levels.push(Level {
            path: self.path.len(),
            position: None,
            kind: Kind::Unknown,
            names,
        });
        let far = self.levels.len().checked_sub(OPEN_DIRECTORIES + 1);
        if let Some(level) = far.and_then(|far| self.levels.get_mut(far)) {
            level.names = None;
        }
    }

    fn leave(&mut self) {
        self.levels.pop();
        self.path.truncate(self.levels.last().map_or(0, |level| level.path));
    }

    /// Makes sure that the innermost directory is open. One that is gone, is none any more or may
    /// not be read is left closed.
    fn reopen(&mut self) -> Result<(), SysError> {
        if self.levels.last().is_none_or(|level| level.names.is_some()) {
            return Ok(());
        }
        let below = [self.below_root(self.levels.len()), &b"/."[..]].concat();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let below = file::c_name(below.strip_prefix(b"/").unwrap_or(&below))?;
        match open_below(self.root.as_fd(), &below) {
            Ok(dir) => {
                let names = level.names.insert(Names::new(dir));
                level.position.as_ref().map_or(Ok(()), |position| position.resume(names))
            }
            Err(error) if is_passable(error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// True for what concerns one directory and not the walk.
pub(super) fn is_passable(error: SysError) -> bool {
    use errno::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EXDEV};
    matches!(error.errno, EACCES | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR | EPERM | EXDEV)
}

/// Opens a directory of the tree: no way out of it, and nothing of /proc that is the agent's.
pub(super) fn open_below(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, SysError> {
    let how = How {
        flags: file::O_PATH | file::O_DIRECTORY,
        mode: 0,
        resolve: file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS,
    };
    let found = file::open(dir, path, how)?;
    path::open(found.as_fd(), c".", file::O_RDONLY | file::O_DIRECTORY)
}
