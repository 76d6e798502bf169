//! What can go wrong with an archive.

use sys::SysError;

/// Why packing or unpacking stopped.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The kernel refused.
    #[error("cannot {attempt} {}", shown(path))]
    File {
        /// What was attempted, as "write".
        attempt: &'static str,
        /// Path below the top of the tree; empty for the top.
        path: Vec<u8>,
        /// The kernel's answer.
        source: SysError,
    },
    /// What is packed as a layer is more than would be unpacked.
    #[error(
        "with {} there are more than {} bytes of files, or {} entries",
        shown(path),
        api::limit::EXPORT_BYTES,
        api::limit::ARCHIVE_ENTRIES
    )]
    LayerTooLarge {
        /// Path below the top of the tree, of the first that is too much.
        path: Vec<u8>,
    },
    /// What came is not an archive, or not one that is unpacked.
    #[error("the archive is refused at {}: {fault}", shown(path))]
    Invalid {
        /// Name of the entry; empty where it has none yet.
        path: Vec<u8>,
        /// Why.
        fault: Fault,
    },
}

/// What is wrong with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The checksum of a header is wrong.
    #[error("what should be a header is none; is it a tar archive, not compressed?")]
    Header,
    /// A number is none, or larger than any that can be meant.
    #[error("the number in its field `{0}` cannot be read")]
    Number(&'static str),
    /// A pax record does not follow the form.
    #[error("its pax records do not have their form")]
    Record,
    /// Two headers of one kind stand before one entry, or one without an entry.
    #[error("its extended headers do not fit together")]
    Extended,
    /// An entry that has no content has some.
    #[error("it says that it has content, and entries of its kind have none")]
    Content,
    /// A type of entry that is not unpacked.
    #[error("its type {0:?} is not known; sparse and multi-volume archives are not unpacked")]
    Type(char),
    /// A name that leads out of the directory.
    #[error("its name leads out of the directory")]
    Outside,
    /// The target of a hard link leads out of the directory.
    #[error("it is a further name of something outside of the directory")]
    LinkOutside,
    /// An empty name, or one with a NUL byte.
    #[error("its name is empty or holds a NUL byte")]
    Name,
    /// A name longer than a path.
    #[error("its name is longer than {} bytes", api::limit::PATH_BYTES)]
    NameTooLong,
    /// Too many directories inside each other.
    #[error("it lies deeper than {} directories", api::limit::ARCHIVE_DEPTH)]
    TooDeep,
    /// More entries than are unpacked.
    #[error("it is the first of more than {} entries", api::limit::ARCHIVE_ENTRIES)]
    TooManyEntries,
    /// Something else is mounted where it goes.
    #[error("something else is mounted there, which is no part of a checkpoint")]
    Mounted,
    /// More content than the export of a checkpoint has.
    #[error("with it the archive has more than {} bytes of files", api::limit::EXPORT_BYTES)]
    TooLarge,
    /// Extended headers that are too large.
    #[error("its extended headers are over {} bytes", api::limit::ARCHIVE_HEADER_BYTES)]
    HeadersTooLarge,
    /// The stream ended before the archive did.
    #[error("the archive breaks off here")]
    BrokenOff,
    /// Something follows the archive's end.
    #[error("something follows the end of the archive")]
    Trailing,
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "its top".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}
