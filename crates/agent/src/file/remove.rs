//! Deleting a file, or a directory with everything in it.
//!
//! A tree is walked by descriptors, without recursion: trees may be deeper than a path or a stack
//! can be. Links are deleted, never followed, and nothing beyond a mount is
//! touched. Memory and descriptors are bounded whatever the
//! tree: what is forgotten on the way down is looked up again on the way up.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use api::error::ApiError;
use sys::{
    SysError, errno,
    file::{self, How, Names},
};

use super::{
    fault::fault,
    path::{FilePath, Target},
};

const DELETE: &str = "delete";

/// Directories held open on the way down; above them the way up is found by `..`.
const OPEN_DIRECTORIES: usize = 64;

/// Names of sub-directories remembered, over all levels; the outermost are forgotten first and
/// read again. Some 2 MiB of usual names.
const REMEMBERED_NAMES: usize = 16 * 1024;

/// Times one directory is read before it counts as filling faster than it empties.
const READS: usize = 1000;

/// Deletes what `path` names; a directory only with `recursive`.
pub(super) fn remove(path: &FilePath, recursive: bool) -> Result<(), ApiError> {
    let refuse = |error| fault(DELETE, path, error);
    let target = Target::open(DELETE, &path.trimmed())?;
    if matches!(target.name.as_bytes(), b"." | b"..") {
        return Err(refuse(SysError { call: "unlinkat", errno: errno::EBUSY }));
    }
    let parent = target.parent.as_fd();
    match file::remove(parent, &target.name) {
        Err(SysError { errno: errno::EISDIR, .. }) if recursive => {}
        done => return done.map_err(refuse),
    }
    remove_tree(parent, &target.name).map_err(refuse)
}

/// A directory that is being emptied.
#[derive(Debug)]
struct Level {
    name: CString,
    /// None when too many are open; found again from the level below.
    dir: Option<OwnedFd>,
    /// Device and inode: the directory that `..` must lead back to.
    identity: (u64, u64),
    /// Sub-directories still to be emptied.
    children: VecDeque<CString>,
    reads: usize,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: CString) -> Result<Self, SysError> {
        let dir = open_directory(parent, &name)?;
        let identity = identity(&dir)?;
        Ok(Self { name, dir: Some(dir), identity, children: VecDeque::new(), reads: 0 })
    }

    /// Deletes what is no directory and remembers what is one. True when it found anything.
    fn read(&mut self) -> Result<bool, SysError> {
        let Some(dir) = &self.dir else { return Ok(false) };
        let mut names = Names::new(open_directory(dir.as_fd(), c".")?);
        let mut found = false;
        let mut failure = None;
        let children = &mut self.children;
        while names.next_batch(|name| {
            if children.len() >= REMEMBERED_NAMES {
                found = true;
                return;
            }
            match file::remove(dir.as_fd(), name) {
                Ok(()) | Err(SysError { errno: errno::ENOENT, .. }) => found = true,
                Err(SysError { errno: errno::EISDIR, .. }) => {
                    found = true;
                    children.push_back(name.to_owned());
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        })? {}
        failure.map_or(Ok(found), Err)
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, SysError> {
    let flags = file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW;
    let resolve = file::RESOLVE_NO_SYMLINKS | file::RESOLVE_NO_XDEV;
    match file::open(parent, name, How { flags, mode: 0, resolve }) {
        // What is mounted below is not part of the tree.
        Err(SysError { call, errno: errno::EXDEV }) => Err(SysError { call, errno: errno::EBUSY }),
        opened => opened,
    }
}

fn identity(dir: &OwnedFd) -> Result<(u64, u64), SysError> {
    let io = |error: std::io::Error| SysError {
        call: "fstat",
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    };
    let metadata = File::from(dir.try_clone().map_err(io)?).metadata().map_err(io)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn remove_tree(top: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    let mut levels = vec![Level::open(top, name.to_owned())?];
    while let Some(level) = levels.last_mut() {
        if let (Some(child), Some(dir)) = (level.children.pop_front(), &level.dir) {
            match Level::open(dir.as_fd(), child) {
                Ok(child) => levels.push(child),
                // Gone, or replaced by something that the next read deletes.
                Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => {}
                Err(error) => return Err(error),
            }
            forget(&mut levels);
            continue;
        }
        level.reads += 1;
        if level.reads > READS {
            return Err(SysError { call: "unlinkat", errno: errno::ENOTEMPTY });
        }
        if level.read()? {
            continue;
        }
        let Some(done) = levels.pop() else { break };
        climb(&mut levels, &done)?;
        let parent = levels.last().and_then(|level| level.dir.as_ref());
        match file::remove_dir(parent.map_or(top, AsFd::as_fd), &done.name) {
            Ok(()) | Err(SysError { errno: errno::ENOENT, .. }) => {}
            // Something was put in since it was read: the parent's next read finds it.
            Err(SysError { errno: errno::ENOTEMPTY, .. }) if parent.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens the level above `done` again if it was closed, and makes sure that it is the same.
fn climb(levels: &mut [Level], done: &Level) -> Result<(), SysError> {
    let Some(parent) = levels.last_mut().filter(|level| level.dir.is_none()) else {
        return Ok(());
    };
    let Some(below) = &done.dir else { return Ok(()) };
    let dir = open_directory(below.as_fd(), c"..")?;
    if identity(&dir)? != parent.identity {
        // Somebody moved the directory while it was being emptied.
        return Err(SysError { call: "openat2", errno: errno::EBUSY });
    }
    parent.dir = Some(dir);
    Ok(())
}

/// Keeps descriptors and names within their bounds, at the cost of the outermost levels.
fn forget(levels: &mut [Level]) {
    if let Some(far) = levels.len().checked_sub(OPEN_DIRECTORIES + 1)
        && let Some(level) = levels.get_mut(far)
    {
        level.dir = None;
    }
    let mut names: usize = levels.iter().map(|level| level.children.len()).sum();
    let Some((_, outer)) = levels.split_last_mut() else { return };
    for level in outer {
        if names <= REMEMBERED_NAMES {
            return;
        }
        names -= level.children.len();
        level.children.clear();
    }
}
