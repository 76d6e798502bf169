//! Copying files and trees: beside the target, then in its place.
//!
//! The copy is made a piece at a time, so that a caller who goes away stops it, and is whole or
//! absent. Nothing of it follows a link. A tree is as deep as a path can name; memory and descriptors
//! do not grow with it.

mod transfer;
mod tree;

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{CopyFile, FileEntry, FileType},
};
use axum::{Json, extract::State};
use sys::{
    SysError, errno,
    file::{self, Stat},
};

use super::{
    base, blocking,
    chmod::SETTABLE,
    entry::file_type,
    fault::fault,
    path::{self, FilePath, Target},
    remove::remove_all,
    temporary,
    walk::{Walk, open_below},
};
use crate::{extract, init::Agent, refusal::Refusal};

use transfer::{Transfer, dress_link};
use tree::Tree;

const COPY: &str = "copy";

/// Permission bits of a directory while it fills.
const FILLING_MODE: u32 = 0o700;

/// Copies a file, or a directory with everything in it.
///
/// The copy takes its name when it is whole, at once; a link that has the name is replaced, not
/// followed. It keeps permission bits, without those that
/// lend an identity, and holes; it does not keep times, owners, extended attributes, and names that
/// one file has several of. File systems that can share content between files do. A tree with a pipe,
/// a socket or a device in it is refused.
#[utoipa::path(post, path = "/files:copy", operation_id = "copyFile", tag = "files", request_body = CopyFile,
    responses(
        (status = 200, description = "Copied: what was made", body = FileEntry),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH (a directory into itself), IS_DIRECTORY (without `recursive`, or in the place of the copy), NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: what is copied, or the directory it goes to", body = ErrorBody),
        (status = 409, description = "FILE_EXISTS; RESOURCE_BUSY: something is mounted there", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn copy_file(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<CopyFile>,
) -> Result<Json<FileEntry>, Refusal> {
    let base = base(&agent, request.session.as_ref())?;
    let from = path::absolute(&base, &request.from)?;
    let asked = path::absolute(&base, &request.to)?;
    let copying = blocking(move || {
        let source = Source::followed(&from)?;
        let is_tree = file_type(&source.stat) == FileType::Directory;
        if is_tree && !request.recursive {
            return Err(fault(COPY, &from, SysError { call: "open", errno: errno::EISDIR }));
        }
        let to = Target::open(COPY, &asked.trimmed())?;
        let refuse = |errno| Err(fault(COPY, &to.path, SysError { call: "open", errno }));
        match to.look(COPY)? {
            _ if to.is_nameless() => return refuse(errno::EEXIST),
            Some(_) if is_tree || request.exclusive => return refuse(errno::EEXIST),
            Some(there) if file_type(&there) == FileType::Directory => {
                return refuse(errno::EISDIR);
            }
            _ => asked.check_slash(COPY, Some(&source.stat))?,
        }
        Copying::begin(COPY, source, to, request.exclusive || is_tree)
    });
    Ok(Json(carry_out(copying.await?).await?))
}

/// Copies to the end.
///
/// Cancel safety: dropping the future removes what was copied, unless it has its name.
pub(super) async fn carry_out(mut copying: Copying) -> Result<FileEntry, ApiError> {
    loop {
        let step = blocking(move || {
            let is_done = copying.step()?;
            Ok((is_done, copying))
        });
        let (is_done, next) = step.await?;
        copying = next;
        if is_done {
            return blocking(move || copying.place()).await;
        }
    }
}

/// Says that a directory cannot hold itself.
pub(super) fn into_itself(attempt: &str, to: &FilePath) -> ApiError {
    let shown = to.shown();
    let text = format!("cannot {attempt} a directory to {shown}, which is within itself");
    ApiError::new(ErrorCode::InvalidPath, text).with("path", shown)
}

/// What is copied.
#[derive(Debug)]
pub(super) struct Source {
    path: FilePath,
    stat: Stat,
    /// Of a file or a directory; opened for reading.
    file: Option<OwnedFd>,
    /// Where a link points.
    link: Option<CString>,
    /// Owners, times and all permission bits are copied too.
    keeps_all: bool,
}

impl Source {
    /// What `path` leads to.
    fn followed(path: &FilePath) -> Result<Self, ApiError> {
        let refuse = |error| fault(COPY, path, error);
        let file = path::open(file::cwd(), path.as_c_str(), file::O_RDONLY).map_err(refuse)?;
        let stat = file::stat(file.as_fd(), c"").map_err(refuse)?;
        Ok(Self { path: path.clone(), stat, file: Some(file), link: None, keeps_all: false })
    }

    /// What has the name itself, with everything that can be kept.
    pub(super) fn itself(attempt: &str, from: &Target) -> Result<Self, ApiError> {
        let refuse = |error| fault(attempt, &from.path, error);
        let (parent, name) = from.place();
        let stat = file::stat(parent, name).map_err(refuse)?;
        let (mut link, mut file) = (None, None);
        match file_type(&stat) {
            FileType::Symlink => link = Some(read_link(parent, name).map_err(refuse)?),
            FileType::File | FileType::Directory => {
                let flags = file::O_RDONLY | file::O_NOFOLLOW;
                file = Some(path::open(parent, name, flags).map_err(refuse)?);
            }
            FileType::Other => {}
        }
        Ok(Self { path: from.path.clone(), stat, file, link, keeps_all: true })
    }
}

fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<CString, SysError> {
    file::c_name(file::read_link(dir, name)?.into_vec())
}

/// A copy being made under a temporary name. Dropping it removes that.
#[derive(Debug)]
pub(super) struct Copying {
    attempt: &'static str,
    target: Target,
    exclusive: bool,
    /// Taken when the copy has its place.
    temporary: Option<CString>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// What the copy gets of a link that keeps all; none when it is as it shall be.
    Link(Option<Stat>),
    File(Transfer, FilePath),
    Tree(Box<Tree>),
}

impl Copying {
    /// Makes the beginning of a copy of `source` beside `target`.
    pub(super) fn begin(
        attempt: &'static str,
        source: Source,
        target: Target,
        exclusive: bool,
    ) -> Result<Self, ApiError> {
        let Source { path, stat, file, link, keeps_all } = source;
        let refuse = |error| fault(attempt, &path, error);
        let refuse_target = |error| fault(attempt, &target.path, error);
        let (temporary, work) = match (file_type(&stat), file, link) {
            (FileType::File, Some(from), _) => {
                let (name, to) =
                    temporary::make_file(&target, stat.mode & SETTABLE).map_err(refuse_target)?;
                (name, Work::File(Transfer::new(from, to, stat, keeps_all), path))
            }
            (FileType::Directory, Some(from), _) => {
                if is_within(target.parent.as_fd(), stat.identity).map_err(refuse_target)? {
                    return Err(into_itself(attempt, &target.path));
                }
                let (name, ()) = temporary::make(&target, |target, name| {
                    file::make_dir(target.parent.as_fd(), name, FILLING_MODE)
                })
                .map_err(refuse_target)?;
                let root = open_below(target.parent.as_fd(), &name).map_err(refuse_target)?;
                let tree = Tree::new(
                    Walk::new(from, path.trimmed().as_bytes(), true),
                    root,
                    stat,
                    keeps_all,
                );
                (name, Work::Tree(Box::new(tree)))
            }
            (FileType::Symlink, _, Some(link)) => {
                let (name, ()) = temporary::make(&target, |target, name| {
                    file::make_link(&link, target.parent.as_fd(), name)
                })
                .map_err(refuse_target)?;
                (name, Work::Link(keeps_all.then_some(stat)))
            }
            _ => return Err(refuse(SysError { call: "open", errno: errno::ENODEV })),
        };
        Ok(Self { attempt, target, exclusive, temporary: Some(temporary), work })
    }

    /// Copies some more; true when the copy is whole.
    fn step(&mut self) -> Result<bool, ApiError> {
        match &mut self.work {
            Work::Link(stat) => {
                if let (Some(stat), Some(name)) = (stat, &self.temporary) {
                    dress_link(self.target.parent.as_fd(), name, stat)
                        .map_err(|error| fault(self.attempt, &self.target.path, error))?;
                }
                Ok(true)
            }
            Work::File(transfer, path) => {
                transfer.step().map_err(|error| fault(self.attempt, path, error))
            }
            Work::Tree(tree) => tree.step().map_err(|error| {
                let path = FilePath::new(tree.path());
                path.map_or_else(|error| error, |path| fault(self.attempt, &path, error))
            }),
        }
    }

    /// Gives the copy its name.
    fn place(mut self) -> Result<FileEntry, ApiError> {
        if let Some(temporary) = &self.temporary {
            let (parent, name) = self.target.place();
            file::rename((parent, temporary), (parent, name), self.exclusive)
                .map_err(|error| fault(self.attempt, &self.target.path, error))?;
            self.temporary = None;
        }
        self.target.entry(self.attempt)
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        let Some(temporary) = self.temporary.take() else { return };
        let Ok(parent) = self.target.parent.try_clone() else { return };
        let is_tree = matches!(self.work, Work::Tree(_));
        // Best effort: the directory may be gone, and with it the copy.
        let remove = move || remove_all(parent.as_fd(), &temporary).unwrap_or(());
        match tokio::runtime::Handle::try_current() {
            // Taking a tree apart takes time, which the thread of all requests does not have.
            Ok(runtime) if is_tree => drop(runtime.spawn_blocking(remove)),
            _ => remove(),
        }
    }
}

/// True when `dir` is the directory `identity` or lies in it.
fn is_within(dir: BorrowedFd<'_>, identity: (u64, u64)) -> Result<bool, SysError> {
    let mut here = path::open(dir, c".", file::O_PATH | file::O_DIRECTORY)?;
    let mut below = None;
    loop {
        let found = file::stat(here.as_fd(), c"")?.identity;
        if found == identity {
            return Ok(true);
        }
        // The root is its own parent.
        if below.replace(found) == Some(found) {
            return Ok(false);
        }
        here = path::open(here.as_fd(), c"..", file::O_PATH | file::O_DIRECTORY)?;
    }
}
