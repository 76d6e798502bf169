//! What differs between two states of files, both of which are shown to this jail as views
//! ([`jail::VIEWS`]) and change no more.
//!
//! ```text
//! views: image │ after, whole │ after, own files │ before, whole │ before, own files
//! ```
//!
//! Without the last two the state before is the image. What is whole is the kernel's own word on what
//! a sandbox would see, whiteouts and opaque directories counted in; what is own says where anything
//! can differ at all, so the work follows the size of what was written and not that of the image.
//!
//! Owns: one page. Does not know whose files these are.

mod compare;
mod walk;

use std::time::{Duration, Instant};

use api::{
    diff::{DiffFiles, Difference, DifferenceKind, FileDiff},
    error::{ApiError, ErrorBody, ErrorCode},
    limit::{FILE_PAGE_ENTRIES, PAGE_ENTRIES, PATH_BYTES},
};
use axum::http::{HeaderName, header};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sys::{
    SysError, errno,
    file::{self, Stat},
};

use self::walk::{Found, Side, Walk};
use crate::{
    extract::Query,
    file::{blocking, entry},
    refusal::Refusal,
};

/// How long a page may be worked on, from its first difference or not: what asks for it waits.
const PAGE_TIME: Duration = Duration::from_secs(5);

/// Bytes of the paths in a page: what is answered is a few times as long.
const PAGE_PATH_BYTES: usize = 4 * 1024 * 1024;

/// Compares two states of files, a page at a time.
///
/// For a jail that has views of them; asked by the engine alone.
#[utoipa::path(get, path = "/diff", operation_id = "diffViews", tag = "checkpoint", params(DiffFiles),
    responses(
        (status = 200, description = "One page", body = FileDiff),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "TREE_TOO_LARGE: a directory has more names than can be compared", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
    ))]
pub(crate) async fn diff(
    Query(query): Query<DiffFiles>,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), Refusal> {
    let page = Page::check(&query)?;
    let json = blocking(move || {
        serde_json::to_vec(&page.make()?)
            .map_err(|fault| ApiError::new(ErrorCode::InternalError, fault.to_string()))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], json.await?))
}

/// A checked query.
struct Page {
    /// The path that was looked at last; none for the first page.
    after: Option<Vec<u8>>,
    limit: usize,
}

impl Page {
    fn check(query: &DiffFiles) -> Result<Self, ApiError> {
        let invalid = |field: &str, text: String| {
            ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
        };
        let limit = query.limit.unwrap_or(PAGE_ENTRIES);
        if !(1..=FILE_PAGE_ENTRIES).contains(&limit) {
            return Err(invalid("limit", format!("limit is from 1 to {FILE_PAGE_ENTRIES}")));
        }
        let after = query.cursor.as_deref().map(|cursor| {
            parse_cursor(cursor).ok_or_else(|| {
                invalid("cursor", "cursor is not the nextCursor of a page".to_owned())
            })
        });
        Ok(Self { after: after.transpose()?, limit })
    }

    fn make(self) -> Result<FileDiff, ApiError> {
        let (before, after) = open()?;
        let mut walk = Walk::new(before, after, self.after)?;
        let mut differences: Vec<Difference> = Vec::new();
        let (deadline, mut path_bytes) = (Instant::now() + PAGE_TIME, 0);
        while let Some(found) = walk.step()? {
            let path = walk.path();
            let told = differences.len();
            match found {
                Found::Deleted(before) => differences.push(gone(path, &before)),
                Found::Added(after) => differences.push(new(path, &after)),
                Found::Replaced(before, after) => {
                    differences.extend([gone(path, &before), new(path, &after)]);
                }
                Found::Both(before, after) => {
                    let changes = compare::changes(&walk, (&before, &after));
                    let changes = changes.map_err(|error| fault(path, error))?;
                    if !changes.is_empty() || walk.is_unread() {
                        let kind = DifferenceKind::Modified;
                        differences.push(Difference { changes, ..told_of(path, kind, &after) });
                    }
                }
            }
            if let Some(last) = differences.last_mut().filter(|_| walk.is_unread()) {
                last.unread = true;
            }
            path_bytes += path.len() * (differences.len() - told);
            if differences.len() >= self.limit
                || path_bytes >= PAGE_PATH_BYTES
                || Instant::now() >= deadline
            {
                let next_cursor = Some(BASE64_URL_SAFE_NO_PAD.encode(walk.path()));
                return Ok(FileDiff { differences, next_cursor });
            }
        }
        Ok(FileDiff { differences, next_cursor: None })
    }
}

/// The states before and after.
fn open() -> Result<(Side, Side), ApiError> {
    let [image, whole, own, before_whole, before_own] = jail::VIEWS;
    let view = |place| {
        let how = file::How::new(file::O_RDONLY | file::O_DIRECTORY);
        file::open(file::cwd(), place, how)
    };
    let opened = || {
        let after = Side { whole: view(whole)?, own: Some(view(own)?) };
        let before = match view(before_whole) {
            Err(SysError { errno: errno::ENOENT, .. }) => Side { whole: view(image)?, own: None },
            whole => Side { whole: whole?, own: Some(view(before_own)?) },
        };
        Ok((before, after))
    };
    opened().map_err(|error| fault(b"", error))
}

fn gone(path: &[u8], before: &Stat) -> Difference {
    told_of(path, DifferenceKind::Deleted, before)
}

fn new(path: &[u8], after: &Stat) -> Difference {
    told_of(path, DifferenceKind::Added, after)
}

fn told_of(path: &[u8], kind: DifferenceKind, stat: &Stat) -> Difference {
    let absolute = [b"/", path].concat();
    let shown = entry::of_stat(stat, &absolute);
    Difference {
        path: shown.path,
        encoded_path: shown.encoded_path,
        kind,
        file_type: shown.file_type,
        size: shown.size,
        changes: Vec::new(),
        unread: false,
    }
}

fn parse_cursor(cursor: &str) -> Option<Vec<u8>> {
    let path = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    let fits = path.len() <= PATH_BYTES;
    (fits && (path.is_empty() || path.split(|byte| *byte == b'/').all(is_name))).then_some(path)
}

/// What the kernel refused at `path`.
fn fault(path: &[u8], error: SysError) -> ApiError {
    let shown = format!("/{}", String::from_utf8_lossy(path));
    let text = format!("cannot compare {shown}: {}", std::io::Error::from(error));
    ApiError::new(ErrorCode::FilesystemError, text).with("path", shown).with("errno", error.errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_path_below_the_root() {
        for path in [&b""[..], b"a", b"a/\xff\n/c", &[b'x'; PATH_BYTES]] {
            let cursor = BASE64_URL_SAFE_NO_PAD.encode(path);
            assert_eq!(parse_cursor(&cursor).as_deref(), Some(path));
        }
        for path in [&b"/a"[..], b"a/", b"a//b", b"..", b"a/../b", b"a\0", &[b'x'; PATH_BYTES + 1]]
        {
            assert_eq!(parse_cursor(&BASE64_URL_SAFE_NO_PAD.encode(path)), None);
        }
        assert_eq!(parse_cursor("!"), None);
    }
}
