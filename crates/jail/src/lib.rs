//! The isolation runtime: puts one process tree in a box. Synchronous, no tokio.
//!
//! A [`JailSpec`] says everything about a jail; a [`Launcher`] is a handle to the privileged,
//! single-threaded process that builds jails from specs and takes them apart again. The order of
//! the steps is the page `enter.rs`.

#![forbid(unsafe_code)]

pub mod features;
pub mod handoff;
pub mod launcher;
pub mod spec;

pub use launcher::{JailError, JailFiles, Launched, Launcher};
pub use spec::{Bind, Hostname, JailId, JailSpec, Limits, NodeNetwork, NodeSpec};

/// Stub.
#[must_use]
pub fn launcher_main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
