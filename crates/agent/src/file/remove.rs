//! Deleting a file, or a directory with everything in it.
//!
//! A tree is walked by descriptors, without recursion: trees may be deeper than a path or a stack
//! can be. Links are deleted, never followed, and nothing beyond a mount is
//! touched. Memory and descriptors are bounded whatever the
//! tree: what is forgotten on the way down is looked up again on the way up.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorBody},
    file::DeleteFile,
};
use axum::{
    extract::{OriginalUri, State},
    http::StatusCode,
};
use sys::{
    SysError, errno,
    file::{self, How, Names},
};

use super::{
    blocking,
    fault::fault,
    path::{self, FilePath, Target},
    place,
};
use crate::{extract::Query, init::Agent, refusal::Refusal};

const DELETE: &str = "delete";

/// Directories held open on the way down; above them the way up is found by `..`.
const OPEN_DIRECTORIES: usize = 64;

/// Names of sub-directories remembered, over all levels; the outermost are forgotten first and
/// read again. Some 2 MiB of usual names.
const REMEMBERED_NAMES: usize = 16 * 1024;

/// Times one directory is read before it counts as filling faster than it empties.
const READS: usize = 1000;

/// Deletes a file, a symbolic link or a directory.
#[utoipa::path(delete, path = "/files/{*path}", operation_id = "deleteFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"), DeleteFile),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY (without `recursive`), NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 409, description = "RESOURCE_BUSY: something is mounted there; DIRECTORY_NOT_EMPTY: it fills faster than it is emptied", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn delete(
    State(agent): State<Arc<Agent>>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<DeleteFile>,
) -> Result<StatusCode, Refusal> {
    let path = path::of_url(place(&agent, query.session.as_ref())?.as_deref(), uri.path())?;
    blocking(move || remove(&path, query.recursive)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes what `path` names; a directory only with `recursive`.
pub(super) fn remove(path: &FilePath, recursive: bool) -> Result<(), ApiError> {
    let refuse = |error| fault(DELETE, path, error);
    let target = Target::open(DELETE, &path.trimmed())?;
    if target.is_nameless() {
        return Err(refuse(SysError { call: "unlinkat", errno: errno::EBUSY }));
    }
    path.check_slash(DELETE, target.look(DELETE)?.as_ref())?;
    let (parent, name) = target.place();
    if recursive { remove_all(parent, name) } else { file::remove(parent, name) }.map_err(refuse)
}

/// Deletes `name` in `dir`, and everything in it if it is a directory.
pub(super) fn remove_all(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    match file::remove(dir, name) {
        Err(SysError { errno: errno::EISDIR, .. }) => remove_tree(dir, name),
        done => done,
    }
}

/// Deletes everything in the directory `top`, which errors call `path`.
pub(super) fn empty(top: BorrowedFd<'_>, path: &FilePath) -> Result<(), ApiError> {
    let refuse = |error| fault(DELETE, path, error);
    for _ in 0..READS {
        let mut names = Names::new(open_directory(top, c".").map_err(refuse)?);
        let mut found = Vec::new();
        while found.len() < REMEMBERED_NAMES
            && let Some(file::Name { name, .. }) = names.read().map_err(refuse)?
        {
            found.push(name.to_owned());
        }
        if found.is_empty() {
            return Ok(());
        }
        for name in found {
            match remove_all(top, &name) {
                Ok(()) | Err(SysError { errno: errno::ENOENT, .. }) => {}
                Err(error) => return Err(refuse(error)),
            }
        }
    }
    Err(refuse(SysError { call: "unlinkat", errno: errno::ENOTEMPTY }))
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
        while let Some(file::Name { name, .. }) = names.read()? {
            if self.children.len() >= REMEMBERED_NAMES {
                found = true;
                continue;
            }
            match file::remove(dir.as_fd(), name) {
                Ok(()) | Err(SysError { errno: errno::ENOENT, .. }) => found = true,
                Err(SysError { errno: errno::EISDIR, .. }) => {
                    found = true;
                    self.children.push_back(name.to_owned());
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
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
    file::stat(dir.as_fd(), c"").map(|stat| stat.identity)
}

fn remove_tree(top: BorrowedFd<'_>, name: &CStr) -> Result<(), SysError> {
    let mut levels = vec![Level::open(top, name.to_owned())?];
    // Names in all levels, counted as they come and go: to add them up takes long in a deep tree.
    let mut remembered = 0;
    while let Some(level) = levels.last_mut() {
        if let (Some(child), Some(dir)) = (level.children.pop_front(), &level.dir) {
            remembered -= 1;
            match Level::open(dir.as_fd(), child) {
                Ok(child) => levels.push(child),
                // Gone, or replaced by something that the next read deletes.
                Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => {}
                Err(error) => return Err(error),
            }
            forget(&mut levels, &mut remembered);
            continue;
        }
        level.reads += 1;
        if level.reads > READS {
            return Err(SysError { call: "unlinkat", errno: errno::ENOTEMPTY });
        }
        let found = level.read()?;
        // It remembered nothing, or would have gone into that.
        remembered += level.children.len();
        if found {
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
fn forget(levels: &mut [Level], remembered: &mut usize) {
    if let Some(far) = levels.len().checked_sub(OPEN_DIRECTORIES + 1)
        && let Some(level) = levels.get_mut(far)
    {
        level.dir = None;
    }
    let Some((_, outer)) = levels.split_last_mut() else { return };
    let mut outer = outer.iter_mut();
    while *remembered > REMEMBERED_NAMES
        && let Some(level) = outer.next()
    {
        // No more than has to be: each time that none is left, all of the directory is read again.
        let surplus = *remembered - REMEMBERED_NAMES;
        let kept = level.children.len().saturating_sub(surplus);
        *remembered -= level.children.len() - kept;
        level.children.truncate(kept);
    }
}
