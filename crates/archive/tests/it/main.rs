//! Archives against the kernel and against the tar programs of the world.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod hostile;
mod pack;
mod tree;
mod unpack;
