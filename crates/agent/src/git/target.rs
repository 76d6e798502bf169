//! The directory of a checkout: one's own, until it is whole.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use api::error::{ApiError, ErrorCode};

use crate::file::Fresh;

const CHECK_OUT: &str = "check out into";

/// Targets of checkouts under way, as they were asked for and without links: two of them would take
/// each other's files for their own.
pub(crate) type Targets = Arc<Mutex<BTreeSet<String>>>;

/// A directory that one checkout has for itself.
#[derive(Debug)]
pub(super) struct Target {
    directory: Fresh,
    _claims: (Claim, Option<Claim>),
}

impl Target {
    /// Makes the directory and its parents, or finds it empty.
    pub(super) fn make(path: &str, targets: Targets) -> Result<Self, ApiError> {
        let asked = Claim::new(path, Arc::clone(&targets))?;
        let directory = Fresh::make(CHECK_OUT, path)?;
        let real = directory.real_path();
        // If it is another checkout's, it stays, whoever made it.
        let real = if real == path { None } else { Some(Claim::new(&real, targets)?) };
        directory.require_empty(CHECK_OUT)?;
        Ok(Self { directory, _claims: (asked, real) })
    }

    /// Deletes what the checkout has made.
    pub(super) fn discard(self) -> Result<(), ApiError> {
        self.directory.discard()
    }
}

/// A path among those of the checkouts under way, until it is dropped.
#[derive(Debug)]
struct Claim {
    path: String,
    targets: Targets,
}

impl Claim {
    fn new(path: &str, targets: Targets) -> Result<Self, ApiError> {
        if !targets.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
            let text = format!("another checkout into {path} is under way; wait for it");
            return Err(ApiError::new(ErrorCode::ResourceBusy, text).with("path", path));
        }
        Ok(Self { path: path.to_owned(), targets })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checkouts_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let targets = Targets::default();
        let root = dir.path().to_str().unwrap();
        std::os::unix::fs::symlink("x", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("x")).unwrap();
        let spellings = ["x", "link", "./x", "link/../x"].map(|name| format!("{root}/{name}"));
        for first in &spellings {
            let held = Target::make(first, Arc::clone(&targets)).unwrap();
            for second in &spellings {
                let refused = Target::make(second, Arc::clone(&targets)).unwrap_err();
                assert_eq!(refused.code, ErrorCode::ResourceBusy, "{first} {second}");
            }
            drop(held);
            assert!(targets.lock().unwrap().is_empty());
        }
    }
}
