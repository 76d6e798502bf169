//! Archives: a directory of a sandbox as one tar stream, out and in.
//!
//! The format is POSIX.1-2001 (pax): names and link targets are bytes of any kind and of any
//! length that a path can have, times have nanoseconds. What the tools of the world write is read:
//! ustar, pax, GNU's long names and large numbers.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::limit::{ARCHIVE_LEFT_OUT, ARCHIVE_LEFT_OUT_BYTES};

/// How the stream is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ArchiveFormat {
    /// tar as it is.
    #[default]
    #[serde(rename = "tar")]
    Tar,
    /// tar in a zstd frame. Coming in, frames may ask for a window of up to
    /// [`crate::limit::ARCHIVE_WINDOW_BYTES`].
    #[serde(rename = "tar.zst")]
    TarZst,
}

impl ArchiveFormat {
    /// As in a query.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarZst => "tar.zst",
        }
    }

    /// The media type of such a stream.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Tar => "application/x-tar",
            Self::TarZst => "application/zstd",
        }
    }
}

/// Query of `GET /v1/sandboxes/{id}/archive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadArchive {
    /// The directory, or one regular file; relative paths start at the sandbox's working
    /// directory. A symbolic link is followed.
    pub path: String,
    /// How the stream is written; `tar` without it.
    #[serde(default)]
    #[param(inline)]
    pub format: ArchiveFormat,
    /// Leave out what matches, may be given up to [`crate::limit::PATTERNS`] times. `*` and `?` match
    /// within a name, `[...]` one of a set, `**` any names. A pattern matches anywhere in the tree,
    /// or from its top if it starts with a slash; directories only if it ends in one. What is in a
    /// directory that is left out is left out. See [`crate::pattern`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Query of `PUT /v1/sandboxes/{id}/archive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WriteArchive {
    /// The directory to unpack into, made with its parents when it is missing; relative paths start
    /// at the sandbox's working directory.
    pub path: String,
    /// How the stream is written; `tar` without it.
    #[serde(default)]
    #[param(inline)]
    pub format: ArchiveFormat,
    /// Leave this many leading components out of every name; entries that have no more are left
    /// out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strip_components: u32,
    /// Give files, links and new directories the owner ids of the archive, not those of the
    /// sandbox's root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_owner: bool,
    /// Give files, links and new directories the times of the archive; true unless said otherwise.
    #[serde(default = "keep", skip_serializing_if = "Clone::clone")]
    pub keep_times: bool,
}

impl WriteArchive {
    /// Into the directory `path`, the rest as it is by default.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            format: ArchiveFormat::default(),
            strip_components: 0,
            keep_owner: false,
            keep_times: keep(),
        }
    }
}

fn keep() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What has been unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// Regular files, further names of one file not counted.
    pub files: u64,
    /// Directories named by the archive, made or there already.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// What was not unpacked.
    #[serde(flatten)]
    pub left_out: LeftOut,
}

impl Unpacked {
    /// Files, directories and links together.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.hard_links
    }
}

/// What is not in an archive, or was not taken from one, and why.
///
/// Of an archive from a sandbox it is the value of the pax record `comment`, in JSON, of a second
/// entry for the top directory, the last of the archive; absent when nothing is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// How many there were.
    #[serde(default)]
    pub left_out_count: u64,
    /// Something among them is missing, or not as it was: unreadable, too deep, changed. Otherwise
    /// they are what no archive holds.
    #[serde(default)]
    pub partial: bool,
    /// The first of them, up to [`ARCHIVE_LEFT_OUT`].
    #[serde(default)]
    pub left_out: Vec<LeftOutEntry>,
}

impl LeftOut {
    /// Counts one, and keeps it while there is room.
    pub fn push(&mut self, path: &[u8], reason: LeftOutReason) {
        self.left_out_count += 1;
        self.partial |= reason.is_loss();
        self.keep(LeftOutEntry { path: String::from_utf8_lossy(path).into_owned(), reason });
    }

    /// Adds what another has told.
    pub fn add(&mut self, other: Self) {
        self.left_out_count = self.left_out_count.saturating_add(other.left_out_count);
        self.partial |= other.partial;
        other.left_out.into_iter().for_each(|entry| self.keep(entry));
    }

    fn keep(&mut self, entry: LeftOutEntry) {
        let bytes = self.left_out.iter().map(|entry| entry.path.len()).sum::<usize>();
        if self.left_out.len() < ARCHIVE_LEFT_OUT
            && bytes + entry.path.len() <= ARCHIVE_LEFT_OUT_BYTES
        {
            self.left_out.push(entry);
        }
    }
}

/// One entry that is not there, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOutEntry {
    /// Its path below the top, with U+FFFD for what is not UTF-8.
    pub path: String,
    /// Why.
    pub reason: LeftOutReason,
}

/// Why an entry is not there, or not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum LeftOutReason {
    /// It is a socket, a pipe or a device.
    Special,
    /// Something else is mounted there.
    Mount,
    /// It may not be read.
    Unreadable,
    /// It lies deeper than [`crate::limit::ARCHIVE_DEPTH`], or its path is too long for one.
    TooDeep,
    /// It is there, but changed its size while it was read: cut, or filled with zeros, to the size
    /// it had first.
    Changed,
    /// It is there, but as a file of its own: too many files with several names came before it.
    SeveralNames,
    /// It is there, without extended attributes that it had: capabilities of a file, access lists.
    Attributes,
    /// Its name begins with `.wh.`, which says in the layer of an image that something is deleted.
    Reserved,
}

impl LeftOutReason {
    /// True for what a copy would have, if nothing had been in the way.
    fn is_loss(self) -> bool {
        match self {
            Self::Unreadable
            | Self::TooDeep
            | Self::Changed
            | Self::Attributes
            | Self::Reserved => true,
            Self::Special | Self::Mount | Self::SeveralNames => false,
        }
    }

    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Special => "it is a socket, a pipe or a device",
            Self::Mount => "something else is mounted there",
            Self::Unreadable => "it may not be read",
            Self::TooDeep => "it lies too deep",
            Self::Changed => "it changed while it was read",
            Self::Attributes => "it had attributes that are not kept",
            Self::Reserved => "its name has another meaning in the layer of an image",
            Self::SeveralNames => "it is copied as a file of its own",
        }
    }
}
