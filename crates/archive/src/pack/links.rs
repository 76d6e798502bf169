//! Files with several names: which name came first.

use std::{collections::HashMap, fs::Metadata, os::unix::fs::MetadataExt};

/// Bytes that are remembered of all such files: some 10,000 of usual names. A file is forgotten with
/// its last name.
pub(super) const REMEMBERED_BYTES: usize = 1024 * 1024;

/// Bytes that a file costs besides its path.
const OVERHEAD_BYTES: usize = 96;

/// What is known about a file with several names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// This is its first name.
    First,
    /// It was seen under this path.
    Before(Vec<u8>),
    /// There is no room to remember it.
    Untold,
}

#[derive(Debug)]
struct File {
    path: Vec<u8>,
    names_left: u64,
}

/// The files with several names that were seen.
#[derive(Debug)]
pub(super) struct Links {
    files: HashMap<(u64, u64), File>,
    bytes: usize,
    /// Bytes that may be remembered.
    room: usize,
}

impl Links {
    /// Remembers up to `room` bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { files: HashMap::new(), bytes: 0, room }
    }

    /// Looks at a file that has more than one name, under `path`.
    pub(super) fn see(&mut self, metadata: &Metadata, path: &[u8]) -> Seen {
        self.see_file((metadata.dev(), metadata.ino()), metadata.nlink(), path)
    }

    fn see_file(&mut self, identity: (u64, u64), names: u64, path: &[u8]) -> Seen {
        if let Some(file) = self.files.get_mut(&identity) {
            file.names_left = file.names_left.saturating_sub(1);
            if file.names_left > 0 {
                return Seen::Before(file.path.clone());
            }
            let path = self.files.remove(&identity).map(|file| file.path).unwrap_or_default();
            self.bytes -= path.len() + OVERHEAD_BYTES;
            return Seen::Before(path);
        }
        let bytes = self.bytes + path.len() + OVERHEAD_BYTES;
        if bytes > self.room {
            return Seen::Untold;
        }
        self.bytes = bytes;
        self.files.insert(identity, File { path: path.to_vec(), names_left: names - 1 });
        Seen::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_remembered_until_its_last_name() {
        let mut links = Links::new(REMEMBERED_BYTES);
        assert_eq!(links.see_file((1, 1), 3, b"a"), Seen::First);
        assert_eq!(links.see_file((2, 1), 2, b"other"), Seen::First);
        assert_eq!(links.see_file((1, 1), 3, b"b"), Seen::Before(b"a".to_vec()));
        assert_eq!(links.see_file((1, 1), 3, b"c"), Seen::Before(b"a".to_vec()));
        assert_eq!(links.files.len(), 1);
        assert_eq!(links.see_file((2, 1), 2, b"d"), Seen::Before(b"other".to_vec()));
        assert_eq!((links.files.len(), links.bytes), (0, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut links = Links::new(REMEMBERED_BYTES);
        let path = [b'x'; 4000];
        let told =
            (0..1000).take_while(|n| links.see_file((0, *n), 2, &path) == Seen::First).count();
        assert_eq!(told, REMEMBERED_BYTES / (4000 + OVERHEAD_BYTES));
        assert!(matches!(links.see_file((0, 0), 2, b"y"), Seen::Before(_)));
        assert_eq!(links.see_file((0, 5000), 2, b"z"), Seen::First);
    }
}
