//! Follows one command: moves its output, enforces its deadline, sees its end.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::{exec::ExecUsage, process::OutputStream};
use bytes::{Buf, Bytes};
use sys::{
    spawn::{Failure, REPORT_BYTES},
    wait::Ended,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::{
    Aftermath, End, Process,
    ending::{Cause, Evidence, ending},
    log::now_ms,
    spawn::Running,
};
use crate::init::Agent;

/// Bytes read from a pipe at once: half of what a pipe holds, so the writer need not wait.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;

/// How long the outputs of a command that ended may stay open before its reply: what a child
/// that is about to end still writes should be in it, and a server in the background should not
/// delay it.
const DRAIN_GRACE: Duration = Duration::from_millis(50);

/// How long a killed process may take to end before its reply goes out without its usage: only
/// one stuck in the kernel takes any.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// A moment that does not come while a command has no deadline: `EXEC_TIMEOUT_MS` is a day.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Background processes whose output is read and thrown away at once; the output of more is
/// closed. Each costs two descriptors.
const DRAINS: usize = 256;

/// Pause between reads of output that nobody wants: a background process that writes without end
/// must not keep the agent busy.
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// The reading end of one output.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stream: OutputStream,
    /// None once it has ended.
    pipe: Option<pipe::Receiver>,
    /// Bytes that were in the pipe when the command ended and are not read yet.
    pub(crate) owed: usize,
}

impl Output {
    pub(crate) fn new(stream: OutputStream, pipe: pipe::Receiver) -> Self {
        Self { stream, pipe: Some(pipe), owed: 0 }
    }

    /// One that has ended.
    pub(crate) fn closed(stream: OutputStream) -> Self {
        Self { stream, pipe: None, owed: 0 }
    }

    /// What is in the pipe now.
    pub(crate) async fn rest(&mut self) -> Option<(OutputStream, Vec<u8>)> {
        let mut rest = Vec::new();
        self.count_owed();
        // What is there makes the pipe readable, so this does not wait.
        while self.owed > 0 {
            rest.extend_from_slice(&self.next().await);
        }
        (!rest.is_empty()).then_some((self.stream, rest))
    }

    /// The next bytes; never ready once the output has ended. An end is returned as no bytes.
    ///
    /// Cancel safety: nothing is read before the last await.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        loop {
            let Some(pipe) = &self.pipe else { return std::future::pending().await };
            let chunk = match pipe.readable().await {
                Ok(()) => read_chunk(pipe),
                Err(error) => Err(error),
            };
            match chunk {
                Ok(chunk) => {
                    self.owed = self.owed.saturating_sub(chunk.len());
                    if chunk.is_empty() {
                        self.close();
                    }
                    return chunk;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.pipe = None;
        self.owed = 0;
    }

    /// Notes what the command left in the pipe: that much will be read, however slow the reader.
    pub(crate) fn count_owed(&mut self) {
        if let Some(pipe) = &self.pipe {
            // A pipe always answers; if not, the grace period decides.
            self.owed = sys::pipe::pending(pipe.as_fd()).unwrap_or(0);
        }
    }
}

fn read_chunk(pipe: &pipe::Receiver) -> io::Result<Vec<u8>> {
    let mut buffer = [0; CHUNK_BYTES];
    let length = pipe.try_read(&mut buffer)?;
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

/// The writing end of stdin and what is still to be written.
#[derive(Debug)]
pub(super) struct Input {
    pipe: pipe::Sender,
    rest: Bytes,
}

impl Input {
    pub(super) fn new(pipe: pipe::Sender, rest: Bytes) -> Self {
        Self { pipe, rest }
    }

    /// Writes all that is left; returns when it is written or nobody reads it any more.
    ///
    /// Cancel safety: what is written has left `rest`.
    async fn feed(input: &mut Option<Self>) {
        let Some(Self { pipe, rest }) = input else { return std::future::pending().await };
        while !rest.is_empty() {
            if pipe.writable().await.is_err() {
                return;
            }
            match pipe.try_write(rest) {
                Ok(written) => rest.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The command closed its stdin, as it may.
                Err(_) => return,
            }
        }
    }
}

/// Follows a child from its birth until its log is complete and its cgroup is gone.
pub(super) async fn follow(
    agent: Arc<Agent>,
    mut running: Running,
    process: Arc<Process>,
    tell: oneshot::Sender<Result<(), Failure>>,
) {
    if let Some(failure) = read_report(&mut running.report).await {
        drop(running.exit.await);
        agent.forest.fell(running.tree.cgroup);
        process.finish(End::lost());
        // The caller may be gone already.
        tell.send(Err(failure)).ok();
        return;
    }
    tell.send(Ok(())).ok();
    let (cause, ended) = pump(&mut running, &process).await;
    let end = conclude(&agent, &running, cause, ended);
    agent.forest.fell(running.tree.cgroup);
    drop(running.place);
    process.finish(end);
    drop(process);
    // What may follow can take as long as a server in the background lives.
    drop((running.tree.pidfd, running.report));
    if cause.is_none() {
        discard(&agent, running.stdout, running.stderr).await;
    }
}

async fn read_report(report: &mut pipe::Receiver) -> Option<Failure> {
    let mut bytes = [0; REPORT_BYTES];
    report.read_exact(&mut bytes).await.ok()?;
    Failure::from_bytes(bytes)
}

/// What the timer of a command stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// Its time is over.
    Deadline,
    /// It has not obeyed a signal.
    Grace,
    /// It has been killed and has not ended, or has ended and its outputs have not.
    Patience,
    /// Nothing is waited for any more.
    Over,
}

/// Moves output until the command has ended and its output has been read. Returns why it was
/// killed, if it was, and how it ended, if it did.
async fn pump(running: &mut Running, process: &Process) -> (Option<Cause>, Option<Ended>) {
    let Running { tree, exit, stdin, stdout, stderr, deadline, .. } = running;
    let deadline = deadline.map_or_else(|| Instant::now() + NEVER, Instant::from_std);
    let mut timer = std::pin::pin!(tokio::time::sleep_until(deadline));
    let mut timer_means = Timer::Deadline;
    let mut kills = process.kills();
    let mut cause = None;
    let mut ended = None;
    let mut pending: Option<(OutputStream, Vec<u8>)> = None;
    loop {
        let is_given_up = cause.is_some() && timer_means == Timer::Over;
        let is_read = pending.is_none() && stdout.owed == 0 && stderr.owed == 0;
        let is_closed = stdout.pipe.is_none() && stderr.pipe.is_none();
        let is_drained = is_read && (is_closed || timer_means == Timer::Over);
        if is_given_up || (ended.is_some() && is_drained) {
            return (cause, ended);
        }
        tokio::select! {
            Ok(()) = kills.changed(), if ended.is_none() => {
                let Some(kill) = *kills.borrow_and_update() else { continue };
                cause = cause.or(Some(kill.cause));
                if kill.grace.is_zero() {
                    tree.kill();
                    timer_means = Timer::Patience;
                    restart(timer.as_mut(), KILL_WAIT);
                } else {
                    tree.signal(kill.signal);
                    timer_means = Timer::Grace;
                    restart(timer.as_mut(), kill.grace);
                }
            }
            end = &mut *exit, if ended.is_none() => {
                // The reaper keeps the other half until the child has ended.
                ended = end.ok();
                if cause.is_some() {
                    tree.kill_rest();
                }
                *stdin = None;
                stdout.count_owed();
                stderr.count_owed();
                timer_means = Timer::Patience;
                restart(timer.as_mut(), DRAIN_GRACE);
            }
            () = &mut timer, if timer_means != Timer::Over => match timer_means {
                Timer::Deadline | Timer::Grace => {
                    cause = cause.or(Some(Cause::Timeout));
                    tree.kill();
                    timer_means = Timer::Patience;
                    restart(timer.as_mut(), KILL_WAIT);
                }
                Timer::Patience | Timer::Over => timer_means = Timer::Over,
            },
            chunk = stdout.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stdout.stream, chunk));
            }
            chunk = stderr.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stderr.stream, chunk));
            }
            () = process.log.room(), if pending.is_some() => {
                if let Some((stream, bytes)) = pending.take() {
                    process.log.append(stream, bytes);
                }
            }
            () = Input::feed(stdin), if stdin.is_some() => *stdin = None,
        }
    }
}

fn restart(timer: Pin<&mut Sleep>, after: Duration) {
    timer.reset(Instant::now() + after);
}

fn conclude(agent: &Agent, running: &Running, cause: Option<Cause>, ended: Option<Ended>) -> End {
    let evidence = Evidence {
        cause,
        status: ended.map(|ended| ended.status),
        before: running.before,
        after: agent.counters.read(),
    };
    let usage = ended.map_or_else(ExecUsage::default, |ended| ExecUsage {
        cpu_ms: u64::try_from(ended.cpu.as_millis()).unwrap_or(u64::MAX),
        peak_memory_bytes: ended.peak_memory_bytes,
    });
    let ending = ending(evidence, || crate::file::is_disk_full(&agent.workdir));
    End {
        ending,
        duration: running.started.elapsed(),
        usage,
        at_ms: now_ms(),
        aftermath: Aftermath::Kept,
    }
}

/// Reads and throws away what background processes write until the last of them has closed its
/// output.
pub(crate) async fn discard(agent: &Agent, mut stdout: Output, mut stderr: Output) {
    if stdout.pipe.is_none() && stderr.pipe.is_none() {
        return;
    }
    if agent.drains.fetch_add(1, Ordering::Relaxed) < DRAINS {
        while stdout.pipe.is_some() || stderr.pipe.is_some() {
            tokio::select! {
                chunk = stdout.next() => drop(chunk),
                chunk = stderr.next() => drop(chunk),
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }
    agent.drains.fetch_sub(1, Ordering::Relaxed);
}
