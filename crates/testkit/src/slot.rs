//! A number that one test's server has to itself while it runs.

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
};

/// Servers at once on one machine: each gets a /24 of 10.214.0.0/18 and ids for as many sandboxes.
const SLOTS: u32 = 64;

/// Sandboxes of one test server.
pub(crate) const SANDBOXES: u32 = 253;

/// First user id of the first slot; the slots after it follow, below 2^31.
const FIRST_UID: u32 = 0x4000_0000;

/// User ids of one slot: 256 sandboxes of 65,536.
const UIDS: u32 = 256 << 16;

/// The port of the first slot's server, for tests that need the same one again after a restart: below
/// those that the kernel gives out by itself.
const FIRST_PORT: u32 = 22_000;

/// A number that no other test uses, by a lock that ends with the process.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    _lock: File,
}

impl Slot {
    /// Takes a free number.
    #[must_use]
    pub fn take() -> Self {
        let dir = PathBuf::from("/tmp/sandbar-test-slots");
        fs::create_dir_all(&dir).expect("the directory of the slots can be made");
        for number in 0..SLOTS {
            let lock = File::create(dir.join(number.to_string())).expect("a slot can be opened");
            match lock.try_lock() {
                Ok(()) => return Self { number, _lock: lock },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    panic!("slot {number} cannot be locked: {error}")
                }
            }
        }
        panic!("{SLOTS} test servers are running already")
    }

    /// The server's short name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("t{}", self.number)
    }

    /// The range of its sandboxes' addresses.
    #[must_use]
    pub fn subnet(&self) -> String {
        format!("10.214.{}.0/24", self.number)
    }

    /// A port of its own.
    #[must_use]
    pub fn port(&self) -> u32 {
        FIRST_PORT + self.number
    }

    /// The first user id of its sandboxes.
    #[must_use]
    pub fn uid_base(&self) -> u32 {
        FIRST_UID + self.number * UIDS
    }
}
