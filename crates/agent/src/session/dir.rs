//! The private directory of one shell: what it sources, and its named pipes.
//!
//! Code of the session can do anything to it. So nothing here waits for a file, follows a link or
//! depends on what is there already; what is missing is made again.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
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

use super::text;

/// Where the directories of all shells are: memory, which nothing of the image needs to have.
const ROOT: &CStr = c"/run/sandbar";

/// Directories that may be in the way of a new one. Only code in the sandbox can put them there.
const TRIES: usize = 64;

/// All names that are ever used in a directory.
const NAMES: [&str; 16] = [
    "start", "loop", "nothing", "leave", "status", "command", "step", "before", "saved", "names",
    "input", "int", "out0", "out1", "err0", "err1",
];

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

/// A shell's directory. Dropping it removes what was put there. It is known by its path alone, as the
/// shell knows it.
#[derive(Debug)]
pub(super) struct Dir {
    path: String,
}

impl Dir {
    /// Makes an empty directory that only the sandbox's root can use.
    pub(super) fn make() -> Result<Self, SysError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut in_the_way = SysError { call: "mkdirat", errno: errno::EEXIST };
        for _ in 0..TRIES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = format!("{}/{number}", ROOT.to_string_lossy());
            match make_below_root(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.errno == errno::EEXIST => in_the_way = error,
                Err(error) => return Err(error),
            }
        }
        Err(in_the_way)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn path_of(&self, name: &str) -> Result<CString, SysError> {
        file::c_name(format!("{}/{name}", self.path))
    }

    /// Puts the texts here that make a shell one of a session.
    pub(super) fn put_texts(&self) -> Result<(), SysError> {
        self.put("start", text::start(&self.path).as_bytes())?;
        self.put(text::NOTHING, b"")?;
        self.put(text::LEAVE, text::LEAVE_TEXT)?;
        self.put("loop", text::main_loop(&self.path).as_bytes())
    }

    /// Writes a file whole.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), SysError> {
        match self.put(name, content) {
            Err(SysError { errno: errno::ENOENT | errno::ENOTDIR, .. }) => {
                self.make_again()?;
                self.put(name, content)
            }
            other => other,
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), SysError> {
        let flags = file::O_WRONLY
            | file::O_CREAT
            | file::O_NOFOLLOW
            // Of a pipe that somebody put there.
            | file::O_NONBLOCK;
        let how = How { mode: 0o600, ..How::new(flags) };
        let file = file::open(file::cwd(), &self.path_of(name)?, how)?;
        if !content.is_empty() {
            file::write_all(file.as_fd(), content)?;
        }
        // Over what was there, and then the rest of that away: emptied first, it would give back its
        // memory to take it again.
        let file = File::from(file);
        let length = content.len() as u64;
        let cut = file.metadata().and_then(|found| match found.len() > length {
            true => file.set_len(length),
            false => Ok(()),
        });
        cut.map_err(|error| of_io("ftruncate", &error))
    }

    /// The directory was removed.
    fn make_again(&self) -> Result<(), SysError> {
        ignore_existing(make_below_root(&self.path))?;
        self.put_texts()
    }

    /// Makes a named pipe and opens its reading end, which also keeps whoever opens the other end
    /// from waiting. `is_endless` keeps it from ending when its last writer closes it.
    pub(super) fn make_pipe(
        &self,
        name: &str,
        is_endless: bool,
    ) -> Result<(OwnedFd, FileId), SysError> {
        self.remove(name);
        let path = self.path_of(name)?;
        match file::make_pipe(file::cwd(), &path, 0o600) {
            Err(SysError { errno: errno::ENOENT | errno::ENOTDIR, .. }) => {
                self.make_again()?;
                file::make_pipe(file::cwd(), &path, 0o600)?;
            }
            other => other?,
        }
        let mode = if is_endless { file::O_RDWR } else { file::O_RDONLY };
        let how = How::new(mode | file::O_NONBLOCK | file::O_NOFOLLOW);
        let pipe = File::from(file::open(file::cwd(), &path, how)?);
        let metadata = pipe.metadata().map_err(|error| of_io("fstat", &error))?;
        Ok((pipe.into(), FileId::of(&metadata)))
    }

    pub(super) fn remove(&self, name: &str) {
        if let Ok(path) = self.path_of(name) {
            // It is gone already, or it is nothing of ours.
            file::remove(file::cwd(), &path).unwrap_or(());
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        NAMES.iter().for_each(|name| self.remove(name));
        if let Ok(path) = file::c_name(self.path.as_str()) {
            // What others put there keeps it.
            file::remove_dir(file::cwd(), &path).unwrap_or(());
        }
    }
}

fn of_io(call: &'static str, error: &io::Error) -> SysError {
    SysError { call, errno: error.raw_os_error().unwrap_or(errno::EIO) }
}

fn make_below_root(path: &str) -> Result<(), SysError> {
    let path = file::c_name(path)?;
    let make = |name| file::make_dir(file::cwd(), name, 0o700);
    match make(&path) {
        Err(SysError { errno: errno::ENOENT, .. }) => {
            ignore_existing(make(ROOT))?;
            make(&path)
        }
        // Something else has the name, which goes; a directory would not.
        Err(SysError { errno: errno::ENOTDIR, .. }) => {
            file::remove(file::cwd(), ROOT)?;
            make(ROOT)?;
            make(&path)
        }
        made => made,
    }
}

fn ignore_existing(made: Result<(), SysError>) -> Result<(), SysError> {
    match made {
        Err(SysError { errno: errno::EEXIST, .. }) => Ok(()),
        other => other,
    }
}
