//! The names that may differ, one after the other, sorted; a directory before what is in it.
//!
//! Nothing recurses, and only the directory that it is in is held open: one that it comes back to is
//! opened by its path, which is as long as a path can be at most. That is sound because nothing changes
//! in the views.

use std::{
    ffi::{CStr, CString},
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

/// A directory as each of the trees has it, where it has one.
struct Dirs {
    before: Option<OwnedFd>,
    after: Option<OwnedFd>,
    before_own: Option<OwnedFd>,
    after_own: Option<OwnedFd>,
}

impl Dirs {
    /// What `open` makes of a directory in each of the trees.
    fn each<'a>(
        trees: [Option<&'a OwnedFd>; 4],
        open: impl Fn(&'a OwnedFd) -> Result<Option<OwnedFd>, SysError>,
    ) -> Result<Self, SysError> {
        let [before, after, before_own, after_own] = trees.map(|tree| tree.map_or(Ok(None), &open));
        Ok(Self { before: before?, after: after?, before_own: before_own?, after_own: after_own? })
    }

    fn all(&self) -> [Option<&OwnedFd>; 4] {
        [&self.before, &self.after, &self.before_own, &self.after_own].map(Option::as_ref)
    }

    fn whole(&self) -> Result<(&OwnedFd, &OwnedFd), SysError> {
        let missing = SysError { call: "openat2", errno: errno::ENOENT };
        self.before.as_ref().zip(self.after.as_ref()).ok_or(missing)
    }
}

/// A directory on the way.
struct Level {
    names: std::vec::IntoIter<(CString, Where)>,
    /// Open while it is the last one.
    dirs: Option<Dirs>,
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
    /// Its name in the last directory; none when it is that directory.
    name: Option<CString>,
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
            name: None,
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
        let (before, after) = self.dirs()?.whole()?;
        let name = self.name.as_deref().unwrap_or(c".");
        Ok((open(before, name, flags)?, open(after, name, flags)?))
    }

    /// Where the symbolic link that was found last points, before and after.
    pub(super) fn read_links(&self) -> Result<(Vec<u8>, Vec<u8>), SysError> {
        let (before, after) = self.dirs()?.whole()?;
        let name = self.name.as_deref().unwrap_or_default();
        let read = |dir: &OwnedFd| {
            file::read_link(dir.as_fd(), name).map(std::ffi::OsString::into_encoded_bytes)
        };
        Ok((read(before)?, read(after)?))
    }

    /// The directory that it is in.
    fn dirs(&self) -> Result<&Dirs, SysError> {
        let dirs = self.levels.last().and_then(|level| level.dirs.as_ref());
        dirs.ok_or(SysError { call: "openat2", errno: errno::ENOENT })
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
            let found = self.look(name, place).map_err(|error| fault(&self.path, error))?;
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

    /// Opens the last directory again, if it came back to it.
    fn reopen(&mut self) -> Result<(), SysError> {
        let Some(Level { dirs: None, path, .. }) = self.levels.last() else { return Ok(()) };
        let path = match self.path.get(..*path) {
            Some([]) | None => c".".to_owned(),
            Some(path) => file::c_name(path)?,
        };
        let dirs = Dirs::each(self.roots(), |root| directory(root, &path))?;
        if let Some(level) = self.levels.last_mut() {
            level.dirs = Some(dirs);
        }
        Ok(())
    }

    /// Looks at a name in the last directory, at the path.
    fn look(&mut self, name: CString, place: Where) -> Result<Found, SysError> {
        self.reopen()?;
        let dirs = self.dirs()?;
        let look = |dir: Option<&OwnedFd>| {
            let missing = SysError { call: "openat2", errno: errno::ENOENT };
            file::stat(dir.ok_or(missing)?.as_fd(), &name)
        };
        let (was, is) = (dirs.before.as_ref(), dirs.after.as_ref());
        let found = match (place.before, place.after) {
            (true, false) => Found::Deleted(look(was)?),
            (false, _) => Found::Added(look(is)?),
            (true, true) => {
                let (before, after) = (look(was)?, look(is)?);
                if before.mode & file::S_IFMT == after.mode & file::S_IFMT {
                    Found::Both(before, after)
                } else {
                    Found::Replaced(before, after)
                }
            }
        };
        self.name = Some(name);
        Ok(found)
    }

    fn roots(&self) -> [Option<&OwnedFd>; 4] {
        let (before, after) = (&self.before, &self.after);
        [Some(&before.whole), Some(&after.whole), before.own.as_ref(), after.own.as_ref()]
    }

    /// Goes into the directory that was found last, or the root.
    fn enter(&mut self) -> Result<(), ApiError> {
        let above = self.levels.last_mut().and_then(|level| level.dirs.take());
        let name = self.name.take();
        let opened = Dirs::each(above.as_ref().map_or(self.roots(), Dirs::all), |dir| {
            directory(dir, name.as_deref().unwrap_or(c"."))
        });
        let dirs = opened.map_err(|error| fault(&self.path, error))?;
        let (names, bytes) = self.read(&dirs)?;
        self.bytes += bytes;
        let room = PATH_BYTES - self.path.len();
        let count = names.len();
        let names: Vec<_> =
            names.into_iter().filter(|(name, _)| name.count_bytes() < room).collect();
        self.is_unread = names.len() < count;
        let (names, path) = (names.into_iter(), self.path.len());
        self.levels.push(Level { names, dirs: Some(dirs), bytes, path });
        Ok(())
    }

    /// The names in a directory that may differ, and what they are counted with.
    fn read(&self, dirs: &Dirs) -> Result<(Vec<(CString, Where)>, usize), ApiError> {
        let mut names: Vec<(CString, Where)> = Vec::new();
        let mut bytes = 0;
        let (before, after, own) = (
            Where { before: true, ..Where::default() },
            Where { after: true, ..Where::default() },
            Where { own: true, ..Where::default() },
        );
        for (dir, place) in dirs.all().into_iter().zip([before, after, own, own]) {
            let Some(dir) = dir else { continue };
            let refuse = |error| fault(&self.path, error);
            let own = open(dir, c".", file::O_RDONLY | file::O_DIRECTORY).map_err(refuse)?;
            let mut all = Names::new(own);
            while let Some(found) = all.read().map_err(refuse)? {
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
        Ok((names, bytes))
    }
}

/// Opens the directory `path` in `dir`; none where there is no directory.
fn directory(dir: &OwnedFd, path: &CStr) -> Result<Option<OwnedFd>, SysError> {
    match open(dir, path, file::O_RDONLY | file::O_DIRECTORY) {
        Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

fn open(dir: &OwnedFd, path: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
    let how = How {
        flags: flags | file::O_NOFOLLOW | file::O_NONBLOCK | file::O_NOCTTY,
        mode: 0,
        resolve: file::RESOLVE_BENEATH
            | file::RESOLVE_NO_SYMLINKS
            | file::RESOLVE_NO_MAGICLINKS
            | file::RESOLVE_NO_XDEV,
    };
    file::open(dir.as_fd(), path, how)
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
