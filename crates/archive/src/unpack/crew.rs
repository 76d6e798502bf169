//! Small files, made in batches by two threads: the one that reads the archive, and another one that
//! comes with the second batch.
//!
//! Making a file is the kernel's time, nearly all of it in the file's directory, so two directories
//! are filled in half the time. What two orders of work could tell apart is never at work twice: two
//! batches that share a directory follow each other, and whoever is about to do anything but make a
//! small file in a directory of this archive asks for [`Crew::rest`] first.

use std::{
    ffi::CString,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

use sys::SysError;

use super::{
    file::make_small,
    tree::{Attributes, Dir},
};
use crate::ArchiveError;

/// Files and bytes of content of a batch at most: together with the next one, what an archive keeps
/// in memory.
const BATCH_FILES: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;

/// Files from which a batch ends with its directory: fewer cost more in handing over than is won.
const BATCH_FILES_AT_LEAST: usize = 32;

/// Bytes of stack of the other thread: it calls the kernel and little else.
const STACK_BYTES: usize = 128 * 1024;

/// A file that is to be made.
#[derive(Debug)]
struct SmallFile {
    /// Which of the batch's directories it is in.
    dir: usize,
    name: CString,
    attributes: Attributes,
    content: Range<usize>,
    path: Vec<u8>,
}

/// Files that are to be made, in order.
#[derive(Debug, Default)]
struct Batch {
    dirs: Vec<Arc<Dir>>,
    files: Vec<SmallFile>,
    content: Vec<u8>,
}

/// What has become of a batch.
#[derive(Debug, Default)]
struct Outcome {
    files: u64,
    bytes: u64,
    error: Option<ArchiveError>,
}

impl Batch {
    fn shares_a_directory(&self, dirs: &[Arc<Dir>]) -> bool {
        self.dirs.iter().any(|dir| dirs.iter().any(|other| Arc::ptr_eq(dir, other)))
    }

    /// Makes the files, up to the first that fails.
    fn carry_out(self) -> Outcome {
        let mut outcome = Outcome::default();
        let told = |file: &SmallFile, source: SysError| ArchiveError::File {
            attempt: "write",
            path: file.path.clone(),
            source,
        };
        for file in &self.files {
            let Some(dir) = self.dirs.get(file.dir) else { continue };
            let content = self.content.get(file.content.clone()).unwrap_or_default();
            if let Err(source) = make_small(dir, &file.name, content, file.attributes) {
                outcome.error = Some(told(file, source));
                break;
            }
            outcome.files += 1;
            outcome.bytes += content.len() as u64;
        }
        for dir in self.dirs {
            let released = dir.release();
            if let (Err(source), Some(file), None) = (released, self.files.last(), &outcome.error) {
                outcome.error = Some(told(file, source));
            }
        }
        outcome
    }
}

/// The other thread. It ends when this is dropped, after the batch that it is at.
#[derive(Debug)]
struct Other {
    batches: SyncSender<Batch>,
    outcomes: Receiver<Outcome>,
    /// Directories of the batch that it is at; none when it waits.
    at: Option<Vec<Arc<Dir>>>,
}

impl Other {
    /// None when there is no room for a thread.
    fn start() -> Option<Self> {
        let (batches, to_do) = sync_channel::<Batch>(1);
        let (done, outcomes) = sync_channel(1);
        let work = move || {
            for batch in to_do {
                if done.send(batch.carry_out()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        thread.name("unpack".to_owned()).spawn(work).ok()?;
        Some(Self { batches, outcomes, at: None })
    }
}

/// The two threads and their work.
#[derive(Debug, Default)]
pub(super) struct Crew {
    next: Batch,
    other: Option<Other>,
    batches: u64,
    files: u64,
    bytes: u64,
}

impl Crew {
    /// Makes a file in `dir`, sooner or later.
    pub(super) fn make(
        &mut self,
        dir: &Arc<Dir>,
        (name, path): (CString, Vec<u8>),
        attributes: Attributes,
        content: &[u8],
    ) -> Result<(), ArchiveError> {
        let is_other = self.next.dirs.last().is_none_or(|last| !Arc::ptr_eq(last, dir));
        let files = self.next.files.len();
        let is_full = files >= BATCH_FILES || self.next.content.len() + content.len() > BATCH_BYTES;
        if is_full || (is_other && files >= BATCH_FILES_AT_LEAST) {
            self.hand_over()?;
        }
        let batch = &mut self.next;
        let known = batch.dirs.iter().position(|known| Arc::ptr_eq(known, dir));
        let dir = known.unwrap_or_else(|| {
            batch.dirs.push(Arc::clone(dir));
            batch.dirs.len() - 1
        });
        let start = batch.content.len();
        batch.content.extend_from_slice(content);
        let content = start..batch.content.len();
        batch.files.push(SmallFile { dir, name, attributes, content, path });
        Ok(())
    }

    /// Waits until everything is made.
    pub(super) fn rest(&mut self) -> Result<(), ArchiveError> {
        let others = self.take_outcome(true);
        others.and(self.carry_out_next())
    }

    /// Files that are made, and their bytes.
    pub(super) fn made(&self) -> (u64, u64) {
        (self.files, self.bytes)
    }

    /// Has the next batch made by whoever has time.
    fn hand_over(&mut self) -> Result<(), ArchiveError> {
        let at = self.other.as_ref().and_then(|other| other.at.as_ref());
        let must_wait = at.is_some_and(|dirs| self.next.shares_a_directory(dirs));
        self.take_outcome(must_wait)?;
        self.batches += 1;
        if self.batches == 2 {
            self.other = Other::start();
        }
        let Some(other) = self.other.as_mut().filter(|other| other.at.is_none()) else {
            return self.carry_out_next();
        };
        let dirs = self.next.dirs.clone();
        match other.batches.try_send(std::mem::take(&mut self.next)) {
            Ok(()) => other.at = Some(dirs),
            // It has ended, which it does not do by itself: back to one thread.
            Err(error) => {
                let (std::sync::mpsc::TrySendError::Full(batch)
                | std::sync::mpsc::TrySendError::Disconnected(batch)) = error;
                self.next = batch;
                self.other = None;
                return self.carry_out_next();
            }
        }
        Ok(())
    }

    fn carry_out_next(&mut self) -> Result<(), ArchiveError> {
        let outcome = std::mem::take(&mut self.next).carry_out();
        self.count(outcome)
    }

    /// Takes what the other thread has done, if it has or with `waiting`.
    fn take_outcome(&mut self, waiting: bool) -> Result<(), ArchiveError> {
        let Some(other) = self.other.as_mut().filter(|other| other.at.is_some()) else {
            return Ok(());
        };
        let outcome = if waiting {
            other.outcomes.recv().map_err(|_ended| TryRecvError::Disconnected)
        } else {
            other.outcomes.try_recv()
        };
        match outcome {
            Ok(outcome) => {
                let dirs = other.at.take();
                self.count(outcome)?;
                for dir in dirs.into_iter().flatten() {
                    dir.release().map_err(|source| ArchiveError::File {
                        attempt: "finish",
                        path: Vec::new(),
                        source,
                    })?;
                }
                Ok(())
            }
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => {
                let source = SysError { call: "thread", errno: sys::errno::ECHILD };
                Err(ArchiveError::File { attempt: "write", path: Vec::new(), source })
            }
        }
    }

    fn count(&mut self, outcome: Outcome) -> Result<(), ArchiveError> {
        self.files += outcome.files;
        self.bytes += outcome.bytes;
        outcome.error.map_or(Ok(()), Err)
    }
}
