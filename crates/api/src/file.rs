//! Files inside a sandbox.
//!
//! Contents travel as raw request and response bodies, so they are byte-exact and need not fit in
//! memory; these types are what is said about files.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

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
    /// Milliseconds since 1970-01-01 UTC of the last change of the content.
    pub modified_ms: i64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them
    /// (without the leading slash). `name` and `path` then hold U+FFFD in place of such bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_path: Option<String>,
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
    /// The directory; relative paths start at the sandbox's working directory.
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
    /// Entries in this page, 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page of a directory, sorted by path, component by component: a directory comes right
/// before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileList {
    /// The entries.
    pub entries: Vec<FileEntry>,
    /// Where the next page starts; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Body of `POST /v1/sandboxes/{id}/files:mkdir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MakeDirectory {
    /// The new directory.
    pub path: String,
    /// Make missing parents, and do not mind if the directory exists.
    #[serde(default)]
    pub recursive: bool,
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
}

/// Query of `DELETE /v1/sandboxes/{id}/files/{path}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteFile {
    /// Delete a directory with everything in it; without it a directory is refused.
    #[serde(default)]
    pub recursive: bool,
}
