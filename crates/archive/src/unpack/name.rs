//! Names of entries: what they may be.

use std::ffi::CString;

use api::limit::{ARCHIVE_DEPTH, PATH_BYTES};

use crate::Fault;

/// A name below the top of the directory, in components.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    components: Vec<CString>,
    is_stripped: bool,
}

impl Name {
    /// Checks `path` and takes the first `strip` components away. Slashes in front, `.` and empty
    /// components mean nothing.
    pub(super) fn new(path: &[u8], strip: u32) -> Result<Self, Fault> {
        if path.is_empty() {
            return Err(Fault::Name);
        }
        if path.len() > PATH_BYTES {
            return Err(Fault::NameTooLong);
        }
        let mut components = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Fault::Outside),
                part => components.push(CString::new(part).map_err(|_zero| Fault::Name)?),
            }
        }
        let strip = usize::try_from(strip).unwrap_or(usize::MAX);
        let is_stripped = strip > 0 && components.len() <= strip;
        components.drain(..strip.min(components.len()));
        if components.len() > ARCHIVE_DEPTH {
            return Err(Fault::TooDeep);
        }
        Ok(Self { components, is_stripped })
    }

    /// Nothing of it is left.
    pub(super) fn is_stripped(&self) -> bool {
        self.is_stripped
    }

    pub(super) fn components(&self) -> &[CString] {
        &self.components
    }

    /// The directory it is in and its last component; none for the top.
    pub(super) fn split(&self) -> Option<(&CString, &[CString])> {
        self.components.split_last()
    }

    /// With slashes, for people.
    pub(super) fn path(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.components.iter().map(CString::as_bytes).collect();
        parts.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_the_top() {
        for (path, strip, expected) in [
            (&b"a/b"[..], 0, Ok((&b"a/b"[..], false))),
            (b"./a//b/.", 0, Ok((b"a/b", false))),
            (b"/etc/passwd", 0, Ok((b"etc/passwd", false))),
            (b"./", 0, Ok((b"", false))),
            (b"a/b/c", 1, Ok((b"b/c", false))),
            (b"a/b/c", 3, Ok((b"", true))),
            (b"./", 1, Ok((b"", true))),
            (b"..a/...", 0, Ok((b"..a/...", false))),
            (b"\xff\n", 0, Ok((b"\xff\n", false))),
            (b"../e", 0, Err(Fault::Outside)),
            (b"a/../../e", 0, Err(Fault::Outside)),
            (b"a/..", 0, Err(Fault::Outside)),
            // Not even what is taken away.
            (b"../e", 1, Err(Fault::Outside)),
            (b"", 0, Err(Fault::Name)),
            (b"a\0b", 0, Err(Fault::Name)),
        ] {
            let name = Name::new(path, strip);
            let found = name.as_ref().map(|name| (name.path(), name.is_stripped()));
            let expected = expected.map(|(path, stripped)| (path.to_vec(), stripped));
            assert_eq!(found.map_err(|fault| *fault), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn both_ends_of_the_limits() {
        let deep = |levels: usize| vec!["d"; levels].join("/").into_bytes();
        assert!(Name::new(&deep(ARCHIVE_DEPTH), 0).is_ok());
        assert_eq!(Name::new(&deep(ARCHIVE_DEPTH + 1), 0), Err(Fault::TooDeep));
        assert!(Name::new(&vec![b'n'; PATH_BYTES], 0).is_ok());
        assert_eq!(Name::new(&vec![b'n'; PATH_BYTES + 1], 0), Err(Fault::NameTooLong));
    }
}
