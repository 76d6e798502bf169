//! What differs between two states of a sandbox's files: a checkpoint, its image, and the present.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{file::FileType, id::CheckpointId};

/// Query of `GET /v1/sandboxes/{id}/diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffFiles {
    /// The state before: a checkpoint of this sandbox; the image that the sandbox began from, unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub against: Option<CheckpointId>,
    /// The state after: a checkpoint of this sandbox; its files as they are now, unless given. Pages
    /// of the present are each of their own moment; those of a checkpoint fit together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub of: Option<CheckpointId>,
    /// Continue after this position, taken from `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Differences in this page, 1 to 10000; 1000 unless given. A page may have fewer, and more
    /// follow: it also ends after some seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page of the differences.
///
/// Sorted by path, component by component, so a directory comes right before what is in it. A
/// directory that is gone is one difference, and so is what was in it; one that is new has a
/// difference for everything in it. A name that has moved is gone here and new there. Where one thing
/// has been replaced by another of another type, the old one is gone and the new one is new, in this
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileDiff {
    /// The differences.
    pub differences: Vec<Difference>,
    /// Where the next page starts; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Absolute path inside the sandbox.
    pub path: String,
    /// Only where the path is not UTF-8: its bytes, percent-encoded as `/files/{path}` takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoded_path: Option<String>,
    /// What became of it.
    pub kind: DifferenceKind,
    /// What it is; of what is gone, what it was.
    #[serde(rename = "type")]
    pub file_type: FileType,
    /// Bytes; of what is gone, those it had.
    pub size: u64,
    /// What differs, of what was there before and is there after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<DifferencePart>,
    /// Only on a directory of whose content some is not compared: it lies so deep that no path names
    /// it. It is `modified` if nothing else is known to differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// It was not there before.
    Added,
    /// It is another one in what `changes` says.
    Modified,
    /// It is not there any more.
    Deleted,
}

/// What differs between a file before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DifferencePart {
    /// A file's bytes, or where a symbolic link points.
    Content,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// The time of the last change of the content. A directory's is not compared: it follows from
    /// what is in it.
    Time,
    /// Extended attributes.
    Attributes,
}
