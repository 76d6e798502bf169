//! Starts commands: the one way to start one in a sandbox, and the one stream that comes back.
//!
//! ```text
//! start ─▶ Started | Failed ─▶ Output … ─▶ Ended
//! ```
//!
//! Owns: the pipes, the deadline and the cgroup of each command.
//! Does not: know HTTP, encode anything, or keep output.
//!
//! Invariant: exactly one `Ended` per `Started`, unless the receiver goes away first.
//! Back-pressure: the stream holds [`EVENTS`] events; a reader that stops stops the command at its
//! next write.
//! Cancellation: dropping [`Process`] kills the command's whole tree.
//! What a command leaves in the background when it ends by itself is left alone, and what that
//! still writes is read and thrown away, so that it does not die of a broken pipe.

mod ending;
mod pump;
mod spawn;
mod tree;

use std::{ffi::CString, os::fd::OwnedFd, sync::Arc, time::Duration};

use api::exec::{Ending, ExecUsage};
use bytes::Bytes;
use sys::{SysError, spawn::Failure};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::init::Agent;

pub(crate) use ending::Counters;
pub(crate) use tree::{Forest, Tree, kill_cgroup};

/// Events between a command and its reader. Few: with the pipe's own 64 KiB they keep both sides
/// busy, and each may hold [`pump::CHUNK_BYTES`].
const EVENTS: usize = 4;

/// A checked command, ready to start.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// Paths of the program, tried in turn.
    pub(crate) programs: Vec<CString>,
    /// Arguments, its own name first.
    pub(crate) argv: Vec<CString>,
    /// Environment, as `NAME=value`.
    pub(crate) envp: Vec<CString>,
    /// Working directory.
    pub(crate) cwd: OwnedFd,
    /// What it reads; `/dev/null` unless given.
    pub(crate) stdin: Option<Bytes>,
    /// How long it may run.
    pub(crate) limit: Option<Duration>,
    /// Its place among the commands of the sandbox, held until it has ended.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Which of its two outputs a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One event of a command.
#[derive(Debug)]
pub(crate) enum Event {
    /// The program runs.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// The child could not become the program; nothing follows.
    Failed(Failure),
    /// It wrote.
    Output(Stream, Bytes),
    /// It ended; nothing follows.
    Ended(End),
}

/// How a command ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    pub(crate) duration: Duration,
    pub(crate) usage: ExecUsage,
}

/// A command on its way. Dropping it kills its tree.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) events: mpsc::Receiver<Event>,
}

/// Why there is no child at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("make the command's cgroup")]
    Cgroup(#[source] SysError),
    #[error("make the command's pipes")]
    Pipes(#[source] std::io::Error),
    #[error("make the command's process")]
    Clone(#[source] SysError),
}

impl StartError {
    /// The kernel's answer.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Cgroup(error) | Self::Clone(error) => Some(error.errno),
            Self::Pipes(error) => error.raw_os_error(),
        }
    }
}

/// Starts a command and follows it in a task of its own, which ends soon after the command does
/// or [`Process`] is dropped.
///
/// # Errors
/// [`StartError`] when not even a child could be made; a child that cannot become the program is
/// the event [`Event::Failed`].
pub(crate) fn start(agent: &Arc<Agent>, invocation: Invocation) -> Result<Process, StartError> {
    let running = spawn::spawn(agent, invocation)?;
    let (events, receiver) = mpsc::channel(EVENTS);
    agent.tasks.spawn(pump::follow(Arc::clone(agent), running, events));
    Ok(Process { events: receiver })
}
