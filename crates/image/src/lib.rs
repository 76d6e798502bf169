//! From a recipe to a root filesystem that a jail can mount.
//!
//! ```text
//! recipe (a Dockerfile) ─► steps, each with a key ─► layers in the store ─► image: layers + env + workdir
//! ```
//!
//! Owns `images/` below the state directory: layers, manifests, names. Knows how to make the two
//! base layers, [`debian`] and [`host`], by itself; a RUN step is handed to the caller, because
//! carrying it out takes a sandbox and this crate makes none.
//!
//! A layer is a directory as overlayfs wrote it (whiteouts and opaque marks included) with the ids
//! the sandbox saw (0 to 65535): the launcher mounts it through an idmapped clone, so one layer
//! serves every sandbox. What a tenant's RUN left in a layer is hostile: nothing here follows a
//! link in one, parses a file of one, or starts a program of one.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod build;
pub mod debian;
pub mod host;
pub mod key;
pub mod recipe;
pub mod rootfs;
pub mod settings;
pub mod store;

mod disk;
mod error;
mod follow;

pub use build::{Build, Downloads, RunStep};
pub use error::ImageError;
pub use follow::Cancel;
pub use key::LayerKey;
pub use recipe::{Recipe, RecipeError};
pub use rootfs::Rootfs;
pub use settings::Settings;
pub use store::Store;
