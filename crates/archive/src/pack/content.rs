//! The content of a file, as long as its header says, whatever happens to the file meanwhile.

use std::{
    fs::File,
    io::{self, Read},
};

use crate::{ArchiveError, header};

use super::system;

/// Bytes of a file that is read whole before its header is written.
pub(super) const SMALL_BYTES: usize = 64 * 1024;

/// Reads a file of `size` bytes into `buffer`, which has room for one more. Gives its content, and
/// whether there is more of it.
pub(super) fn read_small<'a>(
    file: &File,
    buffer: &'a mut [u8],
    size: u64,
) -> io::Result<(&'a [u8], bool)> {
    let size = usize::try_from(size).unwrap_or(usize::MAX).min(buffer.len() - 1);
    let mut filled = 0;
    // The byte more than there should be tells in the same call that this was the end.
    while filled < size || filled == 0 {
        let read = read_some(file, &mut buffer[filled..=size])?;
        filled += read;
        if read == 0 {
            break;
        }
    }
    Ok((&buffer[..filled.min(size)], filled > size))
}

fn read_some(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A file on its way into the archive.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    path: Vec<u8>,
    size: u64,
    left: u64,
    /// It ended before its size; zeros follow.
    is_short: bool,
    has_grown: bool,
}

impl Content {
    pub(super) fn new(file: File, size: u64, path: &[u8]) -> Self {
        Self { file, path: path.to_vec(), size, left: size, is_short: false, has_grown: false }
    }

    /// Appends up to `room` bytes; false once all is there.
    pub(super) fn read(&mut self, room: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(room);
        let start = out.len();
        out.resize(start + wanted, 0);
        let mut filled = 0;
        while let Some(rest) = out.get_mut(start + filled..).filter(|rest| !rest.is_empty())
            && !self.is_short
        {
            let read = read_some(&self.file, rest)?;
            filled += read;
            self.is_short = read == 0;
        }
        self.left -= wanted as u64;
        if self.left > 0 {
            return Ok(true);
        }
        self.has_grown = !self.is_short && read_some(&self.file, &mut [0])? > 0;
        out.resize(out.len() + header::padding(self.size), 0);
        Ok(false)
    }

    /// It was not as long as it said.
    pub(super) fn has_changed(&self) -> bool {
        self.is_short || self.has_grown
    }

    /// Fails if there was less of it.
    pub(super) fn check_length(&self) -> io::Result<()> {
        if self.is_short { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn broken(&self, error: &io::Error) -> ArchiveError {
        ArchiveError::File {
            attempt: "read",
            path: self.path.clone(),
            source: system("read", error),
        }
    }
}
