//! Files that are whole or absent: written beside, synced, renamed.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use crate::error::{Attempt, ImageError};

/// A directory that is removed with everything in it when this goes, unless it was renamed.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory `path`, of mode 0755.
    pub(crate) fn new(path: PathBuf) -> Result<Self, ImageError> {
        make_directory(&path, 0o755)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            // Nothing is lost: the next open sweeps it.
            tracing::warn!(path = %self.0.display(), %error, "a temporary directory stays");
        }
    }
}

/// Replaces `path` by a file with `bytes`: after a crash it holds either what it held before or
/// all of `bytes`. `temporary` is a name in the same file system that is free to be used.
pub(crate) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let write = || {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)
    };
    write().attempt(|| format!("writing {}", path.display()))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes renames in and out of `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).attempt(|| format!("syncing {}", dir.display()))
}

/// Makes everything below `dir` durable, by syncing its file system: one flush instead of one for
/// each of a layer's tens of thousands of files.
pub(crate) fn sync_tree(dir: &Path) -> Result<(), ImageError> {
    let sync = || Ok::<_, io::Error>(sys::file_system::sync(File::open(dir)?.as_fd())?);
    sync().attempt(|| format!("syncing the file system of {}", dir.display()))
}

/// Makes the directory `path`, and its parents, unless it is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .attempt(|| format!("making the directory {}", path.display()))
}

/// Writes a new file of a base layer, with its parents. No durability: the layer is synced whole.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ImageError> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Unlinked first: what is there may be a link, and its target is not ours to write.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(path, bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().attempt(|| format!("writing {}", path.display()))
}

/// Removes a tree if it is there. Links in it are removed, not followed.
pub(crate) fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).attempt(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes whatever is at `path`, a link itself rather than its target.
pub(crate) fn remove_tree_or_file(path: &Path) -> Result<(), ImageError> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if is_directory {
        return remove_tree(path);
    }
    fs::remove_file(path).attempt(|| format!("removing {}", path.display()))
}

/// Bytes of disk that the files below `dir` use.
pub(crate) fn tree_bytes(dir: &Path) -> Result<u64, ImageError> {
    // Unit of `st_blocks`, whatever the file system's own block size is. stat(2).
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    let mut linked = HashSet::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        let attempt = || format!("measuring {}", dir.display());
        for entry in fs::read_dir(&dir).attempt(attempt)? {
            let entry = entry.attempt(attempt)?;
            // Does not follow links.
            let metadata = entry.metadata().attempt(attempt)?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            bytes += metadata.blocks() * BLOCK_BYTES;
        }
    }
    Ok(bytes)
}
