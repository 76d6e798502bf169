//! Listing a directory: sorted, a page at a time, in memory that does not grow with it.
//!
//! ```text
//! cursor ─▶ open the directories on its way ─▶ walk in order ─▶ page, next cursor
//! ```
//!
//! Each level of the walk holds the next few names after its position, found by reading its whole
//! directory and keeping the smallest. When all levels together hold too many, the outermost
//! forget theirs; a position is enough to find them again. So a page of a directory costs one look
//! at all of its names, and any number of entries fits.
//!
//! Order: path by path, component by component, bytes as numbers; a directory before its content.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
};

use api::{
    error::{ApiError, ErrorCode},
    file::{FileEntry, FileList, FileType, ListFiles},
    limit::{PAGE_ENTRIES, PATH_BYTES},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sys::{
    SysError, errno,
    file::{self, How, Names},
};

use super::{
    entry::entry,
    fault::fault,
    path::{self, FilePath},
};

const LIST: &str = "list";

/// Names held by all levels together; more than one page, so that a flat directory is read once
/// per page.
const HELD_NAMES: usize = 4 * PAGE_ENTRIES;

/// Bytes of the path of the deepest directory whose content is shown: the path of what is in it
/// must itself fit in a path, and a name has up to 255 bytes.
const DEEPEST_BYTES: usize = PATH_BYTES - 256;

/// A checked query.
#[derive(Debug)]
pub(super) struct Page {
    path: FilePath,
    recursive: bool,
    hidden: bool,
    /// Components of the last entry of the page before, below `path`.
    after: Vec<CString>,
    limit: usize,
}

/// Checks a query.
pub(super) fn check(workdir: &str, query: &ListFiles) -> Result<Page, ApiError> {
    let invalid = |field: &str, text: String| {
        ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
    };
    let limit = query.limit.unwrap_or(PAGE_ENTRIES);
    if !(1..=PAGE_ENTRIES).contains(&limit) {
        return Err(invalid("limit", format!("limit is from 1 to {PAGE_ENTRIES}")));
    }
    let after = match &query.cursor {
        None => Vec::new(),
        Some(cursor) => parse_cursor(cursor).ok_or_else(|| {
            invalid("cursor", "cursor is not the nextCursor of a page".to_owned())
        })?,
    };
    Ok(Page {
        path: path::absolute(workdir, &query.path)?,
        recursive: query.recursive,
        hidden: query.hidden,
        after,
        limit,
    })
}

fn cursor(components: &[CString]) -> String {
    let bytes: Vec<&[u8]> = components.iter().map(CString::as_bytes).collect();
    BASE64_URL_SAFE_NO_PAD.encode(bytes.join(&b'/'))
}

fn parse_cursor(cursor: &str) -> Option<Vec<CString>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().filter(|b| b.len() <= PATH_BYTES)?;
    bytes
        .split(|byte| *byte == b'/')
        .map(|part| match part {
            b"" | b"." | b".." => None,
            part => CString::new(part).ok(),
        })
        .collect()
}

/// Makes the page.
pub(super) fn list(page: &Page) -> Result<FileList, ApiError> {
    let refuse = |error| fault(LIST, &page.path, error);
    let root = path::open(file::cwd(), page.path.as_c_str(), file::O_RDONLY | file::O_DIRECTORY)
        .map_err(refuse)?;
    let mut walk = Walk::new(page, root).map_err(refuse)?;
    let mut entries: Vec<FileEntry> = Vec::new();
    let mut last = Vec::new();
    while let Some(found) = walk.next(page.limit - entries.len() + 1).map_err(refuse)? {
        if entries.len() == page.limit {
            return Ok(FileList { entries, next_cursor: Some(cursor(&last)) });
        }
        last = walk.position();
        entries.push(found);
    }
    Ok(FileList { entries, next_cursor: None })
}

/// A directory on the way of the walk.
#[derive(Debug)]
struct Level {
    /// Its name in the level above; empty for the root.
    name: CString,
    /// The entry it has come to.
    at: Option<CString>,
    /// The names right after `at`, in order.
    next: VecDeque<CString>,
    /// True when nothing comes after `next`.
    is_complete: bool,
}

impl Level {
    fn new(name: CString, at: Option<CString>) -> Self {
        Self { name, at, next: VecDeque::new(), is_complete: false }
    }
}

/// A walk through a tree, in order.
#[derive(Debug)]
struct Walk<'a> {
    page: &'a Page,
    root: OwnedFd,
    levels: Vec<Level>,
    /// Descriptor of the last level.
    dir: Option<OwnedFd>,
}

impl<'a> Walk<'a> {
    /// Begins after the page's cursor.
    fn new(page: &'a Page, root: OwnedFd) -> Result<Self, SysError> {
        let mut walk = Self { page, root, levels: Vec::new(), dir: None };
        let mut name = c"".to_owned();
        for component in &page.after {
            walk.levels.push(Level::new(name, Some(component.clone())));
            name = component.clone();
        }
        // The cursor's entry may be a directory, whose content comes next.
        if page.after.is_empty() || page.recursive {
            walk.levels.push(Level::new(name, None));
        }
        walk.enter()?;
        Ok(walk)
    }

    /// The next entry; `wanted` says how many more may be asked for.
    fn next(&mut self, wanted: usize) -> Result<Option<FileEntry>, SysError> {
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let Some(dir) = &self.dir else {
                self.leave()?;
                continue;
            };
            if level.next.is_empty() && !level.is_complete {
                fill(level, dir, self.page.hidden, wanted)?;
                self.forget();
                continue;
            }
            let Some(name) = level.next.pop_front() else {
                self.leave()?;
                continue;
            };
            level.at = Some(name.clone());
            let path = self.shown_path();
            let Some(dir) = &self.dir else { continue };
            match entry(dir.as_fd(), &name, &path) {
                Ok(found) => {
                    let is_directory = found.file_type == FileType::Directory;
                    if self.page.recursive && is_directory && path.len() < DEEPEST_BYTES {
                        self.levels.push(Level::new(name, None));
                        self.descend()?;
                    }
                    return Ok(Some(found));
                }
                // Gone since its name was read.
                Err(SysError { errno: errno::ENOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Components of the entry it has come to.
    fn position(&self) -> Vec<CString> {
        self.levels.iter().filter_map(|level| level.at.clone()).collect()
    }

    fn shown_path(&self) -> Vec<u8> {
        let trimmed = self.page.path.trimmed();
        let mut path = trimmed.as_bytes().to_vec();
        for component in self.position() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(component.as_bytes());
        }
        path
    }

    /// Opens the last level, from the root. One that is gone, is none any more, may not be read or
    /// is too deep for a path has no content to show.
    fn enter(&mut self) -> Result<(), SysError> {
        let mut relative = Vec::new();
        for level in self.levels.iter().skip(1) {
            relative.extend_from_slice(level.name.as_bytes());
            relative.push(b'/');
        }
        relative.push(b'.');
        self.dir = Self::passable(open_below(&self.root, &file::c_name(relative)?))?;
        Ok(())
    }

    /// Opens the last level, which has just been pushed, from the one above it.
    fn descend(&mut self) -> Result<(), SysError> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let Some(dir) = &self.dir else { return Ok(()) };
        self.dir = Self::passable(open_below(dir, &level.name))?;
        Ok(())
    }

    fn passable(opened: Result<OwnedFd, SysError>) -> Result<Option<OwnedFd>, SysError> {
        use errno::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EXDEV};
        match opened {
            Ok(dir) => Ok(Some(dir)),
            Err(error) => match error.errno {
                EACCES | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR | EPERM | EXDEV => Ok(None),
                _ => Err(error),
            },
        }
    }

    fn leave(&mut self) -> Result<(), SysError> {
        self.levels.pop();
        if self.levels.is_empty() { Ok(()) } else { self.enter() }
    }

    /// Takes names from the outermost levels while all hold too many.
    fn forget(&mut self) {
        let mut held: usize = self.levels.iter().map(|level| level.next.len()).sum();
        let Some((_, outer)) = self.levels.split_last_mut() else { return };
        for level in outer {
            if held <= HELD_NAMES {
                return;
            }
            held -= level.next.len();
            if !level.next.is_empty() {
                level.next.clear();
                level.is_complete = false;
            }
        }
    }
}

/// Opens a directory of the listed tree: no way out of it, and nothing of /proc that is the
/// agent's.
fn open_below(dir: &OwnedFd, path: &CStr) -> Result<OwnedFd, SysError> {
    let how = How {
        flags: file::O_PATH | file::O_DIRECTORY,
        mode: 0,
        resolve: file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS,
    };
    let found = file::open(dir.as_fd(), path, how)?;
    path::open(found.as_fd(), c".", file::O_RDONLY | file::O_DIRECTORY)
}

/// Reads the directory and keeps the `wanted` smallest names after the level's position.
fn fill(level: &mut Level, dir: &OwnedFd, hidden: bool, wanted: usize) -> Result<(), SysError> {
    let flags = file::O_RDONLY | file::O_DIRECTORY;
    let mut names = Names::new(path::open(dir.as_fd(), c".", flags)?);
    let mut smallest = BTreeSet::new();
    level.is_complete = true;
    let (at, is_complete) = (&level.at, &mut level.is_complete);
    while names.next_batch(|name| {
        let is_past = at.as_deref().is_none_or(|at| name.cmp(at) == Ordering::Greater);
        if !is_past || (!hidden && name.to_bytes().starts_with(b".")) {
            return;
        }
        if smallest.len() >= wanted {
            *is_complete = false;
            if smallest.last().is_some_and(|last: &CString| name >= last.as_c_str()) {
                return;
            }
            smallest.pop_last();
        }
        smallest.insert(name.to_owned());
    })? {}
    level.next = smallest.into_iter().collect();
    Ok(())
}
