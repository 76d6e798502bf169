//! A handle to the launcher process.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::spec::{JailId, JailSpec, NodeSpec};

/// Why a jail could not be built or taken apart: the step, the call and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JailError {
    /// A step failed; everything done before it has been undone.
    #[error("{step}: {call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Step {
        /// Which step of the list.
        step: String,
        /// Which kernel call, and on what.
        call: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The spec was refused before anything was touched.
    #[error("the specification was refused: {0}")]
    Refused(String),
    /// The launcher process is gone or answered nonsense.
    #[error("the launcher process is lost: {0}")]
    Lost(String),
}

/// Descriptors that go with a spec.
#[derive(Debug, Clone, Copy)]
pub struct JailFiles<'a> {
    /// The agent's listening unix socket.
    pub listener: BorrowedFd<'a>,
    /// The agent's configuration, a sealed memfd.
    pub config: BorrowedFd<'a>,
    /// Directories of the image's layers, topmost first; at least one.
    pub layers: &'a [BorrowedFd<'a>],
    /// Trees to bind, in the order of [`JailSpec::binds`].
    pub binds: &'a [BorrowedFd<'a>],
}

/// A jail whose agent has been exec'd.
#[derive(Debug)]
pub struct Launched {
    /// The agent's process id on the host.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of /proc/PID/stat): with `pid` and the
    /// boot id it names the process for ever.
    pub start_time: u64,
    /// Readable when the agent has ended.
    pub pidfd: OwnedFd,
}

/// A running launcher process: root, single-threaded, one request at a time.
///
/// Dropping the handle closes its socket; the launcher then exits. Jails do not: they end only by
/// [`Launcher::kill`].
#[derive(Debug)]
pub struct Launcher {}

impl Launcher {
    /// Starts a launcher process (this executable again) for the node.
    ///
    /// # Errors
    /// When the process cannot be started or refuses `node`.
    pub fn start(node: &NodeSpec) -> Result<Self, JailError> {
        todo!("{node:?}")
    }

    /// Builds a jail and execs the agent in it. The agent's socket accepts connections at return.
    ///
    /// The jail's directory `sandboxes/N` is made when missing; an existing one is used with the
    /// files it has, so launching again after a [`Launcher::kill`] continues with the same files.
    ///
    /// # Errors
    /// [`JailError::Step`]; nothing is left behind but the jail's directory.
    pub fn launch(
        &mut self,
        spec: &JailSpec,
        files: &JailFiles<'_>,
    ) -> Result<Launched, JailError> {
        todo!("{spec:?} {files:?}")
    }

    /// Kills every process of the jail, waits until none is left, removes its cgroups and link.
    /// Its files stay. Safe to repeat, also for a jail that never was.
    ///
    /// # Errors
    /// [`JailError::Step`] when processes are left after 10 s.
    pub fn kill(&mut self, jail: JailId) -> Result<(), JailError> {
        todo!("{jail}")
    }

    /// Removes the jail's directory, whatever is in it. Slow for large trees: call it on a
    /// launcher that no creation waits for. Safe to repeat.
    ///
    /// # Errors
    /// [`JailError::Step`] when something cannot be removed.
    pub fn remove_files(&mut self, jail: JailId) -> Result<(), JailError> {
        todo!("{jail}")
    }

    /// Jails that have a cgroup on this node, with the agent's pid where it is alive.
    ///
    /// # Errors
    /// When the cgroup trees cannot be read.
    pub fn jails(&mut self) -> Result<Vec<(JailId, Option<i32>)>, JailError> {
        todo!()
    }

    /// Makes the node's network (address, nftables table, forwarding) exist. Rules are there
    /// before the first link. Safe to repeat.
    ///
    /// # Errors
    /// When `nft` is missing or refuses the rules.
    pub fn set_up_network(&mut self) -> Result<(), JailError> {
        todo!()
    }

    /// Removes what [`Launcher::set_up_network`] made.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn tear_down_network(&mut self) -> Result<(), JailError> {
        todo!()
    }
}

/// What a jail uses now, read from its cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes charged to user code.
    pub memory_bytes: u64,
    /// Processes and threads of user code.
    pub pids: u32,
    /// Milliseconds of CPU.
    pub cpu_ms: u64,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

/// Reads a jail's usage; needs no privilege and no launcher.
///
/// # Errors
/// When the jail has no cgroup (it does not run).
pub fn usage(node_name: &str, jail: JailId) -> std::io::Result<Usage> {
    todo!("{node_name} {jail}")
}
