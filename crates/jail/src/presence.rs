//! Whether launchers of an earlier daemon are there: a lock that each of them shares.
//!
//! A launcher is killed with its daemon, and what it forked ends with it. But that takes a moment, and
//! longer when the kernel is at work for it; what it makes then, a daemon that has looked already would
//! never see.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

use sys::file::O_NOFOLLOW;

use crate::{error::JailError, spec::NodeSpec};

const STEP: &str = "launcher";

/// How long launchers of an earlier daemon may take to end: the kernel may be writing a volume out for
/// one of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between looks. A lock can be waited for, but not with a deadline.
const LOOK: Duration = Duration::from_millis(2);

/// A launcher, or what one has forked, is there while this is open anywhere.
#[derive(Debug)]
pub struct Presence {
    _shared: File,
}

impl Presence {
    /// Shows that this process is there.
    pub(crate) fn show(node: &NodeSpec) -> Result<Self, JailError> {
        let file = open(node)?;
        file.lock_shared().map_err(|error| JailError::io(STEP, "lock launchers", &error))?;
        Ok(Self { _shared: file })
    }

    /// Waits until no launcher of an earlier daemon is there. To be called before one is started.
    ///
    /// # Errors
    /// [`JailError::Step`] when one is still there after 30 s.
    pub fn outlast(node: &NodeSpec) -> Result<(), JailError> {
        let file = open(node)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK);
                    continue;
                }
                Err(TryLockError::WouldBlock) => io::ErrorKind::TimedOut.into(),
                Err(TryLockError::Error(error)) => error,
            };
            return Err(JailError::io(STEP, "wait for launchers of an earlier server", &error));
        }
    }
}

fn open(node: &NodeSpec) -> Result<File, JailError> {
    let path = node.state_dir.join("launchers");
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(O_NOFOLLOW);
    let file = options.open(&path);
    file.map_err(|error| JailError::io(STEP, format!("open {}", path.display()), &error))
}
