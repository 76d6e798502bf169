//! Directories as tar streams and back, for both sides of the boundary: the agent packs and unpacks
//! inside a sandbox, the command line on its user's machine.
//!
//! ```text
//! directory ─▶ Packer: fill, fill, fill ─▶ bytes ─▶ Unpacker: feed, feed, finish ─▶ directory
//! ```
//!
//! Both are steps, not streams: each call does a bounded piece of work, and between two calls nothing
//! runs and nothing is held but some buffers and descriptors. So a slow peer costs no thread, and
//! giving up is dropping. Memory does not grow with the tree.
//!
//! What comes in is hostile, whoever unpacks it. A name is opened component by component, each from
//! the descriptor of the one before, and no link is followed, so that nothing lies outside the
//! directory; what is there already is replaced, never written into. Two readings of one archive
//! are refused rather than chosen between: numbers that overflow, content of entries that have none,
//! records that do not end where they say.
//!
//! Why not the crate `tar`: it reads long names of any length into memory, cuts large numbers
//! silently, splits pax records at line ends that may be part of a name, and opens what it unpacks
//! by path. It is what the tests hold this crate against, beside GNU tar.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod error;
mod header;
mod pack;
mod pax;
mod unpack;

pub use error::{ArchiveError, Fault};
pub use pack::{Layer, PackOptions, Packer, Source};
pub use unpack::{UnpackOptions, Unpacker};
