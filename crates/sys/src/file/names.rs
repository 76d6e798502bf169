//! The names in a directory.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use crate::SysError;

/// Bytes for names read in one call of [`Names::next_batch`]: some 1,000 usual names.
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
    dir: File,
    buffer: Vec<u8>,
    /// Where the entries that were read and not yet given are in `buffer`.
    rest: std::ops::Range<usize>,
}

impl Names {
    /// Reads `dir`, opened with `O_RDONLY | O_DIRECTORY`, from where its position is.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self::with_buffer(dir, NAMES_BUFFER_BYTES)
    }

    /// The same with a buffer of `bytes`, of which the longest name needs 280.
    #[must_use]
    pub fn with_buffer(dir: OwnedFd, bytes: usize) -> Self {
        Self { dir: dir.into(), buffer: vec![0; bytes], rest: 0..0 }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Calls `each` with the next names, `.` and `..` left out; false at the end.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn next_batch(&mut self, mut each: impl FnMut(&CStr)) -> Result<bool, SysError> {
        let found = self.fill()?;
        while let Some((name, _)) = take(&self.buffer, &mut self.rest) {
            each(name);
        }
        Ok(found)
    }

    /// The next name and what it is, `.` and `..` left out; none at the end.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn next_name(&mut self) -> Result<Option<(CString, Kind)>, SysError> {
        loop {
            if let Some((name, kind)) = take(&self.buffer, &mut self.rest) {
                return Ok(Some((name.to_owned(), kind)));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads the next entries; false at the end.
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
        let Ok(filled) = usize::try_from(filled) else {
            return Err(SysError::last("getdents64"));
        };
        self.rest = 0..filled;
        Ok(filled > 0)
    }
}

/// Takes the next entry but `.` and `..` from `rest` of `buffer`.
fn take<'a>(buffer: &'a [u8], rest: &mut std::ops::Range<usize>) -> Option<(&'a CStr, Kind)> {
    // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with its zero.
    while let Some(entry) = buffer.get(rest.clone())
        && let Some(&[low, high, kind]) = entry.get(16..19)
    {
        let length = usize::from(u16::from_ne_bytes([low, high])).max(1);
        rest.start = rest.start.saturating_add(length).min(rest.end);
        let name = entry.get(19..length).map(CStr::from_bytes_until_nul);
        if let Some(Ok(name)) = name
            && name != c"."
            && name != c".."
        {
            return Some((name, kind_of(kind)));
        }
    }
    None
}

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

    #[test]
    fn names_come_once_each() {
        let path = std::env::temp_dir().join(format!("sys-names-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for number in 0..3000 {
            std::fs::write(path.join(format!("file with a longer name {number}")), "").unwrap();
        }

        let mut names = Names::new(File::open(&path).unwrap().into());
        let mut seen = std::collections::BTreeSet::new();
        while names
            .next_batch(|name| assert!(seen.insert(name.to_owned()), "{name:?} twice"))
            .unwrap()
        {}

        assert_eq!(seen.len(), 3000);
        std::fs::remove_dir_all(path).unwrap();
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
        while let Some((name, kind)) = names.next_name().unwrap() {
            assert_eq!(seen.insert(name.into_string().unwrap(), kind), None);
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
