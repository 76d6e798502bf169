//! An empty directory for somebody to fill, and its end if that comes to nothing.
//!
//! Only what was made or put in since is deleted: a directory that was there stays, empty as it was,
//! and parents that were missing go as far as they are empty.

use std::os::fd::{AsFd, OwnedFd};

use api::error::ApiError;
use sys::{
    SysError, errno,
    file::{self, Names},
};

use super::{
    fault::fault,
    mkdir::{directories_telling, remove_made},
    path::{self, FilePath},
    remove,
};

/// A directory that was made, or found.
#[derive(Debug)]
pub(crate) struct Fresh {
    path: FilePath,
    /// Itself, wherever links lead by now.
    dir: OwnedFd,
    /// What was not there before, outermost first: parents, and the directory itself.
    made: Vec<FilePath>,
}

impl Fresh {
    /// Makes the directory at the absolute path `text`, and missing parents. `attempt` is what it is
    /// for, for errors: `FILE_EXISTS`, `NOT_DIRECTORY`, ...
    pub(crate) fn make(attempt: &str, text: &str) -> Result<Self, ApiError> {
        let path = path::absolute("/", text)?.trimmed();
        let mut made = Vec::new();
        match directories_telling(&path, |new| made.push(new)) {
            Ok(dir) => Ok(Self { path, dir, made }),
            Err(error) => {
                remove_made(&made);
                Err(fault(attempt, &path, error))
            }
        }
    }

    /// Its path without links, for people and to tell it from others.
    pub(crate) fn real_path(&self) -> String {
        let real = path::real(self.dir.as_fd());
        real.map_or_else(|_error| self.path.shown(), |real| real.display().to_string())
    }

    /// Refuses one that has something in it: `DIRECTORY_NOT_EMPTY`.
    pub(crate) fn require_empty(&self, attempt: &str) -> Result<(), ApiError> {
        let look = || {
            let dir = path::open(self.dir.as_fd(), c".", file::O_RDONLY | file::O_DIRECTORY)?;
            match Names::new(dir).read()? {
                None => Ok(()),
                Some(_) => Err(SysError { call: "mkdirat", errno: errno::ENOTEMPTY }),
            }
        };
        look().map_err(|error| fault(attempt, &self.path, error))
    }

    /// Deletes what was made, and what has been put into it.
    pub(crate) fn discard(self) -> Result<(), ApiError> {
        if self.made.last() == Some(&self.path) {
            remove::remove(&self.path, true)?;
        } else {
            remove::empty(self.dir.as_fd(), &self.path)?;
        }
        remove_made(&self.made);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use api::error::ErrorCode;

    use super::*;

    fn make(path: &Path) -> Result<Fresh, ApiError> {
        let fresh = Fresh::make("check out into", path.to_str().unwrap())?;
        fresh.require_empty("check out into").map(|()| fresh)
    }

    #[test]
    fn only_what_was_made_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        let fresh = make(&path).unwrap();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/file"), "").unwrap();
        fresh.discard().unwrap();
        assert!(!dir.path().join("a").exists());

        let fresh = make(&path).unwrap();
        fs::write(dir.path().join("a/mine"), "").unwrap();
        fresh.discard().unwrap();
        assert!(dir.path().join("a/mine").exists() && !dir.path().join("a/b").exists());

        fs::create_dir_all(&path).unwrap();
        let fresh = make(&path).unwrap();
        fs::write(path.join("file"), "").unwrap();
        fs::create_dir(path.join("d")).unwrap();
        fresh.discard().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn what_was_put_in_through_a_link_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        for (path, is_left) in [(link.clone(), true), (link.join("a/b"), false)] {
            let fresh = make(&path).unwrap();
            fs::create_dir(path.join("d")).unwrap();
            fresh.discard().unwrap();
            assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
            assert_eq!(path.exists(), is_left);
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn what_is_there_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("full")).unwrap();
        fs::write(dir.path().join("full/x"), "").unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let long = format!("new/{}", "x".repeat(300));
        for (path, code) in [
            ("full", ErrorCode::DirectoryNotEmpty),
            ("file", ErrorCode::FileExists),
            ("file/x", ErrorCode::NotDirectory),
            (&long, ErrorCode::NameTooLong),
        ] {
            let error = make(&dir.path().join(path)).unwrap_err();
            assert_eq!(error.code, code, "{path}: {error}");
        }
        assert!(dir.path().join("full/x").exists() && dir.path().join("file").is_file());
        assert!(!dir.path().join("new").exists());
    }
}
