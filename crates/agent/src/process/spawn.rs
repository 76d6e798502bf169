//! From a checked command to a child with its pipes and its cgroup.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use api::process::OutputStream;
use bytes::Bytes;
use sys::wait::Ended;
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

/// Makes the child. There is no await in here: the reaper must not run between the child's birth
/// and its entry in the reaper's list.
pub(super) fn spawn(
    agent: &Agent,
    invocation: Invocation,
    process: &Process,
) -> Result<Running, StartError> {
    let Invocation { programs, argv, envp, cwd, stdin, limit, place } = invocation;
    let (stdin_end, writer, content) = input(stdin).map_err(StartError::Pipes)?;
    let (stdout, stdout_end) = output(OutputStream::Stdout).map_err(StartError::Pipes)?;
    let (stderr, stderr_end) = output(OutputStream::Stderr).map_err(StartError::Pipes)?;
    let tasks: Vec<_> = agent.v1_tasks.iter().map(AsFd::as_fd).collect();
    let cgroup = agent.forest.plant().map_err(StartError::Cgroup)?;

    let before = agent.counters.read();
    let started = Instant::now();
    let spawned = sys::spawn::spawn(&sys::spawn::Spawn {
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
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.dir.as_fd()),
        tasks: &tasks,
    });
    let spawned = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
            return Err(StartError::Clone(error));
        }
    };
    let exit = agent.reaper.expect(spawned.pid);
    let tree = Arc::new(Tree { cgroup, leader: spawned.pid, pidfd: spawned.pidfd });
    let report = match pipe::Receiver::from_owned_fd(spawned.report) {
        Ok(report) => Some(report),
        Err(error) => {
            tree.kill();
            tree.cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
            return Err(StartError::Pipes(error));
        }
    };
    *process.tree() = Some(Arc::clone(&tree));
    let stdin = match content {
        Some(content) => writer.map(|writer| Input::new(writer, content)),
        None => {
            process.open_stdin(writer);
            None
        }
    };
    Ok(Running {
        pid: spawned.pid,
        tree,
        report,
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
