//! From a directory to a stream.
//!
//! The tree is walked by descriptors, directories before what is in them, in the kernel's order. What
//! vanishes between its name and its opening was not there. What cannot be in an archive, or cannot
//! be read, is left out and named in the archive's last entry.

mod content;
mod layer;
mod links;

pub use layer::Layer;

use std::{
    ffi::CStr,
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
};

use api::{
    archive::{LeftOut, LeftOutReason},
    limit::{ARCHIVE_DEPTH, ARCHIVE_ENTRIES, EXPORT_BYTES, PATH_BYTES},
    pattern::Pattern,
};
use sys::{
    SysError, errno,
    file::{self, How, Kind, Names},
};

use self::{
    content::{Content, SMALL_BYTES, read_small},
    links::{Links, Seen},
};
use crate::{
    ArchiveError,
    header::{self, Header, Type},
};

/// Bytes that one call of [`Packer::fill`] adds, and a little more.
const PIECE_BYTES: usize = 256 * 1024;

/// Steps of one call of [`Packer::fill`]: where all is excluded it adds nothing, and must end
/// nevertheless.
const STEPS: usize = 4096;

/// Bytes of the buffer for names of each of the outer directories, and how many these are. The inner
/// ones have a smaller one, because every level on the way has its own: 1.4 MiB at most.
const WIDE_NAMES_BYTES: usize = 32 * 1024;
const WIDE_LEVELS: usize = 16;
const NAMES_BYTES: usize = 4 * 1024;

/// What is packed.
#[derive(Debug)]
pub enum Source {
    /// What is in a directory, opened with `O_RDONLY`.
    Directory(OwnedFd),
    /// One regular file.
    File {
        /// The file, opened for reading.
        file: File,
        /// Its name in the archive.
        name: Vec<u8>,
    },
}

/// How it is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// What is left out without a word.
    pub exclude: Vec<Pattern>,
    /// Descend into what is mounted below.
    pub cross_mounts: bool,
}

/// A directory on the way of the walk.
#[derive(Debug)]
struct Level {
    names: Names,
    /// Length of the path of the directory that this one is in.
    above: usize,
}

/// Makes an archive, piece by piece.
#[derive(Debug)]
pub struct Packer {
    options: PackOptions,
    /// What comes before the next step: the header of the first entry.
    first: Vec<u8>,
    levels: Vec<Level>,
    /// Path of the last level, with a slash at its end; empty for the top. While an entry is looked
    /// at, its own.
    path: Vec<u8>,
    /// The top directory: the first entry, and the last if there is something to say.
    top: Option<Header>,
    content: Option<Content>,
    links: Links,
    /// What is packed is a layer.
    layer: Option<Layer>,
    /// Nothing is packed: it only finds out whether a layer would be within its limits.
    weighs: bool,
    /// Entries and bytes of content that a layer may still have.
    room: (u64, u64),
    /// `O_NOATIME`, until that is refused.
    quietly: i32,
    small: Vec<u8>,
    left_out: LeftOut,
    files: u64,
}

impl Packer {
    /// Begins an archive.
    ///
    /// # Errors
    /// When `source` cannot be looked at.
    pub fn new(source: Source, options: PackOptions) -> Result<Self, ArchiveError> {
        Self::begin(source, options, None)
    }

    fn begin(
        source: Source,
        options: PackOptions,
        layer: Option<Layer>,
    ) -> Result<Self, ArchiveError> {
        let room = layer.as_ref().map_or(links::REMEMBERED_BYTES, |_| layer::LINKS_BYTES);
        let mut packer = Self {
            options,
            first: Vec::new(),
            levels: Vec::new(),
            path: Vec::new(),
            top: None,
            content: None,
            links: Links::new(room),
            layer,
            weighs: false,
            room: (ARCHIVE_ENTRIES, EXPORT_BYTES),
            quietly: file::O_NOATIME,
            small: vec![0; SMALL_BYTES + 1],
            left_out: LeftOut::default(),
            files: 0,
        };
        match source {
            Source::Directory(dir) => {
                let dir = File::from(dir);
                let metadata = dir.metadata().map_err(|error| packer.broken(&error))?;
                let top = header(Type::Directory, b"./".to_vec(), &metadata);
                packer.say_about();
                let said = packer.attributes(dir.as_fd()).map_err(|source| packer.fault(source))?;
                top.write(&said, &mut packer.first);
                packer.top = Some(top);
                packer.enter(dir.into(), 0);
            }
            Source::File { file, name } => {
                packer.path = name;
                let metadata = file.metadata().map_err(|error| packer.broken(&error))?;
                let header = Header {
                    size: metadata.len(),
                    ..header(Type::File, packer.path.clone(), &metadata)
                };
                header.write(&[], &mut packer.first);
                packer.files = 1;
                packer.content = Some(Content::new(file, header.size, &packer.path));
            }
        }
        Ok(packer)
    }

    /// Appends the next part of the archive to `out`: some 256 KiB, nothing perhaps. False when the
    /// archive is complete.
    ///
    /// # Errors
    /// [`ArchiveError::File`] when the tree cannot be read on: the archive ends without its end.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, ArchiveError> {
        let end = out.len() + PIECE_BYTES;
        out.append(&mut self.first);
        for _ in 0..STEPS {
            if out.len() >= end {
                return Ok(true);
            }
            if !self.step(end - out.len(), out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Files packed until now, further names of one counted.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// What is not in the archive, or not as it should be, until now.
    #[must_use]
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// One name, or up to `room` bytes of content.
    fn step(&mut self, room: usize, out: &mut Vec<u8>) -> Result<bool, ArchiveError> {
        if let Some(mut content) = self.content.take() {
            if content.read(room, out).map_err(|error| content.broken(&error))? {
                self.content = Some(content);
            } else if self.top.is_none() {
                // An archive of one file has no place to tell that there is less of it than it says.
                content.check_length().map_err(|error| content.broken(&error))?;
            } else if content.has_changed() {
                self.left_out.push(content.path(), LeftOutReason::Changed);
            }
            return Ok(true);
        }
        let Some(level) = self.levels.last_mut() else {
            self.end(out);
            return Ok(false);
        };
        let next =
            level.names.read().map(|found| found.map(|found| (found.name.to_owned(), found.kind)));
        match next {
            Ok(Some((name, kind))) => self.name(&name, kind, out)?,
            Ok(None) => {
                let above = level.above;
                self.path.truncate(above);
                self.levels.pop();
            }
            Err(source) => return Err(self.fault(source)),
        }
        Ok(true)
    }

    /// What was left out, and the end.
    fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(top) = self.top.take().filter(|_| self.left_out.left_out_count > 0) {
            let comment = serde_json::to_vec(&self.left_out);
            let comment = comment.ok().map(|comment| (b"comment".to_vec(), comment));
            top.write(comment.as_slice(), out);
        }
        out.extend_from_slice(&header::END);
    }

    fn name(&mut self, name: &CStr, kind: Kind, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let above = self.path.len();
        self.path.extend_from_slice(name.to_bytes());
        let levels = self.levels.len();
        match self.entry(name, kind, above, out) {
            Ok(()) => {}
            Err(source) => match source.errno {
                // Gone, or replaced by something else, since its name was read.
                errno::ENOENT | errno::ENOTDIR | errno::ELOOP => {}
                errno::EACCES | errno::EPERM => self.leave_out(LeftOutReason::Unreadable),
                errno::EXDEV => self.leave_out(LeftOutReason::Mount),
                errno::ENXIO | errno::ENODEV => self.leave_out(LeftOutReason::Special),
                _ => return Err(self.fault(source)),
            },
        }
        if self.levels.len() == levels {
            self.path.truncate(above);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &CStr,
        kind: Kind,
        above: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SysError> {
        let kind = match kind {
            Kind::Unknown => kind_of(&self.look(name)?)?,
            known => known,
        };
        self.admit(1, 0)?;
        if self.layer.is_some() && name.to_bytes().starts_with(layer::WHITEOUT) {
            self.leave_out(LeftOutReason::Reserved);
            return Ok(());
        }
        let is_directory = kind == Kind::Directory;
        if self.options.exclude.iter().any(|one| one.matches(&self.path, is_directory)) {
            return Ok(());
        }
        // A directory's path ends in a slash.
        if self.path.len() + usize::from(is_directory) > PATH_BYTES {
            self.leave_out(LeftOutReason::TooDeep);
            return Ok(());
        }
        match kind {
            Kind::File => self.file(name, out),
            Kind::Directory => self.directory(name, above, out),
            Kind::Link | Kind::Special if self.weighs => Ok(()),
            Kind::Link => self.link(name, out),
            Kind::Special if self.layer.is_some() => self.special(name, above, out),
            Kind::Special | Kind::Unknown => {
                self.leave_out(LeftOutReason::Special);
                Ok(())
            }
        }
    }

    fn file(&mut self, name: &CStr, out: &mut Vec<u8>) -> Result<(), SysError> {
        let opened = if self.weighs { self.look(name)? } else { self.open_file(name)? };
        let metadata = opened.metadata().map_err(|error| system("fstat", &error))?;
        if !metadata.is_file() {
            return Err(SysError { call: "open", errno: errno::ENOENT });
        }
        let mut header = header(Type::File, self.path.clone(), &metadata);
        if metadata.nlink() > 1 {
            match self.links.see(&metadata, &self.path) {
                Seen::First => {}
                Seen::Before(first) => {
                    header.kind = Type::HardLink;
                    header.link = first;
                }
                Seen::Untold => self.leave_out(LeftOutReason::SeveralNames),
            }
        }
        self.files += 1;
        if header.kind == Type::HardLink {
            header.write(&[], out);
            return Ok(());
        }
        header.size = metadata.len();
        self.admit(0, header.size)?;
        if self.weighs {
            return Ok(());
        }
        let said = self.attributes(opened.as_fd())?;
        if usize::try_from(header.size).is_ok_and(|size| size <= SMALL_BYTES) {
            // Its size is what was read, so it can not be another one.
            let read = read_small(&opened, &mut self.small, header.size);
            let (content, has_grown) = read.map_err(|error| system("read", &error))?;
            header.size = content.len() as u64;
            header.write(&said, out);
            out.extend_from_slice(content);
            out.resize(out.len() + header::padding(header.size), 0);
            if has_grown {
                self.leave_out(LeftOutReason::Changed);
            }
        } else {
            header.write(&said, out);
            self.content = Some(Content::new(opened, header.size, &self.path));
        }
        Ok(())
    }

    fn directory(&mut self, name: &CStr, above: usize, out: &mut Vec<u8>) -> Result<(), SysError> {
        if self.levels.len() >= ARCHIVE_DEPTH {
            self.leave_out(LeftOutReason::TooDeep);
            return Ok(());
        }
        let dir = self.open(name, file::O_RDONLY | file::O_DIRECTORY | file::O_NOFOLLOW)?;
        let dir = File::from(dir);
        let metadata = dir.metadata().map_err(|error| system("fstat", &error))?;
        self.path.push(b'/');
        if self.weighs {
            self.enter(dir.into(), above);
            return Ok(());
        }
        let said = self.attributes(dir.as_fd())?;
        header(Type::Directory, self.path.clone(), &metadata).write(&said, out);
        if self.is_opaque(dir.as_fd())? {
            self.admit(1, 0)?;
            layer::write_opaque(&self.path, out);
        }
        self.enter(dir.into(), above);
        Ok(())
    }

    fn enter(&mut self, dir: OwnedFd, above: usize) {
        let is_wide = self.levels.len() < WIDE_LEVELS;
        let bytes = if is_wide { WIDE_NAMES_BYTES } else { NAMES_BYTES };
        self.levels.push(Level { names: Names::with_buffer(dir, bytes), above });
    }

    fn link(&mut self, name: &CStr, out: &mut Vec<u8>) -> Result<(), SysError> {
        let link = self.look(name)?;
        let metadata = link.metadata().map_err(|error| system("fstat", &error))?;
        if !metadata.is_symlink() {
            return Err(SysError { call: "open", errno: errno::ENOENT });
        }
        let target = file::read_link(link.as_fd(), c"")?;
        let header = header(Type::Symlink, self.path.clone(), &metadata);
        Header { link: target.as_bytes().to_vec(), ..header }.write(&[], out);
        Ok(())
    }

    /// Opens what `name` is, a link itself, without opening its content.
    fn look(&self, name: &CStr) -> Result<File, SysError> {
        self.open(name, file::O_PATH | file::O_NOFOLLOW).map(File::from)
    }

    /// Opens a file for reading, without a new time of access if that can be: it would make the kernel
    /// write every inode that is read.
    fn open_file(&mut self, name: &CStr) -> Result<File, SysError> {
        let flags = file::O_RDONLY | file::O_NOFOLLOW | file::O_NONBLOCK | file::O_NOCTTY;
        match self.open(name, flags | self.quietly) {
            // Only a file's owner may; who owns one of a tree that is not his owns few.
            Err(SysError { errno: errno::EPERM, .. }) if self.quietly != 0 => {
                self.quietly = 0;
                self.open(name, flags).map(File::from)
            }
            opened => opened.map(File::from),
        }
    }

    fn open(&self, name: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
        let Some(level) = self.levels.last() else {
            return Err(SysError { call: "openat2", errno: errno::ENOENT });
        };
        let mounts = if self.options.cross_mounts { 0 } else { file::RESOLVE_NO_XDEV };
        let resolve = file::RESOLVE_NO_SYMLINKS | mounts;
        file::open(level.names.dir(), name, How { flags, mode: 0, resolve })
    }

    fn leave_out(&mut self, reason: LeftOutReason) {
        self.left_out.push(&self.path, reason);
    }

    fn fault(&self, source: SysError) -> ArchiveError {
        if source == layer::TOO_LARGE {
            return ArchiveError::LayerTooLarge { path: self.path.clone() };
        }
        ArchiveError::File { attempt: "read", path: self.path.clone(), source }
    }

    fn broken(&self, error: &io::Error) -> ArchiveError {
        self.fault(system("fstat", error))
    }
}

/// The header of an entry without content.
fn header(kind: Type, path: Vec<u8>, metadata: &Metadata) -> Header {
    Header {
        kind,
        path,
        link: Vec::new(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid().into(),
        gid: metadata.gid().into(),
        size: 0,
        modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default()),
    }
}

fn kind_of(file: &File) -> Result<Kind, SysError> {
    let metadata = file.metadata().map_err(|error| system("fstat", &error))?;
    let kind = metadata.file_type();
    Ok(match () {
        () if kind.is_file() => Kind::File,
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_symlink() => Kind::Link,
        () => Kind::Special,
    })
}

fn system(call: &'static str, error: &io::Error) -> SysError {
    SysError { call, errno: error.raw_os_error().unwrap_or(errno::EIO) }
}
