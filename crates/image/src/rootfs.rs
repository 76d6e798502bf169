//! An image ready to be mounted.

use std::{collections::BTreeMap, fs, path::PathBuf};

/// Directory commands start in where an image says nothing else. Every base layer has it.
pub const WORKSPACE: &str = "/workspace";

/// Where an image looks for programs when nothing else is said: Debian's default for root.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where build steps find the machine's own certificate bundle, relative to the root. Debian base
/// layers have an empty file here, because a bind needs a target.
pub const HOST_CA: &str = "usr/share/sandbar/host-ca.crt";

/// An image ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Rootfs {
    /// Whether `path` certainly is a directory of this root. `false` may also mean "perhaps".
    ///
    /// Answers only for `/` and its direct children: below those an opaque mark in one layer
    /// hides what another layer has, and reading the marks is the kernel's business.
    pub(crate) fn surely_has_directory(&self, path: &str) -> bool {
        let name = path.trim_matches('/');
        if name.is_empty() {
            return true;
        }
        let is_plain = !name.contains('/') && name != "." && name != "..";
        let topmost =
            || self.layers.iter().find_map(|layer| fs::symlink_metadata(layer.join(name)).ok());
        is_plain && topmost().is_some_and(|found| found.is_dir())
    }
}
