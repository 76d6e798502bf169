//! One run: it waits for its turn, is sent to the interpreter, and followed to its end.
//!
//! Cancellation: a run has a task of its own. Wishes to end it come by its [`Process`], and the end
//! of its context by [`Context::deleted`]. Either interrupts the code first, which the interpreter
//! outlives; what does not obey is killed with it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    exec::{Ending, ExecUsage, Refused},
    interpreter::{CodeErrorKind, RunCode, RunEvent, RunOutput},
    limit::{CODE_BYTES, INTERRUPT_GRACE_MS},
    process::OutputStream,
};
use serde::Serialize;
use sys::{signal::SIGKILL, wait::Status};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    bash,
    failure::{self, Lost},
    frame::{Failed, Frame, Said},
    idle,
    kernel::Kernel,
    language::Recipe,
    table::{Context, Place},
};
use crate::{
    env::check_names,
    init::Agent,
    process::{
        Aftermath, Cause, End, Evidence, Kill, Process,
        check::{environment, invalid, limit},
        ending,
        log::now_ms,
    },
};

/// How long interrupted code may take.
pub(super) const GRACE: Duration = Duration::from_millis(INTERRUPT_GRACE_MS);

/// How long the beginning of a line waits for its rest before it is shown: languages write a line and
/// its end one after the other.
const LINE_HOLD: Duration = Duration::from_millis(5);

/// Bytes of the beginning of a line that are held at most.
const HELD_BYTES: usize = 4096;

/// Outputs read ahead of a reader that does not read, once code was interrupted: what it prints on its
/// way out, so that it gets there. Each is what a pipe holds, or a result.
const PIECES_ON_THE_WAY_OUT: usize = 16;

/// A moment that does not come while nothing is waited for.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A checked request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: RunCode,
    pub(super) limit: Option<Duration>,
    /// Its place among the commands of the sandbox, held until it has ended.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Restarts of the context before it.
    generation: u64,
}

impl Job {
    pub(super) fn check(
        context: &Context,
        request: RunCode,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, ApiError> {
        if request.code.len() > CODE_BYTES {
            let text = format!("code has at most {CODE_BYTES} bytes; put data into files");
            let error = ApiError::new(ErrorCode::PayloadTooLarge, text);
            return Err(error.with("field", "code").with("limit", CODE_BYTES));
        }
        if let Some(language) = request.language.filter(|language| *language != context.language) {
            let text =
                format!("context '{}' speaks {}, not {language}", context.id, context.language);
            return Err(invalid("language", text));
        }
        check_names(&request.env)?;
        // For its limits: what it starts from is the interpreter's.
        environment(&BTreeMap::new(), request.env.clone())?;
        let limit = request.timeout_ms.map(limit).transpose()?;
        let generation = context.generation.load(Ordering::Relaxed);
        Ok(Self { request, limit, place: Some(place), generation })
    }
}

/// What the interpreter is sent.
#[derive(Debug, Serialize)]
struct Order<'a> {
    op: &'static str,
    id: u64,
    code: &'a str,
    env: &'a BTreeMap<String, Option<String>>,
    color: bool,
    /// The run before was interrupted, which may have taken no notice of it.
    after_interrupt: bool,
}

/// Whether the run began.
pub(super) type Begun = oneshot::Sender<Result<(), ApiError>>;

/// Runs code to its end.
pub(super) async fn run(
    agent: Arc<Agent>,
    context: Arc<Context>,
    waiting: Place,
    (mut job, process, begun): (Job, Arc<Process>, Begun),
) {
    let ran = in_turn(&agent, &context, (&mut job, &process, begun)).await;
    drop(waiting);
    drop(job);
    if let Some(end) = ran {
        process.finish(end);
    }
    idle::watch(&agent, &context);
}

/// Waits for the turn and runs. The process has not been finished when an end is returned.
async fn in_turn(
    agent: &Arc<Agent>,
    context: &Arc<Context>,
    (job, process, begun): (&mut Job, &Arc<Process>, Begun),
) -> Option<End> {
    let refuse = |begun: Begun, error| {
        process.finish(End::lost());
        // The caller may be gone already.
        begun.send(Err(error)).ok();
        None
    };
    let mut kills = process.kills();
    let turn = tokio::select! {
        biased;
        () = context.deleted() => Err(deleted(context, "deleted")),
        Ok(_) = kills.wait_for(Option::is_some) => {
            let text = "the run was called off before its turn in the context came";
            Err(ApiError::new(ErrorCode::CommandExecutionError, text))
        }
        slot = context.turn.lock() => Ok(slot),
    };
    drop(kills);
    let mut slot = match turn {
        Ok(_) if job.generation != context.generation.load(Ordering::Relaxed) => {
            return refuse(begun, deleted(context, "restarted"));
        }
        Ok(slot) => slot,
        Err(error) => return refuse(begun, error),
    };
    context.touch();
    let ended = slot.left.ended.take();
    let left: Vec<_> = slot.left.take().collect();
    if let Some(status) = ended {
        // What it kept is lost: nothing runs before somebody has been told.
        process.set_pid(1);
        begun.send(Ok(())).ok();
        return Some(found_ended(context, process, left, status));
    }
    let Some(recipe) = Recipe::of(context.language) else {
        return bash::run(agent, context, &mut slot, (job, process, begun)).await;
    };
    let kernel = tokio::select! {
        biased;
        () = context.deleted() => Err(deleted(context, "deleted")),
        kernel = context.kernel(agent, &mut slot, recipe) => kernel,
    };
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => return refuse(begun, error),
    };
    process.set_pid(kernel.pid);
    // The caller may be gone already.
    begun.send(Ok(())).ok();
    set_current(context, job, process);
    let count = context.count();
    let course = Course::new(context, kernel, job, count);
    let end = follow(agent, course, process, left).await;
    context.set_current(None);
    context.touch();
    if end.aftermath != Aftermath::Kept {
        context.end(agent, &mut slot).await;
    }
    Some(end)
}

/// The run is what its context's callers may interrupt. One for which a restart did not wait, because
/// its interpreter was starting then, ends at once.
pub(super) fn set_current(context: &Context, job: &Job, process: &Arc<Process>) {
    context.set_current(Some(Arc::clone(process)));
    if job.generation != context.generation.load(Ordering::Relaxed) {
        process.kill(Kill::now(Cause::Requested));
    }
}

/// The context is gone.
fn deleted(context: &Context, how: &str) -> ApiError {
    let text = format!("context '{}' was {how} while the run waited for its turn", context.id);
    ApiError::new(ErrorCode::ContextDeleted, text).with("contextId", context.id.as_str())
}

pub(super) fn announce(context: &Context, process: &Process) {
    let (context_id, process_id) = (context.id.clone(), process.about.id.clone());
    put(process, &RunEvent::Start { context_id, process_id }, true);
}

pub(super) fn put(process: &Process, event: &RunEvent, is_needed: bool) {
    let text = serde_json::to_vec(event).expect("an event is numbers, names and texts");
    process.log.append_event(text, is_needed);
}

/// The answer to who comes after an interpreter has ended by itself.
pub(super) fn found_ended(
    context: &Context,
    process: &Process,
    left: Vec<(OutputStream, Vec<u8>)>,
    status: Status,
) -> End {
    announce(context, process);
    for (stream, bytes) in left {
        process.log.append(stream, bytes);
    }
    let ending = match status {
        Status::Exited(code) => Ending::Exited { code },
        Status::Signaled(signal) => Ending::Signaled { signal },
    };
    put(process, &RunEvent::Error(failure::ended_before(ending)), true);
    let end = RunEvent::End {
        success: false,
        execution_count: 0,
        duration_ms: 0,
        context_reset: true,
        refused: None,
    };
    put(process, &end, true);
    // The code did not run; the interpreter is gone already.
    let (duration, usage, aftermath) = (Duration::ZERO, ExecUsage::default(), Aftermath::Reset);
    End { ending, refused: None, duration, usage, at_ms: now_ms(), aftermath }
}

/// How it came that a run is over.
#[derive(Debug)]
enum Over {
    /// The interpreter says so.
    Said,
    /// The interpreter ended; or had to be killed, when nothing is known of it.
    Ended(Option<Status>),
}

/// What is still to go into the log.
#[derive(Debug)]
enum Piece {
    Output(OutputStream, Vec<u8>),
    Event(Vec<u8>),
}

/// A run under way.
struct Course<'a> {
    context: &'a Context,
    kernel: &'a mut Kernel,
    job: &'a Job,
    count: u64,
    started: Instant,
    limit: Duration,
    cause: Option<Cause>,
    /// The deadline; once the code was interrupted, the next step against it.
    alarm: Instant,
    /// Until when the code may obey an interrupt.
    grace: Option<Instant>,
    failed: Option<Failed>,
    over: Option<Over>,
    pending: VecDeque<Piece>,
    /// The beginning of a line, and until when it waits for its rest.
    held: Option<(OutputStream, Vec<u8>, Instant)>,
}

/// Moves output and results until the run is over.
async fn follow(
    agent: &Agent,
    mut course: Course<'_>,
    process: &Process,
    left: Vec<(OutputStream, Vec<u8>)>,
) -> End {
    announce(course.context, process);
    course.pending.extend(left.into_iter().map(|(stream, bytes)| Piece::Output(stream, bytes)));
    let before = agent.counters.read();
    let mut kills = process.kills();
    kills.mark_changed();
    let context = course.context;
    course.send().await;
    loop {
        if course.over.is_some() && course.pending.is_empty() {
            break;
        }
        let (runs, alarm) = (course.over.is_none(), course.alarm);
        let ahead = if course.grace.is_some() { PIECES_ON_THE_WAY_OUT } else { 0 };
        let hold = course.held.as_ref().map(|(_, _, until)| *until);
        let Course { kernel, pending, .. } = &mut course;
        let Kernel { stdout, stderr, wire, exit, .. } = &mut **kernel;
        let reads = runs && pending.len() <= ahead;
        tokio::select! {
            () = context.deleted(), if runs => course.kill().await,
            Ok(()) = kills.changed(), if runs => {
                let kill = *kills.borrow_and_update();
                if let Some(kill) = kill {
                    course.wish(kill).await;
                }
            }
            () = sleep_until(alarm), if runs => course.ring().await,
            frame = wire.next(), if reads => match frame {
                Ok(frame) => course.frame(frame).await,
                // It cannot say any more how the run goes.
                Err(_broken) => course.ended().await,
            },
            _ = exit.wait(), if runs => course.ended().await,
            () = sleep_until(hold.unwrap_or(alarm)), if hold.is_some() => course.let_go(),
            chunk = stdout.next(), if reads => course.read(OutputStream::Stdout, chunk),
            chunk = stderr.next(), if reads => course.read(OutputStream::Stderr, chunk),
            // What is left of a run that is over is no more than its pipes hold.
            () = process.log.room_unless(!runs), if !pending.is_empty() => match pending.pop_front() {
                Some(Piece::Output(stream, bytes)) => process.log.append(stream, bytes),
                Some(Piece::Event(text)) => process.log.append_event(text, false),
                None => {}
            },
        }
    }
    let after = agent.counters.read();
    let status = match course.over {
        Some(Over::Ended(status)) => status,
        _ => Some(Status::Exited(0)),
    };
    let is_lost = matches!(course.over, Some(Over::Ended(_)));
    let evidence = Evidence { cause: course.cause, signal: SIGKILL, status, before, after };
    let ending = ending(evidence, || false);
    course.conclude(process, is_lost, ending, |ending| agent.counters.refused(before, ending))
}

impl<'a> Course<'a> {
    fn new(context: &'a Context, kernel: &'a mut Kernel, job: &'a Job, count: u64) -> Self {
        let started = Instant::now();
        let limit = job.limit.unwrap_or(context.timeout);
        Self {
            context,
            kernel,
            job,
            count,
            started,
            limit,
            cause: None,
            alarm: started.checked_add(limit).unwrap_or(started + NEVER),
            grace: None,
            failed: None,
            over: None,
            pending: VecDeque::new(),
            held: None,
        }
    }

    /// Hands the code over. It is read at once by an interpreter that works.
    async fn send(&mut self) {
        self.kernel.id += 1;
        let RunCode { code, env, color, .. } = &self.job.request;
        let after_interrupt = std::mem::take(&mut self.kernel.was_interrupted);
        let order =
            Order { op: "run", id: self.kernel.id, code, env, color: *color, after_interrupt };
        let order = serde_json::to_vec(&order).expect("an order is texts and numbers");
        let sent = tokio::time::timeout(GRACE, self.kernel.wire.send(&order)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.ended().await;
        }
    }

    fn read(&mut self, stream: OutputStream, chunk: Vec<u8>) {
        if chunk.is_empty() {
            return;
        }
        let (bytes, until) = match self.held.take() {
            Some((held, bytes, until)) if held == stream => ([bytes, chunk].concat(), until),
            other => {
                self.held = other;
                self.let_go();
                (chunk, Instant::now() + LINE_HOLD)
            }
        };
        if bytes.ends_with(b"\n") || bytes.len() > HELD_BYTES {
            self.pending.push_back(Piece::Output(stream, bytes));
        } else {
            self.held = Some((stream, bytes, until));
        }
    }

    /// Shows what was held.
    fn let_go(&mut self) {
        if let Some((stream, bytes, _)) = self.held.take() {
            self.pending.push_back(Piece::Output(stream, bytes));
        }
    }

    /// What is in the pipes was written before what was just said.
    async fn catch_up(&mut self) {
        for (stream, bytes) in
            [self.kernel.stdout.rest().await, self.kernel.stderr.rest().await].into_iter().flatten()
        {
            self.read(stream, bytes);
        }
        self.let_go();
    }

    async fn frame(&mut self, frame: Frame) {
        self.catch_up().await;
        if frame.awaits {
            // What it writes next comes after this.
            self.kernel.wire.acknowledge().await;
        }
        let is_of_this = frame.id == Some(self.kernel.id);
        let event = match frame.said {
            Said::Unreadable { why } => {
                let text = Some(format!("[a result that cannot be told: {why}]"));
                RunEvent::Result(Box::new(RunOutput { text, ..RunOutput::default() }))
            }
            // Of an earlier run: whoever it was for is gone.
            _ if !is_of_this => return,
            Said::Result(shown) => RunEvent::Result(Box::new(shown.output())),
            Said::Clear { wait } => RunEvent::Clear { wait },
            Said::Error(failed) => {
                self.failed = Some(failed);
                return;
            }
            Said::End { count } => {
                self.count = count;
                self.over = Some(Over::Said);
                return;
            }
            Said::Ready | Said::Missing { .. } | Said::Kept { .. } | Said::Unfit { .. } => return,
        };
        let text = serde_json::to_vec(&event).expect("an event is numbers, names and texts");
        self.pending.push_back(Piece::Event(text));
    }

    /// The interpreter has ended, or does not speak any more.
    async fn ended(&mut self) {
        // What it said before is still to be heard.
        while self.over.is_none()
            && let Ok(Some(frame)) = self.kernel.wire.now()
        {
            self.frame(frame).await;
        }
        if self.over.is_none() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) {
        let status = self.kernel.kill().await;
        self.catch_up().await;
        self.over = Some(Over::Ended(status));
    }

    async fn wish(&mut self, kill: Kill) {
        let cause = *self.cause.get_or_insert(kill.cause);
        match (cause, kill.signal) {
            (Cause::Requested, SIGKILL) => self.kill().await,
            (Cause::Requested, _) => self.interrupt(kill.grace),
            (Cause::CallerGone | Cause::Timeout, _) => self.interrupt(GRACE),
        }
    }

    fn interrupt(&mut self, grace: Duration) {
        self.kernel.interrupt();
        let now = Instant::now();
        self.grace = Some(now + grace);
        // Once more on half way: code may have taken the first one for something else.
        self.alarm = now + grace / 2;
    }

    async fn ring(&mut self) {
        match self.grace {
            None => {
                self.cause.get_or_insert(Cause::Timeout);
                self.interrupt(GRACE);
            }
            Some(until) if Instant::now() < until => {
                self.kernel.interrupt();
                self.alarm = until;
            }
            Some(_) => self.kill().await,
        }
    }

    /// Says how the run ended. `refused` is what the network refused meanwhile to code that ended like
    /// that.
    fn conclude(
        self,
        process: &Process,
        is_lost: bool,
        ending: Ending,
        refused: impl FnOnce(Ending) -> Option<Refused>,
    ) -> End {
        let duration = self.started.elapsed();
        let lost = is_lost.then_some(Lost { ending, is_deleted: self.context.is_deleted() });
        let error = match (lost, self.cause, self.failed) {
            (None, None, None) => None,
            (None, None, Some(failed)) => Some(failure::raised(failed)),
            (None, Some(cause), failed) => Some(failure::interrupted(cause, self.limit, failed)),
            (Some(lost), cause, failed) => Some(failure::lost(lost, cause, self.limit, failed)),
        };
        let success = error.is_none();
        let kind = error.as_ref().map(|error| error.kind);
        if let Some(error) = error {
            put(process, &RunEvent::Error(error), true);
        }
        let ending = match kind {
            _ if is_lost => ending,
            Some(CodeErrorKind::Timeout) => Ending::Timeout,
            Some(CodeErrorKind::Interrupted) => Ending::Killed { signal: sys::signal::SIGINT },
            Some(_) => Ending::Exited { code: 1 },
            None => Ending::Exited { code: 0 },
        };
        let refused = kind.and_then(|_failed| refused(ending));
        let end = RunEvent::End {
            success,
            execution_count: self.count,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            context_reset: is_lost,
            refused: refused.clone(),
        };
        put(process, &end, true);
        let aftermath = if is_lost { Aftermath::Reset } else { Aftermath::Kept };
        End {
            ending,
            refused: refused.map(Arc::new),
            duration,
            usage: ExecUsage::default(),
            at_ms: now_ms(),
            aftermath,
        }
    }
}
