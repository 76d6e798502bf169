//! The measures of files.

use std::time::Instant;

use anyhow::{Context as _, bail};
use api::{
    archive::{ReadArchive, WriteArchive},
    exec::{Command, ExecRequest},
    file::{ListFiles, WriteFile},
    id::SandboxId,
    limit::FILE_PAGE_ENTRIES,
};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{measure::Bench, samples::Samples};

/// Bytes of the small file that is written and read.
const FILE_BYTES: usize = 1024;

/// Bytes of one as programs' sources and pictures have at most.
const MIDDLE_BYTES: usize = 1 << 20;

/// Bytes of the large one.
const STREAM_BYTES: usize = 1 << 30;

/// Bytes given to a connection at once: as a program reads them from a file.
const CHUNK_BYTES: usize = 256 * 1024;

/// Runs of what takes seconds, at most.
const SLOW_RUNS: usize = 100;

/// Files of [`FILE_BYTES`] in the tree that is listed and packed, and in each of its directories.
const TREE_FILES: usize = 100_000;
const DIRECTORY_FILES: usize = 1000;

impl Bench {
    /// Writing, replacing and reading a small file, and one of a MiB.
    pub(super) async fn files(&self) -> anyhow::Result<Vec<Samples>> {
        let id = self.id("file", 0)?;
        self.create(&id).await?;
        let mut measures = Vec::new();
        for (bytes, size) in [(FILE_BYTES, "1 KiB"), (MIDDLE_BYTES, "1 MiB")] {
            measures.extend(self.files_of(&id, bytes, size).await);
        }
        self.client.destroy_sandbox(&id).await?;
        Ok(measures)
    }

    async fn files_of(&self, id: &SandboxId, bytes: usize, size: &str) -> [Samples; 3] {
        let content = Bytes::from(vec![b'x'; bytes]);
        let [mut write, mut replace, mut read] =
            ["write", "replace", "read"].map(|what| Samples::new(format!("{what} {size}")));
        let bar = self.progress(&format!("files of {size}"), self.runs);
        let options = WriteFile::default();
        for index in 0..self.runs {
            let path = format!("/tmp/bench-{bytes}-{index}");
            for samples in [&mut write, &mut replace] {
                let begin = Instant::now();
                let written = self.client.write_file(id, &path, &options, content.clone()).await;
                samples.record(begin, written);
            }
            let begin = Instant::now();
            let result = match self.client.read_file(id, &path).await {
                Ok(bytes) if bytes == content => Ok(()),
                Ok(_other) => Err("the file read differs from the one written".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            read.record(begin, result);
            bar.inc(1);
        }
        bar.finish_and_clear();
        [write, replace, read]
    }

    /// Writing and reading a large file; listing, packing and unpacking a large tree.
    pub(super) async fn large_files(&self) -> anyhow::Result<[Samples; 5]> {
        let id = self.id("large", 0)?;
        self.create(&id).await?;
        let mut write = Samples::new("write 1 GiB");
        let mut read = Samples::new("read 1 GiB");
        let mut list = Samples::new("list 100,000 files");
        let mut pack = Samples::new("pack 100,000 files");
        let mut unpack = Samples::new("unpack 100,000 files");
        let runs = self.runs.min(SLOW_RUNS);
        let bar = self.progress("large files", runs);
        self.make_tree(&id).await?;
        for _index in 0..runs {
            let begin = Instant::now();
            write.record(begin, self.write_large(&id).await);
            let begin = Instant::now();
            read.record(begin, self.read_large(&id).await);
            let begin = Instant::now();
            list.record(begin, self.list_tree(&id).await);
            let begin = Instant::now();
            let archive = self.pack_tree(&id).await;
            let archive = pack.record(begin, archive).unwrap_or_default();
            let begin = Instant::now();
            unpack.record(begin, self.unpack_tree(&id, archive).await);
            self.shell(&id, "rm -r /tmp/copy").await?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        Ok([write, read, list, pack, unpack])
    }

    async fn write_large(&self, id: &SandboxId) -> anyhow::Result<()> {
        let chunk = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        let chunks = (0..STREAM_BYTES / CHUNK_BYTES).map(move |_| Ok(chunk.clone()));
        let (path, options) = ("/tmp/large", WriteFile::default());
        self.client.write_file_stream(id, path, &options, stream::iter(chunks)).await?;
        Ok(())
    }

    async fn read_large(&self, id: &SandboxId) -> anyhow::Result<()> {
        let content = self.client.read_file_stream(id, "/tmp/large").await?;
        let add = |sum, chunk: Bytes| async move { Ok(sum + chunk.len()) };
        let bytes = content.try_fold(0, add).await?;
        if bytes != STREAM_BYTES {
            bail!("{bytes} bytes were read, and {STREAM_BYTES} written");
        }
        Ok(())
    }

    async fn shell(&self, id: &SandboxId, text: &str) -> anyhow::Result<()> {
        let request = ExecRequest::new(Command::Shell(text.to_owned()));
        let result = self.client.exec(id, &request).await.context("could not run a command")?;
        if !result.success {
            bail!("`{text}` failed: {}", result.stderr);
        }
        Ok(())
    }

    async fn make_tree(&self, id: &SandboxId) -> anyhow::Result<()> {
        let directories = TREE_FILES / DIRECTORY_FILES;
        let bytes = DIRECTORY_FILES * FILE_BYTES;
        let text = format!(
            "mkdir /tmp/tree && cd /tmp/tree && for d in $(seq {directories}); do mkdir $d && head -c \
             {bytes} /dev/urandom | split -a 3 -b {FILE_BYTES} - $d/; done"
        );
        self.shell(id, &text).await
    }

    async fn pack_tree(&self, id: &SandboxId) -> anyhow::Result<Vec<Bytes>> {
        let query = ReadArchive { path: "/tmp/tree".to_owned(), ..ReadArchive::default() };
        Ok(self.client.archive_out(id, &query).await?.try_collect().await?)
    }

    async fn unpack_tree(&self, id: &SandboxId, archive: Vec<Bytes>) -> anyhow::Result<()> {
        let query = WriteArchive::new("/tmp/copy");
        let pieces = stream::iter(archive.into_iter().map(Ok));
        let unpacked = self.client.archive_in(id, &query, pieces).await?;
        if unpacked.files != TREE_FILES as u64 {
            bail!("{} files were unpacked, and {TREE_FILES} made", unpacked.files);
        }
        Ok(())
    }

    async fn list_tree(&self, id: &SandboxId) -> anyhow::Result<()> {
        let mut query = ListFiles {
            path: "/tmp/tree".to_owned(),
            recursive: true,
            limit: Some(FILE_PAGE_ENTRIES),
            ..ListFiles::default()
        };
        let mut found = 0;
        loop {
            let page = self.client.list_files(id, &query).await?;
            found += page.entries.len();
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        let made = TREE_FILES + TREE_FILES / DIRECTORY_FILES;
        if found != made {
            bail!("{found} entries were listed, and {made} made");
        }
        Ok(())
    }
}
