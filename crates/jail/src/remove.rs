//! Removes a tree that a tenant made, whatever is in it.

use std::{
    ffi::{CString, OsStr},
    fs,
    io::{self, ErrorKind},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
};

use sys::{SysError, file};

/// Removes everything below `top`, and `top`. A missing `top` is no error.
///
/// Nothing recurses, so a tree 20,000 deep needs no more stack or descriptors than a flat one: a
/// directory that is not empty is moved up to `top` under a new name, to be emptied in its turn.
/// No link is followed. The caller knows that no process can reach the tree any more.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved: u64 = 0;
    loop {
        let entries = match fs::read_dir(top) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut empty = true;
        for entry in entries {
            empty = false;
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                empty_directory(&path, top, &mut moved)?;
                fs::remove_dir(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        if empty {
            return fs::remove_dir(top);
        }
    }
}

/// Removes the entries of `dir`, which lies in `top`; its non-empty directories move up to `top`.
fn empty_directory(dir: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    /// A link in the place of the directory is an error.
    const FLAGS: i32 = file::O_NOFOLLOW | file::O_DIRECTORY;
    let opened = fs::OpenOptions::new().read(true).custom_flags(FLAGS).open(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = c_string(&entry.file_name())?;
        if !entry.file_type()?.is_dir() {
            file::remove(opened.as_fd(), &name)?;
        } else if file::remove_dir(opened.as_fd(), &name).is_err_and(is_not_empty) {
            move_up(&entry.path(), top, moved)?;
        }
    }
    Ok(())
}

/// Moves `dir` to `top` under a name that is free: an interrupted removal leaves names behind.
fn move_up(dir: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match fs::rename(dir, top.join(format!("moved-{moved}"))) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AlreadyExists
                        | ErrorKind::DirectoryNotEmpty
                        | ErrorKind::NotADirectory
                ) => {}
            other => return other,
        }
    }
}

fn is_not_empty(error: SysError) -> bool {
    io::Error::from(error).kind() == ErrorKind::DirectoryNotEmpty
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_nul| ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_hostile_tree_goes_and_its_surroundings_stay() {
        let dir = std::env::temp_dir().join(format!("sandbar-remove-{}", std::process::id()));
        let top = dir.join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(dir.join("outside")).unwrap();
        fs::write(dir.join("outside/kept"), "x").unwrap();
        symlink(dir.join("outside"), top.join("a/link")).unwrap();
        fs::write(top.join("a/b/c/file"), "x").unwrap();
        fs::write(top.join("moved-1"), "a name the algorithm uses itself").unwrap();

        remove_tree(&top).unwrap();

        assert!(!top.exists());
        assert!(dir.join("outside/kept").exists());
        remove_tree(&top).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let top = std::env::temp_dir().join(format!("sandbar-deep-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        // Built from the inside out, because no path can name a place this deep.
        for _ in 0..5000 {
            fs::create_dir(top.join("outer")).unwrap();
            if top.join("inner").exists() {
                fs::rename(top.join("inner"), top.join("outer/inner")).unwrap();
            }
            fs::rename(top.join("outer"), top.join("inner")).unwrap();
        }

        remove_tree(&top).unwrap();

        assert!(!top.exists());
    }
}
