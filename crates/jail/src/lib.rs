//! The isolation runtime: puts one process tree in a box. Synchronous, no tokio.
//!
//! ```text
//! daemon                       launcher (root, one thread)                jail
//! Launcher::launch ──spec,fds──► check ─► cgroups ─► fork ───────────────► enter: the list of steps
//!                                 id maps, root, /dev, link ──mounts──────►   ... ─► exec agent
//!                  ◄──pid, pidfd─┘
//! ```
//!
//! A [`JailSpec`] says everything about a jail. A [`Launcher`] is a handle to the privileged
//! process that builds jails from specs and takes them apart again; jails outlive it. What is done
//! to a process before it may run foreign code is one list, on the page `enter.rs`.

#![forbid(unsafe_code)]

mod cgroup;
mod check;
mod confine;
mod enter;
mod error;
pub mod features;
pub mod figures;
pub mod handoff;
mod keeper;
mod launch;
pub mod launcher;
mod network;
pub mod policy;
mod presence;
mod process_dir;
mod program;
mod remove;
mod rootfs;
mod server;
pub mod spec;
mod start_time;
mod tool;
mod volume;
mod wire;

pub use cgroup::{Usage, is_frozen, usage};
pub use confine::Confinement;
pub use error::JailError;
pub use keeper::{Keeper, builder_main, keeper_main};
pub use launcher::{JailFiles, Launched, Launcher};
pub use network::{links, refusal, rules::why_out_of_reach};
pub use presence::Presence;
pub use program::Programs;
pub use server::{CLAIMS_DIR, all_claim_files, claim_files, launcher_main};
pub use spec::{
    AddressRange, AllowList, Bind, CPU_WEIGHT, CPU_WEIGHTS, Hostname, JailId, JailNetwork,
    JailSpec, LEARNED_AT_ONCE, Layer, Learned, Limits, NodeNetwork, NodeSpec, Protocol,
    RANGES_PER_LIST, Reach, Shelf, VIEWS, View,
};
pub use start_time::start_time;
pub use volume::{Volumes, VolumesFileSystem, own_mounts};
