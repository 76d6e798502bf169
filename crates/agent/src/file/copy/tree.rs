//! A directory into its copy.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use api::file::FileType;
use sys::{
    SysError, errno,
    file::{self, Stat},
};

use super::{
    super::{
        entry::file_type,
        walk::{OPEN_DIRECTORIES, Walk, open_below},
    },
    FILLING_MODE, read_link,
    transfer::{Transfer, dress, dress_link, unless_gone},
};

/// Entries copied before others get the thread: some 20 ms.
const STEP_ENTRIES: usize = 256;

/// A directory on its way into its copy.
#[derive(Debug)]
pub(super) struct Tree {
    walk: Walk,
    root: OwnedFd,
    /// The copies of the directories that the walk is in.
    copies: Vec<Filling>,
    /// The file that is being copied.
    transfer: Option<Transfer>,
    keeps_all: bool,
}

/// The copy of a directory, not finished yet.
#[derive(Debug)]
struct Filling {
    /// None when it is not held open; found again by its path.
    dir: Option<OwnedFd>,
    stat: Stat,
    /// Its path below the root.
    path: Vec<u8>,
}

impl Tree {
    pub(super) fn new(walk: Walk, root: OwnedFd, stat: Stat, keeps_all: bool) -> Self {
        let first = Filling { dir: None, stat, path: Vec::new() };
        Self { walk, root, copies: vec![first], transfer: None, keeps_all }
    }

    /// Path of the entry it has come to.
    pub(super) fn path(&self) -> Vec<u8> {
        self.walk.path()
    }

    /// Copies some more; true at the end.
    pub(super) fn step(&mut self) -> Result<bool, SysError> {
        for _ in 0..STEP_ENTRIES {
            if let Some(transfer) = &mut self.transfer {
                if !transfer.step()? {
                    return Ok(false);
                }
                self.transfer = None;
            }
            let is_more = self.walk.step()?;
            self.finish_left()?;
            if !is_more {
                return Ok(true);
            }
            self.entry()?;
        }
        Ok(false)
    }

    /// Dresses the copies of directories that the walk has left. They were closed to others, and
    /// what was put into them has changed their times.
    fn finish_left(&mut self) -> Result<(), SysError> {
        while self.copies.len() > self.walk.depth() {
            self.open_last()?;
            let Some(Filling { dir: Some(dir), stat, .. }) = self.copies.pop() else { break };
            dress(&File::from(dir), &stat, self.keeps_all)?;
        }
        Ok(())
    }

    fn open_last(&mut self) -> Result<(), SysError> {
        if let Some(last) = self.copies.last_mut().filter(|last| last.dir.is_none()) {
            let path = [&last.path, &b"/."[..]].concat();
            let path = file::c_name(path.strip_prefix(b"/").unwrap_or(&path))?;
            last.dir = Some(open_below(self.root.as_fd(), &path)?);
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<(), SysError> {
        self.open_last()?;
        let (dir, name) = self.walk.place();
        let Some(to) = self.copies.last().and_then(|copy| copy.dir.as_ref()) else { return Ok(()) };
        // Gone since its name was read, here and below.
        let Some(stat) = unless_gone(file::stat(dir, name))? else { return Ok(()) };
        match file_type(&stat) {
            FileType::Symlink => {
                let Some(link) = unless_gone(read_link(dir, name))? else { return Ok(()) };
                file::make_link(&link, to.as_fd(), name)?;
                if self.keeps_all { dress_link(to.as_fd(), name, &stat) } else { Ok(()) }
            }
            FileType::File => {
                self.transfer = Transfer::open(dir, to.as_fd(), name, self.keeps_all)?;
                Ok(())
            }
            FileType::Directory => {
                let name = name.to_owned();
                if unless_gone(self.walk.enter())?.is_none() {
                    return Ok(());
                }
                file::make_dir(to.as_fd(), &name, FILLING_MODE)?;
                let dir = open_below(to.as_fd(), &name)?;
                self.enter(dir, stat);
                Ok(())
            }
            FileType::Other => Err(SysError { call: "open", errno: errno::ENODEV }),
        }
    }

    fn enter(&mut self, dir: OwnedFd, stat: Stat) {
        let path = self.walk.below_root(self.walk.depth()).to_vec();
        self.copies.push(Filling { dir: Some(dir), stat, path });
        let far = self.copies.len().checked_sub(OPEN_DIRECTORIES + 1);
        if let Some(copy) = far.and_then(|far| self.copies.get_mut(far)) {
            copy.dir = None;
        }
    }
}
