//! The agent: PID 1 of every sandbox, an HTTP server on an inherited socket.

#![forbid(unsafe_code)]

/// Stub.
#[must_use]
pub fn main(handoff: &str) -> std::process::ExitCode {
    drop(handoff.len());
    std::process::ExitCode::FAILURE
}
