//! The mounts of a jail that the host makes: its root, and what of it lies in memory. They are attached
//! nowhere until the jail's first process, in a mount namespace of its own, attaches them.

use std::{
    ffi::{CStr, CString},
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use sys::{
    SysError,
    credentials::{self, Capabilities},
    file::{self, How},
    mount::{self, MountFlags},
};

use crate::{
    error::{InStep, JailError},
    figures::Figures,
    spec::{JailSpec, NodeSpec, View},
    volume::{NodeVolumes, Volume, make_dirs},
};

const STEP: &str = "rootfs";

/// Bytes of what a jail has in memory but `/dev/shm`, at most: `/run` for the most part. It counts as
/// the jail's memory.
const MEMORY_BYTES: &CStr = c"64m";

/// The device nodes of a jail: private, because a shared node would share locks and watches.
const DEVICES: [(&CStr, (u32, u32)); 6] = [
    (c"null", (1, 3)),
    (c"zero", (1, 5)),
    (c"full", (1, 7)),
    (c"random", (1, 8)),
    (c"urandom", (1, 9)),
    (c"tty", (5, 0)),
];

/// The links in a jail's `/dev`.
const DEVICE_LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

/// Directories every jail has, with their modes, whatever its image has in their place: they lie
/// in a layer above the image's.
const DIRECTORIES: [(&str, u32); 8] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("root", 0o700),
    ("workspace", 0o755),
];

/// Of what belongs to the host or to another jail.
const READ_ONLY: MountFlags =
    MountFlags::READ_ONLY.and(MountFlags::NO_SUID).and(MountFlags::NO_DEVICES);

/// What a view is made from, mapped.
enum Source {
    /// The layers of the image, under this.
    Layers(Option<OwnedFd>),
    /// The files of a volume.
    Own(OwnedFd),
}

/// The node's directories.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    pub(crate) volumes: NodeVolumes,
    /// The layer above every image: mount points, and `/etc` files that depend on the node.
    site: OwnedFd,
    /// Layers are below it.
    state_dir: PathBuf,
}

/// What a jail has of others, opened.
#[derive(Debug)]
pub(crate) struct Trees {
    /// The layers of its image, topmost first.
    layers: Vec<OwnedFd>,
    /// Trees of the host, one for each [`crate::Bind`].
    binds: Vec<OwnedFd>,
}

/// Mounts ready to be attached.
#[derive(Debug)]
pub(crate) struct JailMounts {
    /// The root: image layers under the jail's own files.
    pub(crate) root: OwnedFd,
    /// [`IN_MEMORY`].
    pub(crate) memory: OwnedFd,
    /// The directory of [`crate::figures`] in it.
    pub(crate) figures: OwnedFd,
    /// Trees of the host, read-only.
    pub(crate) binds: Vec<OwnedFd>,
    /// See [`JailSpec::views`].
    pub(crate) views: Vec<OwnedFd>,
    /// See [`Volume::charge`].
    pub(crate) charge: Option<[OwnedFd; 2]>,
    /// The views of the layers that the root is made of: not needed any more, but closing a mount
    /// that is attached nowhere waits for an RCU grace period, so whoever has them closes them
    /// when nobody waits.
    pub(crate) spent: Vec<OwnedFd>,
}

impl NodeFiles {
    /// Makes the node's directories.
    pub(crate) fn open(node: &NodeSpec) -> Result<Self, JailError> {
        let volumes = NodeVolumes::open(node)?;
        let site = node.state_dir.join("site");
        for (name, mode) in DIRECTORIES {
            let dir = site.join(name);
            make_dirs(&dir)?;
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&dir, permissions)
                .map_err(|error| JailError::io(STEP, format!("chmod {name}"), &error))?;
        }
        write_site_file(&site, "etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
        let resolver = node.network.map(|network| format!("nameserver {}\n", network.gateway()));
        write_site_file(&site, "etc/resolv.conf", &resolver.unwrap_or_default())?;
        let site = fs::File::open(&site)
            .map_err(|error| JailError::io(STEP, format!("open {}", site.display()), &error))?;
        Ok(Self { volumes, site: site.into(), state_dir: node.state_dir.clone() })
    }

    /// Opens what the jail of `spec` has read-only. Layers are found by their keys, below a directory
    /// that only root can write; of the host there is what [`crate::Bind`] names.
    pub(crate) fn open_trees(&self, spec: &JailSpec) -> Result<Trees, JailError> {
        let layers = spec.layers.iter().map(|layer| {
            let path = self.state_dir.join(layer.place());
            let mut options = fs::OpenOptions::new();
            let opened = options.read(true).custom_flags(file::O_NOFOLLOW | file::O_DIRECTORY);
            let opened = opened.open(&path);
            opened.map_err(|error| JailError::io(STEP, format!("open {}", path.display()), &error))
        });
        let layers = layers.map(|layer| layer.map(OwnedFd::from)).collect::<Result<_, _>>()?;
        let binds = spec.binds.iter().map(|bind| {
            let gone = || JailError::Refused(format!("this machine has no {bind:?} to bind"));
            let path = bind.source().ok_or_else(gone)?;
            let opened = fs::File::open(path);
            opened
                .map_err(|error| JailError::io("bind", format!("open {}", path.display()), &error))
        });
        let binds = binds.map(|tree| tree.map(OwnedFd::from)).collect::<Result<_, _>>()?;
        Ok(Trees { layers, binds })
    }

    /// Makes the mounts of the jail of `spec` over `trees`; `user` is the jail's user namespace, whose
    /// id 0 is the spec's `uid_base` on the host.
    pub(crate) fn mounts(
        &self,
        spec: &JailSpec,
        user: BorrowedFd<'_>,
        Trees { layers, binds }: &Trees,
        figures: &Figures,
    ) -> Result<JailMounts, JailError> {
        let Volume { own, charge } = match spec.volume {
            Some(volume) => self.volumes.open_or_make(volume, spec.limits.disk_bytes)?,
            None => self.volumes.open_or_make_plain(spec.jail)?,
        };
        let mapped = |fd: BorrowedFd<'_>| map_tree(fd, user, MountFlags::NONE).in_step(STEP);
        let own = mapped(own.as_fd())?;
        let mut lower = vec![mapped(self.site.as_fd())?];
        for layer in layers {
            lower.push(mapped(layer.as_fd())?);
        }
        let binds = binds.iter().map(|tree| map_tree(tree.as_fd(), user, READ_ONLY));
        let binds = binds.collect::<Result<_, _>>().in_step("bind")?;
        let sources = spec.views.iter().map(|view| self.source(*view, user));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let identity = FileIdentity::assume(spec.uid_base).in_step(STEP)?;
        let root = overlay(Some(&own), &lower).in_step(STEP);
        let mut spent = vec![own];
        let views = sources.into_iter().map(|source| view(source, &mut lower, &mut spent));
        let views = views.collect::<Result<Vec<_>, _>>().in_step("view");
        let memory = in_memory(figures).in_step("memory");
        identity.resume().in_step(STEP)?;
        spent.extend(lower);
        let (root, (memory, figures)) = (root?, memory?);
        Ok(JailMounts { root, memory, figures, binds, views: views?, charge, spent })
    }

    /// Opens what a view is made from.
    fn source(&self, view: View, user: BorrowedFd<'_>) -> Result<Source, JailError> {
        let own = |volume| {
            let own = self.volumes.open_own(volume)?;
            map_tree(own.as_fd(), user, READ_ONLY).in_step("view")
        };
        match view {
            View::Image => Ok(Source::Layers(None)),
            View::Whole(volume) => own(volume).map(|own| Source::Layers(Some(own))),
            View::Own(volume) => own(volume).map(Source::Own),
        }
    }
}

/// Writes a file of the site layer, unless it is as it should be: running sandboxes see it.
fn write_site_file(site: &Path, name: &str, content: &str) -> Result<(), JailError> {
    let path = site.join(name);
    let write = || {
        if !fs::read_to_string(&path).is_ok_and(|present| present == content) {
            fs::write(&path, content)?;
        }
        // This process has no file mode mask, and the server is not to write for all sandboxes.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    write().map_err(|error| JailError::io(STEP, format!("write {}", path.display()), &error))
}

/// A detached view of the tree at `fd` in which the host's id 0 is the jail's, and so on.
fn map_tree(
    fd: BorrowedFd<'_>,
    user: BorrowedFd<'_>,
    flags: MountFlags,
) -> Result<OwnedFd, SysError> {
    let tree = mount::clone_mount(fd, c"", false)?;
    mount::map_ids(tree.as_fd(), user)?;
    if flags != MountFlags::NONE {
        mount::add_flags(tree.as_fd(), flags, false)?;
    }
    Ok(tree)
}

/// Acts on files as a jail's root, with the launcher's capabilities kept.
///
/// An overlay writes to its upper layer as whoever mounted it. The upper layer is seen through a
/// mount with shifted ids, in which the host's root does not exist but the jail's does, as id 0:
/// so files are stored with the ids they have inside, and do not depend on the jail's range.
struct FileIdentity(Capabilities);

impl FileIdentity {
    fn assume(uid: u32) -> Result<Self, SysError> {
        let kept = credentials::capabilities()?;
        credentials::set_file_identity(uid, uid);
        let assumed = Self(kept);
        match credentials::set_capabilities(kept) {
            Ok(()) => Ok(assumed),
            Err(error) => assumed.resume().and(Err(error)),
        }
    }

    fn resume(self) -> Result<(), SysError> {
        credentials::set_file_identity(0, 0);
        credentials::set_capabilities(self.0)
    }
}

/// Bytes of a mount option's value, its closing zero included; fsconfig(2).
const OPTION_BYTES: usize = 256;

/// A view of a volume, or of the image of which `lower` are the layers. What is not needed any more
/// goes into `spent`.
fn view(
    source: Source,
    lower: &mut Vec<OwnedFd>,
    spent: &mut Vec<OwnedFd>,
) -> Result<OwnedFd, SysError> {
    match source {
        Source::Own(own) => Ok(own),
        Source::Layers(None) => overlay(None, lower),
        Source::Layers(Some(own)) => {
            lower.insert(0, own);
            let made = overlay(None, lower);
            spent.push(lower.remove(0));
            made
        }
    }
}

/// The root of a jail: `lower` layers, topmost first, under `own`'s `upper`. Without that it is
/// read-only.
///
/// Layers are named by descriptor, so that the jail's mount table shows no path of the host.
/// `redirect_dir`, `metacopy` and `index` stay off: each lets an upper layer that a tenant wrote
/// refer to lower files by name (security rule E43).
fn overlay(own: Option<&OwnedFd>, lower: &[OwnedFd]) -> Result<OwnedFd, SysError> {
    let context = mount::new_filesystem(c"overlay")?;
    let set = |name, value: &str| {
        let value = CString::new(value).unwrap_or_default();
        mount::set_option(context.as_fd(), name, &value)
    };
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let paths: Vec<String> = lower.iter().map(path).collect();
    let joined = paths.join(":");
    if joined.len() < OPTION_BYTES {
        set(c"lowerdir", &joined)?;
    } else {
        // One option per layer; Linux 6.8.
        paths.iter().try_for_each(|path| set(c"lowerdir+", path))?;
    }
    if let Some(own) = own {
        set(c"upperdir", &format!("{}/upper", path(own)))?;
        set(c"workdir", &format!("{}/work", path(own)))?;
    }
    set(c"redirect_dir", "nofollow")?;
    set(c"metacopy", "off")?;
    set(c"index", "off")?;
    let flags = MountFlags::NO_SUID.and(MountFlags::NO_DEVICES);
    mount::make_mount(context.as_fd(), if own.is_some() { flags } else { READ_ONLY })
}

/// What of a jail lies in memory, with its directories' modes: `/dev`, `/run`, the figures and what
/// covers `/sys`. One file system for all of them, because each costs its making, its end and a place
/// in the maps of every memory cgroup; what a tenant fills of it is the tenant's loss.
const IN_MEMORY: [(&CStr, u32); 4] =
    [(c"dev", 0o755), (c"run", 0o755), (c"figures", 0o755), (c"empty", 0o555)];

/// Makes [`IN_MEMORY`], and opens the directory of the figures in it. Made by the host, because only
/// the host may make device nodes.
fn in_memory(figures: &Figures) -> Result<(OwnedFd, OwnedFd), SysError> {
    let context = mount::new_filesystem(c"tmpfs")?;
    mount::set_option(context.as_fd(), c"mode", c"755")?;
    mount::set_option(context.as_fd(), c"size", MEMORY_BYTES)?;
    let memory = mount::make_mount(context.as_fd(), MountFlags::NO_SUID)?;
    for (name, mode) in IN_MEMORY {
        file::make_dir(memory.as_fd(), name, mode)?;
    }
    let open =
        |name| file::open(memory.as_fd(), name, How::new(file::O_RDONLY | file::O_DIRECTORY));
    let dev = open(c"dev")?;
    for (name, number) in DEVICES {
        file::make_character_device(dev.as_fd(), name, 0o666, number)?;
    }
    for (target, name) in DEVICE_LINKS {
        file::make_link(target, dev.as_fd(), name)?;
    }
    file::make_dir(dev.as_fd(), c"pts", 0o755)?;
    file::make_dir(dev.as_fd(), c"shm", 0o755)?;
    let directory = open(c"figures")?;
    figures.write(directory.as_fd())?;
    Ok((memory, directory))
}
