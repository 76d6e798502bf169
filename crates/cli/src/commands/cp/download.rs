//! From a sandbox to this machine.
//!
//! What a sandbox sends is hostile: names, types and links are written by whoever runs code in it.
//! Nothing is written outside the destination, whatever comes; see the crate `archive`.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use api::{
    archive::{LeftOut, ReadArchive, Unpacked},
    id::SandboxId,
};
use archive::{UnpackOptions, Unpacker};
use client::{ByteStream, Client};
use futures_util::TryStreamExt as _;

use super::{
    Copied, MODE_BITS, Progress,
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
        // The destination is the user's word, and may be a link. What is in it may be of an earlier
        // copy: a link there is the sandbox's word.
        if goes_into && target.is_symlink() {
            bail!(
                "{} is in the way: it is a link, and {id}:{path} is a directory",
                target.display()
            );
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
        let attempt = || format!("could not copy {}:{path} to {}", self.id, target.display());
        let query = ReadArchive { path: path.to_owned(), ..ReadArchive::default() };
        let mut pieces = self.client.archive_out(self.id, &query).await.with_context(attempt)?;
        let new_top = make_directory(target).with_context(attempt)?;
        let dir = fs::File::open(target).with_context(attempt)?;
        let options = UnpackOptions { new_top, ..UnpackOptions::default() };
        let mut unpacker = Unpacker::new(dir.into(), options);
        let done = match self.unpack(&mut unpacker, &mut pieces).await {
            Ok(done) => done,
            Err(error) => {
                let done = unpacker.stop();
                let stays = format!(
                    "the copy broke off; {} files and {} directories were copied before, and stay",
                    done.files, done.directories
                );
                return Err(error.context(attempt()).context(stays));
            }
        };
        // What the sandbox says of itself; it may say anything.
        let said = unpacker.comment().and_then(|comment| serde_json::from_slice(comment).ok());
        let mut left_out: LeftOut = said.unwrap_or_default();
        left_out.partial |= done.left_out.partial;
        Ok(Copied {
            files: done.files + done.hard_links,
            // The archive's top is none of its own.
            directories: done.directories + 1,
            links: done.symlinks,
            bytes: done.bytes,
            left_out,
        })
    }

    async fn unpack(
        self,
        unpacker: &mut Unpacker,
        pieces: &mut ByteStream,
    ) -> anyhow::Result<Unpacked> {
        while let Some(piece) = pieces.try_next().await? {
            unpacker.feed(&piece)?;
            self.progress.bytes(piece.len());
            self.progress.files(unpacker.done().files);
        }
        Ok(unpacker.finish()?)
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
        Ok(bytes)
    }
}

/// Makes a directory and its parents as far as they are missing. True when it was itself.
fn make_directory(path: &Path) -> std::io::Result<bool> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Err(_there) if path.is_dir() => Ok(false),
        made => made.map(|()| true),
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
        // Also behind a link, as /dev/stdout is one, which is the machine's whatever it leads to.
        let is_other = |found: fs::Metadata| !found.is_file() && !found.is_dir();
        let is_stream = fs::read_link(target).is_ok_and(|link| link.starts_with("/proc"));
        let replaced = is_stream || fs::metadata(target).is_ok_and(is_other);
        ensure!(!replaced, "it is a device, pipe or socket: `sandbar cat` writes to such");
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
    use std::{
        os::{fd::AsRawFd as _, unix::fs::symlink},
        process::Command,
    };

    use super::*;

    #[test]
    fn what_is_no_file_is_not_replaced_not_even_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for kind in [&["pipe", "p"][..], &["device", "c", "1", "3"]] {
            let made = Command::new("mknod").current_dir(dir.path()).args(kind).status();
            assert!(made.unwrap().success(), "{kind:?}");
        }
        // As `> file` makes /dev/stdout one.
        let file = fs::File::create(at("file")).unwrap();
        let stream = format!("/proc/self/fd/{}", file.as_raw_fd());
        for (target, name) in [("socket", "a"), ("pipe", "b"), ("device", "c"), (&*stream, "d")] {
            symlink(target, at(name)).unwrap();
        }
        let before = fs::read_dir(dir.path()).unwrap().count();
        for name in ["socket", "pipe", "device", "a", "b", "c", "d"] {
            let error = NewFile::create(&at(name)).err().expect("it is refused").to_string();
            assert!(error.contains("sandbar cat"), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "nothing is left beside");
    }

    #[test]
    fn a_link_at_the_target_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        symlink(dir.path().join("outside"), &target).unwrap();

        let mut file = NewFile::create(&target).unwrap();
        file.write(b"x").unwrap();
        file.keep(0o640).unwrap();

        assert!(!dir.path().join("outside").exists());
        let written = fs::symlink_metadata(&target).unwrap();
        assert!(written.is_file());
        assert_eq!(written.permissions().mode() & 0o7777, 0o640);
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
