//! Writing a file: beside the target, then in its place or at its end.

use std::{
    ffi::CString,
    fs::{File, Permissions},
    io::{self, IoSlice, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, PermissionsExt, fchown},
    },
    sync::{Arc, Mutex, PoisonError},
};

use api::{
    error::{ApiError, ErrorBody, ErrorCode},
    file::{FileEntry, WriteFile},
};
use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use sys::{
    SysError, errno,
    file::{self, Stat},
};

use super::{
    QUICK_BYTES, blocking,
    chmod::{self, SETTABLE},
    condition::{self, Tags},
    entry::{etag, of_stat},
    fault::{fault, io_fault},
    mkdir::directories,
    path::{self, FilePath, Target},
    place, quickly,
    read::PIECE_BYTES,
    temporary,
};
use crate::{extract::Query, init::Agent, refusal::Refusal};

const WRITE: &str = "write";

/// Bytes below which a part of a body is copied out of the buffer it came in.
const SMALL_BYTES: usize = 16 * 1024;

/// Bytes of memory that a part of a body takes at least.
const SMALL_COST_BYTES: usize = 64;

/// Permission bits of a new file.
const FILE_MODE: u32 = 0o644;

/// Held while a finished upload takes its place, so that of two writers who name the same content
/// in `If-Match` one is refused.
static PLACING: Mutex<()> = Mutex::new(());

/// Held while a finished upload is added to a file, so that two additions do not mix, and while one takes
/// its place that names in `If-Match` what is there, so that no addition is lost to it. Long ones wait here
/// without a thread.
static ADDING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Writes a file whole.
///
/// The content is written beside the file and takes its place at the end, so a reader sees the old
/// content or the new, and a broken upload changes nothing. Missing parent directories are made. An
/// existing file keeps its permission bits and its owner; a symbolic link is followed; of a file
/// with several names only this name changes. With `append` the whole body is added to the file.
#[utoipa::path(put, path = "/files/{*path}", operation_id = "writeFile", tag = "files",
    params(("path" = String, Path, description = "Absolute path, without the leading slash"), WriteFile,
        ("if-match" = Option<String>, Header, description = "Only over the content with one of these etags"),
        ("if-none-match" = Option<String>, Header, description = "`*`: as `exclusive`")),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Written", body = FileEntry, headers(("etag" = String, description = "Names the new content"))),
        (status = 400, description = "VALIDATION_FAILED, INVALID_PATH, IS_DIRECTORY, NOT_DIRECTORY, NAME_TOO_LONG, NOT_REGULAR_FILE, TOO_MANY_LINKS", body = ErrorBody),
        (status = 403, description = "PERMISSION_DENIED, READ_ONLY", body = ErrorBody),
        (status = 404, description = "FILE_NOT_FOUND: a parent is a link that leads nowhere", body = ErrorBody),
        (status = 409, description = "FILE_EXISTS; RESOURCE_BUSY: something is mounted there", body = ErrorBody),
        (status = 412, description = "PRECONDITION_FAILED", body = ErrorBody),
        (status = 422, description = "CHECKSUM_MISMATCH", body = ErrorBody),
        (status = 500, description = "FILESYSTEM_ERROR", body = ErrorBody),
        (status = 507, description = "NO_SPACE", body = ErrorBody),
    ))]
pub(crate) async fn write(
    State(agent): State<Arc<Agent>>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<WriteFile>,
    headers: HeaderMap,
    body: Body,
) -> Result<(HeaderMap, Json<FileEntry>), Refusal> {
    let path = path::of_url(place(&agent, query.session.as_ref())?.as_deref(), uri.path())?;
    let how = How {
        mode: query.mode.as_deref().map(chmod::parse).transpose()?,
        append: query.append,
        exclusive: query.exclusive || condition::is_for_new_only(&headers),
        sha256: query.sha256.as_deref().map(parse_sha256).transpose()?,
        if_match: condition::if_match(&headers),
    };
    let entry = upload(path, how, body).await?;
    let mut headers = HeaderMap::new();
    if let Some(Ok(tag)) = entry.etag.as_deref().map(str::parse) {
        headers.insert(header::ETAG, tag);
    }
    Ok((headers, Json(entry)))
}

/// How a file is to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    pub(super) mode: Option<u32>,
    pub(super) append: bool,
    pub(super) exclusive: bool,
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) if_match: Option<Tags>,
}

/// A SHA-256 of a request's text.
pub(super) fn parse_sha256(text: &str) -> Result<[u8; 32], ApiError> {
    let mut digest = [0; 32];
    let digits = text.as_bytes().as_chunks::<2>();
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (byte, pair) in digest.iter_mut().zip(digits.0) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    is_hex.then_some(digest).ok_or_else(|| {
        let text = "sha256 is 64 hexadecimal digits";
        ApiError::new(ErrorCode::ValidationFailed, text).with("field", "sha256")
    })
}

/// Writes `body` to `path`.
///
/// Cancel safety: dropping the future removes the temporary file and leaves the target; an addition
/// that has begun ends.
async fn upload(path: FilePath, how: How, mut body: Body) -> Result<FileEntry, ApiError> {
    let mut upload: Option<Upload> = None;
    let (mut piece, mut is_last) = gather(&mut body).await?;
    while !is_last {
        let (path, how) = (path.clone(), how.clone());
        let step = blocking(move || {
            let mut upload = upload.map_or_else(|| Upload::begin(&path, how), Ok)?;
            upload.write(&piece)?;
            Ok(upload)
        });
        // The next piece comes while this one is written.
        let (written, next) = tokio::try_join!(step, gather(&mut body))?;
        upload = Some(written);
        (piece, is_last) = next;
    }
    let length: usize = piece.iter().map(Bytes::len).sum();
    let is_small = upload.is_none() && !how.append && length as u64 <= QUICK_BYTES;
    let is_alone = how.append || how.if_match.is_some();
    let adding = if is_alone { Some(ADDING.lock().await) } else { None };
    let last = move || {
        // Held here, because this goes on also when nobody waits for it any more.
        let _adding = adding;
        let mut upload = upload.map_or_else(|| Upload::begin(&path, how), Ok)?;
        upload.write(&piece)?;
        upload.finish()
    };
    // A large one may be taking its place, which has the kernel write out what was there.
    if is_small && PLACING.try_lock().is_ok() { quickly(last).await } else { blocking(last).await }
}

/// Writes `content` to `path`, on a thread that may wait.
pub(super) async fn write_whole(
    path: FilePath,
    how: How,
    content: Vec<u8>,
) -> Result<FileEntry, ApiError> {
    upload(path, how, Body::from(content)).await
}

/// The next bytes of the body, some [`PIECE_BYTES`], and whether they are its last.
pub(super) async fn gather(body: &mut Body) -> Result<(Vec<Bytes>, bool), ApiError> {
    let mut piece = Vec::new();
    let mut length = 0;
    while length < PIECE_BYTES {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                let text = "the upload broke off; nothing was changed";
                return Err(ApiError::new(ErrorCode::ValidationFailed, text));
            }
            None => return Ok((piece, true)),
        };
        // Trailers are no content.
        if let Ok(bytes) = frame.into_data() {
            length += bytes.len().max(SMALL_COST_BYTES);
            // A small part of a connection's buffer would keep the whole of it.
            let is_small = bytes.len() < SMALL_BYTES;
            piece.push(if is_small { Bytes::copy_from_slice(&bytes) } else { bytes });
        }
    }
    Ok((piece, false))
}

/// A file being written under a temporary name. Dropping it removes that.
#[derive(Debug)]
struct Upload {
    target: Target,
    how: How,
    /// The file that is replaced or added to.
    old: Option<Stat>,
    temporary: CString,
    file: File,
    digest: Option<Sha256>,
    is_placed: bool,
}

impl Upload {
    fn begin(path: &FilePath, how: How) -> Result<Self, ApiError> {
        let refuse = |error| fault(WRITE, path, error);
        let (target, old) = open_target(path, how.exclusive, how.if_match.as_ref())?;
        if target.is_nameless() {
            return Err(refuse(SysError { call: "open", errno: errno::EISDIR }));
        }
        if let Some(stat) = &old {
            let errno = match stat.mode & file::S_IFMT {
                _ if how.exclusive => Some(errno::EEXIST),
                file::S_IFREG => None,
                file::S_IFDIR => Some(errno::EISDIR),
                _ => Some(errno::ENODEV),
            };
            if let Some(errno) = errno {
                return Err(refuse(SysError { call: "open", errno }));
            }
        }
        if let Some(tags) = &how.if_match {
            tags.require(path, old.as_ref().map(etag).as_deref())?;
        }
        let (temporary, file) =
            temporary::make_file(&target, mode(&how, old.as_ref())).map_err(|error| {
                match (error.errno, &old) {
                    // A file system that has the file and takes no other beside it: /proc.
                    (errno::ENOENT, Some(_)) => {
                        refuse(SysError { call: error.call, errno: errno::EACCES })
                    }
                    _ => refuse(error),
                }
            })?;
        let digest = how.sha256.map(|_| Sha256::new());
        Ok(Self { target, how, old, temporary, file: file.into(), digest, is_placed: false })
    }

    fn write(&mut self, piece: &[Bytes]) -> Result<(), ApiError> {
        if let Some(digest) = &mut self.digest {
            piece.iter().for_each(|bytes| digest.update(bytes));
        }
        // All of it at once: its parts begin and end within pages, and a page that is written twice
        // costs the file system twice.
        let mut parts: Vec<IoSlice<'_>> = piece.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut rest = parts.as_mut_slice();
        // Empty ones are nothing to write.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(self.refuse(&io::ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.refuse(&error)),
            }
        }
        Ok(())
    }

    fn refuse(&self, error: &io::Error) -> ApiError {
        io_fault(WRITE, &self.target.path, error)
    }

    fn finish(mut self) -> Result<FileEntry, ApiError> {
        self.check_digest()?;
        let adds = self.how.append && !self.how.exclusive;
        // Nothing to add to means that the content is the file, unless somebody was faster.
        let is_placed = match &self.old {
            Some(_) if adds => false,
            _ => self.place(adds || self.how.exclusive)?,
        };
        match is_placed {
            true => self.entry(&self.file),
            false if adds => self.add(),
            false => Err(self.refuse(&io::Error::from_raw_os_error(errno::EEXIST))),
        }
    }

    fn check_digest(&mut self) -> Result<(), ApiError> {
        let found: Option<[u8; 32]> = self.digest.take().map(|digest| digest.finalize().into());
        if found == self.how.sha256 {
            return Ok(());
        }
        let shown = self.target.path.shown();
        let text = format!(
            "what arrived for {shown} has another SHA-256 than promised; nothing was changed"
        );
        let found: String = found.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        let error = ApiError::new(ErrorCode::ChecksumMismatch, text).with("path", shown);
        Err(error.with("sha256", found))
    }

    /// Gives the file its name. False when `exclusive` and something has it.
    fn place(&mut self, exclusive: bool) -> Result<bool, ApiError> {
        let (parent, name) = self.target.place();
        let _placing = PLACING.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.target.look(WRITE)?;
        if let Some(tags) = &self.how.if_match {
            tags.require(&self.target.path, there.as_ref().map(etag).as_deref())?;
        }
        // As they are now: who made it private while the content came keeps it so.
        let is_file = |there: &Stat| there.mode & file::S_IFMT == file::S_IFREG;
        self.old = there.filter(is_file).or(self.old);
        self.dress().map_err(|error| self.refuse(&error))?;
        match file::rename((parent, &self.temporary), (parent, name), exclusive) {
            Ok(()) => self.is_placed = true,
            Err(SysError { errno: errno::EEXIST, .. }) if exclusive => return Ok(false),
            Err(error) => return Err(fault(WRITE, &self.target.path, error)),
        }
        Ok(true)
    }

    /// Owner and mode of the file that is replaced; the owner first, because a change of owner takes
    /// bits away; both before the name.
    fn dress(&self) -> io::Result<()> {
        let made = file::stat(self.file.as_fd(), c"")?;
        if let Some(old) = &self.old
            && (old.uid, old.gid) != (made.uid, made.gid)
        {
            fchown(&self.file, Some(old.uid), Some(old.gid))?;
        }
        let mode = mode(&self.how, self.old.as_ref());
        if made.mode & SETTABLE != mode {
            self.file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Adds the content to the file that is there. What cannot be added whole is taken back.
    fn add(self) -> Result<FileEntry, ApiError> {
        let flags = file::O_WRONLY | file::O_APPEND | file::O_NOFOLLOW;
        let (parent, name) = self.target.place();
        let refuse = |error| fault(WRITE, &self.target.path, error);
        let there = File::from(path::open(parent, name, flags).map_err(refuse)?);
        let stat = file::stat(there.as_fd(), c"").map_err(refuse)?;
        if stat.mode & file::S_IFMT != file::S_IFREG {
            return Err(refuse(SysError { call: "open", errno: errno::ENODEV }));
        }
        if let Some(tags) = &self.how.if_match {
            tags.require(&self.target.path, Some(&etag(&stat)))?;
        }
        let mut added = 0;
        let poured = self.pour(&there, &mut added).and_then(|()| match self.how.mode {
            Some(mode) => there.set_permissions(Permissions::from_mode(mode)),
            None => Ok(()),
        });
        if let Err(error) = poured {
            let is_ours = there.metadata().is_ok_and(|now| now.len() == stat.size + added);
            if is_ours {
                // The error that is reported is the one that led here.
                there.set_len(stat.size).unwrap_or(());
            }
            return Err(self.refuse(&error));
        }
        self.entry(&there)
    }

    fn pour(&self, mut into: &File, added: &mut u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = self.file.read_at(&mut piece, *added)?;
            let mut rest = piece.get(..read).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                match into.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        *added += written as u64;
                        rest = rest.get(written..).unwrap_or_default();
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn entry(&self, file: &File) -> Result<FileEntry, ApiError> {
        let path = &self.target.path;
        let stat = file::stat(file.as_fd(), c"").map_err(|error| fault(WRITE, path, error))?;
        Ok(FileEntry { etag: Some(etag(&stat)), ..of_stat(&stat, path.as_bytes()) })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_placed {
            // Best effort: the directory may be gone, and with it the file.
            file::remove(self.target.parent.as_fd(), &self.temporary).unwrap_or(());
        }
    }
}

/// Permission bits that the written file gets.
fn mode(how: &How, old: Option<&Stat>) -> u32 {
    how.mode.or(old.map(|old| old.mode & SETTABLE)).unwrap_or(FILE_MODE)
}

/// Opens the directory of the file that `path` means, and makes it when it is missing. With what is
/// there. `exclusive` means the name itself, be it a link.
fn open_target(
    path: &FilePath,
    exclusive: bool,
    if_match: Option<&Tags>,
) -> Result<(Target, Option<Stat>), ApiError> {
    let open = || {
        if exclusive {
            let target = Target::open(WRITE, path)?;
            let there = target.look(WRITE)?;
            return Ok((target, there));
        }
        Target::follow(WRITE, path)
    };
    match open() {
        Err(ApiError { code: ErrorCode::FileNotFound, .. }) => {}
        target => return target,
    }
    let (parent, name) = path.split();
    let refuse = |error| fault(WRITE, path, error);
    if matches!(name.as_bytes(), b"." | b"..") {
        return Err(refuse(SysError { call: "open", errno: errno::EISDIR }));
    }
    // Before anything is made for it.
    if let Some(tags) = if_match {
        tags.require(path, None)?;
    }
    directories(&parent).map_err(refuse)?;
    open()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_hexadecimal() {
        let digest = parse_sha256(&"0Af1".repeat(16)).unwrap();
        assert_eq!(digest[..4], [0x0a, 0xf1, 0x0a, 0xf1]);
        for bad in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"+1".repeat(32)] {
            assert_eq!(parse_sha256(bad).unwrap_err().code, ErrorCode::ValidationFailed, "{bad}");
        }
    }
}
