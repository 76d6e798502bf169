//! From a stream to a directory.
//!
//! ```text
//! bytes ─▶ header ─┬─▶ records, long names: kept for the next header
//!                  ├─▶ file ─▶ content ─▶ padding
//!                  └─▶ directory, links: done at once
//! ```
//!
//! What breaks off leaves whole files: one that was there is replaced by the new one when that is
//! whole, and a new one that does not come to its end is taken away. Links replace files and links, files replace files and
//! links; nothing replaces a directory, and directories are merged: those that were there keep their
//! bits, owner and time. Set-user-id, set-group-id and sticky bits are not taken. Extended attributes
//! are read over. Absolute names are taken from the top of the directory.
//!
//! A layer of an image (`layer.rs`) is more than that: it deletes, and what it says of bits, owners, times
//! and attributes is taken.

mod crew;
mod entry;
mod extended;
mod file;
mod layer;
mod name;
mod special;
mod tree;

use std::{ffi::CString, os::fd::OwnedFd};

use api::{
    archive::Unpacked,
    limit::{ARCHIVE_ENTRIES, ARCHIVE_HEADER_BYTES, EXPORT_BYTES},
};
use sys::{SysError, errno};

use self::{
    crew::Crew,
    extended::Extended,
    file::NewFile,
    special::Specials,
    tree::{Attributes, Tree},
};
use crate::{
    ArchiveError, Fault,
    header::{self, BLOCK, Header, Type},
};

/// Zeros that may follow the end: programs fill up to the record of a tape, 10 KiB by default, and at most
/// what a drive takes at once, whose length has 24 bits (SCSI, WRITE(6)).
const TRAILING_BYTES: usize = 16 * 1024 * 1024;

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    /// Leading components that names lose.
    pub strip_components: u32,
    /// Take the archive's owner ids.
    pub keep_owner: bool,
    /// Take the archive's times.
    pub keep_times: bool,
    /// The directory was made for the archive and gets what that says of it, as those in it do.
    pub new_top: bool,
    /// The archive is a layer of an image, as [`crate::Packer::layer`] makes it, and the directory the
    /// root of the layers below: what the archive says is deleted goes, files take the place of
    /// directories, and directories that are there get the archive's bits, owner and time. All of
    /// owners, times, bits and attributes of users are taken. Nothing is done in what is mounted below, and
    /// there is a limit of bytes.
    pub layer: bool,
}

/// Where in the archive it is.
#[derive(Debug)]
enum State {
    /// In a header, some of which is in the buffer.
    Header,
    /// In an extended header of this kind, some of which is in the buffer.
    Extended { kind: Type, left: usize, padding: usize },
    /// In the content of an entry.
    Content { into: Into, left: u64, padding: usize },
    /// Before the next header.
    Padding { left: usize },
    /// After the first block of zeros.
    HalfEnd,
    /// After the end; zeros that followed it.
    End { trailing: usize },
    /// After an error.
    Broken,
}

/// Where the content of an entry goes.
#[derive(Debug)]
enum Into {
    /// Nowhere.
    Nothing,
    /// Into the buffer; the file is made when all is there.
    Small(CString, Attributes),
    /// Into a file.
    File(NewFile),
}

/// Unpacks an archive, piece by piece.
#[derive(Debug)]
pub struct Unpacker {
    options: UnpackOptions,
    tree: Tree,
    crew: Crew,
    state: State,
    buffer: Vec<u8>,
    extended: Extended,
    /// Name of the entry it is at.
    path: Vec<u8>,
    /// Entries that began.
    entries: u64,
    /// What was made, but for small files.
    done: Unpacked,
    /// What was left out, and may get further names.
    specials: Specials,
    comment: Option<Vec<u8>>,
    /// What the top, of a layer or a new one, is to have when all is in it.
    top: Option<Attributes>,
    /// Bytes of content that a layer may still have.
    room: u64,
}

impl Unpacker {
    /// Begins to unpack into `dir`, opened with `O_RDONLY`.
    #[must_use]
    pub fn new(dir: OwnedFd, options: UnpackOptions) -> Self {
        let keep = options.layer;
        let options = UnpackOptions {
            keep_owner: options.keep_owner || keep,
            keep_times: options.keep_times || keep,
            ..options
        };
        Self {
            options,
            tree: Tree::new(dir, options.layer),
            top: None,
            room: EXPORT_BYTES,
            crew: Crew::default(),
            state: State::Header,
            buffer: Vec::new(),
            extended: Extended::default(),
            path: Vec::new(),
            entries: 0,
            done: Unpacked::default(),
            specials: Specials::default(),
            comment: None,
        }
    }

    /// Takes the next bytes of the archive.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing more can be taken then. What was unpacked before stays.
    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), ArchiveError> {
        while !data.is_empty() {
            match self.take(data) {
                Ok(taken) => data = data.get(taken..).unwrap_or_default(),
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`Fault::BrokenOff`] unless the archive's end has come; and when bits or times of directories
    /// cannot be set.
    pub fn finish(&mut self) -> Result<Unpacked, ArchiveError> {
        if !matches!(self.state, State::End { .. }) {
            let error = self.invalid(Fault::BrokenOff);
            self.give_up();
            return Err(error);
        }
        self.crew.rest()?;
        let left = self.tree.leave_all().and_then(|()| self.tree.settle(self.top));
        left.map_err(|source| self.refused("finish", source))?;
        Ok(self.done())
    }

    /// Ends it before the archive's end. Gives what was unpacked, which stays.
    pub fn stop(&mut self) -> Unpacked {
        self.give_up();
        self.done()
    }

    /// What has been unpacked until now; some more may be under way.
    #[must_use]
    pub fn done(&self) -> Unpacked {
        let (files, bytes) = self.crew.made();
        let mut done = self.done.clone();
        done.files += files;
        done.bytes += bytes;
        done
    }

    /// What the archive says about itself: the comment of its top directory.
    #[must_use]
    pub fn comment(&self) -> Option<&[u8]> {
        self.comment.as_deref()
    }

    /// What a layer says about itself, once that has come: before its first entry.
    #[must_use]
    pub fn about(&self) -> Option<&[u8]> {
        self.extended.about()
    }

    /// Entries that have begun.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Takes some of `data`, at least one byte.
    fn take(&mut self, data: &[u8]) -> Result<usize, ArchiveError> {
        match &mut self.state {
            State::Header | State::HalfEnd => {
                let taken = data.len().min(BLOCK - self.buffer.len());
                self.buffer.extend_from_slice(&data[..taken]);
                if let Ok(block) = <[u8; BLOCK]>::try_from(&*self.buffer) {
                    self.buffer.clear();
                    self.header(&block)?;
                }
                Ok(taken)
            }
            State::Extended { kind, left, padding } => {
                let taken = data.len().min(*left);
                self.buffer.extend_from_slice(&data[..taken]);
                *left -= taken;
                if *left == 0 {
                    let (kind, padding) = (*kind, *padding);
                    self.end_extended(kind, padding)?;
                }
                Ok(taken)
            }
            State::Content { into, left, .. } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= taken as u64;
                let is_all = *left == 0;
                match into {
                    Into::Nothing => {}
                    Into::Small(..) => self.buffer.extend_from_slice(&data[..taken]),
                    Into::File(file) => {
                        let written = file.write(&data[..taken]);
                        written.map_err(|source| self.refused("write", source))?;
                    }
                }
                if is_all {
                    self.end_content()?;
                }
                Ok(taken)
            }
            State::Padding { left } => {
                let taken = data.len().min(*left);
                let left = *left - taken;
                self.pass(left);
                Ok(taken)
            }
            State::End { trailing } => {
                *trailing += data.len();
                if *trailing > TRAILING_BYTES || data.iter().any(|byte| *byte != 0) {
                    return Err(self.invalid(Fault::Trailing));
                }
                Ok(data.len())
            }
            State::Broken => Err(self.invalid(Fault::BrokenOff)),
        }
    }

    /// Passes over `padding` bytes to the next header.
    fn pass(&mut self, padding: usize) {
        self.state = match padding {
            0 => State::Header,
            left => State::Padding { left },
        };
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Result<(), ArchiveError> {
        let header = Header::read(block).map_err(|fault| self.invalid(fault))?;
        let is_half_end = matches!(self.state, State::HalfEnd);
        let Some(header) = header else {
            if !self.extended.is_empty() {
                return Err(self.invalid(Fault::Extended));
            }
            self.state = if is_half_end { State::End { trailing: 0 } } else { State::HalfEnd };
            return Ok(());
        };
        if is_half_end {
            return Err(self.invalid(Fault::Trailing));
        }
        match header.kind {
            Type::Records | Type::GlobalRecords | Type::LongName | Type::LongLink => {
                let room = ARCHIVE_HEADER_BYTES.saturating_sub(self.extended.bytes());
                let size = usize::try_from(header.size).ok().filter(|size| *size <= room);
                let left = size.ok_or_else(|| self.invalid(Fault::HeadersTooLarge))?;
                let (kind, padding) = (header.kind, header::padding(header.size));
                if left == 0 {
                    return self.end_extended(kind, padding);
                }
                self.state = State::Extended { kind, left, padding };
                Ok(())
            }
            _ => {
                self.begin()?;
                self.entry(header)
            }
        }
    }

    fn end_extended(&mut self, kind: Type, padding: usize) -> Result<(), ArchiveError> {
        if kind == Type::GlobalRecords {
            self.begin()?;
        }
        let text = std::mem::take(&mut self.buffer);
        self.extended.add(kind, &text).map_err(|fault| self.invalid(fault))?;
        self.pass(padding);
        Ok(())
    }

    /// Counts an entry.
    fn begin(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > ARCHIVE_ENTRIES {
            return Err(self.invalid(Fault::TooManyEntries));
        }
        Ok(())
    }

    fn invalid(&self, fault: Fault) -> ArchiveError {
        ArchiveError::Invalid { path: self.path.clone(), fault }
    }

    fn refused(&self, attempt: &'static str, source: SysError) -> ArchiveError {
        if self.options.layer && source.errno == errno::EXDEV {
            return self.invalid(Fault::Mounted);
        }
        ArchiveError::File { attempt, path: self.path.clone(), source }
    }

    /// Leaves nothing half made: the file it is in goes, those that have come whole are made, and
    /// directories get their bits and times.
    fn give_up(&mut self) {
        if let State::Content { into: Into::File(file), .. } =
            std::mem::replace(&mut self.state, State::Broken)
        {
            file.remove(self.tree.dir().fd());
        }
        // What led here is the error to tell.
        self.crew.rest().unwrap_or(());
        self.tree.leave_all().unwrap_or(());
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        self.give_up();
    }
}
