//! The agent as its callers see it: a real process, a real socket, real commands and files.
//!
//! The tests of cgroups need root and a mounted v2 tree, and fail without.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod archive;
mod exec;
mod file;
mod harness;
mod key;
mod limits;
mod process;
mod terminal;
mod tree;
mod wait;
