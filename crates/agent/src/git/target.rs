//! The directory of a checkout: one's own, until it is whole.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use api::error::{ApiError, ErrorCode};

use crate::file::Fresh;

const CHECK_OUT: &str = "check out into";

/// Targets of checkouts under way: two of them would take each other's files for their own.
pub(crate) type Targets = Arc<Mutex<BTreeSet<String>>>;

/// A directory that one checkout has for itself.
#[derive(Debug)]
pub(super) struct Target {
    directory: Fresh,
    _claim: Claim,
}

impl Target {
    /// Makes the directory and its parents, or finds it empty.
    pub(super) fn make(path: &str, targets: Targets) -> Result<Self, ApiError> {
        let claim = Claim::new(path, targets)?;
        Ok(Self { directory: Fresh::make(CHECK_OUT, path)?, _claim: claim })
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
        let path = dir.path().join("x").to_str().unwrap().to_owned();
        let make = || Target::make(&path, Arc::clone(&targets));
        let first = make().unwrap();
        assert_eq!(make().unwrap_err().code, ErrorCode::ResourceBusy);
        drop(first);
        make().unwrap();
        assert!(targets.lock().unwrap().is_empty());
    }
}
