//! The engine: the sandboxes of one node. Knows nothing of the public HTTP API.
//!
//! ```text
//! Engine ─▶ create │ freeze │ destroy │ recover │ reconcile │ shutdown ─▶ node (who exists) ─▶ launch (jails)
//!                          └▶ state (what may happen)      └▶ record (SQLite)
//! ```
//!
//! Owns: which sandboxes exist, where they are in their life, in whose name; their records and those
//! of the keys. Does not: know what a
//! sandbox is used for; requests to a running one go from the daemon straight to its agent.
//!
//! Invariants:
//! - What exists in the kernel is on record before it exists, see `record.rs`.
//! - A sandbox's state is assigned by one task at a time, see `state.rs`.
//! - Nothing here trusts an agent or waits for one without a deadline; ending a sandbox never
//!   needs it.

#![forbid(unsafe_code)]

mod engine;

mod blank;
mod build;
mod capacity;
mod checkpoint;
mod create;
mod destroy;
mod diff;
mod event;
mod export;
mod fork;
mod freeze;
mod idle;
mod list;
mod memory;
mod pool;
mod port;
mod reader;
mod reconcile;
mod recover;
mod shutdown;
mod update;
mod watch;
mod webhook;

mod config;
mod key;
mod life;
mod network;
mod node;
mod number;
mod resolver;
mod sandbox;
mod settings;
mod slot;
mod state;

mod launch;
mod record;

mod error;

pub use config::EngineConfig;
pub use create::FirstUse;
pub use engine::{Active, Engine, Tools};
pub use event::EventFollower;
pub use export::Import;
pub use key::{BODY_PLACE_BYTES, Full, InvalidSecret, Key, Keys, Place, Places, Presented, Secret};
pub use port::{Exposure, Found, Visit};
pub use reader::Reader;
pub use resolver::NameSockets;

/// Why the engine refused or failed. `engine::error` is the only place that gives engine errors
/// their public codes.
pub use api::error::ApiError as EngineError;
