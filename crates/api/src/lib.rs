//! The public contract: wire types, ids, error codes and limits. No I/O, no async.
//!
//! Everything a client can say or hear is defined here once; the daemon, the agent, the Rust
//! client and the OpenAPI document are generated from or compiled against these types. Fields are
//! `camelCase` on the wire, unknown fields in requests are refused, and every limit has a name in
//! [`limit`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod archive;
pub mod checkpoint;
pub mod diff;
pub mod env;
pub mod error;
pub mod event;
pub mod exec;
pub mod file;
pub mod git;
pub mod id;
pub mod idle;
pub mod image;
pub mod interpreter;
pub mod key;
pub mod limit;
pub mod network;
pub mod node;
pub mod pattern;
pub mod port;
pub mod process;
pub mod sandbox;
pub mod service;
pub mod session;
pub mod terminal;
pub mod watch;
pub mod webhook;

pub use error::require_object;
