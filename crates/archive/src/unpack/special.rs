//! The names of pipes and devices that were left out: a further name of one is left out with it.

use std::collections::BTreeSet;

/// Bytes that are remembered of all names, some 2,000 of usual length. A further name of a later one is
/// an error: what it names is not there.
const REMEMBERED_BYTES: usize = 256 * 1024;

/// Bytes that a name costs besides itself.
const OVERHEAD_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Specials {
    names: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Specials {
    pub(super) fn remember(&mut self, path: &[u8]) {
        let bytes = self.bytes + path.len() + OVERHEAD_BYTES;
        if bytes <= REMEMBERED_BYTES && self.names.insert(path.to_vec()) {
            self.bytes = bytes;
        }
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.names.contains(path)
    }

    /// Another entry has this name.
    pub(super) fn forget(&mut self, path: &[u8]) {
        if self.names.remove(path) {
            self.bytes -= path.len() + OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut specials = Specials::default();
        let path = |number: usize| format!("{number:0>4000}").into_bytes();
        (0..1000).for_each(|number| specials.remember(&path(number)));
        assert_eq!(specials.names.len(), REMEMBERED_BYTES / (4000 + OVERHEAD_BYTES));
        // Again is no second name, and what is forgotten makes room.
        specials.remember(&path(0));
        specials.forget(&path(0));
        assert!(!specials.contains(&path(0)));
        specials.remember(&path(999));
        assert!(specials.contains(&path(999)));
        for number in 0..1000 {
            specials.forget(&path(number));
        }
        assert_eq!((specials.names.len(), specials.bytes), (0, 0));
    }
}
