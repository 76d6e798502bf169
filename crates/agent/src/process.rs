//! Commands: the one way to start one in a sandbox, and what is known of it from then on.
//!
//! ```text
//! start ─▶ Process: log by cursor ─┬─▶ exec, buffered or streamed
//!                 ▲    kill, end   ├─▶ logs
//!              pump task           └─▶ wait
//! ```
//!
//! Owns: the pipes, the deadline and the cgroup of each command, and its [`Log`].
//! Does not: know HTTP or encode anything.
//!
//! Invariant: each process that started ends exactly once, after the last byte of its log.
//! Cancellation: a process lives on its own; [`Attachment`] is what binds it to a caller.
//! What a command leaves in the background when it ends by itself is left alone, and what that
//! still writes is read and thrown away, so that it does not die of a broken pipe.

mod ending;
pub(crate) mod log;
mod pump;
mod spawn;
mod tree;

use std::{
    ffi::CString,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    exec::{Ending, ExecUsage},
    id::{ProcessId, SessionId},
    process::ProcessKind,
};
use bytes::Bytes;
use sys::{SysError, signal::SIGKILL, spawn::Failure};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use self::log::{Log, Retention};
use crate::init::Agent;

pub(crate) use ending::{Cause, Counters, Evidence, ending};
pub(crate) use pump::{Output, discard};
pub(crate) use tree::{Cgroup, Forest, family_of, kill_family};

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

/// What is said of a process when it is made.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) id: ProcessId,
    pub(crate) kind: ProcessKind,
    /// The command as people read it.
    pub(crate) command: String,
    pub(crate) session: Option<SessionId>,
}

impl About {
    /// An exec of `command` with an id of its own.
    pub(crate) fn exec(command: &api::exec::Command, session: Option<SessionId>) -> Self {
        let kind = ProcessKind::Exec;
        Self { id: generate_id(), kind, command: shown(command), session }
    }
}

/// An id that no other process of this agent gets, and, by its time, none of an earlier one.
pub(crate) fn generate_id() -> ProcessId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("proc_{}_{number}", log::now_ms()).parse().expect("it is letters, digits and '_'")
}

fn shown(command: &api::exec::Command) -> String {
    match command {
        api::exec::Command::Shell(text) => text.clone(),
        api::exec::Command::Program(argv) => argv.join(" "),
    }
}

/// How a command ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    pub(crate) duration: Duration,
    pub(crate) usage: ExecUsage,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: i64,
    pub(crate) aftermath: Aftermath,
}

/// What a command's end means for the session it ran in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// It goes on. Also where there is none.
    #[default]
    Kept,
    /// Its shell had to be killed with the command.
    Reset,
    /// The command ended its shell.
    Terminated,
    /// It was deleted under the command.
    Destroyed,
}

impl End {
    pub(crate) fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    /// The end of a process that could not be followed: only a fault of the agent, or a start that
    /// failed, can cause it.
    pub(crate) fn lost() -> Self {
        let (ending, duration) = (Ending::Lost, Duration::ZERO);
        let (usage, aftermath) = (ExecUsage::default(), Aftermath::Kept);
        Self { ending, duration, usage, at_ms: log::now_ms(), aftermath }
    }
}

/// A wish to end a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    pub(crate) cause: Cause,
    /// The signal that its tree gets first.
    pub(crate) signal: i32,
    /// How long the tree may take to end of that before it is killed.
    pub(crate) grace: Duration,
}

impl Kill {
    /// At once.
    pub(crate) fn now(cause: Cause) -> Self {
        Self { cause, signal: SIGKILL, grace: Duration::ZERO }
    }
}

/// A command from its start on.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) about: About,
    pub(crate) log: Arc<Log>,
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) started_ms: i64,
    /// 0 until it is known.
    pid: AtomicI32,
    end: watch::Sender<Option<End>>,
    kill: watch::Sender<Option<Kill>>,
}

impl Process {
    /// A process that is about to start. Whoever follows it calls [`Process::finish`].
    pub(crate) fn new(agent: &Agent, about: About, retention: Retention) -> Arc<Self> {
        Arc::new(Self {
            about,
            log: Arc::new(Log::new(retention, Arc::clone(&agent.log_budget))),
            started_ms: log::now_ms(),
            pid: AtomicI32::new(0),
            end: watch::Sender::new(None),
            kill: watch::Sender::new(None),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        *self.end.borrow()
    }

    /// Its end, when it comes.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await.map(|end| *end);
        end.ok().flatten().expect("the sender is a field of `self`")
    }

    /// Nothing more will be written, and this is how it ended.
    pub(crate) fn finish(&self, end: End) {
        self.log.close();
        self.end.send_replace(Some(end));
    }

    /// Asks for its end. A later wish replaces an earlier one, but not the earlier cause.
    pub(crate) fn kill(&self, kill: Kill) {
        self.kill.send_modify(|wish| {
            let cause = wish.map_or(kill.cause, |earlier| earlier.cause);
            *wish = Some(Kill { cause, ..kill });
        });
    }

    /// Wishes to end it, for whoever follows it.
    pub(crate) fn kills(&self) -> watch::Receiver<Option<Kill>> {
        self.kill.subscribe()
    }
}

/// Binds a process to a caller: dropping it before the process has ended kills the process.
#[derive(Debug)]
pub(crate) struct Attachment(pub(crate) Arc<Process>);

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.0.end().is_none() {
            // Nobody reads any more, so nobody is waited for.
            self.0.log.release();
            self.0.kill(Kill::now(Cause::CallerGone));
        }
    }
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

/// Whether a child became its program, when that is known; no answer when it will never be.
pub(crate) type Started = oneshot::Receiver<Result<(), Failure>>;

/// Starts a command and follows it in a task of its own, which ends soon after the command does.
///
/// # Errors
/// [`StartError`] when not even a child could be made; a child that cannot become the program is
/// the answer of [`Started`].
pub(crate) fn start(
    agent: &Arc<Agent>,
    invocation: Invocation,
    process: &Arc<Process>,
) -> Result<Started, StartError> {
    let running = spawn::spawn(agent, invocation)?;
    process.set_pid(running.pid);
    let (tell, started) = oneshot::channel();
    agent.tasks.spawn(pump::follow(Arc::clone(agent), running, Arc::clone(process), tell));
    Ok(started)
}
