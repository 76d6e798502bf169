//! The product through its public interface: a real server, real sandboxes, one file per noun.

mod api;
mod archive;
mod bench;
mod browser;
mod checkpoint;
mod command_line;
mod definition;
mod diff;
mod disk;
mod event;
mod exec;
mod figures;
mod file;
mod git;
mod hang;
mod idle;
mod image;
mod interpreter;
mod key;
mod lifecycle;
mod network;
mod node;
mod overload;
mod pool;
mod port;
mod preview;
mod process;
mod room;
mod sandbox;
mod service;
mod session;
mod shell;
mod terminal;
mod volume;
mod watch;
mod webhook;

/// A server for one test.
fn server() -> testkit::Server {
    testkit::Server::start(env!("CARGO_BIN_EXE_sandbar"))
}
