//! The test bench: a real server from the real binary, on a port, a state directory and a name of
//! its own, and the check that it leaves nothing behind.
//!
//! Many servers run at once on one machine; each takes a [`Slot`], which sets its cgroups, links,
//! firewall table, addresses and user ids apart from the others'.

#![forbid(unsafe_code)]
#![expect(clippy::panic, clippy::missing_panics_doc, reason = "a test bench fails by panicking")]

mod browser;
mod git;
mod http;
mod image;
mod leaks;
mod preview;
mod raw;
mod server;
mod slot;
pub mod tape;
mod viewer;

pub use browser::{Browser, Page};
pub use git::Git;
pub use http::{Answer, Broken, Events, answer, events};
pub use image::default_images;
pub use leaks::{Found, Leaks};
pub use preview::{Preview, Seen};
pub use raw::Raw;
pub use server::{Server, Settings};
pub use slot::Slot;
pub use viewer::{PATIENCE, Viewer};

pub use api;
pub use client;
pub use reqwest;
