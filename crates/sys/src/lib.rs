//! The only unsafe code of Sandbar: one kernel call per function, nothing else.
//!
//! Knows no sandboxes and no policy. Descriptors are owned or borrowed types; every descriptor
//! made here is close-on-exec; an error names the call.

#![expect(unsafe_code, reason = "kernel calls without a safe wrapper in std live here")]

pub mod error;
pub mod memfd;
pub mod pidfd;
pub mod poll;

pub use error::SysError;
