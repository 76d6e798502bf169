//! An image's layers as a directory that other programs can run from.
//!
//! Mounted with mount(8) below a temporary tmpfs, so that nothing is written to the layers;
//! unmounted when the handle goes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use api::id::ImageRef;
use image::{Bind, Rootfs, Store};

use crate::random::random_name;

/// A mounted root file system.
#[derive(Debug)]
pub(super) struct MountedRootfs {
    /// Holds everything; a tmpfs.
    base: PathBuf,
}

impl MountedRootfs {
    /// Mounts the image `name` of the server whose state is in `state_dir`.
    pub(super) fn mount(state_dir: &Path, name: &ImageRef) -> anyhow::Result<Self> {
        // The server keeps the store; opening it here would sweep what a build is making.
        let images = state_dir.join("images");
        let store = Store::look(images.clone());
        let (_image, rootfs) = store.get(name)?;
        let base = std::env::temp_dir().join(format!("sandbar-bench-{}", random_name()?));
        fs::create_dir(&base).with_context(|| format!("could not make {}", base.display()))?;
        // From here on the handle tidies up, whatever fails.
        let mounted = Self { base };
        mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs"], &mounted.base)?;
        mounted.stack(&images, &rootfs)?;
        Ok(mounted)
    }

    /// The root directory.
    pub(super) fn path(&self) -> PathBuf {
        self.base.join("root")
    }

    fn stack(&self, images: &Path, rootfs: &Rootfs) -> anyhow::Result<()> {
        let root = self.path();
        let (upper, work) = (self.base.join("upper"), self.base.join("work"));
        for dir in [&root, &upper, &work] {
            fs::create_dir(dir).with_context(|| format!("could not make {}", dir.display()))?;
        }
        let lower: Vec<String> = rootfs
            .layers
            .iter()
            .map(|layer| option_path(&layer.path_below(images)))
            .collect::<anyhow::Result<_>>()?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            option_path(&upper)?,
            option_path(&work)?
        );
        mount(&["-t", "overlay", "-o", &options, "overlay"], &root)?;
        if rootfs.binds.contains(&Bind::Usr) {
            mount(&["--bind", "-o", "ro", "/usr"], &root.join("usr"))?;
        }
        Ok(())
    }
}

impl Drop for MountedRootfs {
    fn drop(&mut self) {
        // Lazily: a program that was interrupted may still be ending in it.
        if let Err(error) = run(Command::new("umount").args(["-R", "-l"]).arg(&self.base)) {
            // Nothing was mounted, or the message of the removal below says the rest.
            drop(error);
        }
        if let Err(error) = fs::remove_dir(&self.base) {
            let base = self.base.display();
            let text = format!("sandbar: could not remove {base}; unmount it by hand: {error}\n");
            // With stderr gone there is nobody left to tell.
            drop(io::Write::write_all(&mut io::stderr().lock(), text.as_bytes()));
        }
    }
}

/// A path inside overlay's option string, where commas and colons separate.
fn option_path(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.contains([',', ':', '\\']) {
        bail!("the path {text:?} has a character that mount options cannot carry");
    }
    Ok(text.to_owned())
}

fn mount(arguments: &[&str], target: &Path) -> anyhow::Result<()> {
    run(Command::new("mount").args(arguments).arg(target))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}", text.trim_end());
    }
    Ok(())
}
