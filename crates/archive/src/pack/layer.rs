//! The files of an overlay's upper layer as a layer of an image: what is deleted, and what more there
//! is to a file than an archive has room for.
//!
//! The form is that of the OCI image specification: `.wh.NAME` for a name that is gone,
//! `.wh..wh..opq` first in a directory of which nothing of the layers below is to be seen.

use std::{
    ffi::CStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
};

use api::{
    archive::LeftOutReason,
    limit::{ARCHIVE_HEADER_BYTES, PATH_BYTES},
};
use sys::{
    SysError, errno,
    file::{self, How, Names},
};

use super::{PackOptions, Packer, Source, header, system};
use crate::{
    ArchiveError,
    header::{self as format, Header, Said, Type},
    pax,
};

/// What the name of a whiteout begins with.
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The name that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What says that a layer has no room for what comes: no call of the kernel.
pub(super) const TOO_LARGE: SysError = SysError { call: "export", errno: errno::EFBIG };

/// Bytes that are remembered of files with several names: some half a million of usual names.
pub(super) const LINKS_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of the attributes of one file; the rest of its headers is for its name and the target of a link.
const ATTRIBUTES_BYTES: usize = ARCHIVE_HEADER_BYTES - 4 * PATH_BYTES;

/// Bytes that a record has besides its key and value, at most.
const RECORD_BYTES: usize = 16;

/// What else is known of the files that are packed as a layer.
#[derive(Debug)]
pub struct Layer {
    /// The root of the layers below, opened with `O_RDONLY`.
    pub below: OwnedFd,
    /// The root of all of them with this one above, opened with `O_RDONLY`.
    pub whole: OwnedFd,
    /// What the archive says about itself, for [`crate::Unpacker::about`].
    pub about: Vec<u8>,
}

impl Packer {
    /// Begins an archive of the upper layer of an overlay that is not in use, opened with `O_RDONLY`.
    ///
    /// It has everything that an archive has, and pipes, deleted names, set-user-id bits and
    /// attributes of users. Other attributes (capabilities of files, access lists) are left out and
    /// told, and so is what has a name that the form needs for itself.
    ///
    /// # Errors
    /// As [`Packer::new`].
    pub fn layer(own: OwnedFd, layer: Layer) -> Result<Self, ArchiveError> {
        Self::begin(Source::Directory(own), PackOptions::default(), Some(layer))
    }

    /// As [`Packer::layer`] of the same files, but nothing is read of them and what [`Packer::fill`]
    /// gives is of no use: it fails with [`ArchiveError::LayerTooLarge`] where the layer would, but for
    /// the marks of directories of which nothing below is to be seen. Takes a fraction of the time.
    ///
    /// # Errors
    /// As [`Packer::new`].
    pub fn weigh_layer(own: OwnedFd, layer: Layer) -> Result<Self, ArchiveError> {
        let packer = Self::layer(own, layer)?;
        Ok(Self { weighs: true, ..packer })
    }

    /// Says what the archive is, before anything else.
    pub(super) fn say_about(&mut self) {
        if let Some(layer) = &self.layer {
            format::write_global(&[(pax::ABOUT.to_vec(), layer.about.clone())], &mut self.first);
        }
    }

    /// Counts what a layer gets: one that could not be imported is not made.
    pub(super) fn admit(&mut self, entries: u64, bytes: u64) -> Result<(), SysError> {
        if self.layer.is_none() {
            return Ok(());
        }
        let left = (self.room.0.checked_sub(entries), self.room.1.checked_sub(bytes));
        let (Some(entries), Some(bytes)) = left else {
            return Err(TOO_LARGE);
        };
        self.room = (entries, bytes);
        Ok(())
    }

    /// The attributes of an open file that go into a layer, as records.
    pub(super) fn attributes(&mut self, file: BorrowedFd<'_>) -> Result<Vec<Said>, SysError> {
        if self.layer.is_none() {
            return Ok(Vec::new());
        }
        let names = match file::attributes(file) {
            Err(SysError { errno: errno::EOPNOTSUPP, .. }) => return Ok(Vec::new()),
            names => names?,
        };
        let mut said = Vec::new();
        let mut is_all = true;
        let mut room = ATTRIBUTES_BYTES;
        let names = names.split_inclusive(|byte| *byte == 0);
        for name in names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
            let text = name.to_bytes();
            // The overlay's own, which no sandbox sees or makes; btrfs names them to everybody.
            if text.starts_with(b"trusted.") {
                continue;
            }
            // A record's key ends with its first equals sign.
            if !text.starts_with(b"user.") || text.contains(&b'=') {
                is_all = false;
                continue;
            }
            let (key, value) = ([pax::ATTRIBUTE, text].concat(), file::attribute(file, name)?);
            let Some(left) = room.checked_sub(key.len() + value.len() + RECORD_BYTES) else {
                is_all = false;
                continue;
            };
            room = left;
            said.push((key, value));
        }
        if !is_all {
            self.leave_out(LeftOutReason::Attributes);
        }
        Ok(said)
    }

    /// A pipe, or a name that is gone.
    pub(super) fn special(
        &mut self,
        name: &CStr,
        above: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SysError> {
        let metadata = self.look(name)?.metadata().map_err(|error| system("fstat", &error))?;
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            let directory = self.path.get(..above).unwrap_or_default();
            empty([directory, WHITEOUT, name.to_bytes()].concat()).write(&[], out);
        } else if kind.is_fifo() {
            header(Type::Pipe, self.path.clone(), &metadata).write(&[], out);
        } else {
            self.leave_out(LeftOutReason::Special);
        }
        Ok(())
    }

    /// Whether something of the layers below in the directory at the path, which `own` is, is not to
    /// be seen, though nothing here is in its place.
    pub(super) fn is_opaque(&self, own: BorrowedFd<'_>) -> Result<bool, SysError> {
        let Some(Layer { below, whole, .. }) = &self.layer else { return Ok(false) };
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let Some(below) = directory(below, path)? else { return Ok(false) };
        let Some(whole) = directory(whole, path)? else { return Ok(false) };
        let mut names = Names::new(below);
        while let Some(found) = names.read()? {
            if is_missing(whole.as_fd(), found.name)? && is_missing(own, found.name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Appends what makes the directory at `path`, which ends in a slash, opaque.
pub(super) fn write_opaque(path: &[u8], out: &mut Vec<u8>) {
    empty([path, OPAQUE].concat()).write(&[], out);
}

fn empty(path: Vec<u8>) -> Header {
    Header {
        kind: Type::File,
        path,
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        modified: (0, 0),
    }
}

fn directory(root: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, SysError> {
    let how = How {
        flags: file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW,
        mode: 0,
        resolve: file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS,
    };
    match file::open(root.as_fd(), &file::c_name(path)?, how) {
        Err(SysError { errno: errno::ENOENT | errno::ENOTDIR | errno::ELOOP, .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_missing(dir: BorrowedFd<'_>, name: &CStr) -> Result<bool, SysError> {
    match file::stat(dir, name) {
        Err(SysError { errno: errno::ENOENT, .. }) => Ok(true),
        found => found.map(|_| false),
    }
}
