//! The product through its public interface: a real server, real sandboxes, one file per noun.

mod api;
mod command_line;
mod disk;
mod exec;
mod file;
mod image;
mod key;
mod network;
mod node;
mod sandbox;

/// A server for one test.
fn server() -> testkit::Server {
    testkit::Server::start(env!("CARGO_BIN_EXE_sandbar"))
}
