//! File systems of the test's own, for state directories.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
pub(crate) struct Disk {
    mounted_at: TempDir,
}

impl Disk {
    /// A tmpfs of a few mebibytes: soon full.
    pub(crate) fn small(mebibytes: u32) -> Self {
        Self::mount("tmpfs", &format!("size={mebibytes}m,mode=755"), mount_point())
    }

    /// An overlay.
    pub(crate) fn overlay() -> Self {
        let at = mount_point();
        let dir = |name: &str| {
            let dir = at.path().join(name);
            fs::create_dir(&dir).expect("a directory can be made");
            dir.display().to_string()
        };
        let options = format!("lowerdir={},upperdir={},workdir={}", dir("l"), dir("u"), dir("w"));
        Self::mount("overlay", &options, at)
    }

    fn mount(kind: &str, options: &str, mounted_at: TempDir) -> Self {
        let status = Command::new("mount")
            .args(["-t", kind, "-o", options, kind])
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

impl Drop for Disk {
    fn drop(&mut self) {
        let at: &Path = self.mounted_at.path();
        let status = Command::new("umount").arg("--lazy").arg(at).status().expect("umount runs");
        assert!(status.success() || std::thread::panicking());
    }
}

fn mount_point() -> TempDir {
    tempfile::Builder::new()
        .prefix("sandbar-disk-")
        .tempdir_in("/var/tmp")
        .expect("a mount point can be made")
}
