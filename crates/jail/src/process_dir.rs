//! A process by its directory in `/proc`, proc(5).
//!
//! A process's number may have become another's by the time its files are opened by it. A directory
//! that was opened while the process lived is that process's for ever: once it has ended, nothing in
//! it can be opened.

use std::{
    ffi::CStr,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use sys::{
    file::{self, How},
    poll,
};

use crate::error::{InStep, JailError};

/// The directory of one process, and of none that comes after it.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    dir: OwnedFd,
    step: &'static str,
}

impl ProcessDir {
    /// That of process `pid`, which `pidfd` is a handle to. What fails, now or later, fails in `step`.
    ///
    /// # Errors
    /// [`JailError::Entry`] when the process has ended.
    pub(crate) fn open(
        step: &'static str,
        pid: i32,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Self, JailError> {
        let dir = File::open(format!("/proc/{pid}"));
        // It lives now, so the number was its own when the directory was opened.
        if poll::wait_readable(pidfd, 0).in_step(step)? {
            return Err(JailError::Entry("a jail's process died early".to_owned()));
        }
        let dir = dir.map_err(|error| JailError::io(step, format!("open /proc/{pid}"), &error))?;
        Ok(Self { dir: dir.into(), step })
    }

    /// Opens one of its namespaces, or another of its files, to read.
    pub(crate) fn file(&self, name: &CStr) -> Result<OwnedFd, JailError> {
        file::open(self.dir.as_fd(), name, How::new(file::O_RDONLY)).in_step(self.step)
    }

    /// What one of its files says.
    pub(crate) fn text(&self, name: &CStr) -> Result<String, JailError> {
        let mut text = String::new();
        File::from(self.file(name)?)
            .read_to_string(&mut text)
            .map_err(|error| JailError::io(self.step, format!("read {name:?}"), &error))?;
        Ok(text)
    }

    /// Writes one of its settings, at once.
    pub(crate) fn set(&self, name: &CStr, value: &str) -> Result<(), JailError> {
        let setting = file::open(self.dir.as_fd(), name, How::new(file::O_WRONLY));
        File::from(setting.in_step(self.step)?)
            .write_all(value.as_bytes())
            .map_err(|error| JailError::io(self.step, format!("write {name:?}"), &error))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_directory_of_a_process_is_not_that_of_the_next() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = sys::pidfd::open(pid).unwrap();
        let dir = ProcessDir::open("test", pid, pidfd.as_fd()).unwrap();
        assert!(dir.text(c"stat").unwrap().starts_with(&format!("{pid} (cat)")));

        drop(child.stdin.take());
        child.wait().unwrap();

        assert!(dir.text(c"stat").is_err());
        // Whoever has the number now, it is not the process that was meant.
        let own = i32::try_from(std::process::id()).unwrap();
        let other = ProcessDir::open("test", own, pidfd.as_fd());
        assert!(matches!(other, Err(JailError::Entry(_))), "{other:?}");
    }
}
