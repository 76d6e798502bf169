//! A file system that is soon full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A tmpfs of a few megabytes, unmounted when dropped.
pub(crate) struct SmallDisk {
    mounted_at: TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(mebibytes: u32) -> Self {
        let mounted_at = tempfile::Builder::new()
            .prefix("sandbar-disk-")
            .tempdir_in("/var/tmp")
            .expect("a mount point can be made");
        let options = format!("size={mebibytes}m,mode=755");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "small"])
            .arg(mounted_at.path())
            .status()
            .expect("mount runs");
        assert!(status.success());
        Self { mounted_at }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.mounted_at.path().join("state")
    }

    fn filler(&self) -> PathBuf {
        self.mounted_at.path().join("filler")
    }

    /// Leaves not a byte.
    pub(crate) fn fill(&self) {
        let filler = fs::File::create(self.filler()).expect("the filler can be made");
        let block = [0; 4096];
        while std::io::Write::write_all(&mut &filler, &block).is_ok() {}
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).expect("the filler can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at: &Path = self.mounted_at.path();
        let status = Command::new("umount").arg("--lazy").arg(at).status().expect("umount runs");
        assert!(status.success() || std::thread::panicking());
    }
}
