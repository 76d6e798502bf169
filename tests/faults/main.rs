//! Faults: what is killed, full, or interrupted at a bad moment.

mod checkpoint;
mod crash;
mod event;
mod failpoints;
mod files;
mod freeze;
mod hostile;
mod kills;
mod late;
mod leak;
mod pool;
mod power;
mod reboot;
mod reconcile;
mod resume;
mod soak;
mod terminal;

/// A server for one test.
fn server() -> testkit::Server {
    testkit::Server::start(env!("CARGO_BIN_EXE_sandbar"))
}
