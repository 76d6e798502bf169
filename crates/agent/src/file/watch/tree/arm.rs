//! The root of a tree: finding it, watching it, and seeing its end.
//!
//! A directory's own end cannot be waited for: the kernel tells it when the last descriptor of the
//! directory is closed, and the tree holds one. So the directories above are watched too, for the
//! one name in each that leads to the root.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{CString, OsStr},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use api::{
    error::{ApiError, ErrorCode},
    watch::WatchEnd,
};
use sys::{
    SysError, errno,
    file::{self, How},
    file_system, inotify,
};

use super::{EVENTS, Node, Share, Tree, WATCH, Watched, too_large};
use crate::file::{
    fault::fault,
    path::{self, FilePath},
    watch::filter::Filter,
};

/// Descriptor of a directory or a file that nothing is done with.
const LOOK: i32 = file::O_PATH;

impl Tree {
    /// Watches `path`, and everything below it if that is wanted.
    ///
    /// # Errors
    /// `TREE_TOO_LARGE`; `FILE_NOT_FOUND` and the like; `PERMISSION_DENIED` for /proc and /sys,
    /// which tell nothing; `TOO_MANY_REQUESTS` when the kernel gives no instance.
    pub(crate) fn arm(
        path: FilePath,
        is_recursive: bool,
        filter: Filter,
        all: &Watched,
    ) -> Result<Self, ApiError> {
        let refuse = |error| fault(WATCH, &path, error);
        let found = path::open(file::cwd(), path.as_c_str(), LOOK).map_err(refuse)?;
        let real = real_path(&found).map_err(refuse)?;
        let is_proc = file_system::of(found.as_fd()).map_err(refuse)?.is_proc();
        if is_proc || real.starts_with("/sys") {
            let text = format!("cannot watch {}: /proc and /sys do not tell", path.shown());
            let error = ApiError::new(ErrorCode::PermissionDenied, text);
            return Err(error.with("path", path.shown()));
        }
        let (root, real, only) = match (is_directory(&found), real.parent(), real.file_name()) {
            (false, Some(parent), Some(name)) => {
                let root = open(parent).map_err(refuse)?;
                (root, parent.to_owned(), Some(name.as_bytes().into()))
            }
            _ => (found, real, None),
        };
        let is_recursive = is_recursive && only.is_none();
        // Whoever names a file means it, whatever its name.
        let filter = if only.is_some() { Filter::default() } else { filter };
        let inotify = inotify::create().map_err(|error| no_instance(&path, error))?;
        let inotify = Arc::new(File::from(inotify));
        let above = HashMap::new();
        let share = Share { all: Arc::clone(all), own: 0 };
        let top = inotify::watch(inotify.as_fd(), root.as_fd(), EVENTS).map_err(refuse)?;
        let mut tree = Self {
            inotify,
            path,
            real: c_path(&real),
            root,
            top,
            only,
            is_recursive,
            filter,
            nodes: HashMap::new(),
            index: BTreeMap::new(),
            above,
            moving: Vec::new(),
            deferred: Vec::new(),
            fresh: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            unread: vec![top],
            arrived: Vec::new(),
            last_path: None,
            survey: 0,
            share,
            is_lost: false,
            is_in_doubt: false,
        };
        tree.grow()?;
        tree.nodes.insert(top, Node { parent: top, name: Arc::default(), survey: 0 });
        tree.watch_above(&real)?;
        if tree.end().is_some() {
            return Err(tree.fault(SysError { call: "open", errno: errno::ENOENT }));
        }
        tree.look(None)?;
        Ok(tree)
    }

    fn grow(&mut self) -> Result<(), ApiError> {
        if self.share.grow() { Ok(()) } else { Err(too_large(&self.path, "in this sandbox")) }
    }

    fn watch_above(&mut self, real: &Path) -> Result<(), ApiError> {
        const LEAVES: u32 = inotify::IN_DELETE | inotify::IN_MOVED_FROM | inotify::IN_ONLYDIR;
        let mut directory = PathBuf::from("/");
        for component in real.components() {
            let Component::Normal(name) = component else { continue };
            let opened = open(&directory).map_err(|error| self.fault(error))?;
            let watch = inotify::watch(self.inotify.as_fd(), opened.as_fd(), LEAVES)
                .map_err(|error| self.fault(error))?;
            self.grow()?;
            self.above.insert(watch, name.as_bytes().into());
            directory.push(name);
        }
        Ok(())
    }

    /// Why the path does not lead to the root any more; none while it does.
    ///
    /// The watch's number tells whether it is the same directory: numbers of files, as overlay file
    /// systems give them, may change while a directory stays what it is.
    pub(super) fn end(&self) -> Option<WatchEnd> {
        let there = open(Path::new(OsStr::from_bytes(self.real.as_bytes())));
        let there =
            there.and_then(|there| inotify::watch(self.inotify.as_fd(), there.as_fd(), EVENTS));
        if there == Ok(self.top) {
            return None;
        }
        if let Ok(other) = there
            && !self.nodes.contains_key(&other)
        {
            inotify::unwatch(self.inotify.as_fd(), other).unwrap_or(());
        }
        // How /proc shows the path of what has none any more.
        let is_deleted = real_path(&self.root)
            .map_or(true, |path| path.as_os_str().as_bytes().ends_with(b" (deleted)"));
        Some(if is_deleted { WatchEnd::Deleted } else { WatchEnd::Moved })
    }
}

fn is_directory(fd: &OwnedFd) -> bool {
    let file = fd.try_clone().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_dir())
}

fn real_path(fd: &OwnedFd) -> Result<PathBuf, SysError> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.map_err(|error| SysError {
        call: "readlink",
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Opens a directory whose path has no links, as the kernel has given it.
fn open(path: &Path) -> Result<OwnedFd, SysError> {
    let how = How { flags: LOOK | file::O_DIRECTORY, mode: 0, resolve: file::RESOLVE_NO_SYMLINKS };
    file::open(file::cwd(), &c_path(path), how)
}

fn no_instance(path: &FilePath, error: SysError) -> ApiError {
    if error.errno != errno::EMFILE {
        return fault(WATCH, path, error);
    }
    let text = format!(
        "cannot watch {}: the sandbox has no inotify instance left \
         (fs.inotify.max_user_instances); end some of the programs that watch files",
        path.shown()
    );
    ApiError::new(ErrorCode::TooManyRequests, text).with("errno", error.errno)
}
