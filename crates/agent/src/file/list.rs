//! Listing a directory, a page at a time, in memory that does not grow with it.

use std::{
    ffi::CString,
    fs::File,
    os::fd::AsFd,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{FileEntry, FileList, ListFiles},
    limit::{FILE_PAGE_ENTRIES, PAGE_ENTRIES, PATH_BYTES},
};
use axum::{
    extract::State,
    http::{HeaderName, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sys::{SysError, errno, file};

use super::{
    base, blocking,
    entry::entry,
    fault::fault,
    path::{self, FilePath},
    walk::{Position, Walk, is_passable},
};
use crate::{extract::Query, init::Agent, refusal::Refusal};

const LIST: &str = "list";

/// The walk of the page that was made last, if there is more. Who asks for the next page next gets it
/// from here: where overlayfs merges directories, to open one again is to read all of it again. Holds
/// as much as one walk does, and everything works without it.
static PAUSED: Mutex<Option<Paused>> = Mutex::new(None);

/// Bytes of the longest cursor: that of a path whose every other byte is a slash.
const CURSOR_BYTES: usize = PATH_BYTES * 6;

/// Entries that are looked at together, at most.
const LOOK_ENTRIES: usize = 1024;

/// Directories that are held open for that, at most: fewer than the agent may open by far.
const LOOK_DIRECTORIES: usize = 128;

/// Of so many it pays to start a thread for half of them.
const SHARED_ENTRIES: usize = 128;

/// Lists a directory, a page at a time.
///
/// Within a page entries are sorted by path, component by component; a directory comes before its
/// content. Pages follow each other in the order of the file system, so that each costs the same,
/// however large the directory is. Names that are not UTF-8 are shown with U+FFFD and have
/// `encodedPath`. What is made, changed or removed between two pages may or may not appear.
#[utoipa::path(get, path = "/files:list", operation_id = "listFiles", tag = "files", params(ListFiles),
    responses(
        (status = 200, description = "One page", body = FileList),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, NOT_DIRECTORY, NAME_TOO_LONG, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn list(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<ListFiles>,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), Refusal> {
    let page = check(&base(&agent, query.session.as_ref())?, &query)?;
    // Written out where it is made: a large page would keep the thread of all requests for long.
    let json = blocking(move || {
        serde_json::to_vec(&make(page)?)
            .map_err(|fault| ApiError::new(ErrorCode::InternalError, fault.to_string()))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], json.await?))
}

/// A checked query.
#[derive(Debug)]
struct Page {
    list: List,
    /// Where the page before ended, and the same as text.
    after: Vec<Position>,
    cursor: String,
    limit: usize,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    path: FilePath,
    recursive: bool,
    hidden: bool,
}

/// A walk between two pages.
#[derive(Debug)]
struct Paused {
    list: List,
    cursor: String,
    walk: Walk,
}

/// A name that the walk has come to.
#[derive(Debug)]
struct Name {
    dir: Arc<File>,
    name: CString,
    path: Vec<u8>,
    unlisted: bool,
}

/// Names whose entries have not been looked at yet.
#[derive(Debug, Default)]
struct Found {
    names: Vec<Name>,
    /// Directories that they hold open.
    dirs: usize,
}

impl Found {
    fn add(&mut self, name: Name) {
        let is_near = self.names.last().is_some_and(|last| Arc::ptr_eq(&last.dir, &name.dir));
        self.dirs += usize::from(!is_near);
        self.names.push(name);
    }

    fn is_full(&self) -> bool {
        self.names.len() == LOOK_ENTRIES || self.dirs == LOOK_DIRECTORIES
    }

    /// Their entries, without those that are gone since their names were read. Half of many are looked
    /// at by a thread of their own: that is most of what a list takes, and the kernel's work.
    fn look(&mut self) -> Result<Vec<FileEntry>, SysError> {
        let names = std::mem::take(self).names;
        let others = if names.len() < SHARED_ENTRIES { 0 } else { names.len() / 2 };
        let (own, others) = names.split_at(names.len() - others);
        thread::scope(|scope| {
            let start = || thread::Builder::new().spawn_scoped(scope, || look(others));
            let helper = (!others.is_empty()).then(start);
            let mut entries = look(own)?;
            let others = match helper {
                Some(Ok(helper)) => helper.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // There is no thread to be had.
                Some(Err(_)) | None => look(others),
            };
            entries.append(&mut others?);
            Ok(entries)
        })
    }
}

fn look(names: &[Name]) -> Result<Vec<FileEntry>, SysError> {
    let look = |name: &Name| match entry(name.dir.as_fd(), &name.name, &name.path) {
        Err(SysError { errno: errno::ENOENT, .. }) => None,
        looked => Some(looked.map(|entry| FileEntry { unlisted: name.unlisted, ..entry })),
    };
    names.iter().filter_map(look).collect()
}

fn check(base: &str, query: &ListFiles) -> Result<Page, ApiError> {
    let invalid = |field: &str, text: String| {
        ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
    };
    let limit = query.limit.unwrap_or(PAGE_ENTRIES);
    if !(1..=FILE_PAGE_ENTRIES).contains(&limit) {
        return Err(invalid("limit", format!("limit is from 1 to {FILE_PAGE_ENTRIES}")));
    }
    let after = match &query.cursor {
        None => Vec::new(),
        Some(cursor) => parse_cursor(cursor)
            .filter(|positions| query.recursive || positions.len() == 1)
            .ok_or_else(|| {
                invalid("cursor", "cursor is not the nextCursor of a page of this list".to_owned())
            })?,
    };
    let path = path::absolute(base, &query.path)?;
    let list = List { path, recursive: query.recursive, hidden: query.hidden };
    Ok(Page { list, after, cursor: query.cursor.clone().unwrap_or_default(), limit })
}

/// Each position as its eight bytes, its name and a slash.
fn cursor<'a>(positions: impl Iterator<Item = &'a Position>) -> String {
    let mut bytes = Vec::new();
    for position in positions {
        bytes.extend_from_slice(&position.at.to_le_bytes());
        bytes.extend_from_slice(position.name.as_bytes());
        bytes.push(b'/');
    }
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_cursor(cursor: &str) -> Option<Vec<Position>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().filter(|b| b.len() <= CURSOR_BYTES)?;
    let mut rest = &bytes[..];
    let mut positions = Vec::new();
    let mut path = 0;
    while let Some((at, after)) = rest.split_first_chunk::<8>() {
        let end = after.iter().position(|byte| *byte == b'/')?;
        let (name, after) = after.split_at(end);
        path += name.len() + 1;
        rest = after.get(1..)?;
        let name = match name {
            b"" | b"." | b".." => return None,
            name => CString::new(name).ok()?,
        };
        positions.push(Position { at: u64::from_le_bytes(*at), name });
    }
    (rest.is_empty() && !positions.is_empty() && path <= PATH_BYTES).then_some(positions)
}

fn make(page: Page) -> Result<FileList, ApiError> {
    let Page { list, after, cursor: begins_at, limit } = page;
    let refuse = |error| fault(LIST, &list.path, error);
    let mut walk = match take_paused(&list, &begins_at) {
        Some(walk) => walk,
        None => open(&list, after).map_err(refuse)?,
    };
    let mut entries: Vec<FileEntry> = Vec::new();
    let mut found = Found::default();
    let mut next_cursor = String::new();
    let mut room = limit;
    while walk.step().map_err(refuse)? {
        if room == 0 {
            walk.stay();
            entries.append(&mut found.look().map_err(refuse)?);
            sort(&mut entries);
            pause(Paused { list, cursor: next_cursor.clone(), walk });
            return Ok(FileList { entries, next_cursor: Some(next_cursor) });
        }
        let Some(dir) = walk.dir() else { continue };
        let (path, name) = (walk.path(), walk.place().1.to_owned());
        let goes_in = list.recursive && walk.is_at_directory();
        let unlisted = goes_in && enter(&mut walk).map_err(refuse)?;
        found.add(Name { dir, name, path, unlisted });
        if found.is_full() {
            entries.append(&mut found.look().map_err(refuse)?);
        }
        room -= 1;
        if room == 0 {
            next_cursor = cursor(walk.positions());
        }
    }
    entries.append(&mut found.look().map_err(refuse)?);
    sort(&mut entries);
    Ok(FileList { entries, next_cursor: None })
}

fn open(list: &List, after: Vec<Position>) -> Result<Walk, SysError> {
    let flags = file::O_RDONLY | file::O_DIRECTORY;
    let root = path::open(file::cwd(), list.path.as_c_str(), flags)?;
    let mut walk = Walk::new(root, list.path.trimmed().as_bytes(), list.hidden);
    walk.resume(after, list.recursive);
    Ok(walk)
}

fn take_paused(list: &List, cursor: &str) -> Option<Walk> {
    let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |paused: &mut Paused| paused.list == *list && paused.cursor == cursor;
    paused.take_if(fits).map(|paused| paused.walk)
}

fn pause(walk: Paused) {
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(walk);
}

/// Goes into a directory; true when its content stays out of the list.
fn enter(walk: &mut Walk) -> Result<bool, SysError> {
    match walk.enter() {
        Ok(()) => Ok(false),
        // Gone, or another thing by now: it has no content.
        Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => Ok(false),
        Err(error) if is_passable(error) => Ok(true),
        Err(error) => Err(error),
    }
}

fn sort(entries: &mut [FileEntry]) {
    entries.sort_by_cached_key(|entry| by_component(entry.path.as_bytes()));
}

/// Paths in the order of these are sorted component by component: the slash goes before everything.
fn by_component(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_before_its_content_and_that_before_its_neighbours() {
        let sorted = ["/a", "/a/b", "/a/b/c", "/a/b.x", "/a-", "/a-/z", "/a0", "/b"];
        for (index, a) in sorted.iter().enumerate() {
            for (other, b) in sorted.iter().enumerate() {
                let found = by_component(a.as_bytes()).cmp(&by_component(b.as_bytes()));
                assert_eq!(found, index.cmp(&other), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let position = |at, name: &CStr| Position { at, name: name.to_owned() };
        let positions = vec![position(u64::MAX / 2, c"a"), position(0, c"\xff b")];
        assert_eq!(parse_cursor(&cursor(positions.iter())), Some(positions));
        let longest: Vec<Position> = (0..PATH_BYTES / 2).map(|_| position(7, c"d")).collect();
        assert_eq!(parse_cursor(&cursor(longest.iter())), Some(longest));
        for name in [c"", c".", c".."] {
            assert_eq!(parse_cursor(&cursor([position(1, name)].iter())), None);
        }
        let deep: Vec<Position> = (0..=PATH_BYTES / 2).map(|_| position(7, c"d")).collect();
        assert_eq!(parse_cursor(&cursor(deep.iter())), None);
        for bad in ["", "AA", "!", "AAAAAAAAAAAA", "AAAAAAAAAABhAA"] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }

    use std::ffi::CStr;
}
