//! The names that may differ, one after the other, sorted; a directory before what is in it.
//!
//! Nothing recurses and no descriptor is held for the way: a directory is opened by its path, which is
//! as long as a path can be at most. That is sound because nothing changes in the views.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

use api::{
    error::{ApiError, ErrorCode},
    limit::PATH_BYTES,
};
use sys::{
    SysError, errno,
    file::{self, How, Names, Stat},
};

use super::fault;

/// Bytes of names, with what each costs beside them, that are held at once: of all directories on the
/// way. Some half a million names.
const NAMES_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that a name costs beside itself.
const NAME_BYTES: usize = 64;

/// One state of the files.
pub(super) struct Side {
    /// What a sandbox sees.
    pub(super) whole: OwnedFd,
    /// What of it is its own; none for the image.
    pub(super) own: Option<OwnedFd>,
}

/// What was found under a name.
#[derive(Debug)]
pub(super) enum Found {
    Deleted(Stat),
    Added(Stat),
    /// By something of another type.
    Replaced(Stat, Stat),
    /// It is the same type, and one of the two is not the image's.
    Both(Stat, Stat),
}

/// Where a name was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Where {
    before: bool,
    after: bool,
    /// Among a state's own files.
    own: bool,
}

impl Where {
    /// Not so where both states show the image's.
    fn may_differ(self) -> bool {
        self.before != self.after || (self.before && self.own)
    }
}

/// A directory on the way.
struct Level {
    names: std::vec::IntoIter<(CString, Where)>,
    /// Bytes that the names are counted with.
    bytes: usize,
    /// Length of its own path.
    path: usize,
}

/// The way through two states.
pub(super) struct Walk {
    before: Side,
    after: Side,
    levels: Vec<Level>,
    /// Of what was found last; relative to the root, which is empty.
    path: Vec<u8>,
    /// Where to go on: everything up to this path is passed over.
    resume: Option<Vec<u8>>,
    /// The root itself has not been looked at.
    is_new: bool,
    /// What was found last is a directory with names that no path has room for.
    is_unread: bool,
    bytes: usize,
}

impl Walk {
    /// From the root, or behind `after`.
    pub(super) fn new(
        before: Side,
        after: Side,
        resume: Option<Vec<u8>>,
    ) -> Result<Self, ApiError> {
        let mut walk = Self {
            before,
            after,
            levels: Vec::new(),
            path: Vec::new(),
            is_new: resume.is_none(),
            is_unread: false,
            resume,
            bytes: 0,
        };
        walk.enter()?;
        Ok(walk)
    }

    /// The path of what was found last.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Some of the directory that was found last is passed over.
    pub(super) fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// Opens what was found last, before and after.
    pub(super) fn open(&self, flags: i32) -> Result<(OwnedFd, OwnedFd), SysError> {
        Ok((
            open(&self.before.whole, &self.path, flags)?,
            open(&self.after.whole, &self.path, flags)?,
        ))
    }

    /// Where the symbolic link that was found last points, before and after.
    pub(super) fn read_links(&self) -> Result<(Vec<u8>, Vec<u8>), SysError> {
        let path = file::c_name(&*self.path)?;
        let read = |side: &Side| {
            file::read_link(side.whole.as_fd(), &path).map(std::ffi::OsString::into_encoded_bytes)
        };
        Ok((read(&self.before)?, read(&self.after)?))
    }

    /// The next name that may differ; none at the end.
    pub(super) fn step(&mut self) -> Result<Option<Found>, ApiError> {
        if std::mem::take(&mut self.is_new) {
            let look = |side: &Side| file::stat(side.whole.as_fd(), c"");
            let found = look(&self.before).and_then(|before| Ok((before, look(&self.after)?)));
            let (before, after) = found.map_err(|error| fault(b"", error))?;
            return Ok(Some(Found::Both(before, after)));
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path);
            let Some((name, place)) = level.names.next() else {
                self.bytes -= level.bytes;
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let (is_passed, is_on_the_way) = self.passed();
            if is_passed && !is_on_the_way {
                continue;
            }
            self.is_unread = false;
            let found = self.look(place).map_err(|error| fault(&self.path, error))?;
            if let Found::Added(after) | Found::Both(_, after) | Found::Replaced(_, after) = &found
                && after.mode & file::S_IFMT == file::S_IFDIR
            {
                self.enter()?;
            }
            if !is_passed {
                self.resume = None;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether what is at the path was on an earlier page, and whether more of what is in it may not
    /// have been.
    fn passed(&self) -> (bool, bool) {
        let Some(resume) = &self.resume else { return (false, false) };
        let mut wanted = resume.split(|byte| *byte == b'/');
        for name in self.path.split(|byte| *byte == b'/') {
            match wanted.next().map(|wanted| name.cmp(wanted)) {
                Some(std::cmp::Ordering::Less) => return (true, false),
                Some(std::cmp::Ordering::Equal) => {}
                // Behind it, or in it.
                Some(std::cmp::Ordering::Greater) | None => return (false, false),
            }
        }
        (true, true)
    }

    fn look(&self, place: Where) -> Result<Found, SysError> {
        let path = file::c_name(&*self.path)?;
        let look = |side: &Side| file::stat(side.whole.as_fd(), &path);
        Ok(match (place.before, place.after) {
            (true, false) => Found::Deleted(look(&self.before)?),
            (false, _) => Found::Added(look(&self.after)?),
            (true, true) => {
                let (before, after) = (look(&self.before)?, look(&self.after)?);
                if before.mode & file::S_IFMT == after.mode & file::S_IFMT {
                    Found::Both(before, after)
                } else {
                    Found::Replaced(before, after)
                }
            }
        })
    }

    /// Goes into the directory at the path.
    fn enter(&mut self) -> Result<(), ApiError> {
        let mut names: Vec<(CString, Where)> = Vec::new();
        let mut bytes = 0;
        for (tree, place) in [
            (Some(&self.before.whole), Where { before: true, ..Where::default() }),
            (Some(&self.after.whole), Where { after: true, ..Where::default() }),
            (self.before.own.as_ref(), Where { own: true, ..Where::default() }),
            (self.after.own.as_ref(), Where { own: true, ..Where::default() }),
        ] {
            let Some(tree) = tree else { continue };
            let Some(mut dir) = read(tree, &self.path).map_err(|error| fault(&self.path, error))?
            else {
                continue;
            };
            while let Some(found) = dir.read().map_err(|error| fault(&self.path, error))? {
                names.push((found.name.to_owned(), place));
                bytes += found.name.count_bytes() + NAME_BYTES;
                if self.bytes + bytes > NAMES_BYTES {
                    return Err(too_large(&self.path));
                }
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        names.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                let (a, b) = (kept.1, next.1);
                kept.1 = Where {
                    before: a.before || b.before,
                    after: a.after || b.after,
                    own: a.own || b.own,
                };
            }
            is_same
        });
        names.retain(|(_, place)| place.may_differ());
        let room = PATH_BYTES - self.path.len();
        let count = names.len();
        names.retain(|(name, _)| name.count_bytes() < room);
        self.is_unread = names.len() < count;
        self.bytes += bytes;
        self.levels.push(Level { names: names.into_iter(), bytes, path: self.path.len() });
        Ok(())
    }
}

/// The names of the directory at `path` in `tree`; none where there is no directory.
fn read(tree: &OwnedFd, path: &[u8]) -> Result<Option<Names>, SysError> {
    match open(tree, path, file::O_RDONLY | file::O_DIRECTORY) {
        Ok(dir) => Ok(Some(Names::new(dir))),
        Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(tree: &OwnedFd, path: &[u8], flags: i32) -> Result<OwnedFd, SysError> {
    let path = if path.is_empty() { c".".to_owned() } else { file::c_name(path)? };
    let how = How {
        flags: flags | file::O_NOFOLLOW | file::O_NONBLOCK | file::O_NOCTTY,
        mode: 0,
        resolve: file::RESOLVE_BENEATH
            | file::RESOLVE_NO_SYMLINKS
            | file::RESOLVE_NO_MAGICLINKS
            | file::RESOLVE_NO_XDEV,
    };
    file::open(tree.as_fd(), &path, how)
}

fn too_large(path: &[u8]) -> ApiError {
    let shown = format!("/{}", String::from_utf8_lossy(path));
    let text = format!(
        "{shown} and the directories above it have more names than can be compared at once \
         (some {} MiB of them)",
        NAMES_BYTES >> 20
    );
    ApiError::new(ErrorCode::TreeTooLarge, text).with("path", shown)
}
