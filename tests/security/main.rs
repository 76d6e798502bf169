//! What must not work, tried from inside a sandbox and from outside. Names of tests are denials; the
//! ids beside them are those of the attack list.

mod api;
mod archive;
mod attack;
mod checkpoint;
mod daemon;
mod escape;
mod exhaustion;
mod files;
mod git;
mod hostile;
mod interpreter;
mod leak;
mod neighbour;
mod network;
mod preview;
mod process;
mod programs;
mod room;
mod terminal;
mod watch;

/// A server for one test.
fn server() -> testkit::Server {
    testkit::Server::start(env!("CARGO_BIN_EXE_sandbar"))
}
