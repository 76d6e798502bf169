//! The directories on the way to an entry, each opened from the one above it and held.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::{File, FileTimes, Permissions},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt, fchown},
    },
    sync::Arc,
    time::{Duration, SystemTime},
};

use sys::{
    SysError, errno,
    file::{self, How},
    file_system,
};

use super::{file::system, layer};

/// Permission bits that are taken from an archive: nothing that lends an identity.
pub(super) const MODE_BITS: u32 = 0o777;

/// Permission bits of a directory that an archive does not name.
const DIRECTORY_MODE: u32 = 0o755;

/// In place of the bits that something was made with, where these are not known.
const ANY_BITS: u32 = u32::MAX;

/// Permission bits that a directory has while it is filled.
pub(super) const FILLING_BITS: u32 = 0o700;

/// Directories that were made and are remembered: some 3 MiB. Of later ones, what the archive says when it
/// comes to them a second time is not taken.
const REMEMBERED: usize = 32 * 1024;

/// What an entry has besides its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    /// Permission bits, of [`MODE_BITS`].
    pub(super) mode: u32,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    /// Last change, which [`time`] can make a time of.
    pub(super) modified: Option<(i64, u32)>,
}

/// Permission bits that files made by this process do not get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Umask(u32);

impl Umask {
    /// That of this process; all, when it cannot be told, which costs a call for each file.
    fn of_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        Self(umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(MODE_BITS))
    }

    /// Gives `file`, which was made with the bits `made_with`, what the archive says.
    pub(super) fn set(
        self,
        file: &File,
        attributes: Attributes,
        made_with: u32,
    ) -> Result<(), SysError> {
        if let Some((uid, gid)) = attributes.owner {
            fchown(file, Some(uid), Some(gid)).map_err(|error| system("fchown", &error))?;
        }
        // A change of owner takes the bits that lend an identity.
        if made_with & !self.0 != attributes.mode || attributes.mode & !MODE_BITS != 0 {
            let permissions = Permissions::from_mode(attributes.mode);
            file.set_permissions(permissions).map_err(|error| system("fchmod", &error))?;
        }
        if let Some(modified) = attributes.modified.and_then(time) {
            let times = FileTimes::new().set_modified(modified);
            file.set_times(times).map_err(|error| system("futimens", &error))?;
        }
        Ok(())
    }
}

/// Seconds and nanoseconds as a time; none when there is no such.
pub(super) fn time((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    time?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// An open directory, which everybody holds who has work in it. It must be given back by
/// [`Dir::release`].
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    pub(super) umask: Umask,
    pub(super) keeps_files_in_trees: bool,
    /// What it gets when nobody has work in it any more, and the bits it was made with: filling it
    /// needs rights, and changes its time.
    rest: Option<(Attributes, u32)>,
}

impl Dir {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Has no more work in it.
    pub(super) fn release(self: Arc<Self>) -> Result<(), SysError> {
        match Arc::into_inner(self) {
            Some(Self { fd, umask, rest: Some((attributes, made_with)), .. }) => {
                umask.set(&File::from(fd), attributes, made_with)
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Level {
    name: CString,
    dir: Arc<Dir>,
}

/// The directory that is unpacked into, and the way to where the last entry was.
#[derive(Debug)]
pub(super) struct Tree {
    top: Arc<Dir>,
    levels: Vec<Level>,
    /// The directories that were made, by device and inode, with what the archive says of them: it may
    /// name one after what is in it, or come back to it.
    made: BTreeMap<(u64, u64), Option<Attributes>>,
    /// On the way was a directory that this way has not made.
    has_met_existing: bool,
    /// A directory that is there gets what the archive says, too.
    is_layer: bool,
}

impl Tree {
    pub(super) fn new(top: OwnedFd, is_layer: bool) -> Self {
        // btrfs has no table of files to count, also when an overlay answers for it.
        let keeps_files_in_trees = file_system::of(top.as_fd()).is_ok_and(|found| found.files == 0);
        let top = Dir { fd: top, umask: Umask::of_process(), keeps_files_in_trees, rest: None };
        Self {
            top: Arc::new(top),
            levels: Vec::new(),
            made: BTreeMap::new(),
            has_met_existing: false,
            is_layer,
        }
    }

    /// The directory it is in.
    pub(super) fn dir(&self) -> &Arc<Dir> {
        self.levels.last().map_or(&self.top, |level| &level.dir)
    }

    /// True if a directory was entered, since this was last asked, that was there already: another
    /// way may have led to it before.
    pub(super) fn has_met_existing(&mut self) -> bool {
        std::mem::take(&mut self.has_met_existing)
    }

    /// Goes to a directory, which is made with everything on its way.
    pub(super) fn enter(&mut self, path: &[CString]) -> Result<(), SysError> {
        self.leave(path)?;
        for name in path.get(self.levels.len()..).unwrap_or_default() {
            let above = self.dir().fd();
            match self.open(above, name) {
                Err(SysError { errno: errno::ENOENT, .. }) => {
                    file::make_dir(above, name, DIRECTORY_MODE)?;
                    let fd = self.open(above, name)?;
                    self.remember(&fd, None)?;
                    self.push(name, fd, None);
                }
                opened => {
                    let fd = opened?;
                    self.has_met_existing = true;
                    let said = self.recall(&fd)?.flatten();
                    self.push(name, fd, said.map(|said| (said, ANY_BITS)));
                }
            }
        }
        Ok(())
    }

    /// Goes to a directory that an archive names, of which a new one gets the attributes.
    pub(super) fn make(&mut self, path: &[CString], new: Attributes) -> Result<(), SysError> {
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        self.enter(above)?;
        let made_with = new.mode | FILLING_BITS;
        let made = match file::make_dir(self.dir().fd(), name, made_with) {
            Ok(()) => Some(made_with),
            Err(SysError { errno: errno::EEXIST, .. }) if self.is_layer => {
                layer::make_directory(self.dir().fd(), name, made_with)?;
                Some(ANY_BITS)
            }
            Err(SysError { errno: errno::EEXIST, .. }) => None,
            Err(error) => return Err(error),
        };
        let fd = self.open(self.dir().fd(), name)?;
        self.has_met_existing |= made.is_none() || self.is_layer;
        let is_again = made.is_none() && self.recall(&fd)?.is_some();
        let made = made.or(is_again.then_some(ANY_BITS));
        if made.is_some() {
            self.remember(&fd, Some(new))?;
        }
        self.push(name, fd, made.map(|made_with| (new, made_with)));
        Ok(())
    }

    /// Remembers a directory that was made, and what the archive says of it.
    fn remember(&mut self, dir: &OwnedFd, said: Option<Attributes>) -> Result<(), SysError> {
        let identity = file::stat(dir.as_fd(), c"")?.identity;
        if self.made.len() < REMEMBERED || self.made.contains_key(&identity) {
            self.made.insert(identity, said);
        }
        Ok(())
    }

    /// What is remembered of a directory. None: it was there before.
    fn recall(&self, dir: &OwnedFd) -> Result<Option<Option<Attributes>>, SysError> {
        if self.made.is_empty() {
            return Ok(None);
        }
        Ok(self.made.get(&file::stat(dir.as_fd(), c"")?.identity).copied())
    }

    /// Leaves every directory. The first failure is told, after all were tried.
    pub(super) fn leave_all(&mut self) -> Result<(), SysError> {
        let mut result = Ok(());
        while let Some(level) = self.levels.pop() {
            result = result.and(level.dir.release());
        }
        result
    }

    /// Gives the top what it is to have, if anything.
    pub(super) fn settle(&self, top: Option<Attributes>) -> Result<(), SysError> {
        let Some(attributes) = top else { return Ok(()) };
        let dir = self.top.fd.try_clone().map_err(|error| system("dup", &error))?;
        self.top.umask.set(&File::from(dir), attributes, ANY_BITS)
    }

    /// Opens the directory of a name that is there already, without going to it.
    pub(super) fn find(&self, path: &[CString]) -> Result<OwnedFd, SysError> {
        let mut dir = self.top.fd.try_clone().map_err(|error| system("dup", &error))?;
        for name in path {
            dir = self.open(dir.as_fd(), name)?;
        }
        Ok(dir)
    }

    fn open(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, SysError> {
        open_directory(dir, name, self.is_layer)
    }

    fn push(&mut self, name: &CStr, fd: OwnedFd, rest: Option<(Attributes, u32)>) {
        let Dir { umask, keeps_files_in_trees, .. } = *self.top;
        let dir = Arc::new(Dir { fd, umask, keeps_files_in_trees, rest });
        self.levels.push(Level { name: name.to_owned(), dir });
    }

    /// Leaves what is not on the way to `path`.
    fn leave(&mut self, path: &[CString]) -> Result<(), SysError> {
        let common = self.levels.iter().zip(path).take_while(|(level, name)| level.name == **name);
        let common = common.count();
        let mut result = Ok(());
        for level in self.levels.drain(common..).rev() {
            result = result.and(level.dir.release());
        }
        result
    }
}

/// Opens the directory `name` itself: a link is not one, and in a layer nothing that is mounted.
pub(super) fn open_directory(
    dir: BorrowedFd<'_>,
    name: &CStr,
    is_layer: bool,
) -> Result<OwnedFd, SysError> {
    let mounts = if is_layer { file::RESOLVE_NO_XDEV } else { 0 };
    let links = file::RESOLVE_NO_SYMLINKS | file::RESOLVE_NO_MAGICLINKS;
    let how = How {
        flags: file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW,
        mode: 0,
        resolve: file::RESOLVE_BENEATH | links | mounts,
    };
    match file::open(dir, name, how) {
        Err(SysError { call, errno: errno::ELOOP }) => {
            Err(SysError { call, errno: errno::ENOTDIR })
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_that_there_is_can_be_told() {
        assert_eq!(time((0, 5)), Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(5)));
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(time((-2, 500_000_000)), Some(before));
        // No panic, whatever the answer.
        for seconds in [i64::MIN, i64::MAX] {
            time((seconds, 999_999_999));
        }
    }
}
