//! The image `host`: this machine's own programs, without any download.
//!
//! Shared with the machine, read-only: all of `/usr` (with `/usr/local`), and what `/usr` needs
//! beside it, copied into a small layer: the dynamic linker's cache, the links of
//! update-alternatives, the certificates that the machine trusts, names of services, protocols and
//! media types, the time zone, font and key settings.
//!
//! Not shared: everything else. `/etc` is made up: accounts, name resolution, profile. `/root`,
//! `/home`, `/var`, `/opt`, `/srv`, `/mnt`, `/media`, `/tmp` are empty directories of the sandbox.
//! Only world-readable files are copied, and of links only those that lead into `/usr` or stay in
//! their directory.
//!
//! For trying things and for tests: what a program finds depends on the machine, packages cannot
//! be installed (`/usr` is read-only and the package database is not there), and an upgrade of the
//! machine shows in running sandboxes at once. Images cannot be built on it for the same reason.
//!
//! The layer is made again when the machine's `/usr` or what is copied changed, which a handful of
//! `stat` calls tell ([`fingerprint`]).

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use api::image::Image;

use crate::{
    disk,
    error::{Attempt, ImageError},
    key::LayerKey,
    rootfs::{Bind, Layer, Rootfs},
    settings::Settings,
    store::{HOST, Store, now_ms},
};

/// Counts changes to what this module makes.
const REVISION: &str = "1";

/// Bytes of one copied file. The largest real one, the certificate bundle, has a quarter of a MiB.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Entries of one copied directory; `/etc/alternatives` of a crowded machine has a thousand.
const DIRECTORY_ENTRIES: usize = 8192;

/// Top-level names that a machine with a merged /usr has as links into it.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is copied from the machine's /etc: written by packages, secret to nobody, and missed by
/// programs in /usr.
const COPIED: [&str; 12] = [
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ssl/certs",
    "ssl/openssl.cnf",
    "fonts",
    "services",
    "protocols",
    "mime.types",
    "localtime",
    "inputrc",
];

/// Depth of directories that are copied; `/etc/fonts/conf.d` is the deepest.
const DEPTH: usize = 3;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    bin:x:2:2:bin:/bin:/usr/sbin/nologin\n\
    sys:x:3:3:sys:/dev:/usr/sbin/nologin\n\
    mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

const GROUP: &str = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\n\
    mail:x:8:\nwww-data:x:33:\nshadow:x:42:\nutmp:x:43:\nstaff:x:50:\nusers:x:100:\n\
    nogroup:x:65534:\n";

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
    networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";

const PROFILE: &str = "# Read by login shells.\nPS1='\\w\\$ '\numask 022\n";

/// Names of the sandbox itself; the launcher may add its host name.
pub(crate) const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Empty directories, with their modes. `usr` is where the machine's is bound.
const DIRECTORIES: [(&str, u32); 21] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
];

/// Makes the layer of the machine whose root is `machine`, unless it is there; its key.
pub(crate) fn make(store: &Store, machine: &Path) -> Result<LayerKey, ImageError> {
    let key = fingerprint(machine)?;
    let layer = store.host_dir().join(key.as_str());
    if !layer.is_dir() {
        let scratch = store.scratch()?;
        generate(machine, scratch.path())?;
        disk::sync_tree(scratch.path())?;
        match fs::rename(scratch.path(), &layer) {
            // Another thread was faster; its layer is as good.
            Err(_) if layer.is_dir() => {}
            result => {
                result.attempt(|| format!("moving the new layer to {}", layer.display()))?;
            }
        }
        disk::sync_directory(&store.host_dir())?;
    }
    Ok(key)
}

/// The image `host` of the machine whose root is `machine`, its layer made if need be.
pub(crate) fn image(store: &Store, machine: &Path) -> Result<(Image, Rootfs), ImageError> {
    let mut key = fingerprint(machine)?;
    if !store.host_dir().join(key.as_str()).is_dir() {
        check_merged(machine)?;
        key = store.make_host(machine)?;
    }
    let layer = Layer { is_host: true, key };
    let mut settings = Settings::base();
    settings.env.extend([
        ("HOME".to_owned(), "/root".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    let image = Image {
        name: HOST.parse().expect("a constant that follows the rule of names"),
        digest: HOST.to_owned(),
        layers: 1,
        size_bytes: 0,
        created_at_ms: created_at_ms(&layer.path_below(store.path())),
    };
    let rootfs = Rootfs {
        layers: vec![layer],
        binds: vec![Bind::Usr],
        env: settings.env,
        workdir: settings.workdir,
    };
    Ok((image, rootfs))
}

/// A key that changes when the layer would: what the machine is, and the times of what is copied
/// and of the directories that installs change.
pub(crate) fn fingerprint(machine: &Path) -> Result<LayerKey, ImageError> {
    let mut facts = format!("host {REVISION}\n");
    let release = machine.join("usr/lib/os-release");
    match fs::read_to_string(&release) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => facts.push_str(&result.attempt(|| format!("reading {}", release.display()))?),
    }
    let watched = ["usr", "usr/bin", "usr/lib"].map(PathBuf::from);
    let copied = COPIED.map(|name| Path::new("etc").join(name));
    let merged = MERGED.map(PathBuf::from);
    for name in watched.iter().chain(&copied).chain(&merged) {
        if let Ok(found) = fs::symlink_metadata(machine.join(name)) {
            let (time, nanoseconds) = (found.mtime(), found.mtime_nsec());
            writeln!(facts, "{} {} {time}.{nanoseconds}", name.display(), found.ino())
                .expect("a string takes all that is written to it");
        }
    }
    Ok(LayerKey::base(&facts))
}

/// Makes the layer in the empty directory `root`.
fn generate(machine: &Path, root: &Path) -> Result<(), ImageError> {
    for (name, mode) in DIRECTORIES {
        disk::make_directory(&root.join(name), mode)?;
    }
    link_merged(machine, root)?;
    for (name, target) in [
        ("var/run", "/run"),
        ("var/lock", "/run/lock"),
        ("etc/mtab", "../proc/self/mounts"),
        ("etc/os-release", "../usr/lib/os-release"),
    ] {
        make_link(target.as_ref(), &root.join(name))?;
    }
    for (name, text, mode) in [
        ("passwd", PASSWD, 0o644),
        ("group", GROUP, 0o644),
        ("shadow", "root:*:19000:0:99999:7:::\n", 0o600),
        ("gshadow", "", 0o600),
        ("hosts", HOSTS, 0o644),
        ("hostname", "sandbox\n", 0o644),
        ("resolv.conf", "", 0o644),
        ("nsswitch.conf", NSSWITCH, 0o644),
        ("profile", PROFILE, 0o644),
        ("bash.bashrc", PROFILE, 0o644),
        ("shells", "/bin/sh\n/bin/bash\n", 0o644),
        ("machine-id", "", 0o444),
    ] {
        disk::put(&root.join("etc").join(name), text.as_bytes(), mode)?;
    }
    for name in COPIED {
        copy(&machine.join("etc").join(name), &root.join("etc").join(name), DEPTH)?;
    }
    Ok(())
}

/// Makes `bin`, `lib` and so on exactly the links that the machine has.
fn link_merged(machine: &Path, root: &Path) -> Result<(), ImageError> {
    for (name, target) in merged(machine)? {
        make_link(&target, &root.join(name))?;
    }
    Ok(())
}

/// Whether the machine can be the image `host`.
fn check_merged(machine: &Path) -> Result<(), ImageError> {
    merged(machine).map(drop)
}

/// The links into /usr that the machine has at its root, and where they lead.
fn merged(machine: &Path) -> Result<Vec<(&'static str, PathBuf)>, ImageError> {
    const NAMES: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
    let mut links = Vec::new();
    for (name, shown) in MERGED.into_iter().zip(NAMES) {
        let path = machine.join(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.attempt(|| format!("reading {}", path.display()))?,
        };
        let target = fs::read_link(&path).ok().filter(|target| leads_into_usr(target));
        let target = target.ok_or(ImageError::HostNotMerged { path: shown })?;
        links.push((name, target));
    }
    Ok(links)
}

/// For a link at the root: relative `usr/...` or absolute `/usr/...`, and never up again.
fn leads_into_usr(target: &Path) -> bool {
    let is_within = target.starts_with("usr") || target.starts_with("/usr");
    is_within && !target.components().any(|part| part.as_os_str() == "..")
}

/// Copies a file, link or directory of the machine; what is not there or not for everyone to read
/// is left out.
fn copy(from: &Path, to: &Path, depth: usize) -> Result<(), ImageError> {
    let found = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.attempt(|| format!("reading {}", from.display()))?,
    };
    if found.is_symlink() {
        let target = fs::read_link(from).attempt(|| format!("reading {}", from.display()))?;
        let is_beside = target.components().count() == 1;
        return if is_beside || target.starts_with("/usr") && leads_into_usr(&target) {
            make_link(&target, to)
        } else {
            Ok(())
        };
    }
    let is_public = found.permissions().mode() & 0o004 != 0;
    if found.is_dir() && is_public && depth > 0 {
        return copy_directory(from, to, depth);
    }
    if found.is_file() && is_public && found.len() <= FILE_BYTES {
        let bytes = fs::read(from).attempt(|| format!("reading {}", from.display()))?;
        disk::put(to, &bytes, 0o644)?;
    }
    Ok(())
}

fn copy_directory(from: &Path, to: &Path, depth: usize) -> Result<(), ImageError> {
    disk::make_directory(to, 0o755)?;
    let attempt = || format!("reading {}", from.display());
    for entry in fs::read_dir(from).attempt(attempt)?.take(DIRECTORY_ENTRIES) {
        let name = entry.attempt(attempt)?.file_name();
        copy(&from.join(&name), &to.join(&name), depth - 1)?;
    }
    Ok(())
}

fn make_link(target: &Path, path: &Path) -> Result<(), ImageError> {
    let make = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(target, path)
    };
    make().attempt(|| format!("linking {}", path.display()))
}

/// When the layer was made; now, should its file system not say.
fn created_at_ms(layer: &Path) -> i64 {
    fs::symlink_metadata(layer)
        .map_or_else(|_| now_ms(), |found| found.mtime() * 1000 + found.mtime_nsec() / 1_000_000)
}

#[cfg(test)]
mod tests;
