//! The names in a directory.

use std::{
    ffi::CStr,
    fs::File,
    io::{Seek, SeekFrom},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use crate::SysError;

/// Bytes for names read in one call of getdents64(2): some 1,000 usual names.
const NAMES_BUFFER_BYTES: usize = 32 * 1024;

/// What a directory says that one of its names is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Special,
    /// The file system does not say.
    Unknown,
}

/// The names in a directory, in the kernel's order, in constant memory.
#[derive(Debug)]
pub struct Names {
    dir: Arc<File>,
    buffer: Vec<u8>,
    /// Where the names that have not been read yet begin and end in the buffer.
    rest: std::ops::Range<usize>,
    /// Position of the next name.
    at: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// The name.
    pub name: &'a CStr,
    /// What it is.
    pub kind: Kind,
    /// Its position, for [`Names::seek`]. Opaque, and good as long as the directory's file system
    /// keeps it: most do as long as the name is there; overlayfs counts names in some directories.
    pub at: u64,
    /// Position of what follows it.
    pub next: u64,
}

impl Names {
    /// Reads `dir`, opened with `O_RDONLY | O_DIRECTORY`, from its beginning.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self::with_buffer(dir, NAMES_BUFFER_BYTES)
    }

    /// The same with a buffer of `bytes`, of which the longest name needs 280.
    #[must_use]
    pub fn with_buffer(dir: OwnedFd, bytes: usize) -> Self {
        Self { dir: Arc::new(dir.into()), buffer: vec![0; bytes], rest: 0..0, at: 0 }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory, held open with this or without.
    #[must_use]
    pub fn shared_dir(&self) -> Arc<File> {
        Arc::clone(&self.dir)
    }

    /// Goes on with what is at `position`, or what has come after it since.
    ///
    /// # Errors
    /// Those of `lseek(2)`; `EINVAL` for what is no position of this directory.
    pub fn seek(&mut self, position: u64) -> Result<(), SysError> {
        self.rest = 0..0;
        self.at = position;
        let sought = self.dir.seek(SeekFrom::Start(position));
        sought.map(drop).map_err(|error| SysError {
            call: "lseek",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }

    /// The next name; `.` and `..` are left out. None at the end, and in a directory that has been removed.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn read(&mut self) -> Result<Option<Name<'_>>, SysError> {
        loop {
            let (start, length, next, kind) = match self.head() {
                Some(head) => head,
                None if self.fill()? => continue,
                None => return Ok(None),
            };
            let at = std::mem::replace(&mut self.at, next);
            self.rest.start = start + length;
            let record = start + NAME..start + length;
            if !matches!(self.name(record.clone()).to_bytes(), b"." | b"..") {
                return Ok(Some(Name { name: self.name(record), kind, at, next }));
            }
        }
    }

    fn name(&self, record: std::ops::Range<usize>) -> &CStr {
        let bytes = self.buffer.get(record).unwrap_or_default();
        CStr::from_bytes_until_nul(bytes).unwrap_or_default()
    }

    /// Start, length, following position and kind of the next record in the buffer.
    fn head(&self) -> Option<(usize, usize, u64, Kind)> {
        // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with its zero.
        let record = self.buffer.get(self.rest.clone())?;
        let next = u64::from_ne_bytes(record.get(8..16)?.try_into().ok()?);
        let length = usize::from(u16::from_ne_bytes(record.get(16..18)?.try_into().ok()?));
        let kind = kind_of(*record.get(18)?);
        (length > NAME).then_some((self.rest.start, length, next, kind))
    }

    /// Reads further records; false at the end.
    fn fill(&mut self) -> Result<bool, SysError> {
        // SAFETY: the buffer is writable for the length given; `dir` is open while owned.
        let filled = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.dir.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        let filled = match usize::try_from(filled) {
            Ok(filled) => filled,
            Err(_negative) => match SysError::last("getdents64") {
                // The directory was removed while it was open.
                SysError { errno: libc::ENOENT, .. } => 0,
                error => return Err(error),
            },
        };
        self.rest = 0..filled;
        Ok(filled > 0)
    }
}

/// Where the name begins in a record.
const NAME: usize = 19;

fn kind_of(kind: u8) -> Kind {
    match kind {
        libc::DT_REG => Kind::File,
        libc::DT_DIR => Kind::Directory,
        libc::DT_LNK => Kind::Link,
        libc::DT_FIFO | libc::DT_SOCK | libc::DT_CHR | libc::DT_BLK => Kind::Special,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a directory of 3000 names, hands it to `check` and removes it.
    fn in_a_directory(check: impl FnOnce(Names)) {
        let thread = std::thread::current();
        let label = thread.name().unwrap_or_default().replace("::", "-");
        let path = std::env::temp_dir().join(format!("sys-names-{label}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for number in 0..3000 {
            std::fs::write(path.join(format!("file with a longer name {number}")), "").unwrap();
        }
        check(Names::new(File::open(&path).unwrap().into()));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn names_come_once_each() {
        in_a_directory(|mut names| {
            let mut seen = std::collections::BTreeSet::new();
            while let Some(found) = names.read().unwrap() {
                assert!(seen.insert(found.name.to_owned()), "{:?} twice", found.name);
            }
            assert_eq!(seen.len(), 3000);
        });
    }

    #[test]
    fn a_directory_that_has_been_removed_has_no_more_names() {
        let path = std::env::temp_dir().join(format!("sys-names-removed-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let mut names = Names::new(File::open(&path).unwrap().into());
        std::fs::remove_dir(&path).unwrap();
        assert!(names.read().unwrap().is_none());
    }

    #[test]
    fn a_position_leads_back_to_its_name() {
        in_a_directory(|mut names| {
            let mut all = Vec::new();
            while let Some(found) = names.read().unwrap() {
                all.push((found.name.to_owned(), found.at, found.next));
            }
            for (name, at, next) in all.iter().step_by(97).rev() {
                names.seek(*at).unwrap();
                let found = names.read().unwrap().unwrap();
                assert_eq!((found.name, found.at, found.next), (&**name, *at, *next));
            }
            assert!(names.seek(u64::MAX).is_err());
        });
    }

    #[test]
    fn one_at_a_time_they_say_what_they_are() {
        let path = std::env::temp_dir().join(format!("sys-kinds-{}", std::process::id()));
        std::fs::create_dir_all(path.join("directory")).unwrap();
        std::fs::write(path.join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", path.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();

        // Room for one name at a time.
        let mut names = Names::with_buffer(File::open(&path).unwrap().into(), 64);
        let mut seen = std::collections::BTreeMap::new();
        while let Some(found) = names.read().unwrap() {
            let name = found.name.to_str().unwrap().to_owned();
            assert_eq!(seen.insert(name, found.kind), None);
        }

        let expected = [
            ("directory", Kind::Directory),
            ("file", Kind::File),
            ("link", Kind::Link),
            ("socket", Kind::Special),
        ];
        assert_eq!(seen, expected.map(|(name, kind)| (name.to_owned(), kind)).into());
        drop(socket);
        std::fs::remove_dir_all(path).unwrap();
    }
}
