//! The agent: PID 1 of every sandbox, an HTTP server on an inherited socket.
//!
//! All that a sandbox can do is on one page, `routes`; each noun behind it has one file. The
//! agent owns commands, files and the reaping of orphans. It knows no lifecycle, no keys and no
//! other sandbox, and nothing that is promised about isolation depends on it: after the first
//! command it counts as hostile.

#![forbid(unsafe_code)]

mod definitions;
mod diff;
mod env;
mod event;
mod exec;
mod extract;
mod figures;
mod file;
mod follow;
mod git;
mod health;
mod init;
mod interpreter;
mod key;
mod port;
mod process;
mod processes;
mod reaper;
mod refusal;
mod room;
mod routes;
mod serve;
mod service;
mod session;
mod terminal;
mod text;

pub use init::main;
pub use interpreter::warm;
pub use routes::api;
