//! The Rust SDK: Sandbar's HTTP API as typed, asynchronous calls.
//!
//! Owns: finding the server of this machine, authentication, the limits on what is waited for and
//! kept in memory, and the reading of event streams. Does not: keep state between calls, start
//! servers, or retry anything but what has a way back: a followed log, followed events, and an exec with a key. The types are those of [`api`], the same that the server is compiled against.
//!
//! ```no_run
//! use client::{Client, api::{exec::{Command, ExecRequest}, sandbox::CreateSandbox}};
//!
//! # async fn example() -> Result<(), client::ClientError> {
//! let client = Client::from_environment()?;
//! let sandbox = client.create_sandbox(&CreateSandbox::default()).await?;
//! let request = ExecRequest::new(Command::Shell("echo hello".to_owned()));
//! let result = client.exec(&sandbox.id, &request).await?;
//! assert_eq!(result.stdout, "hello\n");
//! client.destroy_sandbox(&sandbox.id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Cancel safety
//! Dropping any future or stream of this crate closes its connection. For exec that ends the
//! command; other operations may or may not have happened.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod archive;
mod call;
mod checkpoint;
mod diff;
mod encode;
mod environment;
mod error;
mod event;
mod exec;
mod file;
mod git;
mod image;
mod interpreter;
mod key;
mod node;
mod port;
mod process;
mod sandbox;
mod service;
mod session;
mod socket;
mod sse;
mod stream;
mod terminal;
mod transfer;
mod watch;
mod webhook;

pub use api;

pub use call::{Client, MAX_ANSWER_BYTES};
pub use environment::{DEFAULT_STATE_DIR, state_dir};
pub use error::{ClientError, EnvironmentError};
pub use event::LifeStream;
pub use exec::{ExecStream, decode_output, encode_stdin};
pub use file::{FileStream, entry_path};
pub use git::GitStream;
pub use image::BuildStream;
pub use interpreter::RunStream;
pub use port::PortConnection;
pub use process::LogStream;
pub use stream::EventStream;
pub use terminal::{TerminalConnection, TerminalInput, TerminalMessage, TerminalOutput};
pub use transfer::ByteStream;
pub use watch::WatchStream;
