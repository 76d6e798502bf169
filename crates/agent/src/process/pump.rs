//! Follows one command: moves its output, enforces its deadline, sees its end.

use std::{
    cell::RefCell,
    fs::File,
    future::poll_fn,
    io::{self, Read},
    mem::{self, MaybeUninit},
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use api::{exec::ExecUsage, process::OutputStream};
use bytes::{Buf, Bytes};
use sys::{
    signal::{SIGCONT, SIGKILL},
    spawn::{Failure, REPORT_BYTES},
    wait::Ended,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::pipe,
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::{
    Aftermath, End, Kill, Process,
    ending::{Cause, Evidence, ending},
    log::now_ms,
    spawn::Running,
    tree::Tree,
};
use crate::init::Agent;

/// Bytes read from a pipe at once: half of what a pipe holds, so the writer need not wait.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;

/// How long the outputs of a command that ended may stay open before its reply: what a child
/// that is about to end still writes should be in it, and a server in the background should not
/// delay it.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_millis(50);

/// How long a killed process may take to end before its reply goes out without its usage: only
/// one stuck in the kernel takes any.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(2);

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
    pipe: Pipe,
    /// Bytes that were in the pipe when the command ended and are not read yet.
    pub(crate) owed: usize,
}

#[derive(Debug)]
enum Pipe {
    /// It has ended.
    Closed,
    /// Read when it is known that there is something; nothing wakes the agent for it.
    Unwatched(File),
    Watched(pipe::Receiver),
}

impl Output {
    pub(crate) fn new(stream: OutputStream, pipe: pipe::Receiver) -> Self {
        Self { stream, pipe: Pipe::Watched(pipe), owed: 0 }
    }

    /// One that has ended.
    pub(crate) fn closed(stream: OutputStream) -> Self {
        Self { stream, pipe: Pipe::Closed, owed: 0 }
    }

    fn is_closed(&self) -> bool {
        matches!(self.pipe, Pipe::Closed)
    }

    /// From now on it is read as it is written.
    pub(crate) fn watch(&mut self) {
        self.pipe = match mem::replace(&mut self.pipe, Pipe::Closed) {
            Pipe::Unwatched(pipe) => pipe::Receiver::from_owned_fd_unchecked(pipe.into())
                .map_or(Pipe::Closed, Pipe::Watched),
            other => other,
        };
    }

    /// From now on only [`Output::rest`] and what is owed are read.
    pub(crate) fn unwatch(&mut self) {
        self.pipe = match mem::replace(&mut self.pipe, Pipe::Closed) {
            Pipe::Watched(pipe) => pipe
                .into_nonblocking_fd()
                .map_or(Pipe::Closed, |pipe| Pipe::Unwatched(File::from(pipe))),
            other => other,
        };
    }

    /// What is in the pipe now.
    pub(crate) async fn rest(&mut self) -> Option<(OutputStream, Vec<u8>)> {
        let mut rest = Vec::new();
        self.count_owed();
        // What is there is told of, so this does not wait.
        while self.owed > 0 {
            rest.extend_from_slice(&self.next().await);
        }
        (!rest.is_empty()).then_some((self.stream, rest))
    }

    /// The next bytes; never ready once the output has ended, nor while nothing watches it and nothing is
    /// owed. An end is returned as no bytes.
    ///
    /// Cancel safety: nothing is read before the last await.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        let read = match &mut self.pipe {
            Pipe::Watched(pipe) => {
                // Not `readable` and a read: that looks once more after each read whether there is more.
                poll_fn(|context| poll_chunk(pipe, context)).await
            }
            Pipe::Unwatched(pipe) if self.owed > 0 => read_chunk(pipe, self.owed),
            Pipe::Unwatched(_) | Pipe::Closed => return std::future::pending().await,
        };
        let Ok(chunk) = read else {
            self.close();
            return Vec::new();
        };
        self.owed = self.owed.saturating_sub(chunk.len());
        if chunk.is_empty() {
            self.close();
        }
        chunk
    }

    fn close(&mut self) {
        self.pipe = Pipe::Closed;
        self.owed = 0;
    }

    /// Notes what the command left in the pipe: that much will be read, however slow the reader.
    pub(crate) fn count_owed(&mut self) {
        let pending = match &self.pipe {
            Pipe::Closed => return,
            Pipe::Unwatched(pipe) => sys::pipe::pending(pipe.as_fd()),
            Pipe::Watched(pipe) => sys::pipe::pending(pipe.as_fd()),
        };
        // A pipe always answers; if not, the grace period decides.
        self.owed = pending.unwrap_or(0);
    }
}

fn read_chunk(pipe: &mut File, owed: usize) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; owed.min(CHUNK_BYTES)];
    let read = pipe.read(&mut chunk)?;
    chunk.truncate(read);
    Ok(chunk)
}

thread_local! {
    /// Where outputs are read to first. Not on the stack: the compiler has every page of a large array
    /// there touched, and what is touched is copied again after each fork.
    static SPACE: RefCell<Box<[MaybeUninit<u8>]>> = RefCell::new(Box::new_uninit_slice(CHUNK_BYTES));
}

fn poll_chunk(pipe: &mut pipe::Receiver, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
    SPACE.with_borrow_mut(|space| {
        let mut chunk = ReadBuf::uninit(space);
        ready!(Pin::new(pipe).poll_read(context, &mut chunk))?;
        // Copied to its size: what is kept for long takes no more.
        Poll::Ready(Ok(chunk.filled().to_vec()))
    })
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
    let tree = Arc::clone(&running.tree);
    let course = match pump(&agent, &mut running, &process, tell).await {
        Ok(course) => course,
        Err((failure, tell)) => {
            tree.kill();
            // Its end may have been seen before its report was.
            if !running.exit.is_terminated() {
                // Only a child stuck in the kernel takes any time.
                drop(tokio::time::timeout(KILL_WAIT, running.exit).await);
            }
            tree.cgroup.iter().for_each(|cgroup| drop(agent.forest.fell(cgroup)));
            process.finish(End::lost());
            // The caller may be gone already.
            tell.send(Err(failure)).ok();
            return;
        }
    };
    let end = conclude(&agent, &running, &course);
    if let Some(rest) = tree.cgroup.as_ref().and_then(|cgroup| agent.forest.fell(cgroup)) {
        process.rest.get_or_init(|| rest);
    }
    drop(running.place);
    process.finish(end);
    // What may follow can take as long as a server in the background lives.
    drop((process, tree, running.tree));
    if course.cause.is_none() {
        discard(&agent, running.stdout, running.stderr).await;
    }
}

/// Ends when it is known whether the program runs, with what kept it from running.
///
/// Cancel safety: a report is written at once, so it is read at once.
pub(crate) async fn read_report(report: &mut Option<pipe::Receiver>) -> Option<Failure> {
    let Some(pipe) = report else { return std::future::pending().await };
    let mut bytes = [0; REPORT_BYTES];
    let read = loop {
        let read = match pipe.readable().await {
            Ok(()) => pipe.try_read(&mut bytes),
            Err(error) => Err(error),
        };
        if !matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            break read;
        }
    };
    *report = None;
    if read.ok()? == REPORT_BYTES { Failure::from_bytes(bytes) } else { None }
}

/// What the timer of a command stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// Its time is over.
    Deadline,
    /// Its tree has not obeyed a signal.
    Grace,
    /// It has been killed and has not ended, or has ended and its outputs have not.
    Patience,
    /// Nothing is waited for any more.
    Over,
}

/// How far a command is on its way to its end.
#[derive(Debug)]
struct Course {
    tree: Arc<Tree>,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    means: Timer,
    /// Why it was killed, if it was.
    cause: Option<Cause>,
    /// The signal it got first.
    signal: i32,
    /// How it ended, if it did.
    ended: Option<Ended>,
}

impl Course {
    fn new(running: &Running) -> Self {
        let deadline = running.deadline.map_or_else(|| Instant::now() + NEVER, Instant::from_std);
        Self {
            tree: Arc::clone(&running.tree),
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            means: Timer::Deadline,
            cause: None,
            signal: SIGKILL,
            ended: None,
        }
    }

    fn wait(&mut self, means: Timer, time: Duration) {
        self.wait_until(means, Instant::now() + time);
    }

    fn wait_until(&mut self, means: Timer, until: Instant) {
        self.means = means;
        self.timer.as_mut().reset(until);
    }

    /// Somebody wants its end.
    fn kill(&mut self, kill: Kill) {
        if self.cause.is_none() {
            (self.cause, self.signal) = (Some(kill.cause), kill.signal);
        }
        if kill.is_forced() {
            return self.force();
        }
        self.tree.signal(kill.signal);
        // What is stopped could not obey.
        self.tree.signal(SIGCONT);
        // Who asks gently gives it no time that it did not have.
        self.wait_until(Timer::Grace, self.deadline.min(Instant::now() + kill.grace));
    }

    fn force(&mut self) {
        if self.ended.is_none() {
            self.tree.kill();
            self.wait(Timer::Patience, KILL_WAIT);
        } else {
            self.tree.kill_rest();
            self.wait(Timer::Patience, DRAIN_GRACE);
        }
    }

    fn ring(&mut self) {
        match self.means {
            Timer::Deadline => {
                self.cause = Some(Cause::Timeout);
                self.force();
            }
            Timer::Grace => self.force(),
            Timer::Patience | Timer::Over => self.means = Timer::Over,
        }
    }

    /// The leader has ended. What it leaves behind is left alone, unless its end was asked for.
    fn end(&mut self, ended: Option<Ended>) {
        self.ended = ended;
        if self.cause.is_none() {
            self.wait(Timer::Patience, DRAIN_GRACE);
        } else if self.means != Timer::Grace || self.tree.is_empty() {
            self.force();
        }
    }

    /// True while a signal may still be obeyed by what the leader left behind.
    fn is_graceful(&self) -> bool {
        self.ended.is_some() && self.means == Timer::Grace
    }
}

/// Moves output until the command has ended and its output has been read, or it does not end.
///
/// # Errors
/// When the child could not become the program.
async fn pump(
    agent: &Agent,
    running: &mut Running,
    process: &Process,
    tell: oneshot::Sender<Result<(), Failure>>,
) -> Result<Course, (Failure, oneshot::Sender<Result<(), Failure>>)> {
    let mut course = Course::new(running);
    let Running { pid, exit, report, stdin, stdout, stderr, .. } = running;
    let mut tell = Some(tell);
    let mut kills = process.kills();
    let mut pending: Option<(OutputStream, Vec<u8>)> = None;
    loop {
        let is_over = course.means == Timer::Over;
        let is_closed = stdout.is_closed() && stderr.is_closed();
        let is_read = pending.is_none() && stdout.owed == 0 && stderr.owed == 0;
        let is_drained = !course.is_graceful() && is_read && (is_closed || is_over);
        if report.is_none() && course.ended.is_some() && is_drained {
            return Ok(course);
        }
        if course.ended.is_none() && is_over {
            // It does not even die: the kernel holds it.
            begin(process, *pid, tell.take());
            return Ok(course);
        }
        tokio::select! {
            failure = read_report(report), if report.is_some() => match (failure, tell.take()) {
                (Some(failure), Some(tell)) => return Err((failure, tell)),
                (_, tell) => begin(process, *pid, tell),
            },
            Ok(()) = kills.changed(), if course.ended.is_none() || course.is_graceful() => {
                if let Some(kill) = *kills.borrow_and_update() {
                    course.kill(kill);
                }
            }
            // The reaper keeps the other half until the child has ended.
            end = &mut *exit, if course.ended.is_none() => {
                course.end(end.ok());
                *stdin = None;
                process.close_stdin();
                stdout.count_owed();
                stderr.count_owed();
            }
            () = agent.reaper.reaped(), if course.is_graceful() => {
                if course.tree.is_empty() {
                    course.force();
                }
            }
            () = &mut course.timer, if course.means != Timer::Over => course.ring(),
            chunk = stdout.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stdout.stream, chunk));
            }
            chunk = stderr.next(), if pending.is_none() => {
                pending = (!chunk.is_empty()).then_some((stderr.stream, chunk));
            }
            // What is left of one that is over is no more than its pipes hold.
            () = process.log.room_unless(is_over), if pending.is_some() => {
                if let Some((stream, bytes)) = pending.take() {
                    process.log.append(stream, bytes);
                }
            }
            () = Input::feed(stdin), if stdin.is_some() => *stdin = None,
        }
    }
}

/// The program runs.
fn begin(process: &Process, pid: i32, tell: Option<oneshot::Sender<Result<(), Failure>>>) {
    process.set_pid(pid);
    if let Some(tell) = tell {
        // The caller may be gone already.
        tell.send(Ok(())).ok();
    }
}

fn conclude(agent: &Agent, running: &Running, course: &Course) -> End {
    let evidence = Evidence {
        cause: course.cause,
        signal: course.signal,
        status: course.ended.map(|ended| ended.status),
        before: running.before,
        after: agent.counters.read(),
    };
    let usage = course.ended.map_or_else(ExecUsage::default, |ended| ExecUsage {
        cpu_ms: u64::try_from(ended.cpu.as_millis()).unwrap_or(u64::MAX),
        peak_memory_bytes: ended.peak_memory_bytes,
    });
    let ending = ending(evidence, || crate::file::is_disk_full(&agent.workdir));
    End {
        ending,
        refused: agent.counters.refused(running.before, ending).map(Arc::new),
        duration: running.started.elapsed(),
        usage,
        at_ms: now_ms(),
        aftermath: Aftermath::Kept,
    }
}

/// Reads and throws away what background processes write until the last of them has closed its
/// output.
pub(crate) async fn discard(agent: &Agent, mut stdout: Output, mut stderr: Output) {
    if stdout.is_closed() && stderr.is_closed() {
        return;
    }
    if agent.drains.fetch_add(1, Ordering::Relaxed) < DRAINS {
        stdout.watch();
        stderr.watch();
        while !(stdout.is_closed() && stderr.is_closed()) {
            tokio::select! {
                chunk = stdout.next() => drop(chunk),
                chunk = stderr.next() => drop(chunk),
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }
    agent.drains.fetch_sub(1, Ordering::Relaxed);
}
