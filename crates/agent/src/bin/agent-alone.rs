//! The agent as a program of its own: an ordinary process without a jail, for the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(&std::env::args().nth(1).unwrap_or_default())
}
