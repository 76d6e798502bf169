//! From a recipe to a root filesystem that a jail can mount.
//!
//! ```text
//! recipe (a Dockerfile) ─► steps, each with a key ─► layers in the store ─► image: layers + env + workdir
//! ```
//!
//! Owns `images/` below the state directory: layers, manifests, names. Knows how to make the two
//! kinds of base layer by itself, from Debian's packages and from the machine's own /usr; a RUN step is handed to the caller, because
//! carrying it out takes a sandbox and this crate makes none.
//!
//! Layers belong to root, as manifests and names do: a server without root reads them, and has each change
//! made by a *builder*, a process of root's that makes one (`builder.rs`). Where there is none, whoever
//! uses the store makes them.
//!
//! A layer is a directory as overlayfs wrote it (whiteouts and opaque marks included) with the ids
//! the sandbox saw (0 to 65535): the launcher mounts it through an idmapped clone, so one layer
//! serves every sandbox. What a tenant's RUN left in a layer is hostile: nothing here follows a
//! link in one, parses a file of one, or starts a program of one.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod build;
mod builder;
mod debian;
mod disk;
mod error;
mod follow;
mod host;
mod key;
mod recipe;
mod rootfs;
mod settings;
mod store;

pub use build::{Build, Downloads, Run, RunStep, Work};
pub use builder::{Builders, builder_main};
pub use error::ImageError;
pub use follow::Cancel;
pub use recipe::{Fault, Instruction, Recipe, RecipeError, Step, Word};
pub use rootfs::{Bind, HOST_CA, Layer, Rootfs, WORKSPACE};
pub use store::Store;
