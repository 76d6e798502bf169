//! From a recipe to a root filesystem that a jail can mount.
//!
//! ```text
//! recipe (a Dockerfile) ─► steps, each with a key ─► layers in the store ─► image: layers + env + workdir
//! ```

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use api::{id::ImageRef, image::Image};

/// An image ready to be mounted.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Directories of the layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Host trees to bind read-only, with their targets below the root (image `host` only).
    pub binds: Vec<(PathBuf, String)>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Directory commands start in.
    pub workdir: String,
}

/// The images of one node: `images/` below the state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name.
    #[error("no image is called {0}")]
    NotFound(ImageRef),
    /// A file operation failed.
    #[error("{attempt} failed")]
    Io {
        /// What was being done, with the path.
        attempt: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// One RUN of a recipe, for the caller to carry out in a sandbox.
#[derive(Debug)]
pub struct RunStep<'a> {
    /// The layers below it, topmost first.
    pub rootfs: &'a Rootfs,
    /// The shell text.
    pub command: &'a str,
}

impl Store {
    /// Opens (or makes) the store in `dir`.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn open(dir: PathBuf) -> Result<Self, ImageError> {
        todo!("{}", dir.display())
    }

    /// The image called `name`; `host` always exists.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub fn get(&self, name: &ImageRef) -> Result<(Image, Rootfs), ImageError> {
        todo!("{name} {:?}", self.dir)
    }

    /// All images, sorted by name.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        todo!()
    }
}

/// Keeps `File` in the prelude of this draft.
pub type Draft = File;
