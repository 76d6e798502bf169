//! The private directory of one shell: what it sources, and its named pipes.
//!
//! Code of the session can do anything to it. So nothing here waits for a file, follows a link or
//! depends on what is there already; what is missing is made again.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::atomic::{AtomicU64, Ordering},
};

use sys::{
    SysError, errno,
    file::{self, How},
};

/// Where the directories of all shells are: memory, which nothing of the image needs to have.
const ROOT: &CStr = c"/run/sandbar";

/// Directories that may be in the way of a new one. Only code in the sandbox can put them there.
const TRIES: usize = 64;

/// All names that are ever used in a directory.
const NAMES: [&CStr; 11] = [
    c"start", c"loop", c"command", c"step", c"return", c"saved", c"names", c"input", c"int",
    c"out", c"err",
];

const STATUS: &CStr = c"status";

/// What makes a file the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A shell's directory. Dropping it removes what was put there.
#[derive(Debug)]
pub(super) struct Dir {
    path: String,
    dir: OwnedFd,
}

impl Dir {
    /// Makes an empty directory that only the sandbox's root can use.
    pub(super) fn make() -> Result<Self, SysError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ignore_existing(file::make_dir(file::cwd(), ROOT, 0o700))?;
        let mut in_the_way = SysError { call: "mkdirat", errno: errno::EEXIST };
        for _ in 0..TRIES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = format!("{}/{number}", ROOT.to_string_lossy());
            match file::make_dir(file::cwd(), &file::c_name(path.as_str())?, 0o700) {
                Ok(()) => return Ok(Self { dir: open(&path)?, path }),
                Err(error) if error.errno == errno::EEXIST => in_the_way = error,
                Err(error) => return Err(error),
            }
        }
        Err(in_the_way)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A text of ours with this directory's path in it.
    pub(super) fn fill(&self, text: &str) -> String {
        text.replace("@DIR@", &self.path)
    }

    /// Writes a file whole.
    pub(super) fn write(&mut self, name: &CStr, content: &[u8]) -> Result<(), SysError> {
        match self.put(name, content) {
            Err(SysError { errno: errno::ENOENT, .. }) => {
                self.make_again()?;
                self.put(name, content)
            }
            other => other,
        }
    }

    fn put(&self, name: &CStr, content: &[u8]) -> Result<(), SysError> {
        let flags = file::O_WRONLY
            | file::O_CREAT
            | file::O_TRUNC
            | file::O_NOFOLLOW
            // Of a pipe that somebody put there.
            | file::O_NONBLOCK;
        let how = How { mode: 0o600, ..How::new(flags) };
        let file = file::open(self.dir.as_fd(), name, how)?;
        if content.is_empty() { Ok(()) } else { file::write_all(file.as_fd(), content) }
    }

    /// The directory was removed.
    fn make_again(&mut self) -> Result<(), SysError> {
        ignore_existing(file::make_dir(file::cwd(), ROOT, 0o700))?;
        let path = file::c_name(self.path.as_str())?;
        ignore_existing(file::make_dir(file::cwd(), &path, 0o700))?;
        self.dir = open(&self.path)?;
        self.put(c"loop", self.fill(super::shell::LOOP).as_bytes())
    }

    /// Makes a named pipe and opens its reading end, which also keeps whoever opens the other end
    /// from waiting. `is_endless` keeps it from ending when its last writer closes it.
    pub(super) fn make_pipe(
        &mut self,
        name: &CStr,
        is_endless: bool,
    ) -> Result<(OwnedFd, FileId), SysError> {
        self.remove(name);
        match file::make_pipe(self.dir.as_fd(), name, 0o600) {
            Err(SysError { errno: errno::ENOENT, .. }) => {
                self.make_again()?;
                file::make_pipe(self.dir.as_fd(), name, 0o600)?;
            }
            other => other?,
        }
        let mode = if is_endless { file::O_RDWR } else { file::O_RDONLY };
        let how = How::new(mode | file::O_NONBLOCK | file::O_NOFOLLOW);
        let pipe = File::from(file::open(self.dir.as_fd(), name, how)?);
        let metadata = pipe.metadata().map_err(|error| SysError {
            call: "fstat",
            errno: error.raw_os_error().unwrap_or(errno::EIO),
        })?;
        Ok((pipe.into(), FileId::of(&metadata)))
    }

    /// The pipe that reports come through.
    pub(super) fn make_status(&mut self) -> Result<OwnedFd, SysError> {
        self.make_pipe(STATUS, true).map(|(pipe, _)| pipe)
    }

    /// Nobody needs the name of the pipe for reports any more.
    pub(super) fn hide_status(&self) {
        self.remove(STATUS);
    }

    pub(super) fn remove(&self, name: &CStr) {
        // It is gone already, or it is nothing of ours.
        file::remove(self.dir.as_fd(), name).unwrap_or(());
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        NAMES.iter().for_each(|name| self.remove(name));
        self.hide_status();
        if let Ok(path) = CString::new(self.path.as_str()) {
            // What others put there keeps it.
            file::remove_dir(file::cwd(), &path).unwrap_or(());
        }
    }
}

fn open(path: &str) -> Result<OwnedFd, SysError> {
    let how = How::new(file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW);
    file::open(file::cwd(), &file::c_name(path)?, how)
}

fn ignore_existing(made: Result<(), SysError>) -> Result<(), SysError> {
    match made {
        Err(SysError { errno: errno::EEXIST, .. }) => Ok(()),
        other => other,
    }
}
