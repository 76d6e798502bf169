//! Volumes: where the files of one sandbox lie that are its own, `upper` and `work` of its overlay.
//!
//! A volume is a subvolume of one btrfs file system of the node, `volumes/N` (see `disk.rs`): it has
//! a limit, and copying or removing it takes the same time whatever is in it. Where a node has no
//! such file system, it is a plain directory `sandboxes/N` without a limit. So are volumes made
//! before there was one: a volume is where it is.
//!
//! Does not: know which sandbox a volume is of, or whether anything runs on it.

mod disk;

pub use disk::own_mounts;

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use sys::{
    SysError, btrfs,
    errno::{ENOENT, ENOTTY},
    file::{self, How},
    file_system,
};

use crate::{
    error::{InStep, JailError},
    remove,
    spec::{JailId, NodeSpec},
};

const STEP: &str = "volume";

/// What the volumes of a node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volumes {
    /// Subvolumes of btrfs: limited, and copied at once.
    Limited,
    /// Plain directories, because of the reason.
    Plain(String),
}

/// The places of a node's volumes.
#[derive(Debug)]
pub(crate) struct NodeVolumes {
    /// Plain ones.
    sandboxes: PathBuf,
    /// Where the file system of the limited ones is mounted, if there is one.
    volumes: PathBuf,
    /// What holds that file system unless the operator has mounted one.
    image: PathBuf,
    /// What the kernel shows of its subvolumes' charges, see [`counts`]; none where it shows nothing.
    counts: OnceCell<Option<OwnedFd>>,
}

/// A volume, opened.
#[derive(Debug)]
pub(crate) struct Volume {
    /// The directory that has `upper` and `work`.
    pub(crate) own: OwnedFd,
    /// Files, each with one number that is true at each reading: the bytes that the volume is charged
    /// with, and those of data that wait to be written. None where nothing tells them.
    pub(crate) charge: Option<[OwnedFd; 2]>,
}

impl NodeVolumes {
    /// Makes the directories.
    pub(crate) fn open(node: &NodeSpec) -> Result<Self, JailError> {
        let place = |name: &str| node.state_dir.join(name);
        let this = Self {
            sandboxes: place("sandboxes"),
            volumes: place("volumes"),
            image: place("volumes.img"),
            counts: OnceCell::new(),
        };
        for dir in [&this.sandboxes, &this.volumes] {
            make_dirs(dir)?;
            close(dir)?;
        }
        Ok(this)
    }

    /// Makes the file system of the limited volumes exist and be mounted, in this mount namespace.
    /// Safe to repeat.
    ///
    /// # Errors
    /// When it exists and cannot be mounted: what is in it must not seem to be gone.
    pub(crate) fn set_up(&self) -> Result<Volumes, JailError> {
        let volumes = disk::set_up(&self.volumes, &self.image)?;
        // What is mounted there has permissions of its own.
        close(&self.volumes)?;
        Ok(volumes)
    }

    /// Numbers of volumes from `from` on, at most `most`, in order.
    pub(crate) fn list(&self, from: JailId, most: usize) -> Result<Vec<JailId>, JailError> {
        let mut all = BTreeSet::new();
        for dir in [&self.sandboxes, &self.volumes] {
            let failed = |error| JailError::io(STEP, format!("read {}", dir.display()), &error);
            for entry in fs::read_dir(dir).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                all.extend(name.to_str().and_then(volume_of));
            }
        }
        Ok(all.range(from..).take(most).copied().collect())
    }

    /// Opens volume `number` with `upper` and `work` in it, both made when missing, and sets its
    /// limit. A plain one has none.
    pub(crate) fn open_or_make(
        &self,
        number: JailId,
        limit: Option<u64>,
    ) -> Result<Volume, JailError> {
        let (plain, limited) = (self.plain(number), self.limited(number));
        let is_limited = limited.exists() || (!plain.exists() && disk::is_mounted(&self.volumes));
        if !is_limited {
            return Ok(Volume { own: open_plain(&plain)?, charge: None });
        }
        if !limited.exists() {
            let (parent, name) = self.named(number)?;
            btrfs::create(parent.as_fd(), &name).in_step(STEP)?;
        }
        let own = open_plain(&limited)?;
        btrfs::set_limit(own.as_fd(), limit).in_step(STEP)?;
        let charge = self.charge(&own);
        Ok(Volume { own, charge })
    }

    /// True where the kernel tells what volumes with a limit are charged with, see [`Volume::charge`].
    /// Asked once, when volumes are set up: where it does not tell then, it never does.
    pub(crate) fn has_counts(&self) -> bool {
        self.counts().is_some()
    }

    fn counts(&self) -> Option<&OwnedFd> {
        self.counts.get_or_init(|| counts(&self.volumes)).as_ref()
    }

    /// Opens what the kernel shows of the charge of the subvolume at `own`.
    fn charge(&self, own: &OwnedFd) -> Option<[OwnedFd; 2]> {
        let counts = self.counts()?;
        let subvolume = btrfs::subvolume(own.as_fd()).ok()?;
        let open = |name: &str| {
            // Groups have two numbers; the first of a subvolume's own is 0.
            let path = file::c_name(format!("0_{subvolume}/{name}")).ok()?;
            file::open(counts.as_fd(), &path, How::new(file::O_RDONLY)).ok()
        };
        Some([open("referenced")?, open("rsv_data")?])
    }

    /// Opens a plain volume, made when missing, whatever the node has: for files that somebody takes
    /// by renaming them.
    pub(crate) fn open_or_make_plain(&self, number: JailId) -> Result<Volume, JailError> {
        Ok(Volume { own: open_plain(&self.plain(number))?, charge: None })
    }

    /// Opens the files of volume `number`, `upper` of its overlay.
    pub(crate) fn open_own(&self, number: JailId) -> Result<OwnedFd, JailError> {
        open(&self.limited(number).join("upper"))
    }

    /// Makes volume `to` a copy of volume `from`, whatever is in it. What was written to `from` is in
    /// it, and both it and what is in it are on disk at return. A copy that is read-only can be
    /// copied again and removed, and nothing else.
    ///
    /// # Errors
    /// [`JailError::Refused`] when `from` is a plain directory; `ENOENT`; `EEXIST`.
    pub(crate) fn copy(
        &self,
        from: JailId,
        to: JailId,
        is_read_only: bool,
    ) -> Result<(), JailError> {
        if !self.limited(from).exists() && self.plain(from).exists() {
            return Err(JailError::Refused(format!("volume {from} is a plain directory")));
        }
        let source = open(&self.limited(from))?;
        let (parent, name) = self.named(to)?;
        btrfs::snapshot(parent.as_fd(), &name, source.as_fd(), is_read_only).in_step(STEP)
    }

    /// See [`crate::Launcher::volume_bytes`].
    pub(crate) fn bytes(&self, number: JailId) -> Result<Option<u64>, JailError> {
        let volume = match open(&self.limited(number)) {
            Err(JailError::Step { errno: ENOENT, .. }) => return Ok(None),
            volume => volume?,
        };
        let charge = btrfs::subvolume(volume.as_fd())
            .and_then(|subvolume| btrfs::charge(volume.as_fd(), subvolume));
        match charge {
            Err(SysError { errno: ENOTTY | ENOENT, .. }) => Ok(None),
            charge => Ok(charge.in_step(STEP)?.map(|charge| charge.bytes)),
        }
    }

    /// Removes volume `number`, whatever is in it; one that is not there is no error. The caller
    /// knows that no process can reach it any more.
    pub(crate) fn remove(&self, number: JailId) -> Result<(), JailError> {
        if self.limited(number).exists() {
            let (parent, name) = self.named(number)?;
            btrfs::remove(parent.as_fd(), &name).in_step("remove files")?;
        }
        let dir = self.plain(number);
        remove::remove_tree(&dir)
            .map_err(|error| JailError::io("remove files", dir.display().to_string(), &error))
    }

    fn plain(&self, number: JailId) -> PathBuf {
        self.sandboxes.join(number.to_string())
    }

    fn limited(&self, number: JailId) -> PathBuf {
        self.volumes.join(number.to_string())
    }

    /// The directory of the limited volumes, and the name of one in it.
    fn named(&self, number: JailId) -> Result<(OwnedFd, CString), JailError> {
        let name = CString::new(number.to_string()).unwrap_or_default();
        Ok((open(&self.volumes)?, name))
    }
}

/// The file system that the volumes of a node are in: to be opened by root, and used by whoever has it.
#[derive(Debug)]
pub struct VolumesFileSystem(fs::File);

impl VolumesFileSystem {
    /// That of the node with this state directory.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        fs::File::open(state_dir.join("volumes")).map(Self)
    }

    /// Waits until what was written to the volumes is on disk, so that the next copy of one has little
    /// left to write.
    ///
    /// # Errors
    /// As syncfs(2).
    pub fn sync(&self) -> io::Result<()> {
        Ok(file_system::sync(self.0.as_fd())?)
    }
}

/// Opens the directory of sysfs with the groups in which the kernel counts the bytes of the file system
/// mounted at `volumes`, Linux 5.9.
fn counts(volumes: &Path) -> Option<OwnedFd> {
    let volumes = fs::File::open(volumes).ok()?;
    let digits: String =
        btrfs::id(volumes.as_fd()).ok()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part));
    let id = parts.into_iter().collect::<Option<Vec<_>>>()?.join("-");
    let path = file::c_name(format!("/sys/fs/btrfs/{id}/qgroups")).ok()?;
    file::open(file::cwd(), &path, How::new(file::O_PATH | file::O_DIRECTORY)).ok()
}

/// The volume whose directory has this name.
fn volume_of(name: &str) -> Option<JailId> {
    let number = JailId(name.parse().ok()?);
    (number.to_string() == name).then_some(number)
}

/// Leaves a directory to root alone: what tenants have written may be theirs to run, as root.
fn close(dir: &Path) -> Result<(), JailError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir, permissions)
        .map_err(|error| JailError::io(STEP, format!("chmod {}", dir.display()), &error))
}

fn open_plain(dir: &Path) -> Result<OwnedFd, JailError> {
    for part in ["upper", "work"] {
        make_dirs(&dir.join(part))?;
    }
    open(dir)
}

fn open(path: &Path) -> Result<OwnedFd, JailError> {
    let opened = fs::File::open(path);
    opened
        .map(OwnedFd::from)
        .map_err(|error| JailError::io(STEP, format!("open {}", path.display()), &error))
}

/// Makes a directory and its parents, with mode 755 whatever the file mode mask.
pub(crate) fn make_dirs(path: &Path) -> Result<(), JailError> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder
        .recursive(true)
        .create(path)
        .map_err(|error| JailError::io(STEP, format!("mkdir {}", path.display()), &error))
}

/// True when `dir` lies on btrfs and is the top of what is mounted there.
fn is_top_of_btrfs(dir: &Path) -> bool {
    let path = CString::new(dir.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let device =
        |path: &Path| fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::dev(&found));
    let is_mount = match (device(dir), dir.parent().map(device)) {
        (Ok(own), Some(Ok(above))) => own != above,
        _ => false,
    };
    is_mount && file_system::at(&path).is_ok_and(|file_system| file_system.is_btrfs())
}
