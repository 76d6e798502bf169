//! The names in a directory.

use std::{
    ffi::CStr,
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::SysError;

/// Bytes for names read in one call of [`Names::next_batch`]: some 1,000 usual names.
const NAMES_BUFFER_BYTES: usize = 32 * 1024;

/// The names in a directory, in the kernel's order, in constant memory.
#[derive(Debug)]
pub struct Names {
    dir: File,
    buffer: Vec<u8>,
}

impl Names {
    /// Reads `dir`, opened with `O_RDONLY | O_DIRECTORY`, from where its position is.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir: dir.into(), buffer: vec![0; NAMES_BUFFER_BYTES] }
    }

    /// Calls `each` with the next names, `.` and `..` left out; false at the end.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn next_batch(&mut self, mut each: impl FnMut(&CStr)) -> Result<bool, SysError> {
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
        let mut rest = self.buffer.get(..filled).unwrap_or_default();
        // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with its zero.
        while let Some(&[low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).map(CStr::from_bytes_until_nul);
            if let Some(Ok(name)) = name
                && name != c"."
                && name != c".."
            {
                each(name);
            }
            let Some(next) = rest.get(length.max(1)..) else { break };
            rest = next;
        }
        Ok(filled > 0)
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
}
