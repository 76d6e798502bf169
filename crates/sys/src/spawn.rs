//! Starting a program in a new session and, where wanted, in a cgroup of its own.
//!
//! std's `Command` cannot join a cgroup at birth, close what it does not know, or put a filter in
//! front of one call. The child is a copy of a process that may have threads, so between its birth
//! and its exec it makes plain calls only: no allocation, no lock, no formatting. Everything it
//! needs is in `Plan`, which is complete before the clone.
//!
//! The child reports a failed step as two integers on a pipe that its exec closes; silence and
//! end of file mean that the program runs.

use std::{
    convert::Infallible,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::SysError,
    fd, file,
    process::{self, Fork, Strings},
    pty, seccomp, signal,
};

pub use failure::{Failure, REPORT_BYTES, Step};

mod failure;
#[cfg(test)]
mod tests;

/// Exit code of a child that could not become its program; nobody but its own report explains it.
const FAILED_CODE: i32 = 127;

/// What to start.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// Paths of the program, tried in this order until one exists and may be executed.
    pub programs: &'a [CString],
    /// Its arguments, its own name first.
    pub argv: &'a [CString],
    /// Its environment, as `NAME=value`.
    pub envp: &'a [CString],
    /// Its working directory.
    pub cwd: BorrowedFd<'a>,
    /// Its stdin, stdout and stderr; descriptors above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Its descriptor 3, where it has one: what only the program is to find, and not what it starts.
    pub private: Option<BorrowedFd<'a>>,
    /// Its stdin is a terminal, and controls its session: it sends the session's signals.
    pub has_terminal: bool,
    /// Directory of the v2 cgroup it is born in; this process's own unless given.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// `tasks` files of the v1 cgroups it joins before anything else.
    pub tasks: &'a [BorrowedFd<'a>],
}

/// A child that is on its way to its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: i32,
    /// It, for signals.
    pub pidfd: OwnedFd,
    /// Ends without a byte when the program runs; else holds [`REPORT_BYTES`], see [`Failure`].
    pub report: OwnedFd,
}

/// [`Spawn`] as the child needs it, with nothing to compute.
struct Plan<'a> {
    spawn: &'a Spawn<'a>,
    argv: Strings<'a>,
    envp: Strings<'a>,
    report: BorrowedFd<'a>,
}

/// Starts a child that becomes the program. Does not wait for that: see [`Spawned::report`].
///
/// # Errors
/// Those of `clone3(2)`: `EAGAIN` at the pids limit, `EACCES`, `EBUSY` or `EOPNOTSUPP` when the
/// cgroup may not be joined; `EINVAL` when a descriptor for the program has one of its numbers.
///
/// Source: `clone3(2)`, Linux 5.7 for `CLONE_INTO_CGROUP`.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, SysError> {
    let (report, ours) = report_pipe()?;
    // Below that, a dup2 would overwrite a descriptor that a later one still needs.
    let first = if spawn.private.is_some() { 4 } else { 3 };
    let given = spawn
        .stdio
        .iter()
        .chain(&spawn.private)
        .chain([&ours.as_fd()])
        .any(|fd| fd.as_raw_fd() < first);
    if given {
        return Err(SysError { call: "spawn", errno: libc::EINVAL });
    }
    let (argv, envp) = (Strings::new(spawn.argv), Strings::new(spawn.envp));
    let plan = Plan { spawn, argv, envp, report: ours.as_fd() };
    match process::fork_without_handlers(spawn.cgroup)? {
        Fork::Child => child(&plan),
        Fork::Parent { pid, pidfd } => Ok(Spawned { pid, pidfd, report }),
    }
}

fn report_pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    let (reader, writer) = std::io::pipe().map_err(|error| SysError {
        call: "pipe2",
        errno: error.raw_os_error().unwrap_or_default(),
    })?;
    Ok((reader.into(), writer.into()))
}

fn child(plan: &Plan<'_>) -> ! {
    let Err(failure) = become_program(plan);
    // Nothing is left to be done if the parent cannot be told: it sees exit code 127.
    file::write_all(plan.report, &failure.to_bytes()).unwrap_or_default();
    process::exit(FAILED_CODE)
}

/// The child's steps. Cgroups come first, so that everything after is charged to them; the filter
/// after all calls but exec, because nothing before needs it.
fn become_program(plan: &Plan<'_>) -> Result<Infallible, Failure> {
    let Spawn { cwd, stdio, private, has_terminal, tasks, .. } = *plan.spawn;
    for tasks in tasks {
        // "0" names the writer itself, cgroups(7).
        in_step(Step::JoinCgroup, file::write_all(*tasks, b"0"))?;
    }
    in_step(Step::Session, process::new_session())?;
    for signal in 1..=signal::LAST {
        // Fails, as it should, for KILL and STOP.
        signal::default_action(signal).unwrap_or_default();
    }
    in_step(Step::Signals, signal::unblock_all())?;
    for (target, source) in (0..).zip(stdio) {
        in_step(Step::Stdio, fd::inherit_as(source, target))?;
    }
    if has_terminal {
        let [stdin, ..] = stdio;
        in_step(Step::Terminal, pty::control(stdin))?;
    }
    in_step(Step::WorkingDirectory, process::enter(cwd))?;
    if let Some(private) = private {
        in_step(Step::Stdio, fd::inherit_as(private, 3))?;
    }
    // Closed by exec and not now, because the report's pipe must live until then.
    let others = if private.is_some() { 4 } else { 3 };
    in_step(Step::CloseOthers, fd::close_on_exec_from(others))?;
    in_step(Step::Filter, seccomp::load(&seccomp::HIDE_CLONE3))?;
    Err(Failure { step: Step::Exec, errno: exec_first(plan) })
}

/// Turns the answer of a call into the report of its step.
fn in_step(step: Step, answer: Result<(), SysError>) -> Result<(), Failure> {
    answer.map_err(|error| Failure { step, errno: error.errno })
}

/// Tries the programs in turn, as execvp(3) does, and returns the errno that tells most: what was
/// there and could not be executed before what was not there.
fn exec_first(plan: &Plan<'_>) -> i32 {
    let mut answer = libc::ENOENT;
    for program in plan.spawn.programs {
        match process::exec_path(program, &plan.argv, &plan.envp).errno {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => answer = libc::EACCES,
            other => return other,
        }
    }
    answer
}
