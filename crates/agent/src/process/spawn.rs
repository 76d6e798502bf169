//! From a checked command to a child with its pipes and its cgroup.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use api::process::OutputStream;
use bytes::Bytes;
use sys::{spawn::Spawn, wait::Ended};
use tokio::{
    net::unix::pipe,
    sync::{OwnedSemaphorePermit, oneshot},
};

use super::{
    Invocation, Process, StartError,
    check::Stdin,
    ending::Counts,
    pump::{Input, Output},
    tree::Tree,
};
use crate::init::Agent;

/// A child and everything that belongs to it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) tree: Arc<Tree>,
    /// Until the program runs.
    pub(super) report: Option<pipe::Receiver>,
    pub(super) exit: oneshot::Receiver<Ended>,
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// The sandbox's counts before it started.
    pub(super) before: Counts,
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) place: OwnedSemaphorePermit,
}

/// A child in a cgroup of its own, on its way to its program.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) tree: Tree,
    /// Ends without a byte when the program runs, see [`sys::spawn::Spawned::report`].
    pub(crate) report: pipe::Receiver,
    pub(crate) exit: oneshot::Receiver<Ended>,
}

impl Child {
    /// Makes the child that `spawn` describes, whose cgroups are for this to say. There is no await
    /// in here: the reaper must not run between the child's birth and its entry in the reaper's list.
    pub(crate) fn spawn(agent: &Agent, spawn: &Spawn<'_>) -> Result<Self, StartError> {
        let tasks: Vec<_> = agent.v1_tasks.iter().map(AsFd::as_fd).collect();
        let cgroup = agent.forest.plant().map_err(StartError::Cgroup)?;
        let dir = cgroup.as_ref().map(|cgroup| cgroup.dir.as_fd());
        let spawned = sys::spawn::spawn(&Spawn { cgroup: dir, tasks: &tasks, ..*spawn });
        let spawned = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
                return Err(StartError::Clone(error));
            }
        };
        let exit = agent.reaper.expect(spawned.pid);
        let tree = Tree { cgroup, leader: spawned.pid, pidfd: spawned.pidfd };
        match pipe::Receiver::from_owned_fd(spawned.report) {
            Ok(report) => Ok(Self { tree, report, exit }),
            Err(error) => {
                tree.kill();
                tree.cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
                Err(StartError::Pipes(error))
            }
        }
    }
}

/// Makes the child of a process, and everything that belongs to it.
pub(super) fn spawn(
    agent: &Agent,
    invocation: Invocation,
    process: &Process,
) -> Result<Running, StartError> {
    let Invocation { programs, argv, envp, cwd, stdin, limit, place } = invocation;
    let (stdin_end, writer, content) = input(stdin).map_err(StartError::Pipes)?;
    let (stdout, stdout_end) = output(OutputStream::Stdout).map_err(StartError::Pipes)?;
    let (stderr, stderr_end) = output(OutputStream::Stderr).map_err(StartError::Pipes)?;
    let before = agent.counters.read();
    let started = Instant::now();
    let Child { tree, report, exit } = Child::spawn(
        agent,
        &Spawn {
            programs: &programs,
            argv: &argv,
            envp: &envp,
            cwd: cwd.as_fd(),
            stdio: [
                stdin_end.as_ref().unwrap_or(&agent.null).as_fd(),
                stdout_end.as_fd(),
                stderr_end.as_fd(),
            ],
            private: None,
            has_terminal: false,
            cgroup: None,
            tasks: &[],
        },
    )?;
    let (pid, tree) = (tree.leader, Arc::new(tree));
    *process.tree() = Some(Arc::clone(&tree));
    let stdin = match content {
        Some(content) => writer.map(|writer| Input::new(writer, content)),
        None => {
            process.open_stdin(writer);
            None
        }
    };
    Ok(Running {
        pid,
        tree,
        report: Some(report),
        exit,
        stdin,
        stdout,
        stderr,
        before,
        started,
        deadline: limit.and_then(|limit| started.checked_add(limit)),
        place,
    })
}

/// The child's end of its stdin, ours, and what is to be written into it.
fn input(stdin: Stdin) -> io::Result<(Option<OwnedFd>, Option<pipe::Sender>, Option<Bytes>)> {
    let content = match stdin {
        Stdin::Null => return Ok((None, None, None)),
        Stdin::File(file) => return Ok((Some(file), None, None)),
        Stdin::Content(content) => Some(content),
        Stdin::Open => None,
    };
    let (reader, writer) = io::pipe()?;
    Ok((Some(reader.into()), Some(pipe::Sender::from_owned_fd(writer.into())?), content))
}

/// One output of a process, and the end that the process writes to.
pub(crate) fn output(stream: OutputStream) -> io::Result<(Output, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((Output::new(stream, pipe::Receiver::from_owned_fd(reader.into())?), writer.into()))
}
