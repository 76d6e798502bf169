//! One command of a session: it waits for its turn, runs in the shell, and leaves the shell ready.
//!
//! Cancellation: a command has a task of its own. Wishes to end it come by its [`Process`], and the
//! end of its session by [`Session::destroyed`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorCode},
    exec::{Ending, ExecRequest, ExecUsage},
    process::OutputStream,
};
use sys::{
    signal::{SIGINT, SIGKILL},
    wait::Status,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    Place, Session, Slot, destroyed, lost, no_room,
    report::Report,
    shell::{Around, CutOff, Shell, TRIES},
    text,
};
use crate::{
    env::check_names,
    file,
    init::Agent,
    process::{
        Aftermath, Cause, Counts, DRAIN_GRACE, End, Evidence, Kill, Process,
        check::{environment, limit, stdin},
        ending,
        log::now_ms,
    },
};

/// Between two looks for the processes of a command that was asked to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Between two looks for a shell that waits although its command has not ended.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How long the output of a command may wait whose caller gets it at its end: most commands have ended
/// by then, and the agent is woken once for each, and not for each thing they write. A pipe holds what is
/// written until then, or its writer waits.
const UNWATCHED: Duration = Duration::from_millis(2);

/// A checked command.
#[derive(Debug)]
pub(super) struct Job {
    text: String,
    around: Around,
    limit: Option<Duration>,
    /// Its place among the commands of the sandbox, held until it has ended.
    place: OwnedSemaphorePermit,
}

impl Job {
    pub(super) fn check(
        request: ExecRequest,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, ApiError> {
        let text = text::of_command(request.command)?;
        check_names(&request.env)?;
        // For its limits: what it starts from is the shell's.
        environment(&std::collections::BTreeMap::new(), request.env.clone())?;
        let stdin = request.stdin.map(|text| stdin(text, request.encoding)).transpose()?;
        let limit = request.timeout_ms.map(limit).transpose()?;
        if request.cwd.as_ref().is_some_and(|cwd| cwd.contains('\0')) {
            return Err(ApiError::new(ErrorCode::InvalidPath, "a path holds no NUL byte"));
        }
        let around = Around { env: request.env, cwd: request.cwd, stdin };
        Ok(Self { text, around, limit, place })
    }
}

/// Whether the command began.
pub(super) type Begun = oneshot::Sender<Result<(), ApiError>>;

/// Runs a command to its end.
pub(super) async fn run(
    agent: Arc<Agent>,
    session: Arc<Session>,
    waiting: Place,
    (job, process, begun): (Job, Arc<Process>, Begun),
) {
    let mut kills = process.kills();
    let turn = tokio::select! {
        biased;
        () = session.destroyed() => Err(destroyed(&session.id)),
        Ok(_) = kills.wait_for(Option::is_some) => {
            let text = "the command was called off before its turn in the session came";
            Err(ApiError::new(ErrorCode::CommandExecutionError, text))
        }
        slot = session.turn.lock() => Ok(slot),
    };
    drop(kills);
    let mut slot = match turn {
        Ok(slot) => slot,
        Err(error) => return refuse(&process, begun, error),
    };
    session.touch();
    let before = agent.counters.read();
    let (shell, file) = match prepare(&agent, &session, &mut slot, &job).await {
        Ok(begun) => begun,
        Err(error) => {
            session.stay(None);
            return refuse(&process, begun, error);
        }
    };
    process.set_pid(shell.pid);
    // The caller may be gone already.
    begun.send(Ok(())).ok();
    let limit = job.limit.or(session.command_timeout);
    let mut course = Course::new(shell, file, limit, process.log.has_reader());
    course.has_substitutions = text::may_substitute_processes(&job.text);
    let end = follow(&agent, &session, course, &process, before).await;
    let aftermath = end.aftermath;
    session.touch();
    drop(waiting);
    drop(job.place);
    process.finish(end);
    drop(process);
    settle(&agent, &session, &mut slot, aftermath).await;
    session.stay(None);
}

fn refuse(process: &Process, begun: Begun, error: ApiError) {
    process.finish(End::lost());
    // The caller may be gone already.
    begun.send(Err(error)).ok();
}

/// Starts the command in the session's shell, which is started first if there is none.
async fn prepare<'a>(
    agent: &Arc<Agent>,
    session: &Session,
    slot: &'a mut Slot,
    job: &Job,
) -> Result<(&'a mut Shell, &'static str), ApiError> {
    let shell = session.shell(agent, slot).await?;
    if let Some(cwd) = &job.around.cwd {
        // Looked at first, because what a shell says of a directory is no code.
        let here = shell.cwd().unwrap_or_else(|| "/".into());
        file::open_directory(&here.to_string_lossy(), cwd)?;
        // Paths of other requests start where the session is, not where this command is.
        session.stay(Some(here));
    }
    let file = shell.prepare(&job.text, &job.around).map_err(|error| no_room(&error))?;
    let is_begun = async {
        if text::may_leave_a_loop(&job.text) {
            shell.begin_loop().await?;
        }
        shell.drop_noise().await;
        shell.source(file).await
    };
    if is_begun.await.is_err() {
        // It might still do what it was told.
        shell.kill().await;
        return Err(lost(&session.id));
    }
    Ok((shell, file))
}

/// Leaves the session ready for the next command.
async fn settle(agent: &Agent, session: &Session, slot: &mut Slot, aftermath: Aftermath) {
    let Some(shell) = &mut slot.shell else { return };
    if aftermath == Aftermath::Kept {
        match shell.tidy().await {
            Ok(left) => slot.keep_track(agent, left),
            // Whoever comes next finds it ended, and is told.
            Err(_broken) => shell.kill().await,
        }
        return;
    }
    shell.kill().await;
    slot.give_up();
    session.set_pid(None);
}

/// How it came that a command is over.
#[derive(Debug)]
enum Over {
    /// The shell says how it ended.
    Reported(Report),
    /// The shell ended.
    Exited(Status),
    /// It was cut off; with the shell, or without.
    CutOff { is_kept: bool },
}

/// A command under way.
struct Course<'a> {
    shell: &'a mut Shell,
    /// What the shell sources.
    file: &'static str,
    started: Instant,
    cause: Option<Cause>,
    /// The signal that it got for that.
    signal: i32,
    deadline: Option<Instant>,
    /// The deadline; once it was asked to end, the next look at whether it has.
    alarm: Option<Instant>,
    /// When its output begins to be watched.
    watched_from: Option<Instant>,
    /// Until when what the command started may obey a signal.
    grace: Option<Instant>,
    /// It did obey.
    has_obeyed: bool,
    watch: Watch,
    /// It may have begun processes that are part of its output and that the shell does not wait for.
    has_substitutions: bool,
    /// The report of a command that has such ones, and until when they may end.
    last_words: Option<(Report, Instant)>,
    over: Option<Over>,
    /// Output that the log has no room for yet.
    pending: VecDeque<(OutputStream, Vec<u8>)>,
}

/// The watch for a shell that a signal has thrown out of its command, and that waits for the agent as
/// the agent waits for it.
#[derive(Debug)]
struct Watch {
    at: Instant,
    /// It was seen to wait.
    has_seen: bool,
    /// It was called back.
    has_called: bool,
    /// Times that it was out of its loop before the command could begin.
    missed: usize,
}

/// Moves output until the command is over and its output has been read.
async fn follow(
    agent: &Agent,
    session: &Session,
    mut course: Course<'_>,
    process: &Process,
    before: Counts,
) -> End {
    let mut kills = process.kills();
    // One timer for the whole command: each new one costs a wake-up of the runtime.
    let mut bell = std::pin::pin!(sleep_until(course.next_ring()));
    let is_destroyed = loop {
        if bell.deadline() != course.next_ring() {
            bell.as_mut().reset(course.next_ring());
        }
        let Course { shell, over, pending, .. } = &mut course;
        let runs = over.is_none();
        if !runs && pending.is_empty() && shell.stdout.owed == 0 && shell.stderr.owed == 0 {
            break false;
        }
        let Shell { stdout, stderr, reports, exit, .. } = &mut **shell;
        tokio::select! {
            () = session.destroyed() => break true,
            Ok(()) = kills.changed(), if runs => {
                let kill = *kills.borrow_and_update();
                if let Some(kill) = kill {
                    course.kill(kill).await;
                }
            }
            () = &mut bell, if runs => course.ring().await,
            report = reports.next(), if runs => match report {
                Ok(report) => course.report(report).await,
                Err(_broken) => course.cut_off(Cause::Requested).await,
            },
            status = exit.wait(), if runs => course.end(Over::Exited(status)).await,
            chunk = stdout.next(), if pending.is_empty() => course.read(OutputStream::Stdout, chunk),
            chunk = stderr.next(), if pending.is_empty() => course.read(OutputStream::Stderr, chunk),
            // What is left of one that is over is no more than its pipes hold.
            () = process.log.room_unless(!runs), if !pending.is_empty() => {
                if let Some((stream, bytes)) = pending.pop_front() {
                    process.log.append(stream, bytes);
                }
            }
        }
    };
    let (status, aftermath) = course.judge(is_destroyed);
    let evidence = Evidence {
        cause: if is_destroyed { Some(Cause::Requested) } else { course.cause },
        signal: course.signal,
        status,
        before,
        after: if status == Some(Status::Exited(0)) { before } else { agent.counters.read() },
    };
    let ending = ending(evidence, || file::is_disk_full(&agent.workdir));
    course.remember(ending);
    let cpu_ms = u64::try_from(course.shell.lap().as_millis()).unwrap_or(u64::MAX);
    let usage = ExecUsage { cpu_ms, peak_memory_bytes: 0 };
    let refused = agent.counters.refused(before, ending).map(Arc::new);
    End { ending, refused, duration: course.started.elapsed(), usage, at_ms: now_ms(), aftermath }
}

impl<'a> Course<'a> {
    fn new(
        shell: &'a mut Shell,
        file: &'static str,
        limit: Option<Duration>,
        has_reader: bool,
    ) -> Self {
        let started = Instant::now();
        if has_reader {
            shell.watch_outputs();
        } else {
            shell.unwatch_outputs();
        }
        let deadline = limit.and_then(|limit| started.checked_add(limit));
        let watch =
            Watch { at: started + WATCH_INTERVAL, has_seen: false, has_called: false, missed: 0 };
        Self {
            shell,
            file,
            started,
            cause: None,
            signal: SIGKILL,
            deadline,
            alarm: deadline,
            watched_from: (!has_reader).then(|| started + UNWATCHED),
            grace: None,
            has_obeyed: false,
            watch,
            has_substitutions: false,
            last_words: None,
            over: None,
            pending: VecDeque::new(),
        }
    }

    fn next_ring(&self) -> Instant {
        let others = self.alarm.into_iter().chain(self.watched_from);
        others.fold(self.watch.at, Instant::min)
    }

    fn read(&mut self, stream: OutputStream, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            self.pending.push_back((stream, chunk));
        }
    }

    async fn report(&mut self, report: Report) {
        if self.shell.accept(&report) {
            if !self.has_substitutions || self.shell.is_alone() {
                return self.end(Over::Reported(report)).await;
            }
            self.shell.watch_outputs();
            self.last_words = Some((report, Instant::now() + DRAIN_GRACE));
            self.watch.at = Instant::now() + LOOK_INTERVAL;
            return;
        }
        if report.status != text::ENTERED {
            return;
        }
        if self.watch.has_called {
            // The command was interrupted, as one typed into a terminal can be.
            let status = 128 + SIGINT;
            return self.end(Over::Reported(Report { status, ..report })).await;
        }
        // A signal had thrown the shell out of its loop before, so the command has not begun.
        self.watch.missed += 1;
        if self.watch.missed > TRIES || self.shell.source(self.file).await.is_err() {
            self.cut_off(Cause::Requested).await;
        }
    }

    async fn end(&mut self, over: Over) {
        // A report that was written before the shell ended is the command's.
        let over = match over {
            Over::Exited(status) => match self.shell.reports.now().await {
                Ok(Some(report)) if self.shell.accept(&report) => Over::Reported(report),
                _ => Over::Exited(status),
            },
            over => over,
        };
        self.shell.stdout.count_owed();
        self.shell.stderr.count_owed();
        self.over = Some(over);
    }

    async fn kill(&mut self, kill: Kill) {
        if self.last_words.is_some() {
            return self.cut_off(kill.cause).await;
        }
        let cause = *self.cause.get_or_insert(kill.cause);
        self.signal = kill.signal;
        if kill.signal == SIGKILL || kill.grace.is_zero() {
            return self.cut_off(cause).await;
        }
        self.shell.ask(kill.signal).await;
        let now = Instant::now();
        // Who asks gently gives it no time that it did not have.
        self.grace = Some(self.deadline.into_iter().fold(now + kill.grace, Instant::min));
        self.alarm = Some(now);
    }

    async fn ring(&mut self) {
        let now = Instant::now();
        if self.watched_from.take_if(|from| now >= *from).is_some() {
            self.shell.watch_outputs();
        }
        if now >= self.watch.at {
            self.look_after().await;
        }
        if self.over.is_none() && self.alarm.is_some_and(|alarm| now >= alarm) {
            self.alarm().await;
        }
    }

    /// Looks whether the shell waits. Once may be by chance, on its way to its report.
    async fn look_after(&mut self) {
        if let Some((report, until)) = self.last_words.take() {
            if self.shell.is_alone() || Instant::now() >= until {
                return self.end(Over::Reported(report)).await;
            }
            self.last_words = Some((report, until));
            self.watch.at = Instant::now() + LOOK_INTERVAL;
            return;
        }
        let is_waiting = self.shell.is_at_home();
        let watch = &mut self.watch;
        let has_seen = std::mem::replace(&mut watch.has_seen, is_waiting);
        watch.at = Instant::now() + if is_waiting { LOOK_INTERVAL } else { WATCH_INTERVAL };
        if !is_waiting || !has_seen {
            return;
        }
        watch.at = Instant::now() + WATCH_INTERVAL;
        watch.has_seen = false;
        if std::mem::replace(&mut watch.has_called, true) || self.shell.call_back().await.is_err() {
            self.cut_off(Cause::Requested).await;
        }
    }

    /// The deadline has come, or it is time for a look at what was asked to end.
    async fn alarm(&mut self) {
        let Some(grace) = self.grace else { return self.cut_off(Cause::Timeout).await };
        self.has_obeyed = self.shell.others().is_empty();
        if self.has_obeyed || Instant::now() >= grace {
            return self.cut_off(Cause::Requested).await;
        }
        self.alarm = Some(Instant::now() + LOOK_INTERVAL);
    }

    async fn cut_off(&mut self, cause: Cause) {
        if let Some((report, _)) = self.last_words.take() {
            // It has ended; only what it wrote to has not.
            return self.end(Over::Reported(report)).await;
        }
        self.cause.get_or_insert(cause);
        match self.shell.cut_off().await {
            CutOff::Ended(report) => {
                // It was faster, so nothing cut it off.
                self.cause = None;
                self.end(Over::Reported(report)).await;
            }
            CutOff::Kept(rest) => {
                self.pending.extend(rest);
                self.over = Some(Over::CutOff { is_kept: true });
            }
            CutOff::Lost(rest) => {
                self.pending.extend(rest);
                self.over = Some(Over::CutOff { is_kept: false });
            }
        }
    }

    fn judge(&self, is_destroyed: bool) -> (Option<Status>, Aftermath) {
        if is_destroyed {
            return (None, Aftermath::Destroyed);
        }
        match &self.over {
            Some(Over::Reported(report)) => (Some(Status::Exited(report.status)), Aftermath::Kept),
            Some(Over::Exited(status)) => (Some(*status), Aftermath::Terminated),
            Some(Over::CutOff { is_kept }) => {
                // What obeyed is said to have been ended by the signal it was asked with.
                let status = self.has_obeyed.then_some(Status::Exited(0));
                (status, if *is_kept { Aftermath::Kept } else { Aftermath::Reset })
            }
            None => (None, Aftermath::Reset),
        }
    }

    /// What the next command of the session begins with.
    fn remember(&mut self, ending: Ending) {
        match self.over.take() {
            Some(Over::Reported(report)) => self.shell.remember(report),
            _ => self.shell.set_status(ending.exit_code()),
        }
    }
}
