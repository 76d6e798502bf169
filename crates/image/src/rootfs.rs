//! An image ready to be mounted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::key::LayerKey;

/// Directory commands start in where an image says nothing else. Every base layer has it.
pub const WORKSPACE: &str = "/workspace";

/// Where an image looks for programs when nothing else is said: Debian's default for root.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where build steps find the machine's own certificate bundle, relative to the root. Debian base
/// layers have an empty file here, because a bind needs a target.
pub const HOST_CA: &str = "usr/share/sandbar/host-ca.crt";

/// A layer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Whether it is one of the image `host`.
    pub is_host: bool,
    pub(crate) key: LayerKey,
}

impl Layer {
    /// Its key, as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        self.key.as_str()
    }

    /// Its directory, in a store that is at `images`.
    #[must_use]
    pub fn path_below(&self, images: &Path) -> PathBuf {
        images.join(if self.is_host { "host" } else { "layers" }).join(self.digits())
    }
}

/// A tree of the machine that an image has read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// `/usr`, at the same place; the image `host` only.
    Usr,
    /// The certificate authorities that the machine trusts, at [`HOST_CA`]; steps of a build only.
    Authorities,
}

/// An image ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The layers, topmost first.
    pub layers: Vec<Layer>,
    /// Trees of the machine.
    pub binds: Vec<Bind>,
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
    pub(crate) fn surely_has_directory(&self, images: &Path, path: &str) -> bool {
        let name = path.trim_matches('/');
        if name.is_empty() {
            return true;
        }
        let is_plain = !name.contains('/') && name != "." && name != "..";
        let at = |layer: &Layer| fs::symlink_metadata(layer.path_below(images).join(name)).ok();
        let topmost = || self.layers.iter().find_map(at);
        is_plain && topmost().is_some_and(|found| found.is_dir())
    }
}
