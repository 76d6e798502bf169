//! Forwarding between links: the machine's switch, which all of its nodes share.
//!
//! The first node that finds it off switches it on, and the last to go switches it off. In between, the
//! nodes are noted in a file that goes with the boot of the machine as the switch does. No note: it was
//! on before Sandbar, and is left alone. Whoever looks and acts holds the file's lock.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sys::file::O_NOFOLLOW;

use super::STEP;
use crate::{error::JailError, server::CLAIMS_DIR};

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Has packets go from link to link, for this node.
pub(super) fn switch_on(node: &str) -> Result<(), JailError> {
    in_step(|| {
        let mut note = Note::lock()?;
        let is_off = fs::read_to_string(SWITCH)?.trim() == "0";
        if is_off || !note.nodes.is_empty() {
            note.nodes.insert(node.to_owned());
        }
        note.write()?;
        if is_off { fs::write(SWITCH, "1") } else { Ok(()) }
    })
}

/// Undoes [`switch_on`], unless another node needs it.
pub(super) fn switch_off(node: &str) -> Result<(), JailError> {
    in_step(|| {
        let mut note = Note::lock()?;
        if note.nodes.remove(node) && note.nodes.is_empty() {
            fs::write(SWITCH, "0")?;
        }
        note.write()
    })
}

fn in_step(switch: impl FnOnce() -> io::Result<()>) -> Result<(), JailError> {
    switch().map_err(|error| JailError::io(STEP, format!("switch {SWITCH}"), &error))
}

/// The nodes for which forwarding was switched on, locked.
struct Note {
    path: PathBuf,
    file: File,
    nodes: BTreeSet<String>,
}

impl Note {
    fn lock() -> io::Result<Self> {
        // Each network namespace has a switch of its own.
        let namespace = fs::metadata("/proc/self/ns/net")?.ino();
        let path = Path::new(CLAIMS_DIR).join(format!("sandbar.forwarding-{namespace}"));
        let mut private = OpenOptions::new();
        private.create(true).read(true).append(true).mode(0o600).custom_flags(O_NOFOLLOW);
        loop {
            let file = private.open(&path)?;
            file.lock()?;
            // Somebody may just have removed it.
            if file.metadata()?.nlink() > 0 {
                let nodes = io::read_to_string(&file)?.lines().map(str::to_owned).collect();
                return Ok(Self { path, file, nodes });
            }
        }
    }

    /// Without any nodes there is no note.
    fn write(mut self) -> io::Result<()> {
        if self.nodes.is_empty() {
            return fs::remove_file(&self.path);
        }
        let lines: String = self.nodes.iter().map(|node| format!("{node}\n")).collect();
        self.file.set_len(0)?;
        self.file.write_all(lines.as_bytes())
    }
}
