//! Layers, manifests and names on disk, so written that a crash leaves them whole or absent.
//!
//! ```text
//! images/
//!   layers/<key>/            a layer: the directory itself, ids unshifted, as overlayfs wrote it
//!   manifests/<key>.json     an image: its layers and settings; the key is its digest
//!   names/<hash>.json        a name: which manifest it means, since when
//!   host/<key>/              skeletons of the image `host`, see the module `host`
//!   tmp-*                    what is being made or removed; swept at the next open
//! ```
//!
//! Everything in it is root's, and can be read by whoever gets there: a server that is not root, to which
//! root leaves the state directory. It writes nothing itself, see [`Store::open_with`].
//!
//! Order of writing: a layer is synced before it is renamed into place, a manifest is written
//! after its layers and a name after its manifest. So what a name leads to is always complete.
//!
//! One process opens a store at a time; the engine holds the lock of the state directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use api::{id::ImageRef, image::Image};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    builder::{self, Builders, Outcome, Task},
    debian::Release,
    disk::{self, Scratch},
    error::{Attempt, ImageError},
    follow::Cancel,
    host,
    key::{LayerKey, hex},
    rootfs::{Layer, Rootfs},
    settings::Settings,
};

/// Name of the image made of the machine's own files.
pub(crate) const HOST: &str = "host";

/// First letters of names in the store's directory that mean nothing after a crash.
const TEMPORARY: &str = "tmp-";

/// The images of one node: `images/` below the state directory. Shared between threads.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Who makes changes; none: this process.
    builders: Option<Box<dyn Builders>>,
    /// Sets temporary names of one process apart.
    temporaries: AtomicU64,
    /// Held by whoever adds or removes layers: one build or one collection at a time.
    changes: Mutex<()>,
}

/// Proof that nobody else adds or removes layers now.
#[derive(Debug)]
pub(crate) struct Changes<'a>(
    #[expect(dead_code, reason = "held for its release")] MutexGuard<'a, ()>,
);

/// An image without its name, as written to `manifests/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The key of all that went into it: the image's digest.
    pub(crate) key: LayerKey,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<LayerKey>,
    /// Where the last of them is a warm start: the key without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before_warm: Option<LayerKey>,
    /// What it says about commands.
    pub(crate) settings: Settings,
    /// Bytes of disk that its layers use.
    pub(crate) size_bytes: u64,
}

/// What a name means, as written to `names/`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: ImageRef,
    key: LayerKey,
    /// Milliseconds since 1970-01-01 UTC.
    created_at_ms: i64,
}

impl Store {
    /// Opens the store in `dir`, making it if it is not there, and sweeps what a crash left.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn open(dir: PathBuf) -> Result<Self, ImageError> {
        let store = Self::look(dir);
        store.prepare()?;
        Ok(store)
    }

    /// As [`Store::open`], for a process that may not change what is in the store and has each change
    /// made by a builder.
    ///
    /// # Errors
    /// [`ImageError::Io`], [`ImageError::Builder`].
    pub fn open_with(dir: PathBuf, builders: Box<dyn Builders>) -> Result<Self, ImageError> {
        let store = Self { builders: Some(builders), ..Self::look(dir) };
        store.have(&Task::Open).map(|_| store)
    }

    /// Makes the directories, and sweeps what a crash left.
    pub(crate) fn prepare(&self) -> Result<(), ImageError> {
        for part in ["", "layers", "manifests", "names", "host"] {
            disk::make_directory(&self.dir.join(part), 0o755)?;
        }
        for name in self.entries("")? {
            if name.starts_with(TEMPORARY) {
                disk::remove_tree_or_file(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// The store in `dir`, for looking at images while another process keeps it: nothing is swept,
    /// and nothing made but what [`Store::get`] makes for `host`. Not for building.
    #[must_use]
    pub fn look(dir: PathBuf) -> Self {
        let (temporaries, changes) = (AtomicU64::new(0), Mutex::new(()));
        Self { dir, builders: None, temporaries, changes }
    }

    /// Where the store is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Has a change made that says nothing while it is made, and cannot be cancelled.
    fn have(&self, task: &Task) -> Result<Outcome, ImageError> {
        self.have_made(task, &Cancel::default(), &mut |_| {})
    }

    /// Has a change made: here, or by a builder.
    fn have_made(
        &self,
        task: &Task,
        cancel: &Cancel,
        line: &mut dyn FnMut(&str),
    ) -> Result<Outcome, ImageError> {
        match &self.builders {
            None => builder::carry_out(self, task, cancel, line),
            Some(builders) => builder::ask(builders.as_ref(), task, cancel, line),
        }
    }

    /// The image called `name`; `host` always exists, and is made anew when the machine changed.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Damaged`], [`ImageError::HostNotMerged`],
    /// [`ImageError::Io`].
    pub fn get(&self, name: &ImageRef) -> Result<(Image, Rootfs), ImageError> {
        if name.to_string() == HOST {
            return host::image(self, Path::new("/"));
        }
        let entry: Name =
            read(&self.name_path(name))?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
        let manifest = self.manifest(&entry.key)?;
        Ok((image(&entry, &manifest), Self::rootfs_of(&manifest)))
    }

    /// The root filesystem of the image with this digest, whatever name it has now. For sandboxes
    /// that were made from it: their upper layer fits no other.
    ///
    /// # Errors
    /// [`ImageError::DigestNotFound`], and as [`Store::get`].
    pub fn by_digest(&self, digest: &str) -> Result<Rootfs, ImageError> {
        if digest == HOST {
            return host::image(self, Path::new("/")).map(|(_, rootfs)| rootfs);
        }
        let key = digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        let key = key.ok_or_else(|| ImageError::DigestNotFound(digest.to_owned()))?;
        Ok(Self::rootfs_of(&self.manifest(&key)?))
    }

    /// All images sorted by name, with `host` where the machine allows it.
    ///
    /// # Errors
    /// [`ImageError::Damaged`], [`ImageError::Io`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut images = match host::image(self, Path::new("/")) {
            Ok((image, _)) => vec![image],
            Err(ImageError::HostNotMerged { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        for entry in self.names()? {
            images.push(image(&entry, &self.manifest(&entry.key)?));
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Takes the name `name` away. Layers stay until [`Store::collect`].
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Reserved`] for `host`, [`ImageError::Io`].
    pub fn remove(&self, name: &ImageRef) -> Result<(), ImageError> {
        check_name(name)?;
        if !self.name_path(name).exists() {
            return Err(ImageError::NotFound(name.clone()));
        }
        self.have(&Task::Remove { name: name.clone() }).map(drop)
    }

    /// Takes a name away, if it is there.
    pub(crate) fn remove_name(&self, name: &ImageRef) -> Result<(), ImageError> {
        let path = self.name_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.attempt(|| format!("removing {}", path.display()))?,
        }
        disk::sync_directory(&self.dir.join("names"))
    }

    /// Makes the layer of the image `host`; its key.
    pub(crate) fn make_host(&self, machine: &Path) -> Result<LayerKey, ImageError> {
        if self.builders.is_none() {
            return host::make(self, machine);
        }
        match self.have(&Task::Host)? {
            Outcome::Host { key } => Ok(key),
            _ => Err(builder::unexpected()),
        }
    }

    /// Makes the base layer of a release. Lines of progress go to the last argument.
    pub(crate) fn make_base(
        &self,
        release: Release,
        proxies: BTreeMap<String, String>,
        _changes: &Changes<'_>,
        (cancel, line): (&Cancel, &mut dyn FnMut(&str)),
    ) -> Result<(), ImageError> {
        let task = Task::Base { release: release.codename().to_owned(), proxies };
        self.have_made(&task, cancel, line).map(drop)
    }

    /// Makes the upper layer of a sandbox that has ended the layer `key`, durably.
    pub(crate) fn take_upper(
        &self,
        key: &LayerKey,
        sandbox: u64,
        _changes: &Changes<'_>,
    ) -> Result<(), ImageError> {
        self.have(&Task::Layer { key: key.clone(), sandbox }).map(drop)
    }

    /// Where the upper layer of a plain sandbox is.
    pub(crate) fn upper_of(&self, sandbox: u64) -> PathBuf {
        let state = self.dir.parent().unwrap_or(Path::new("/"));
        state.join("sandboxes").join(sandbox.to_string()).join("upper")
    }

    /// Where a layer is.
    #[cfg(test)]
    pub(crate) fn path_of(&self, layer: &Layer) -> PathBuf {
        layer.path_below(&self.dir)
    }

    /// Where the layer `key` is, or would be.
    pub(crate) fn layer_path(&self, key: &LayerKey) -> PathBuf {
        self.dir.join("layers").join(key.as_str())
    }

    /// Whether the layer `key` is there. What is there is complete.
    pub(crate) fn has_layer(&self, key: &LayerKey) -> bool {
        self.layer_path(key).is_dir()
    }

    /// The right to add and remove layers, until it is dropped.
    ///
    /// # Errors
    /// [`ImageError::Busy`] at once when somebody has it: a build takes minutes, and its caller
    /// should know that it is not its own.
    pub(crate) fn changes(&self) -> Result<Changes<'_>, ImageError> {
        match self.changes.try_lock() {
            Ok(guard) => Ok(Changes(guard)),
            // The mutex guards no data; a panic under it left at most a temporary directory.
            Err(TryLockError::Poisoned(poisoned)) => Ok(Changes(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => Err(ImageError::Busy),
        }
    }

    /// Makes the finished directory `dir` the layer `key`, durably. `dir` lies in the store's file
    /// system; it is gone from its place afterwards. A layer that is there already is replaced:
    /// the caller made `dir` because layers below it were made again.
    ///
    /// # Errors
    /// [`ImageError::Io`]; `dir` is then where it was.
    pub(crate) fn commit_layer(&self, key: &LayerKey, dir: &Path) -> Result<(), ImageError> {
        disk::sync_tree(dir)?;
        let target = self.layer_path(key);
        if self.has_layer(key) {
            self.discard(&target)?;
        }
        fs::rename(dir, &target)
            .attempt(|| format!("moving {} to {}", dir.display(), target.display()))?;
        disk::sync_directory(&self.dir.join("layers"))
    }

    /// Gives `manifest` the name `name`, from now on. Its size is that of its layers.
    ///
    /// # Errors
    /// [`ImageError::Reserved`], [`ImageError::Io`].
    pub(crate) fn put(
        &self,
        name: &ImageRef,
        manifest: Manifest,
        _changes: &Changes<'_>,
    ) -> Result<Image, ImageError> {
        check_name(name)?;
        match self.have(&Task::Put { name: name.clone(), manifest })? {
            Outcome::Named { image } => Ok(image),
            _ => Err(builder::unexpected()),
        }
    }

    /// Writes a name and what it means.
    pub(crate) fn write_name(
        &self,
        name: &ImageRef,
        manifest: &Manifest,
    ) -> Result<Image, ImageError> {
        check_name(name)?;
        let size_bytes = self.size_bytes(&manifest.layers)?;
        let manifest = Manifest { size_bytes, ..manifest.clone() };
        let entry = Name { name: name.clone(), key: manifest.key.clone(), created_at_ms: now_ms() };
        self.write(&self.manifest_path(&manifest.key), &manifest)?;
        self.write(&self.name_path(name), &entry)?;
        Ok(image(&entry, &manifest))
    }

    /// The manifest that `name` leads to.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub(crate) fn manifest_of(&self, name: &ImageRef) -> Result<Manifest, ImageError> {
        let entry: Name =
            read(&self.name_path(name))?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
        self.manifest(&entry.key)
    }

    /// Deletes manifests that no name leads to and that are not among the digests `in_use` (of
    /// sandboxes' images), then layers that no manifest is left to name, and skeletons of `host`
    /// that were made before the machine changed. Returns the bytes freed.
    ///
    /// # Errors
    /// [`ImageError::Busy`] during a build, [`ImageError::Damaged`], [`ImageError::Io`].
    pub fn collect(&self, in_use: &BTreeSet<String>) -> Result<u64, ImageError> {
        let _changes = self.changes()?;
        match self.have(&Task::Collect { in_use: in_use.clone() })? {
            Outcome::Freed { bytes } => Ok(bytes),
            _ => Err(builder::unexpected()),
        }
    }

    /// As [`Store::collect`], by whoever has the right to change layers.
    pub(crate) fn collect_now(&self, in_use: &BTreeSet<String>) -> Result<u64, ImageError> {
        let named: BTreeSet<_> = self.names()?.into_iter().map(|name| name.key).collect();
        let mut layers = BTreeSet::new();
        for file in self.entries("manifests")? {
            let path = self.dir.join("manifests").join(&file);
            let Some(manifest) = read::<Manifest>(&path)? else { continue };
            if named.contains(&manifest.key) || in_use.contains(&manifest.key.digest()) {
                layers.extend(manifest.layers);
            } else {
                fs::remove_file(&path).attempt(|| format!("removing {}", path.display()))?;
            }
        }
        let mut freed_bytes = self.sweep("layers", &layers)?;
        if !in_use.contains(HOST) {
            // Never the newest: a sandbox may be about to stand on it.
            let newest = host::fingerprint(Path::new("/"))?;
            freed_bytes += self.sweep(HOST, &BTreeSet::from([newest]))?;
        }
        Ok(freed_bytes)
    }

    /// Removes the layers in `part` that are not among `kept`. Returns the bytes freed.
    fn sweep(&self, part: &str, kept: &BTreeSet<LayerKey>) -> Result<u64, ImageError> {
        let mut freed_bytes = 0;
        for name in self.entries(part)? {
            if !name.parse().is_ok_and(|key: LayerKey| kept.contains(&key)) {
                let path = self.dir.join(part).join(name);
                freed_bytes += disk::tree_bytes(&path)?;
                self.discard(&path)?;
            }
        }
        Ok(freed_bytes)
    }

    /// A new empty directory in the store's file system, of mode 0755.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        Scratch::new(self.temporary())
    }

    /// What an image of these layers (lowest first) and settings mounts as.
    pub(crate) fn rootfs(layers: &[LayerKey], settings: &Settings) -> Rootfs {
        Rootfs {
            layers: layers
                .iter()
                .rev()
                .map(|key| Layer { is_host: false, key: key.clone() })
                .collect(),
            binds: Vec::new(),
            env: settings.env.clone(),
            workdir: settings.workdir.clone(),
        }
    }

    /// Bytes of disk that these layers use.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub(crate) fn size_bytes(&self, layers: &[LayerKey]) -> Result<u64, ImageError> {
        layers.iter().map(|key| disk::tree_bytes(&self.layer_path(key))).sum()
    }

    /// Where skeletons of the image `host` are kept.
    pub(crate) fn host_dir(&self) -> PathBuf {
        self.dir.join(HOST)
    }

    /// Removes a tree so that a crash leaves nothing that looks whole: renamed first.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let temporary = self.temporary();
        fs::rename(path, &temporary).attempt(|| format!("removing {}", path.display()))?;
        disk::remove_tree(&temporary)
    }

    fn rootfs_of(manifest: &Manifest) -> Rootfs {
        Self::rootfs(&manifest.layers, &manifest.settings)
    }

    fn manifest(&self, key: &LayerKey) -> Result<Manifest, ImageError> {
        read(&self.manifest_path(key))?.ok_or_else(|| ImageError::DigestNotFound(key.digest()))
    }

    fn manifest_path(&self, key: &LayerKey) -> PathBuf {
        self.dir.join("manifests").join(format!("{key}.json"))
    }

    /// Named by the hash of the name, which may hold slashes and be longer than a file's.
    fn name_path(&self, name: &ImageRef) -> PathBuf {
        let hash = hex(&Sha256::digest(name.to_string()));
        self.dir.join("names").join(format!("{hash}.json"))
    }

    fn names(&self) -> Result<Vec<Name>, ImageError> {
        let mut names = Vec::new();
        for file in self.entries("names")? {
            // Gone meanwhile: somebody removed the name, which is allowed at any time.
            names.extend(read::<Name>(&self.dir.join("names").join(file))?);
        }
        Ok(names)
    }

    /// Names in the directory `part` of the store that are text; the store makes no others.
    fn entries(&self, part: &str) -> Result<Vec<String>, ImageError> {
        let dir = self.dir.join(part);
        let read = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            names.filter_map(Result::transpose).collect()
        };
        read().attempt(|| format!("reading {}", dir.display()))
    }

    fn temporary(&self) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        // Two builders may be at work.
        self.dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()))
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| ImageError::Damaged { path: path.to_owned(), source })?;
        disk::replace(path, &self.temporary(), &bytes)
    }
}

/// Names that mean something else than an image of the store.
pub(crate) fn check_name(name: &ImageRef) -> Result<(), ImageError> {
    let meaning = match name.name() {
        HOST => "host is this machine's own files",
        "debian" => "FROM debian is made of Debian's packages",
        "scratch" => "scratch is Docker's word for an empty image",
        _ => return Ok(()),
    };
    Err(ImageError::Reserved { name: name.clone(), meaning })
}

fn image(entry: &Name, manifest: &Manifest) -> Image {
    Image {
        name: entry.name.clone(),
        digest: manifest.key.digest(),
        layers: manifest.layers.len(),
        size_bytes: manifest.size_bytes,
        created_at_ms: entry.created_at_ms,
    }
}

/// The content of a file of the store; `None` when it is not there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.attempt(|| format!("reading {}", path.display()))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| ImageError::Damaged { path: path.to_owned(), source })
}

/// Milliseconds since 1970-01-01 UTC; 0 on a machine whose clock is before that.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
