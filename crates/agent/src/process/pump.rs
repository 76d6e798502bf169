//! Follows one command: moves its output, enforces its deadline, sees its end.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::exec::ExecUsage;
use bytes::{Buf, Bytes};
use sys::{
    spawn::{Failure, REPORT_BYTES},
    wait::Ended,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::mpsc,
    time::{Instant, Sleep},
};

use super::{
    End, Event, Stream,
    ending::{Cause, Evidence, ending},
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
pub(super) struct Output {
    stream: Stream,
    /// None once it has ended.
    pipe: Option<pipe::Receiver>,
    /// Bytes that were in the pipe when the command ended and are not read yet.
    owed: usize,
}

impl Output {
    pub(super) fn new(stream: Stream, pipe: pipe::Receiver) -> Self {
        Self { stream, pipe: Some(pipe), owed: 0 }
    }

    /// The next bytes; never ready once the output has ended. An end is returned as no bytes.
    ///
    /// Cancel safety: nothing is read before the last await.
    async fn next(&mut self) -> Bytes {
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
    fn count_owed(&mut self) {
        if let Some(pipe) = &self.pipe {
            // A pipe always answers; if not, the grace period decides.
            self.owed = sys::pipe::pending(pipe.as_fd()).unwrap_or(0);
        }
    }
}

fn read_chunk(pipe: &pipe::Receiver) -> io::Result<Bytes> {
    let mut buffer = [0; CHUNK_BYTES];
    let length = pipe.try_read(&mut buffer)?;
    Ok(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()))
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

/// Follows a child from its birth until its reply is complete and its cgroup is gone.
pub(super) async fn follow(agent: Arc<Agent>, mut running: Running, events: mpsc::Sender<Event>) {
    if let Some(failure) = read_report(&mut running.report).await {
        drop(running.exit.await);
        agent.forest.fell(running.tree.cgroup);
        drop(events.send(Event::Failed(failure)).await);
        return;
    }
    let pid = running.pid;
    // A receiver that is gone already is seen by `pump`.
    drop(events.send(Event::Started { pid }).await);
    let (cause, ended) = pump(&mut running, &events).await;
    let end = conclude(&agent, &running, cause, ended);
    agent.forest.fell(running.tree.cgroup);
    drop(running.place);
    drop(events.send(Event::Ended(end)).await);
    drop(events);
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

/// Moves output until the command has ended and its output has been read. Returns why it was
/// killed, if it was, and how it ended, if it did.
///
/// Dropping an error of `reserve` is right: it means what `closed` says.
async fn pump(
    running: &mut Running,
    events: &mpsc::Sender<Event>,
) -> (Option<Cause>, Option<Ended>) {
    let Running { tree, exit, stdin, stdout, stderr, deadline, .. } = running;
    let deadline = deadline.map_or_else(|| Instant::now() + NEVER, Instant::from_std);
    let mut timer = std::pin::pin!(tokio::time::sleep_until(deadline));
    let mut timer_runs = true;
    let mut cause = None;
    let mut ended = None;
    let mut pending: Option<(Stream, Bytes)> = None;
    loop {
        let is_over = ended.is_some() || (cause.is_some() && !timer_runs);
        let is_read = pending.is_none() && stdout.owed == 0 && stderr.owed == 0;
        let is_closed = stdout.pipe.is_none() && stderr.pipe.is_none();
        if is_over && (events.is_closed() || (is_read && (is_closed || !timer_runs))) {
            return (cause, ended);
        }
        tokio::select! {
            () = events.closed(), if cause.is_none() && ended.is_none() => {
                cause = Some(Cause::CallerGone);
                tree.kill();
                restart(timer.as_mut(), KILL_WAIT);
            }
            end = &mut *exit, if ended.is_none() => {
                // The reaper keeps the other half until the child has ended.
                ended = end.ok();
                *stdin = None;
                stdout.count_owed();
                stderr.count_owed();
                restart(timer.as_mut(), DRAIN_GRACE);
            }
            () = &mut timer, if timer_runs => {
                if cause.is_none() && ended.is_none() {
                    cause = Some(Cause::Timeout);
                    tree.kill();
                    restart(timer.as_mut(), KILL_WAIT);
                } else {
                    timer_runs = false;
                }
            }
            chunk = stdout.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stdout.stream, chunk));
            }
            chunk = stderr.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stderr.stream, chunk));
            }
            place = events.reserve(), if pending.is_some() => {
                if let (Ok(place), Some((stream, bytes))) = (place, pending.take()) {
                    place.send(Event::Output(stream, bytes));
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
    End { ending, duration: running.started.elapsed(), usage }
}

/// Reads and throws away what background processes write until the last of them has closed its
/// output.
async fn discard(agent: &Agent, mut stdout: Output, mut stderr: Output) {
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
