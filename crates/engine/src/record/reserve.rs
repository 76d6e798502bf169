//! Room on the disk for the records of what goes: a file that holds it until the disk is full.
//!
//! Without it a full disk could not be emptied, because destroying a sandbox has to be recorded
//! first. Recording a new sandbox never uses it.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes held. The log of the database is a few pages when the disk becomes full, and each burial
/// adds two or three of 4 KiB: this is for fifty of them before anything has been freed.
const RESERVE_BYTES: usize = 512 * 1024;

/// The file that holds the room.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of the database `database`; not yet held.
    pub(super) fn beside(database: &Path) -> Self {
        Self { path: database.with_extension("reserve") }
    }

    /// Has the room held. Cheap when it is.
    ///
    /// # Errors
    /// When there is not so much room; none is then held.
    pub(super) fn hold(&self) -> io::Result<()> {
        let held = self.path.metadata().map_or(0, |file| file.len());
        if held == RESERVE_BYTES as u64 {
            return Ok(());
        }
        let written = File::create(&self.path).and_then(|mut file| {
            file.write_all(&vec![0; RESERVE_BYTES])?;
            // File systems that allocate late say only now that there is no room.
            file.sync_all()
        });
        written.inspect_err(|_| self.release())
    }

    /// Frees the room for others.
    pub(super) fn release(&self) {
        // It may not be there; when it cannot be removed, what needed the room fails.
        drop(std::fs::remove_file(&self.path));
    }
}
