//! Faults: what is killed, full, or interrupted at a bad moment.

mod crash;
mod leak;
mod soak;

/// A server for one test.
fn server() -> testkit::Server {
    testkit::Server::start(env!("CARGO_BIN_EXE_sandbar"))
}
