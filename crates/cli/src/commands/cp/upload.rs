//! From this machine into a sandbox.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, bail};
use api::{archive::WriteArchive, file::WriteFile, id::SandboxId};
use archive::{ArchiveError, PackOptions, Packer, Source};
use bytes::Bytes;
use client::{Client, ClientError};
use futures_util::{TryStreamExt as _, stream};
use tokio_util::io::ReaderStream;

use super::{
    Copied, MODE_BITS, Progress,
    place::{join, means_content},
    remote::{Kind, kind},
};

/// Bytes read at once: large enough that system calls do not count.
const CHUNK_BYTES: usize = 384 * 1024;

/// Copies `source` to the path of the sandbox.
pub(super) async fn copy(
    client: &Client,
    source: &Path,
    (id, path): (&SandboxId, &str),
    progress: &Progress,
) -> anyhow::Result<Copied> {
    let metadata = fs::metadata(source)
        .with_context(|| format!("could not read the local {}", source.display()))?;
    let destination = kind(client, id, path).await?;
    let (is_directory, exists) = (metadata.is_dir(), destination != Kind::Missing);
    if is_directory && destination == Kind::NotDirectory {
        bail!("{id}:{path} is a file, and {} is a directory", source.display());
    }
    let content_only = is_directory && means_content(&source.to_string_lossy());
    let goes_into =
        destination == Kind::Directory || (!is_directory && !exists && path.ends_with('/'));
    let target =
        if goes_into && !content_only { join(path, &name(source)?) } else { path.to_owned() };
    let sandbox = Sandbox { client, id, progress };
    if is_directory {
        return sandbox.directory(source, &target).await;
    }
    if !metadata.is_file() {
        bail!("{} is not a file or a directory", source.display());
    }
    let bytes = sandbox.file(source, &target).await?;
    Ok(Copied { files: 1, bytes, ..Copied::default() })
}

/// The name of a local path, also of `.` and `..`, which have one by way of their real path.
fn name(path: &Path) -> anyhow::Result<String> {
    let name = match path.file_name() {
        Some(name) => name.to_owned(),
        None => {
            let real = fs::canonicalize(path)
                .with_context(|| format!("could not resolve {}", path.display()))?;
            real.file_name().unwrap_or_default().to_owned()
        }
    };
    match name.to_str() {
        Some("") => bail!("{} has no name of its own; write the destination's", path.display()),
        Some(name) => Ok(name.to_owned()),
        None => bail!("the name of {} is not UTF-8, which the API cannot carry", path.display()),
    }
}

/// Where the copies go.
#[derive(Clone, Copy)]
struct Sandbox<'a> {
    client: &'a Client,
    id: &'a SandboxId,
    progress: &'a Progress,
}

impl Sandbox<'_> {
    async fn directory(self, source: &Path, target: &str) -> anyhow::Result<Copied> {
        let attempt = || format!("could not copy {} to {}:{target}", source.display(), self.id);
        let dir = File::open(source).with_context(attempt)?;
        let options = PackOptions { cross_mounts: true, ..PackOptions::default() };
        let packer = Packer::new(Source::Directory(dir.into()), options).with_context(attempt)?;
        let local = Arc::new(Mutex::new(Local { packer, is_more: true, fault: None }));
        let pieces = stream::iter(std::iter::from_fn({
            let (local, progress) = (Arc::clone(&local), self.progress.clone());
            move || locked(&local).next_piece(&progress)
        }));
        let query = WriteArchive { keep_times: false, ..WriteArchive::new(target) };
        let done = self.client.archive_in(self.id, &query, pieces).await;
        let mut local = locked(&local);
        let done = match (done, local.fault.take()) {
            (Ok(done), _) => done,
            (Err(_), Some(fault)) => {
                return Err(anyhow::Error::new(fault).context(attempt()).context(stays(None)));
            }
            (Err(error), None) => {
                let stays = match &error {
                    ClientError::Api { error, .. } => {
                        error.details.get("entries").map(|entries| stays(Some(entries)))
                    }
                    _ => Some(stays(None)),
                };
                let error = anyhow::Error::new(error).context(attempt());
                return Err(match stays {
                    Some(stays) => error.context(stays),
                    None => error,
                });
            }
        };
        let mut left_out = local.packer.left_out().clone();
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

    /// Copies one file and gives the bytes that the copy has.
    async fn file(self, source: &Path, target: &str) -> anyhow::Result<u64> {
        let attempt = || format!("could not copy {} to {}:{target}", source.display(), self.id);
        let file = File::open(source).with_context(attempt)?;
        let metadata = file.metadata().with_context(attempt)?;
        let mode = metadata.permissions().mode() & MODE_BITS;
        let options = WriteFile { mode: Some(format!("{mode:o}")), ..WriteFile::default() };
        let progress = self.progress.clone();
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES)
            .inspect_ok(move |chunk| progress.bytes(chunk.len()));
        let copy = self.client.write_file_stream(self.id, target, &options, content).await;
        Ok(copy.with_context(attempt)?.size)
    }
}

/// What a broken copy leaves: so many entries, if the sandbox could say.
fn stays(entries: Option<&serde_json::Value>) -> String {
    let what = entries.map_or("the files".to_owned(), |entries| format!("the {entries} entries"));
    format!("the copy broke off; {what} that were copied before stay in the sandbox")
}

/// The directory that is read, and why it could not be.
struct Local {
    packer: Packer,
    is_more: bool,
    fault: Option<ArchiveError>,
}

impl Local {
    /// The next piece of the archive; none at its end.
    fn next_piece(&mut self, progress: &Progress) -> Option<io::Result<Bytes>> {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        while self.is_more && piece.is_empty() {
            match self.packer.fill(&mut piece) {
                Ok(is_more) => self.is_more = is_more,
                Err(fault) => {
                    self.is_more = false;
                    self.fault = Some(fault);
                    return Some(Err(io::ErrorKind::Other.into()));
                }
            }
        }
        progress.bytes(piece.len());
        progress.files(self.packer.files());
        (!piece.is_empty()).then(|| Ok(piece.into()))
    }
}

/// No code that holds the lock can panic, so a poisoned lock holds a whole value.
fn locked(local: &Mutex<Local>) -> MutexGuard<'_, Local> {
    local.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_name_gets_that_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        assert_eq!(name(&inner).unwrap(), "inner");
        assert_eq!(name(&inner.join("x/../..").join("inner/.")).unwrap(), "inner");
        assert!(name(Path::new("/")).is_err());
    }
}
