//! Files inside a sandbox.
//!
//! Contents travel as raw request and response bodies, so they are byte-exact and need not fit in
//! memory; these types are what is said about files, and the JSON form of contents for callers that
//! want text or many files at once.
//!
//! A path in JSON or in a query is absolute, or starts at the session's current directory, or
//! without a session at the sandbox's working directory. A path in a URL is absolute; with a session
//! it starts at the session's current directory, unless it begins with an encoded slash (`%2F`).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{error::ApiError, exec::Encoding, id::SessionId};

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; not followed.
    Symlink,
    /// A pipe, a socket or a device.
    Other,
}

/// One file, as lstat(2) sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Last component of the path.
    pub name: String,
    /// Absolute path inside the sandbox.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub file_type: FileType,
    /// Bytes.
    pub size: u64,
    /// Permission bits, as `0644` in decimal is 420.
    pub mode: u32,
    /// Id of the owner.
    #[serde(default)]
    pub uid: u32,
    /// Id of the group.
    #[serde(default)]
    pub gid: u32,
    /// Milliseconds since 1970-01-01 UTC of the last change of the content.
    pub modified_ms: i64,
    /// The same of the last read, as far as the file system keeps it.
    #[serde(default)]
    pub accessed_ms: i64,
    /// The same of the last change of content, name, mode or owner.
    #[serde(default)]
    pub changed_ms: i64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them
    /// (without the leading slash). `name` and `path` then hold U+FFFD in place of such bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_path: Option<String>,
    /// Only of a regular file that was looked at or written: names this content, for `If-Match` and
    /// `If-None-Match`. As exact as the file system's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Only in a recursive list, on a directory whose content is left out: it may not be read, or
    /// lies so deep that no path names what is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlisted: bool,
}

/// Response header of a file's content: its permission bits in octal, as `644`.
pub const MODE_HEADER: &str = "x-sandbar-mode";

/// Response header of a file's content: milliseconds since 1970-01-01 UTC of its last change.
pub const MODIFIED_HEADER: &str = "x-sandbar-modified-ms";

/// Query of `GET /v1/sandboxes/{id}/files:list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFiles {
    /// The directory.
    pub path: String,
    /// Descend into directories; symbolic links are not followed.
    #[serde(default)]
    pub recursive: bool,
    /// Include names that begin with a dot.
    #[serde(default)]
    pub hidden: bool,
    /// Continue after this position, taken from `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Entries in this page, 1 to 10000; 1000 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Session whose current directory a relative path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// One page of a directory.
///
/// Within a page entries are sorted by path, component by component, so a directory comes right
/// before what is in it; a directory that fits in one page is sorted whole. Pages follow each other
/// in the order of the file system, which costs the same for each page of any directory.
///
/// What is there unchanged while the pages are read is in one of them, and in one only unless the
/// entry that ended a page was removed meanwhile. What is made, changed or removed may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileList {
    /// The entries.
    pub entries: Vec<FileEntry>,
    /// Where the next page starts; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Query of `GET /v1/sandboxes/{id}/files:stat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatFile {
    /// The file.
    pub path: String,
    /// Look at what a symbolic link points to, rather than at the link.
    #[serde(default)]
    pub follow: bool,
    /// Session whose current directory a relative path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:mkdir`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MakeDirectory {
    /// The new directory.
    pub path: String,
    /// Make missing parents, and do not mind if the directory exists.
    #[serde(default)]
    pub recursive: bool,
    /// Session whose current directory a relative path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Query of `GET /v1/sandboxes/{id}/files/{path}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadFile {
    /// Answer with JSON ([`FileContent`]), the content in this encoding, in place of the raw bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub encoding: Option<ReadEncoding>,
    /// Session whose current directory the path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// How content is asked for in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadEncoding {
    /// Text where the MIME type is one of text and all of the content is UTF-8, else base64. Nothing
    /// is lost either way.
    #[default]
    Auto,
    /// Text; bytes that are not UTF-8 become U+FFFD.
    #[serde(alias = "utf-8")]
    Utf8,
    /// RFC 4648 base64, byte for byte.
    Base64,
}

/// The content of a file, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileContent {
    /// Absolute path inside the sandbox.
    pub path: String,
    /// Bytes of the content, before any encoding.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Milliseconds since 1970-01-01 UTC of the last change of the content.
    pub modified_ms: i64,
    /// By the name's extension, or for want of a known one by the content.
    pub mime_type: String,
    /// False where the MIME type is one of text and all of the content is UTF-8.
    pub is_binary: bool,
    /// Names this content, for `If-Match` and `If-None-Match`.
    pub etag: String,
    /// How `content` is written.
    pub encoding: Encoding,
    /// The content.
    pub content: String,
}

/// Query of `PUT /v1/sandboxes/{id}/files/{path}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WriteFile {
    /// Permission bits in octal (`755`) of a new file, or new bits for an existing one. Without
    /// it a new file gets 644 and an existing one keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Add to the end of the file, once all of the body has arrived; a missing file is made.
    #[serde(default)]
    pub append: bool,
    /// Refuse with `FILE_EXISTS` if anything has this name, a symbolic link included.
    #[serde(default)]
    pub exclusive: bool,
    /// SHA-256 of the body in hexadecimal. What arrives with another is refused with
    /// `CHECKSUM_MISMATCH` and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Session whose current directory the path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Query of `DELETE /v1/sandboxes/{id}/files/{path}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteFile {
    /// Delete a directory with everything in it; without it a directory is refused.
    #[serde(default)]
    pub recursive: bool,
    /// Session whose current directory the path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:move`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoveFile {
    /// What is moved: a file, a symbolic link itself, or a directory with everything in it.
    pub from: String,
    /// Its new path; never a directory to put it into.
    pub to: String,
    /// Refuse with `FILE_EXISTS` if anything has the new name. Without it a file replaces a file,
    /// and a directory an empty one.
    #[serde(default)]
    pub exclusive: bool,
    /// Session whose current directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:copy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyFile {
    /// What is copied. A symbolic link is followed; those in a directory are copied as links.
    pub from: String,
    /// The path of the copy; never a directory to put it into. A file is replaced, a directory is
    /// not: it must not exist.
    pub to: String,
    /// Copy a directory with everything in it; without it a directory is refused.
    #[serde(default)]
    pub recursive: bool,
    /// Refuse with `FILE_EXISTS` if anything has the name of the copy.
    #[serde(default)]
    pub exclusive: bool,
    /// Session whose current directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:symlink`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MakeSymlink {
    /// The new link.
    pub path: String,
    /// Where it points, byte for byte; it need not exist.
    pub target: String,
    /// Replace a file or link that has the name; without it that is `FILE_EXISTS`.
    #[serde(default)]
    pub replace: bool,
    /// Session whose current directory a relative `path` starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:chmod`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeMode {
    /// The file or directory; a symbolic link is followed.
    pub path: String,
    /// Permission bits in octal, from `0` to `777`: nothing that lends an identity. Set-user-id,
    /// set-group-id and sticky bits are taken away.
    pub mode: String,
    /// Session whose current directory a relative path starts at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Body of `POST /v1/sandboxes/{id}/files:read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadFiles {
    /// The files, 1 to 1000.
    pub paths: Vec<String>,
    /// How their contents are written.
    #[serde(default)]
    pub encoding: ReadEncoding,
    /// Session whose current directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Contents of several files, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileContents {
    /// One result per path.
    pub files: Vec<FileResult<FileContent>>,
}

/// Body of `POST /v1/sandboxes/{id}/files:write`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteFiles {
    /// The files, 1 to 1000. They are written one after the other; each is whole or unchanged.
    pub files: Vec<NewFile>,
    /// Session whose current directory relative paths start at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// One file to be written; as the query of `PUT /v1/sandboxes/{id}/files/{path}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewFile {
    /// The file.
    pub path: String,
    /// The content.
    pub content: String,
    /// How `content` is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// Permission bits in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Add to the end of the file.
    #[serde(default)]
    pub append: bool,
    /// Refuse with `FILE_EXISTS` if anything has this name.
    #[serde(default)]
    pub exclusive: bool,
    /// SHA-256 of the decoded content in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Write only if the file has this `etag`, else `PRECONDITION_FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
}

/// What was written, in the order in which it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilesWritten {
    /// One result per file.
    pub files: Vec<FileResult<FileEntry>>,
}

/// What became of one file of several: an object with `error` and the path as it was asked for, or
/// the same object as for a file alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FileResult<T> {
    /// It was refused; the others were not affected.
    Failed {
        /// The path as it was asked for.
        path: String,
        /// Why.
        error: ApiError,
    },
    /// It was done.
    Done(T),
}

impl<T> FileResult<T> {
    /// As a result.
    ///
    /// # Errors
    /// The error of this file.
    pub fn into_result(self) -> Result<T, ApiError> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Failed { error, .. } => Err(error),
        }
    }
}
