//! From this machine into a sandbox.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    file::{MakeDirectory, WriteFile},
    id::SandboxId,
};
use client::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::io::ReaderStream;

use super::{
    Copied, IN_FLIGHT, MODE_BITS, Progress,
    place::{join, means_content},
    remote::{Kind, kind},
};

/// Bytes read from a file at once: large enough that system calls do not count.
const CHUNK_BYTES: usize = 128 * 1024;

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
        let (sender, mut done) = (Copied::default(), Walk::new(source, target));
        let walk = stream::iter(std::iter::from_fn(move || done.next_entry().transpose()));
        walk.map(|entry| async move { self.entry(entry?).await })
            .buffer_unordered(IN_FLIGHT)
            .try_fold(sender, |mut sum, one| async move {
                sum.files += one.files;
                sum.directories += one.directories;
                sum.links += one.links;
                sum.bytes += one.bytes;
                sum.left_out.extend(one.left_out);
                Ok(sum)
            })
            .await
    }

    async fn entry(self, entry: Entry) -> anyhow::Result<Copied> {
        let Entry { source, target, metadata } = entry;
        if metadata.is_dir() {
            let request = MakeDirectory { path: target.clone(), recursive: true, session: None };
            self.client
                .make_directory(self.id, &request)
                .await
                .with_context(|| format!("could not make {}:{target}", self.id))?;
            return Ok(Copied { directories: 1, ..Copied::default() });
        }
        if metadata.is_symlink() {
            self.link(&source, &target).await?;
            return Ok(Copied { links: 1, ..Copied::default() });
        }
        if metadata.is_file() {
            let bytes = self.file(&source, &target).await?;
            return Ok(Copied { files: 1, bytes, ..Copied::default() });
        }
        let left_out = vec![source.display().to_string()];
        Ok(Copied { left_out, ..Copied::default() })
    }

    /// Copies one file and gives its bytes.
    async fn file(self, source: &Path, target: &str) -> anyhow::Result<u64> {
        let attempt = || format!("could not copy {} to {}:{target}", source.display(), self.id);
        let file = File::open(source).with_context(attempt)?;
        let metadata = file.metadata().with_context(attempt)?;
        let mode = metadata.permissions().mode() & MODE_BITS;
        let options = WriteFile { mode: Some(format!("{mode:o}")), ..WriteFile::default() };
        let bar = self.progress.bar();
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES)
            .inspect_ok(move |chunk| bar.inc(u64::try_from(chunk.len()).unwrap_or(u64::MAX)));
        self.client
            .write_file_stream(self.id, target, &options, content)
            .await
            .with_context(attempt)?;
        self.progress.file();
        Ok(metadata.len())
    }

    /// The API writes no links, so the sandbox's own ln does.
    async fn link(self, source: &Path, target: &str) -> anyhow::Result<()> {
        let attempt = || format!("could not make the link {}:{target}", self.id);
        let points_to = fs::read_link(source).with_context(attempt)?;
        let Some(points_to) = points_to.to_str() else {
            bail!("the link {} points to a name that is not UTF-8", source.display());
        };
        let words = ["ln", "-sfn", "--", points_to, target].map(str::to_owned);
        let request = ExecRequest::new(Command::Program(words.to_vec()));
        let parent = target.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let directory = MakeDirectory { path: join(parent, ""), recursive: true, session: None };
        self.client.make_directory(self.id, &directory).await.with_context(attempt)?;
        let result = self.client.exec(self.id, &request).await.with_context(attempt)?;
        if !result.success {
            return Err(anyhow::anyhow!("{}", result.stderr.trim_end()).context(attempt()));
        }
        Ok(())
    }
}

/// One thing found in a local directory.
struct Entry {
    source: PathBuf,
    target: String,
    metadata: Metadata,
}

/// A local directory and everything below it, directories before what is in them. Links are found,
/// not followed.
struct Walk {
    pending: Vec<(PathBuf, String)>,
    open: Option<(fs::ReadDir, String)>,
}

impl Walk {
    fn new(source: &Path, target: &str) -> Self {
        Self { pending: vec![(source.to_owned(), target.to_owned())], open: None }
    }

    fn next_entry(&mut self) -> anyhow::Result<Option<Entry>> {
        loop {
            let Some((directory, target)) = &mut self.open else {
                let Some((source, target)) = self.pending.pop() else { return Ok(None) };
                let entry = self.enter(source, target)?;
                return Ok(Some(entry));
            };
            let Some(found) = directory.next() else {
                self.open = None;
                continue;
            };
            let source = found.context("could not list a local directory")?.path();
            let target = join(target, &name(&source)?);
            let metadata = read(&source, fs::symlink_metadata(&source))?;
            if metadata.is_dir() {
                self.pending.push((source, target));
                continue;
            }
            return Ok(Some(Entry { source, target, metadata }));
        }
    }

    fn enter(&mut self, source: PathBuf, target: String) -> anyhow::Result<Entry> {
        let metadata = read(&source, fs::metadata(&source))?;
        let directory = read(&source, fs::read_dir(&source))?;
        self.open = Some((directory, target.clone()));
        Ok(Entry { source, target, metadata })
    }
}

fn read<T>(path: &Path, result: io::Result<T>) -> anyhow::Result<T> {
    result.with_context(|| format!("could not read the local {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_finds_everything_once_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/empty")).unwrap();
        fs::write(root.join("a/file"), "x").unwrap();
        fs::write(root.join(".hidden"), "x").unwrap();
        std::os::unix::fs::symlink("..", root.join("a/up")).unwrap();
        let mut walk = Walk::new(&root, "/t");
        let mut found: Vec<String> =
            std::iter::from_fn(|| walk.next_entry().unwrap()).map(|entry| entry.target).collect();
        let (first, rest) = found.split_first_mut().unwrap();
        assert_eq!(first, "/t");
        rest.sort();
        assert_eq!(rest, ["/t/.hidden", "/t/a", "/t/a/empty", "/t/a/file", "/t/a/up"]);
    }

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
