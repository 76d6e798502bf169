//! From a sandbox to this machine.
//!
//! What a sandbox says about its files is hostile: names, types and links are written by whoever
//! runs code in it. Nothing is written outside the destination, whatever it says; see
//! [`LocalTree`].

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use api::{
    file::{FileEntry, FileType, ListFiles},
    id::SandboxId,
};
use client::{Client, entry_path};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Copied, IN_FLIGHT, MODE_BITS, Progress,
    place::{last_component, means_content},
    remote::{Kind, kind},
};
use crate::random::random_name;

/// Permission bits of a file when the server does not say.
const DEFAULT_MODE: u32 = 0o644;

/// Copies the path of the sandbox to `destination`.
pub(super) async fn copy(
    client: &Client,
    (id, path): (&SandboxId, &str),
    destination: &Path,
    progress: &Progress,
) -> anyhow::Result<Copied> {
    let content_only = means_content(path);
    // In one spelling, because the entries of a listing are compared with it.
    let path = &plain(path);
    let source = kind(client, id, path).await?;
    let wants_directory = destination.to_string_lossy().ends_with('/');
    let goes_into = destination.is_dir() && !(source == Kind::Directory && content_only);
    let target = if goes_into || (wants_directory && source != Kind::Directory) {
        let Some(name) = last_component(path) else {
            bail!("{id}:{path} has no name of its own; write the destination's, or {id}:/.");
        };
        destination.join(name)
    } else {
        destination.to_owned()
    };
    let sandbox = Sandbox { client, id, progress };
    if source == Kind::Directory {
        if target.exists() && !target.is_dir() {
            bail!("{} is a file, and {id}:{path} is a directory", target.display());
        }
        return sandbox.directory(path, &target).await;
    }
    // A missing file is reported by the attempt to read it.
    let bytes = sandbox.file(path.as_bytes(), &target).await?;
    Ok(Copied { files: 1, bytes, ..Copied::default() })
}

/// Where the copies come from.
#[derive(Clone, Copy)]
struct Sandbox<'a> {
    client: &'a Client,
    id: &'a SandboxId,
    progress: &'a Progress,
}

impl Sandbox<'_> {
    async fn directory(self, path: &str, target: &Path) -> anyhow::Result<Copied> {
        fs::create_dir_all(target)
            .with_context(|| format!("could not make {}", target.display()))?;
        let tree = LocalTree::new(target.to_owned());
        let mut copied = Copied { directories: 1, ..Copied::default() };
        // Made last, so that no file of this copy can be written through one.
        let mut links = Vec::new();
        // In one spelling, because the entries' paths must begin with it.
        let root = plain(path);
        let mut query =
            ListFiles { path: root.clone(), recursive: true, hidden: true, ..ListFiles::default() };
        loop {
            let page = self.client.list_files(self.id, &query).await?;
            let mut files = Vec::new();
            for entry in page.entries {
                let relative = relative(path, &entry_path(&entry))?;
                match entry.file_type {
                    FileType::Directory => {
                        tree.make_directory(&relative)?;
                        copied.directories += 1;
                    }
                    FileType::File => files.push((relative, entry)),
                    FileType::Symlink => links.push((relative, entry)),
                    FileType::Other => copied.left_out.push(entry.path),
                }
            }
            self.files(&tree, files, &mut copied).await?;
            match page.next_cursor {
                Some(cursor) if query.cursor.as_ref() != Some(&cursor) => {
                    query.cursor = Some(cursor);
                }
                _ => break,
            }
        }
        for (relative, entry) in links {
            tree.make_link(&relative, entry.link_target.as_deref().unwrap_or_default())?;
            copied.links += 1;
        }
        Ok(copied)
    }

    async fn files(
        self,
        tree: &LocalTree,
        files: Vec<(PathBuf, FileEntry)>,
        copied: &mut Copied,
    ) -> anyhow::Result<()> {
        let mut sizes = stream::iter(files)
            .map(|(relative, entry)| async move {
                let target = tree.place(&relative)?;
                self.file(&entry_path(&entry), &target).await
            })
            .buffer_unordered(IN_FLIGHT);
        while let Some(bytes) = sizes.try_next().await? {
            copied.files += 1;
            copied.bytes += bytes;
        }
        Ok(())
    }

    /// Copies one file and gives its bytes. The target is the old content or the whole new one.
    async fn file(self, path: &[u8], target: &Path) -> anyhow::Result<u64> {
        let attempt = || {
            let path = String::from_utf8_lossy(path);
            format!("could not copy {}:{path} to {}", self.id, target.display())
        };
        let mut content =
            self.client.read_file_stream(self.id, path).await.with_context(attempt)?;
        let mut file = NewFile::create(target).with_context(attempt)?;
        let mut bytes = 0;
        while let Some(chunk) = content.try_next().await.with_context(attempt)? {
            file.write(&chunk).with_context(attempt)?;
            bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.progress.bytes(chunk.len());
        }
        let mode = content.mode().unwrap_or(DEFAULT_MODE) & MODE_BITS;
        file.keep(mode).with_context(attempt)?;
        self.progress.file();
        Ok(bytes)
    }
}

/// A path without empty components and `.`.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// The path of an entry below the directory that was listed. An entry elsewhere is a lie.
fn relative(root: &str, path: &[u8]) -> anyhow::Result<PathBuf> {
    let root = root.trim_end_matches('/');
    let rest = path.strip_prefix(root.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    let relative = PathBuf::from(OsStr::from_bytes(rest.unwrap_or_default()));
    let is_below = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_below || relative.as_os_str().is_empty() || path.contains(&0) {
        let path = String::from_utf8_lossy(path);
        bail!("the sandbox named {path:?} as something in {root:?}; nothing outside is written");
    }
    Ok(relative)
}

/// The local copy of a directory, written so that no link in it is ever followed: a link could
/// have been put there by an earlier copy from the same sandbox and lead anywhere.
///
/// Invariant: every directory below the root that is written to has been seen to be a directory.
struct LocalTree {
    root: PathBuf,
}

impl LocalTree {
    fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where `relative` goes; its parents are there.
    fn place(&self, relative: &Path) -> anyhow::Result<PathBuf> {
        if let Some(parent) = relative.parent() {
            self.make_directory(parent)?;
        }
        Ok(self.root.join(relative))
    }

    fn make_directory(&self, relative: &Path) -> anyhow::Result<()> {
        let mut path = self.root.clone();
        for part in relative.components() {
            path.push(part);
            let attempt = || format!("could not make the directory {}", path.display());
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_other) => bail!("{} is in the way: it is not a directory", path.display()),
                Err(_missing) => fs::create_dir(&path).with_context(attempt)?,
            }
        }
        Ok(())
    }

    fn make_link(&self, relative: &Path, points_to: &str) -> anyhow::Result<()> {
        let path = self.place(relative)?;
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&path)
                .with_context(|| format!("could not replace {}", path.display()))?;
        }
        symlink(points_to, &path)
            .with_context(|| format!("could not make the link {}", path.display()))
    }
}

/// A file being written beside its target; it takes the target's name when it is whole.
struct NewFile {
    file: fs::File,
    temporary: Option<PathBuf>,
    target: PathBuf,
}

impl NewFile {
    fn create(target: &Path) -> anyhow::Result<Self> {
        let temporary = target.with_file_name(format!(".sandbar-{}", random_name()?));
        // Only its owner until the bits of the source are set; `create_new` follows no link.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { file, temporary: Some(temporary), target: target.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    fn keep(mut self, mode: u32) -> std::io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(temporary) = self.temporary.take() {
            fs::rename(&temporary, &self.target).inspect_err(|_fault| {
                // Nothing more can be done about a name that does not go away.
                drop(fs::remove_file(&temporary));
            })?;
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // The copy has failed already; its error is the one to report.
            drop(fs::remove_file(temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_listed_directory_is_taken() {
        assert_eq!(relative("/w", b"/w/a/b").unwrap(), Path::new("a/b"));
        assert_eq!(relative("/", b"/a").unwrap(), Path::new("a"));
        assert_eq!(relative(&plain("//w/./"), b"/w/a").unwrap(), Path::new("a"));
        assert_eq!(relative(&plain("/."), b"/w/a").unwrap(), Path::new("w/a"));
        for lie in ["/w", "/etc/passwd", "/w/../etc", "/wx/a", "a", "/w//etc", "/w/a\0b"] {
            assert!(relative("/w", lie.as_bytes()).is_err(), "{lie}");
        }
    }

    #[test]
    fn links_in_the_copy_are_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, root) = (dir.path().join("outside"), dir.path().join("root"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&root).unwrap();
        let tree = LocalTree::new(root.clone());
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("file"), root.join("file")).unwrap();

        let error = tree.place(Path::new("link/file")).unwrap_err();
        assert!(error.to_string().contains("in the way"), "{error}");

        let target = tree.place(Path::new("file")).unwrap();
        let mut file = NewFile::create(&target).unwrap();
        file.write(b"x").unwrap();
        file.keep(0o640).unwrap();
        assert!(!outside.join("file").exists());
        let written = fs::symlink_metadata(&target).unwrap();
        assert!(written.is_file());
        assert_eq!(written.permissions().mode() & 0o7777, 0o640);

        tree.make_link(Path::new("link"), "elsewhere").unwrap();
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("elsewhere"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        fs::write(&target, "old").unwrap();
        let mut file = NewFile::create(&target).unwrap();
        file.write(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
