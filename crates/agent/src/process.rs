//! Commands: the one way to start one in a sandbox, and what is known of it from then on.
//!
//! ```text
//! start ─▶ Process: log by cursor ─┬─▶ exec, buffered or streamed
//!                 ▲    kill, end   ├─▶ logs
//!              pump task           └─▶ wait
//! ```
//!
//! Owns: the pipes, the deadline and the cgroup of each command, its [`Log`], and the [`Table`] of
//! all of them.
//! Does not: know HTTP or encode anything.
//!
//! Invariant: each process that started ends exactly once, after the last byte of its log.
//! Invariant: a process has a pid from when its program runs; one that ends without never was.
//! Cancellation: a process lives on its own; [`Attachment`] is what binds it to a caller.
//! What a command leaves in the background when it ends by itself is left alone, and what that
//! still writes is read and thrown away, so that it does not die of a broken pipe.

pub(crate) mod check;
mod ending;
mod exit;
mod launch;
pub(crate) mod log;
mod pump;
mod refused;
mod run;
mod spawn;
mod table;
mod tree;
pub(crate) mod wait;

use std::{
    ffi::CString,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    exec::{Ending, ExecUsage, Refused},
    id::{ProcessId, SessionId},
    limit::COMMAND_SHOWN_CHARS,
    process::ProcessKind,
};
use sys::{SysError, signal::SIGKILL, spawn::Failure};
use tokio::{
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, oneshot, watch},
};

use self::{
    check::Stdin,
    log::{Budget, Log, Retention},
};
use crate::init::Agent;

pub(crate) use check::{
    Surroundings, Wish, WishedStdin, argv, c_string, default_env, environment, programs, shell,
    surroundings,
};
pub(crate) use ending::{Cause, Counters, Counts, Evidence, ending};
pub(crate) use exit::Exit;
pub(crate) use launch::{launch, not_started, refused};
pub(crate) use pump::{DRAIN_GRACE, Output, discard, read_report};
pub(crate) use run::{Attachment, Run};
pub(crate) use spawn::{Child, output};
pub(crate) use table::{Following, IdTaken, Keep, Table};
pub(crate) use tree::{Cgroup, Forest, Tree, end_rest, family_of, kill_family};

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
    pub(crate) stdin: Stdin,
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

    /// A run of `code` in a context, with an id of its own.
    pub(crate) fn run(code: &str) -> Self {
        let command = shown(&api::exec::Command::Shell(code.to_owned()));
        Self { id: generate_id(), kind: ProcessKind::Run, command, session: None }
    }

    /// A process that runs on by itself.
    pub(crate) fn process(
        id: Option<ProcessId>,
        command: &api::exec::Command,
        session: Option<SessionId>,
    ) -> Self {
        let id = id.unwrap_or_else(generate_id);
        Self { id, kind: ProcessKind::Process, command: shown(command), session }
    }
}

/// An id that no other process of this agent gets, and, by its time, none of an earlier one.
pub(crate) fn generate_id() -> ProcessId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("proc_{}_{number}", log::now_ms()).parse().expect("it is letters, digits and '_'")
}

fn shown(command: &api::exec::Command) -> String {
    let all = match command {
        api::exec::Command::Shell(text) => text.clone(),
        api::exec::Command::Program(argv) => argv.join(" "),
    };
    match all.char_indices().nth(COMMAND_SHOWN_CHARS) {
        Some((end, _)) => all[..end].to_owned(),
        None => all,
    }
}

/// How a command ended and what it used.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    /// What the network refused meanwhile, if it failed.
    pub(crate) refused: Option<Arc<Refused>>,
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
    /// What the network refused meanwhile, as callers see it.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused.as_deref().cloned()
    }

    pub(crate) fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    /// The end of a process that could not be followed: only a fault of the agent, or a start that
    /// failed, can cause it.
    pub(crate) fn lost() -> Self {
        let (ending, duration) = (Ending::Lost, Duration::ZERO);
        let (usage, aftermath) = (ExecUsage::default(), Aftermath::Kept);
        Self { ending, refused: None, duration, usage, at_ms: log::now_ms(), aftermath }
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

    /// Nothing is left to the processes.
    fn is_forced(&self) -> bool {
        self.signal == SIGKILL || self.grace.is_zero()
    }
}

/// A command from its start on.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) about: About,
    pub(crate) log: Arc<Log>,
    started: OnceLock<Started>,
    end: watch::Sender<Option<End>>,
    kill: watch::Sender<Option<Kill>>,
    /// While it takes input.
    stdin: tokio::sync::Mutex<Option<pipe::Sender>>,
    /// While it runs, unless it runs in a shell that lives on.
    tree: Mutex<Option<Arc<Tree>>>,
    /// The cgroup of what it left when it ended.
    rest: OnceLock<CString>,
    table: Arc<Table>,
}

/// When a program began to run, and as what.
#[derive(Debug, Clone, Copy)]
struct Started {
    pid: i32,
    /// Milliseconds since 1970-01-01 UTC.
    at_ms: i64,
}

impl Process {
    /// A process that is about to start. Whoever follows it calls [`Process::set_pid`] when it
    /// runs, and [`Process::finish`] in any case.
    pub(crate) fn new(agent: &Agent, about: About, retention: Retention) -> Arc<Self> {
        Self::of(&agent.processes, &agent.log_budget, about, retention)
    }

    fn of(
        table: &Arc<Table>,
        budget: &Arc<Budget>,
        about: About,
        retention: Retention,
    ) -> Arc<Self> {
        Arc::new(Self {
            about,
            log: Arc::new(Log::new(retention, Arc::clone(budget))),
            started: OnceLock::new(),
            end: watch::Sender::new(None),
            kill: watch::Sender::new(None),
            stdin: tokio::sync::Mutex::new(None),
            tree: Mutex::new(None),
            rest: OnceLock::new(),
            table: Arc::clone(table),
        })
    }

    /// 0 until it runs.
    pub(crate) fn pid(&self) -> i32 {
        self.started.get().map_or(0, |started| started.pid)
    }

    /// Its program runs.
    pub(crate) fn set_pid(&self, pid: i32) {
        self.started.get_or_init(|| Started { pid, at_ms: log::now_ms() });
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.borrow().clone()
    }

    /// Its end, when it comes.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().expect("the sender is a field of `self`")
    }

    /// Nothing more will be written, and this is how it ended.
    pub(crate) fn finish(&self, end: End) {
        self.log.close();
        self.close_stdin();
        drop(self.tree().take());
        self.table.settle(self);
        self.end.send_replace(Some(end));
    }

    /// Asks for its end. A later wish replaces an earlier one, but not the earlier cause.
    pub(crate) fn kill(&self, kill: Kill) {
        self.kill.send_modify(|wish| {
            let cause = wish.map_or(kill.cause, |earlier| earlier.cause);
            *wish = Some(Kill { cause, ..kill });
        });
    }

    /// Wishes to end it, for whoever follows it: one that is there already counts as a change.
    pub(crate) fn kills(&self) -> watch::Receiver<Option<Kill>> {
        let mut kills = self.kill.subscribe();
        if kills.borrow().is_some() {
            kills.mark_changed();
        }
        kills
    }

    /// Sends `signal` to its whole tree; false when it has none of its own.
    pub(crate) fn signal(&self, signal: i32) -> bool {
        let tree = self.tree();
        if let Some(tree) = &*tree {
            tree.signal(signal);
        }
        tree.is_some()
    }

    /// Where it reads from: nothing for one that takes no input, or no more. Who holds the lock
    /// writes; the others wait for their turns.
    pub(crate) fn stdin(&self) -> &tokio::sync::Mutex<Option<pipe::Sender>> {
        &self.stdin
    }

    /// Before it runs, so that nobody holds the lock.
    fn open_stdin(&self, writer: Option<pipe::Sender>) {
        if let Ok(mut stdin) = self.stdin.try_lock() {
            *stdin = writer;
        }
    }

    /// Whoever holds the lock sees the end.
    fn close_stdin(&self) {
        if let Ok(mut stdin) = self.stdin.try_lock() {
            *stdin = None;
        }
    }

    /// The name of the cgroup of what it left when it ended.
    pub(crate) fn rest(&self) -> Option<CString> {
        self.rest.get().cloned()
    }

    fn tree(&self) -> MutexGuard<'_, Option<Arc<Tree>>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It, as callers see it.
    pub(crate) fn describe(&self) -> api::process::Process {
        let end = self.end();
        api::process::Process {
            id: self.about.id.clone(),
            kind: self.about.kind,
            pid: self.pid(),
            command: self.about.command.clone(),
            session: self.about.session.clone(),
            running: end.is_none(),
            ending: end.as_ref().map(|end| end.ending),
            exit_code: end.as_ref().map(|end| end.ending.exit_code()),
            started_at_ms: self.started.get().map_or(0, |started| started.at_ms),
            ended_at_ms: end.as_ref().map(|end| end.at_ms),
            usage: end.as_ref().map(|end| end.usage),
            refused: end.as_ref().and_then(End::refused),
            log: self.log.describe(),
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
type Begun = oneshot::Receiver<Result<(), Failure>>;

/// Starts a command and follows it in a task of its own, which ends soon after the command does.
///
/// # Errors
/// [`StartError`] when not even a child could be made; a child that cannot become the program is
/// the answer of [`Begun`].
fn start(
    agent: &Arc<Agent>,
    invocation: Invocation,
    process: &Arc<Process>,
) -> Result<Begun, StartError> {
    let running = spawn::spawn(agent, invocation, process)?;
    let (tell, begun) = oneshot::channel();
    agent.tasks.spawn(pump::follow(Arc::clone(agent), running, Arc::clone(process), tell));
    Ok(begun)
}
