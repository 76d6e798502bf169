//! What launchers and agents run: copies of this executable in memory.
//!
//! Both are sealed: nobody can change them any more, not even through `/proc/PID/exe` of a process that
//! runs one. The agent's is *settled* besides (`settled.rs`): its pages are as they are to be at one
//! address, so that they are the same memory in every agent and none of them has to be gone through
//! when an agent starts.

mod settled;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
};

use sys::{large_pages, memfd};

use crate::error::{InStep, JailError};

const STEP: &str = "program";

/// The programs of a node's launchers and agents.
#[derive(Debug)]
pub struct Programs {
    launcher: File,
    agent: File,
}

impl Programs {
    /// Copies what is loaded of this executable.
    ///
    /// # Errors
    /// When memory files or their execution are forbidden on this host.
    pub fn copy() -> Result<Self, JailError> {
        let own = File::open("/proc/self/exe")
            .map_err(|error| JailError::io(STEP, "open /proc/self/exe", &error))?;
        let mut launcher = empty()?;
        let loaded = settled::loaded_bytes(&own).unwrap_or(u64::MAX);
        io::copy(&mut (&own).take(loaded), &mut launcher)
            .map_err(|error| JailError::io(STEP, "copy /proc/self/exe", &error))?;
        let base = settled::random_base()
            .map_err(|error| JailError::io(STEP, "read /dev/urandom", &error))?;
        let agent = empty()?;
        let agent = match settled::settle(&own, &agent, base) {
            Some(()) => agent,
            // It is linked in another way than is known here: it does for agents, too.
            None => launcher
                .try_clone()
                .map_err(|error| JailError::io(STEP, "duplicate the program", &error))?,
        };
        Ok(Self { launcher: sealed(launcher)?, agent: sealed(agent)? })
    }

    /// Moves the agents' program to large pages, where the kernel has some: agents map it with half of
    /// the faults then, those that run already from their next fault on. Else it stays where it is. That
    /// can take the kernel some 0.3 s, so nobody should wait for it.
    pub fn enlarge(&self) {
        if let Ok(metadata) = self.agent.metadata() {
            large_pages::collapse(self.agent(), metadata.len()).unwrap_or_default();
        }
    }

    /// What launchers run.
    pub(crate) fn launcher(&self) -> BorrowedFd<'_> {
        self.launcher.as_fd()
    }

    /// What agents run.
    pub(crate) fn agent(&self) -> BorrowedFd<'_> {
        self.agent.as_fd()
    }
}

fn empty() -> Result<File, JailError> {
    memfd::create(c"sandbar", true).in_step(STEP).map(File::from)
}

fn sealed(file: File) -> Result<File, JailError> {
    memfd::seal(file.as_fd()).in_step(STEP)?;
    Ok(file)
}
