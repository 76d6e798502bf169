//! One function per kernel call; the only unsafe code there is.

#![expect(unsafe_code, reason = "this crate is where the kernel is called")]

pub mod error;
pub mod seccomp;

pub use error::SysError;
