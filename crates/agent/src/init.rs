//! What the agent does as PID 1: start, serve, reap, and never stop by itself.
//!
//! One thread runs everything; threads of the blocking pool come for file work and go again.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::net::UnixListener as StdListener,
    },
    process::ExitCode,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use api::{
    error::ApiError,
    limit::{EXECS_PER_SANDBOX, PORT_CONNECTIONS, PROCESSES_PER_SANDBOX, WAITS_PER_SANDBOX},
};
use axum::Router;
use jail::handoff::{self, Handoff, InvalidHandoff};
use link::AgentConfig;
use sys::{
    SysError,
    file::{self, How},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::task::TaskTracker;

use crate::{
    definitions::{self, Definitions},
    env::Environment,
    figures::Figures,
    file::watch::Watches,
    git::Targets,
    interpreter::Contexts,
    process::{
        Counters, Forest, Table, default_env,
        log::{BUDGET_BYTES, Budget},
    },
    reaper::Reaper,
    room::{Handed, Room},
    routes, serve,
    service::Services,
    session::Sessions,
    terminal::Terminals,
};

/// Threads for file work at once. The disk is one; more threads only cost memory.
const BLOCKING_THREADS: usize = 8;

/// How long an idle thread of the blocking pool stays: long enough for a burst of small requests,
/// short enough that an idle sandbox has one thread.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Bytes of stack of a thread of the blocking pool: file work is flat, its buffers are on the heap.
const BLOCKING_STACK_BYTES: usize = 256 * 1024;

/// Files that nearly every program is started with, where an image has them. Only for speed: what is
/// missing here is found later.
const LOOKED_FOR: [&CStr; 8] = [
    c"/bin/sh",
    c"/bin/bash",
    c"/usr/bin/env",
    c"/usr/local/bin",
    c"/lib64/ld-linux-x86-64.so.2",
    c"/lib/ld-linux-aarch64.so.1",
    c"/etc/ld.so.cache",
    c"/lib/x86_64-linux-gnu/libc.so.6",
];

/// Permission bits that new files do not get.
const UMASK: u32 = 0o022;

/// Everything the handlers share.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Environment of every command: defaults under the sandbox's own.
    pub(crate) env: Environment,
    /// What of it outlives a stop.
    pub(crate) definitions: Definitions,
    /// What it keeps running.
    pub(crate) services: Services,
    /// Where commands start and relative paths begin; absolute.
    pub(crate) workdir: String,
    /// `/dev/null`, stdin of a command without one.
    pub(crate) null: OwnedFd,
    /// Cgroups of the commands.
    pub(crate) forest: Forest,
    /// `tasks` files of the user cgroup's v1 controllers.
    pub(crate) v1_tasks: Vec<OwnedFd>,
    /// What the kernel counts of the sandbox's limits.
    pub(crate) counters: Counters,
    /// Who waits for which child.
    pub(crate) reaper: Reaper,
    /// Commands that may still start.
    pub(crate) execs: Arc<Semaphore>,
    /// Processes that may still start.
    pub(crate) places: Arc<Semaphore>,
    /// Waits for processes that may still begin.
    pub(crate) waits: Semaphore,
    /// Connections to ports that may still be made.
    pub(crate) port_connections: Arc<Semaphore>,
    /// Commands and processes, running and remembered.
    pub(crate) processes: Arc<Table>,
    /// Shells that outlive their commands.
    pub(crate) sessions: Sessions,
    /// Background drains in progress, see [`crate::process`].
    pub(crate) drains: AtomicUsize,
    /// Interpreters that outlive their runs.
    pub(crate) contexts: Contexts,
    /// Bytes of output that may still be kept.
    pub(crate) log_budget: Arc<Budget>,
    /// Directories that are being checked out into.
    pub(crate) targets: Targets,
    /// The terminals that run or are remembered.
    pub(crate) terminals: Terminals,
    /// What is watched, and by how many.
    pub(crate) watches: Watches,
    /// Tasks that follow commands.
    pub(crate) tasks: TaskTracker,
    /// What `/proc` says about the machine.
    pub(crate) figures: Figures,
    /// What statfs(2) says about the sandbox's own files.
    pub(crate) room: Room,
}

/// Why the agent could not start or go on. The launcher's log shows it; nobody inside can.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("read the handoff argument")]
    Handoff(#[source] InvalidHandoff),
    #[error("take over descriptor {number}")]
    Adopt { number: RawFd, source: SysError },
    #[error("receive the configuration")]
    Config(#[source] io::Error),
    #[error("close the process to others")]
    Protect(#[source] SysError),
    #[error("open /dev/null")]
    Null(#[source] io::Error),
    #[error("take over the figures of the machine")]
    Figures(#[source] io::Error),
    #[error("take over what is told of the room on the disk")]
    Room(#[source] io::Error),
    #[error("prepare the working directory")]
    Workdir(#[source] ApiError),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("listen")]
    Listen(#[source] io::Error),
    #[error("wait for children")]
    Reap(#[source] io::Error),
}

/// Runs the agent with the descriptors that `handoff` names, see [`jail::handoff::Handoff`].
///
/// Returns only when it could not start or its socket broke; ending PID 1 ends the sandbox.
#[must_use]
pub fn main(handoff: &str) -> ExitCode {
    let Err(error) = run(handoff);
    report(&error);
    ExitCode::FAILURE
}

#[expect(clippy::print_stderr, reason = "the one report of a fatal error; the agent has no log")]
fn report(error: &dyn std::error::Error) {
    let mut text = format!("agent: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("{text}");
}

fn run(handoff: &str) -> Result<std::convert::Infallible, InitError> {
    sys::malloc::stay_small();
    let handoff: Handoff = handoff.parse().map_err(InitError::Handoff)?;
    protect().map_err(InitError::Protect)?;
    let listener = StdListener::from(adopt(handoff.listen)?);
    let channel = adopt(handoff.config)?;
    let inherited = Inherited::adopt(&handoff)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_stack_size(BLOCKING_STACK_BYTES)
        .build()
        .map_err(InitError::Runtime)?;
    // Whose it is, the agent learns here, and until then does nothing: maybe for hours. Everything that
    // does not depend on it is done before.
    let router = routes::router();
    if !sys::poll::wait_readable(channel.as_fd(), 0).unwrap_or(true) {
        look_ahead();
    }
    let config = AgentConfig::receive(channel.as_fd()).map_err(InitError::Config)?;
    drop(channel);
    let agent = Arc::new(prepare(inherited, config)?);
    runtime.block_on(live(listener, agent, router))
}

/// Finds what nearly every program is started with, while nobody waits: the first to look for a file pays
/// for looking into every layer of the image.
fn look_ahead() {
    for path in LOOKED_FOR {
        drop(file::open(file::cwd(), path, How::new(file::O_PATH)));
    }
}

/// Closes the agent to the sandbox's own root, and takes the orphans also where it is not PID 1.
fn protect() -> Result<(), SysError> {
    sys::process::not_dumpable()?;
    sys::credentials::set_no_new_privileges()?;
    sys::process::adopt_orphans()?;
    sys::process::set_umask(UMASK);
    Ok(())
}

fn adopt(number: RawFd) -> Result<OwnedFd, InitError> {
    sys::fd::adopt(number).map_err(|source| InitError::Adopt { number, source })
}

/// What the agent has from the launcher, whosever it is.
struct Inherited {
    null: OwnedFd,
    forest: Forest,
    v1_tasks: Vec<OwnedFd>,
    counters: Counters,
    figures: Figures,
    room: Room,
}

impl Inherited {
    fn adopt(handoff: &Handoff) -> Result<Self, InitError> {
        let optional = |number: Option<RawFd>| number.map(adopt).transpose();
        Ok(Self {
            null: File::open("/dev/null").map_err(InitError::Null)?.into(),
            forest: Forest::new(optional(handoff.cgroup)?),
            v1_tasks: handoff.tasks.iter().copied().map(adopt).collect::<Result<_, _>>()?,
            counters: Counters::new(
                optional(handoff.memory_events)?.map(File::from),
                optional(handoff.pids_events)?.map(File::from),
                optional(handoff.refusals)?,
            ),
            figures: Figures::new(
                optional(handoff.figures)?,
                optional(handoff.memory_stat)?,
                optional(handoff.cpu_stat)?,
            )
            .map_err(InitError::Figures)?,
            room: handoff
                .room
                .map(handed)
                .transpose()
                .and_then(|handed| Room::new(handed).map_err(InitError::Room))?,
        })
    }
}

fn handed(room: handoff::Room) -> Result<Handed, InitError> {
    let handoff::Room { charged, waiting, listener, limit_bytes, inherited_bytes } = room;
    Ok(Handed {
        charged: adopt(charged)?.into(),
        waiting: adopt(waiting)?.into(),
        listener: adopt(listener)?,
        limit_bytes,
        inherited_bytes,
    })
}

fn prepare(inherited: Inherited, config: AgentConfig) -> Result<Agent, InitError> {
    crate::file::make_directories(&config.workdir).map_err(InitError::Workdir)?;
    let mut env = default_env();
    env.extend(config.env);
    let (env, sessions) = (Environment::new(env), Sessions::new(&config.workdir));
    let definitions = Definitions::restore(config.definitions, &env, &sessions);
    let Inherited { null, forest, v1_tasks, counters, figures, room } = inherited;
    Ok(Agent {
        env,
        definitions,
        services: Services::new(config.services),
        workdir: config.workdir,
        null,
        forest,
        v1_tasks,
        counters,
        reaper: Reaper::default(),
        execs: Arc::new(Semaphore::new(EXECS_PER_SANDBOX)),
        places: Arc::new(Semaphore::new(PROCESSES_PER_SANDBOX)),
        waits: Semaphore::new(WAITS_PER_SANDBOX),
        port_connections: Arc::new(Semaphore::new(PORT_CONNECTIONS)),
        processes: Arc::default(),
        sessions,
        contexts: Contexts::default(),
        drains: AtomicUsize::new(0),
        log_budget: Arc::new(Budget::new(BUDGET_BYTES)),
        targets: Targets::default(),
        terminals: Terminals::default(),
        watches: Watches::default(),
        tasks: TaskTracker::new(),
        figures,
        room,
    })
}

async fn live(
    listener: StdListener,
    agent: Arc<Agent>,
    router: Router<Arc<Agent>>,
) -> Result<std::convert::Infallible, InitError> {
    listener.set_nonblocking(true).map_err(InitError::Listen)?;
    let listener = UnixListener::from_std(listener).map_err(InitError::Listen)?;
    // The handler must be there before the first child is.
    let mut child_ended = signal(SignalKind::child()).map_err(InitError::Reap)?;
    let router = router.with_state(Arc::clone(&agent));
    agent.services.start(&agent);
    let mut serving = std::pin::pin!(serve::serve(listener, (Arc::clone(&agent), router)));
    let mut keeping = std::pin::pin!(agent.figures.keep());
    let mut telling = std::pin::pin!(agent.room.keep());
    let mut defining = std::pin::pin!(definitions::keep_all(&agent));
    let mut tidying = std::pin::pin!(agent.processes.tidy());
    loop {
        tokio::select! {
            _ = child_ended.recv() => {
                if agent.reaper.reap().map_err(|error| InitError::Reap(to_io(error)))? > 0 {
                    // An orphan may have been the last process of a command's cgroup.
                    agent.forest.sweep();
                }
            }
            Err(error) = &mut serving => return Err(InitError::Listen(error)),
            Err(error) = &mut telling => return Err(InitError::Room(error)),
            never = &mut tidying => match never {},
            never = &mut defining => match never {},
            never = &mut keeping => match never {},
        }
    }
}

fn to_io(error: SysError) -> io::Error {
    io::Error::from_raw_os_error(error.errno)
}
