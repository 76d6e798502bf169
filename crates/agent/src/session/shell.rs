//! One shell: how it starts, is told what to do, is cut off, and ends.
//!
//! ```text
//! start.bash ─▶ loop.bash ─▶ report ─▶ (a line with a name) ─▶ sources it ─▶ report ─▶ ...
//!                   ▲                                            │ cut off, `break`
//!                   └──────────── top level ◀────────────────────┘
//! ```
//!
//! What the shell sources is a file in its [`Dir`]; the line that names it goes through its
//! standard input, which is a pipe that only the agent writes to. It reports through another pipe.
//! Commands see neither: their standard input is `/dev/null`, and both descriptors close on exec.
//!
//! Invariant: every file that the shell is told to source is answered by one report, unless the
//! shell is cut off or ends.
//! Invariant: each wait for the shell has a limit, but the one for a command of the session.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    process::OutputStream,
};
use bytes::Bytes;
use sys::{
    SysError, errno, pidfd,
    signal::{self, SIGCONT, SIGINT, SIGKILL, SIGSTOP},
    spawn::{Failure, REPORT_BYTES, Spawn, Step},
};
use tokio::{
    net::unix::pipe,
    time::{Instant, timeout},
};

use super::{
    Broken,
    dir::{Dir, FileId},
    proc,
    report::{Report, Reports},
    text,
};
use crate::{
    init::Agent,
    process::{Cgroup, Exit, Output, discard, family_of, kill_family},
};

/// Paths of bash, tried in turn.
const PROGRAMS: [&CStr; 3] = [c"/bin/bash", c"/usr/bin/bash", c"/usr/local/bin/bash"];

/// Interactive, because only then an error in a command does not end the shell and an interrupt
/// comes back to the top level; without anything else of that. `+o history`: what the agent says is
/// nobody's history.
const ARGUMENTS: [&CStr; 7] =
    [c"bash", c"--noprofile", c"--norc", c"--noediting", c"+o", c"history", c"-i"];

/// Variables that would make the shell act at its start; bash gives them their values itself.
const NOT_INHERITED: [&str; 2] = ["SHELLOPTS", "BASHOPTS"];

/// How long a shell may take to start. It takes milliseconds; a machine may be very busy.
const START_WAIT: Duration = Duration::from_secs(10);

/// How long a file of the agent's own may take. It takes less than a millisecond, but traps of the
/// session may run before it.
const STEP_WAIT: Duration = Duration::from_secs(5);

/// Between two looks for a shell that waits although it has been told to do something: a signal has thrown
/// it out of that.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long a process may take to stop, or to end when it is killed: only one that is stuck in the
/// kernel takes any.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Between two looks for something of which the kernel gives no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Looks for descriptors before there are none: a shell that goes on runs into at most one.
const LOOKS: usize = 5;

/// How long a shell that was cut off may take to come back before it is interrupted directly: it is
/// then in a call that no trap ends, like the opening of a named pipe.
const RETURN_WAIT: Duration = Duration::from_millis(50);

/// How long it may take after that before it counts as lost, with all its state: a machine may be very
/// busy.
const INTERRUPT_WAIT: Duration = Duration::from_secs(3);

/// How often the shell may be found out of its loop before it counts as lost: an interrupt throws it
/// out once.
pub(super) const TRIES: usize = 5;

/// Bytes of the list of a cgroup with the shell alone in it.
const ALONE_BYTES: usize = 32;

/// Names and values.
type Variables = Vec<(Vec<u8>, Vec<u8>)>;

/// What a command wrote that nobody has read yet.
pub(super) type Rest = Vec<(OutputStream, Vec<u8>)>;

/// What became of a command that was cut off.
#[derive(Debug)]
pub(super) enum CutOff {
    /// It had ended by itself.
    Ended(Report),
    /// It is over and the shell goes on.
    Kept(Rest),
    /// The shell is over too.
    Lost(Rest),
}

/// What the shell is to do before and around a command, and after it.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// For this command only.
    pub(super) env: BTreeMap<String, Option<String>>,
    pub(super) cwd: Option<String>,
    pub(super) stdin: Option<Bytes>,
}

impl Around {
    fn is_empty(&self) -> bool {
        self.env.is_empty() && self.cwd.is_none() && self.stdin.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Shell {
    agent: Arc<Agent>,
    pub(super) pid: i32,
    pidfd: OwnedFd,
    pub(super) exit: Exit,
    group: Option<Group>,
    dir: Dir,
    control: pipe::Sender,
    control_id: FileId,
    pub(super) reports: Reports,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    outputs: Outputs,
    /// What the next command begins with.
    last: Report,
    /// Of the last line.
    id: u64,
    /// Of the last line that was answered.
    answered: u64,
    /// Puts back what was there for one command only.
    undo: Vec<u8>,
    has_input: bool,
    cpu: proc::Cpu,
}

/// The pipes behind stdout and stderr.
#[derive(Debug)]
struct Outputs {
    ids: Option<[FileId; 2]>,
    /// Their names end in 0, otherwise in 1.
    is_even: bool,
}

/// The cgroup that a shell is in.
#[derive(Debug)]
struct Group {
    cgroup: Cgroup,
    procs: File,
}

impl Group {
    fn of(cgroup: Option<Cgroup>) -> Result<Option<Self>, SysError> {
        let Some(cgroup) = cgroup else { return Ok(None) };
        let procs = cgroup.procs()?;
        Ok(Some(Self { cgroup, procs }))
    }
}

impl Shell {
    /// Starts a shell in `cwd` with these variables.
    pub(super) async fn start(
        agent: &Arc<Agent>,
        env: &BTreeMap<String, String>,
        cwd: OwnedFd,
    ) -> Result<Self, ApiError> {
        let (mut shell, failure) =
            Self::spawn(agent, env, &cwd).map_err(|error| not_started(error.errno))?;
        let begun = async {
            let begin = text::begin(shell.dir.path(), env.contains_key("PS1"));
            shell.say(&begin).await?;
            shell.entered(START_WAIT).await.map_err(|_reason| Broken)?;
            shell.dir.remove("status");
            shell.refresh().await
        };
        let is_begun = begun.await.is_ok();
        if is_begun { Ok(shell) } else { Err(refused(read_failure(&failure))) }
    }

    /// Makes the child. There is no await in here: the reaper must not run between the child's
    /// birth and its entry in the reaper's list.
    fn spawn(
        agent: &Arc<Agent>,
        env: &BTreeMap<String, String>,
        cwd: &OwnedFd,
    ) -> Result<(Self, OwnedFd), SysError> {
        let dir = Dir::make()?;
        dir.put_texts()?;
        let reports = pipe::Receiver::from_owned_fd(dir.make_pipe("status", true)?.0)
            .map_err(|e| of_io(&e))?;
        let (stdin, control) = io::pipe().map_err(|error| of_io(&error))?;
        let control = File::from(OwnedFd::from(control));
        let control_id = FileId::of(&control.metadata().map_err(|e| of_io(&e))?);
        let control = pipe::Sender::from_owned_fd(control.into()).map_err(|e| of_io(&e))?;
        let programs = PROGRAMS.map(CStr::to_owned);
        let argv = ARGUMENTS.map(CStr::to_owned);
        let envp = env
            .iter()
            .filter(|(name, _)| !NOT_INHERITED.contains(&name.as_str()))
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_zero| SysError { call: "environment", errno: errno::EINVAL })?;
        let tasks: Vec<_> = agent.v1_tasks.iter().map(AsFd::as_fd).collect();
        let group = Group::of(agent.forest.plant()?)?;
        let spawned = sys::spawn::spawn(&Spawn {
            private: None,
            has_terminal: false,
            programs: &programs,
            argv: &argv,
            envp: &envp,
            cwd: cwd.as_fd(),
            // Its outputs come with the first `refresh`.
            stdio: [stdin.as_fd(), agent.null.as_fd(), agent.null.as_fd()],
            cgroup: group.as_ref().map(|group| group.cgroup.dir.as_fd()),
            tasks: &tasks,
        });
        let spawned = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                group.iter().for_each(|group| drop(agent.forest.fell(&group.cgroup)));
                return Err(error);
            }
        };
        let exit = Exit::new(agent.reaper.expect(spawned.pid));
        let shell = Self {
            agent: Arc::clone(agent),
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            exit,
            group,
            dir,
            control,
            control_id,
            reports: Reports::new(reports),
            stdout: Output::closed(OutputStream::Stdout),
            stderr: Output::closed(OutputStream::Stderr),
            outputs: Outputs { ids: None, is_even: false },
            last: Report::default(),
            id: 0,
            answered: 0,
            undo: Vec::new(),
            has_input: false,
            cpu: proc::Cpu::of(spawned.pid),
        };
        Ok((shell, spawned.report))
    }

    /// Puts a command where the shell will find it, and returns the name of the file to begin with.
    pub(super) fn prepare(
        &mut self,
        command: &str,
        around: &Around,
    ) -> Result<&'static str, SysError> {
        let mut text = Vec::new();
        if self.last.has_surprises() {
            // In the command's own file, and not before it, where they would act too early.
            let path = self.dir.path();
            let and = if self.last.status == 0 { "" } else { " && :" };
            text.extend(format!("\\builtin . {path}/before{and}\n").bytes());
            self.dir.write("before", &text::before(&self.last))?;
        }
        text.extend_from_slice(command.as_bytes());
        self.dir.write("command", &text)?;
        let has_status = self.last.status == 0 || self.last.has_surprises();
        if has_status && around.is_empty() {
            return Ok("command");
        }
        let written = self.step_around(around).and_then(|step| self.dir.write("step", &step));
        // Nothing was done that would have to be put back.
        written.inspect_err(|_refused| self.undo.clear())?;
        Ok("step")
    }

    fn step_around(&mut self, around: &Around) -> Result<Vec<u8>, SysError> {
        let Around { env, cwd, stdin } = around;
        let hidden: Vec<&str> =
            env.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| &**name).collect();
        let mut step = Vec::new();
        if !hidden.is_empty() {
            self.dir.write("saved", b"")?;
            step.extend(text::hide(self.dir.path(), &hidden));
            self.undo.extend(text::show(self.dir.path(), &hidden));
        }
        if let Some(cwd) = cwd {
            match proc::cwd(self.pid).filter(|here| proc::is_at(self.pid, here)) {
                Some(here) => {
                    step.extend(text::enter(cwd));
                    self.undo.extend(text::leave(&proc::bytes(here)));
                }
                // There would be no way back.
                None => step.extend_from_slice(text::NOWHERE),
            }
        }
        let path = self.dir.path().to_owned();
        if self.last.status != 0 && !self.last.has_surprises() {
            self.dir.write("before", &text::before(&self.last))?;
            // `&&`, so that it counts as no failure.
            step.extend(format!("\\builtin . {path}/before && :\n").bytes());
        }
        step.extend(b"! ");
        step.extend(text::assignments(env));
        // By `command`, variables before it are for it alone, also in POSIX mode.
        step.extend(format!("\\builtin command . {path}/command").bytes());
        if let Some(stdin) = stdin {
            self.has_input = true;
            self.dir.write("input", stdin)?;
            step.extend(format!(" <{path}/input").bytes());
        }
        // On its line, because `set -v` in it shows the lines that follow.
        step.extend(b"; ");
        step.extend(text::RETURN_STATUS);
        Ok(step)
    }

    /// Makes the shell source one of its files. It answers with a report of the last id.
    pub(super) async fn source(&mut self, file: &str) -> Result<(), Broken> {
        self.id += 1;
        self.say(&text::line(self.dir.path(), file, self.id)).await
    }

    /// Makes the shell begin its loop anew: what it sources first then is in no loop.
    pub(super) async fn begin_loop(&mut self) -> Result<(), Broken> {
        let left = async {
            self.source(text::LEAVE).await?;
            // None if it was out of its loop already; now it has come back.
            if self.answer().await?.is_none() {
                return Ok(());
            }
            self.call_back().await?;
            self.entered(STEP_WAIT).await.map(drop).map_err(|_reason| Broken)
        };
        timeout(STEP_WAIT, left).await.unwrap_or(Err(Broken))
    }

    /// Throws away what was written since the last command: that is no command's.
    pub(super) async fn drop_noise(&mut self) {
        drop((self.stdout.rest().await, self.stderr.rest().await));
    }

    /// From now on output is read as it is written.
    pub(super) fn watch_outputs(&mut self) {
        self.stdout.watch();
        self.stderr.watch();
    }

    /// From now on output is read when the command has ended.
    pub(super) fn unwatch_outputs(&mut self) {
        self.stdout.unwatch();
        self.stderr.unwatch();
    }

    /// Takes this for the answer to what the shell was last told, unless it is one that comes late: to
    /// [`text::NOTHING`], or to what it was told before and did not seem to have heard. A command that
    /// sets all variables back changes the id that it is reported with, to an older one or to none.
    pub(super) fn accept(&mut self, report: &Report) -> bool {
        let late = self.answered + 1..self.id;
        let is_late = report.id.is_some_and(|id| id == 0 || late.contains(&id));
        let is_answer = report.status != text::ENTERED && !is_late;
        if is_answer {
            self.answered = self.id;
        }
        is_answer
    }

    /// Brings the shell back into its loop, wherever it waits. There is never more than one line in
    /// the pipe, because the top level takes all that there is and keeps what it does not need.
    pub(super) async fn call_back(&mut self) -> Result<(), Broken> {
        match sys::pipe::pending(self.control.as_fd()) {
            Ok(0) => self.say(&text::line(self.dir.path(), text::NOTHING, 0)).await,
            _ => Ok(()),
        }
    }

    /// True when the shell waits for the agent, and so runs neither a command nor a trap. One that is
    /// stopped there waits as well, whatever it has to read.
    pub(super) fn is_at_home(&self) -> bool {
        let is_home = |file| FileId::of(&file) == self.control_id;
        let reads = proc::descriptor(self.pid, 0).is_some_and(is_home);
        let is_unread = sys::pipe::pending(self.control.as_fd()).is_ok_and(|bytes| bytes > 0);
        reads && (!is_unread || proc::state(self.pid) == Some('T'))
    }

    /// Calls the shell back if it waits although it was told to do something: what it was told was lost.
    async fn look_for(&mut self, has_seen: &mut bool) -> Result<(), Broken> {
        // Once may be by chance, on its way to its report.
        let is_waiting = self.is_at_home();
        if std::mem::replace(has_seen, is_waiting) && is_waiting {
            self.call_back().await?;
            *has_seen = false;
        }
        Ok(())
    }

    /// Remembers what the next command begins with.
    pub(super) fn remember(&mut self, report: Report) {
        self.last = report;
    }

    /// The next command begins with this `$?`.
    pub(super) fn set_status(&mut self, status: i32) {
        self.last.status = status;
    }

    async fn say(&mut self, line: &str) -> Result<(), Broken> {
        let write = async {
            loop {
                self.control.writable().await?;
                match self.control.try_write(line.as_bytes()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // A line fits into the pipe, which is empty but for it.
                    other => return other.map(drop),
                }
            }
        };
        match timeout(STEP_WAIT, write).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Broken),
        }
    }

    /// Makes the shell do something of the agent's own, and returns the variables that it reports.
    /// It must do no harm to do it twice.
    async fn step(&mut self, text: &[u8]) -> Result<Variables, Broken> {
        self.dir.write("step", text).map_err(|_refused| Broken)?;
        let answered = async {
            for _ in 0..TRIES {
                self.source("step").await?;
                if let Some(report) = self.answer().await? {
                    return Ok(report.variables);
                }
            }
            Err(Broken)
        };
        timeout(STEP_WAIT, answered).await.unwrap_or(Err(Broken))
    }

    /// The answer to what the shell was told; none if it was out of its loop and did not do it, or
    /// not to the end.
    async fn answer(&mut self) -> Result<Option<Report>, Broken> {
        let mut has_seen = false;
        loop {
            let report = tokio::select! {
                report = self.reports.next() => report?,
                _ = self.exit.wait() => return Err(Broken),
                () = tokio::time::sleep(WATCH_INTERVAL) => {
                    self.look_for(&mut has_seen).await?;
                    continue;
                }
            };
            if report.status == text::ENTERED {
                return Ok(None);
            }
            if self.accept(&report) {
                return Ok(Some(report));
            }
        }
    }

    /// Sets and unsets variables, and returns the names of those that the shell would not change.
    pub(super) async fn export(
        &mut self,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let refused = self.step(&text::exports(changes)).await?;
        Ok(refused.into_iter().map(|(name, _)| name).collect())
    }

    /// Its exported variables; none if they are too long to be told.
    pub(super) async fn variables(&mut self) -> Result<Option<Variables>, Broken> {
        let variables = self.step(&text::report_variables(self.dir.path())).await;
        self.dir.remove("names");
        Ok(Some(variables?).filter(|all| all.iter().all(|(name, _)| !name.is_empty())))
    }

    /// Makes it ready for the next command: takes back what was for the last one only and, if that
    /// left something running, moves away from it. Returns the name of the cgroup that was left.
    pub(super) async fn tidy(&mut self) -> Result<Option<CString>, Broken> {
        let undo = std::mem::take(&mut self.undo);
        if std::mem::take(&mut self.has_input) {
            self.dir.remove("input");
        }
        if !undo.is_empty() {
            self.step(&undo).await?;
        }
        if self.is_alone() {
            return Ok(None);
        }
        let left = self.move_away().await.map_err(|_refused| Broken)?;
        self.refresh().await?;
        Ok(left.map(|cgroup| {
            let name = cgroup.name.clone();
            self.agent.forest.fell(&cgroup);
            self.agent.forest.sweep();
            name
        }))
    }

    /// True when nothing else is in its cgroup. Without one that cannot be known.
    pub(super) fn is_alone(&self) -> bool {
        let Some(group) = &self.group else { return false };
        let mut list = [0; ALONE_BYTES];
        let length = group.procs.read_at(&mut list, 0).unwrap_or(0);
        list.get(..length) == Some(format!("{}\n", self.pid).as_bytes())
    }

    /// Goes into a new cgroup, and returns the old one with all that is left in it.
    async fn move_away(&mut self) -> Result<Option<Cgroup>, SysError> {
        let Some(new) = Group::of(self.agent.forest.plant()?)? else { return Ok(None) };
        let pid = self.pid;
        let procs = new.procs.try_clone().map_err(|error| of_io(&error))?;
        // The kernel waits here until no process is just being made, for 10 ms and more.
        let moved = tokio::task::spawn_blocking(move || {
            (&procs).write_all(pid.to_string().as_bytes()).map_err(|error| of_io(&error))
        });
        let moved = moved.await.unwrap_or(Err(SysError { call: "thread", errno: errno::EAGAIN }));
        if let Err(error) = moved {
            self.agent.forest.fell(&new.cgroup);
            return Err(error);
        }
        Ok(self.group.replace(new).map(|old| old.cgroup))
    }

    /// Gives the shell new outputs. What still has the old ones goes on writing into the void.
    async fn refresh(&mut self) -> Result<(), Broken> {
        let [old, new] = if self.outputs.is_even { [0, 1] } else { [1, 0] };
        let name = |stream, number| format!("{stream}{number}");
        let (stdout, stdout_id) = self.make_output(&name("out", new), OutputStream::Stdout)?;
        let (stderr, stderr_id) = self.make_output(&name("err", new), OutputStream::Stderr)?;
        let ids = [stdout_id, stderr_id];
        let pairs = ["out", "err"].map(|stream| [name(stream, old), name(stream, new)]);
        let [[_, new_stdout], [_, new_stderr]] = &pairs;
        let led = self.find_led_to(self.outputs.ids).await;
        let path = self.dir.path();
        let text = if self.outputs.ids.is_none() {
            text::open_outputs(path, [new_stdout, new_stderr])
        } else {
            let pairs = [&pairs[0], &pairs[1]].map(|[old, new]| [&**old, &**new]);
            text::replace_outputs(path, &led, pairs)
        };
        self.step(&text).await?;
        // Without its directory the shell finds neither the old ones nor the new ones.
        let is_led = self.outputs.ids.is_none() || !led.is_empty();
        if is_led && self.find_led_to(Some(ids)).await.is_empty() {
            return Err(Broken);
        }
        self.outputs = Outputs { ids: Some(ids), is_even: new == 0 };
        self.discard_outputs((stdout, stderr));
        Ok(())
    }

    /// Puts others in place of its outputs, whose readers stay for those that still write to them.
    fn discard_outputs(&mut self, (stdout, stderr): (Output, Output)) {
        let stdout = std::mem::replace(&mut self.stdout, stdout);
        let stderr = std::mem::replace(&mut self.stderr, stderr);
        let agent = Arc::clone(&self.agent);
        self.agent.tasks.spawn(async move { discard(&agent, stdout, stderr).await });
    }

    fn make_output(&self, name: &str, stream: OutputStream) -> Result<(Output, FileId), Broken> {
        let (pipe, id) = self.dir.make_pipe(name, false).map_err(|_refused| Broken)?;
        let pipe = pipe::Receiver::from_owned_fd(pipe).map_err(|_no_pipe| Broken)?;
        Ok((Output::new(stream, pipe), id))
    }

    /// As [`Shell::led_to`], of a shell that may be about to take a redirection back: the kernel does
    /// not list descriptors at one moment, so 1 can be seen before that and its copy not after it.
    async fn find_led_to(&self, files: Option<[FileId; 2]>) -> Vec<i32> {
        for _ in 1..LOOKS {
            let led = self.led_to(files);
            if !led.is_empty() || files.is_none() {
                return led;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.led_to(files)
    }

    /// The shell's descriptors that may lead to these files. Which of them do is for the shell to
    /// see: while it reports, 1 and 2 lead elsewhere, and copies of them that will not stay lead
    /// here. Commands may have changed all of them with `exec`.
    fn led_to(&self, files: Option<[FileId; 2]>) -> Vec<i32> {
        let Some(files) = files else { return Vec::new() };
        let led = proc::descriptors(self.pid)
            .into_iter()
            .filter(|(_, metadata)| files.contains(&FileId::of(metadata)))
            .map(|(number, _)| number);
        let led: BTreeSet<i32> = led.collect();
        if led.is_empty() { Vec::new() } else { led.into_iter().chain([1, 2]).collect() }
    }

    /// The processes of the command, if there is one: all but the shell.
    pub(super) fn others(&self) -> Vec<i32> {
        let all = match &self.group {
            Some(group) => group.cgroup.members(),
            None => family_of(self.pid),
        };
        // Without a cgroup, what has ended is seen until the shell has waited for it.
        let is_alive = |pid: i32| self.group.is_some() || proc::state(pid) != Some('Z');
        all.into_iter().filter(|pid| *pid != self.pid && is_alive(*pid)).collect()
    }

    /// Stops the shell, so that it runs nothing more, and sends `signal` to everything else.
    pub(super) async fn ask(&mut self, signal: i32) {
        self.stop().await;
        for pid in self.others() {
            // An error means that it has ended.
            if let Ok(process) = pidfd::open(pid) {
                signal::send(process.as_fd(), signal).unwrap_or(());
                // What is stopped could not obey.
                signal::send(process.as_fd(), SIGCONT).unwrap_or(());
            }
        }
    }

    /// Ends the command and, if it can be, keeps the shell.
    pub(super) async fn cut_off(&mut self) -> CutOff {
        let is_stopped = self.stop().await;
        if let Ok(Some(report)) = self.reports.now().await
            && self.accept(&report)
        {
            self.signal(SIGCONT);
            return CutOff::Ended(report);
        }
        // A command can take our trap away; then the shell would go on with what comes next in it.
        let can_return = is_stopped && proc::catches(self.pid, signal::LAST);
        if can_return {
            self.signal(signal::LAST);
        }
        let is_apart = self.kill_others().await;
        let (stdout, stderr) = (self.stdout.rest().await, self.stderr.rest().await);
        let rest = stdout.into_iter().chain(stderr).collect();
        if can_return && is_apart && self.come_back().await.is_ok() {
            return CutOff::Kept(rest);
        }
        self.kill().await;
        CutOff::Lost(rest)
    }

    fn signal(&self, signal: i32) {
        // An error means that it has ended.
        signal::send(self.pidfd.as_fd(), signal).unwrap_or(());
    }

    /// Returns true when the shell runs no further.
    async fn stop(&mut self) -> bool {
        self.signal(SIGSTOP);
        let until = Instant::now() + STOP_WAIT;
        loop {
            match proc::state(self.pid) {
                Some('T' | 't') => return true,
                None | Some('Z' | 'X') => return false,
                Some(_) if Instant::now() > until => return false,
                Some(_) => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Kills everything that the command started, while the shell is stopped. Returns true when all
    /// of it is gone and the shell is not.
    async fn kill_others(&mut self) -> bool {
        if self.group.is_none() {
            kill_family(self.pid, false);
            return self.exit.now().is_none();
        }
        let Ok(Some(old)) = self.move_away().await else { return false };
        // An error means that nothing is left.
        old.kill().unwrap_or(());
        let until = Instant::now() + STOP_WAIT;
        while !old.members().is_empty() && Instant::now() < until {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let is_empty = old.members().is_empty();
        self.agent.forest.fell(&old);
        is_empty && self.exit.now().is_none()
    }

    /// Lets the stopped shell run our trap, and leads it back into its loop.
    async fn come_back(&mut self) -> Result<(), Broken> {
        self.dir.remove("int");
        self.call_back().await?;
        self.signal(SIGCONT);
        let report = match self.entered(RETURN_WAIT).await {
            Err(None) => {
                self.signal(SIGINT);
                self.call_back().await?;
                self.entered(INTERRUPT_WAIT).await
            }
            other => other,
        };
        // The trap that the loop takes away was set before the loop was entered again, so the loop
        // does not see it; what is remembered of it stays.
        self.last.flags = report.map_err(|_reason| Broken)?.flags;
        let mut restore = text::restore_trap(self.dir.path());
        restore.extend(std::mem::take(&mut self.undo));
        self.step(&restore).await?;
        self.refresh().await
    }

    /// Waits for the shell to report that it is in its loop. What it writes on its way there is no
    /// command's.
    async fn entered(&mut self, limit: Duration) -> Result<Report, Option<Broken>> {
        self.watch_outputs();
        let entered = async {
            let mut has_seen = false;
            loop {
                let Self { reports, exit, stdout, stderr, .. } = self;
                tokio::select! {
                    report = reports.next() => match report {
                        Ok(report) if report.status == text::ENTERED => return Ok(report),
                        // The command's own, which it could not finish.
                        Ok(_) => {}
                        Err(broken) => return Err(Some(broken)),
                    },
                    _ = exit.wait() => return Err(Some(Broken)),
                    noise = stdout.next() => drop(noise),
                    noise = stderr.next() => drop(noise),
                    () = tokio::time::sleep(WATCH_INTERVAL) => {
                        self.look_for(&mut has_seen).await.map_err(Some)?;
                    }
                }
            }
        };
        timeout(limit, entered).await.unwrap_or(Err(None))
    }

    /// Kills the shell and everything in its cgroup, and waits for its end.
    pub(super) async fn kill(&mut self) {
        self.kill_now();
        // What the kernel holds is not waited for.
        drop(timeout(STOP_WAIT, self.exit.wait()).await);
    }

    fn kill_now(&mut self) {
        if self.exit.now().is_some() {
            return;
        }
        let killed = self.group.as_ref().is_some_and(|group| group.cgroup.kill().is_ok());
        if !killed {
            kill_family(self.pid, true);
            self.signal(SIGKILL);
        }
    }

    /// Gives up the shell, which has ended, and returns the name of its cgroup: what the shell left
    /// running runs on, and writes into the void.
    pub(super) fn leave(mut self) -> Option<CString> {
        let cgroup = self.group.take()?.cgroup;
        self.discard_outputs((
            Output::closed(OutputStream::Stdout),
            Output::closed(OutputStream::Stderr),
        ));
        let name = cgroup.name.clone();
        self.agent.forest.fell(&cgroup);
        Some(name)
    }

    /// Its current directory.
    pub(super) fn cwd(&self) -> Option<std::path::PathBuf> {
        proc::cwd(self.pid)
    }

    /// Time that it and what it waited for had on a CPU since this was asked last.
    pub(super) fn lap(&mut self) -> Duration {
        self.cpu.lap()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            // An error means that nothing is left.
            group.cgroup.kill().unwrap_or(());
            self.agent.forest.fell(&group.cgroup);
        }
        self.kill_now();
    }
}

/// What the child said when it could not become the shell.
fn read_failure(report: &OwnedFd) -> Option<Failure> {
    // The writing end is closed: by the program's start, or by the child's end.
    let mut report = File::from(report.try_clone().ok()?);
    let mut bytes = [0; REPORT_BYTES];
    io::Read::read_exact(&mut report, &mut bytes).ok()?;
    Failure::from_bytes(bytes)
}

fn of_io(error: &io::Error) -> SysError {
    SysError { call: "pipe", errno: error.raw_os_error().unwrap_or(errno::EIO) }
}

/// There is no child at all.
fn not_started(error: i32) -> ApiError {
    let (code, cause) = match error {
        errno::EAGAIN => (
            ErrorCode::CommandExecutionError,
            "the sandbox has no process ids left; end some of its processes",
        ),
        errno::ENOMEM => (ErrorCode::CommandExecutionError, "the sandbox has no memory left"),
        errno::EMFILE | errno::ENFILE => {
            (ErrorCode::CommandExecutionError, "too many files are open")
        }
        errno::ENOSPC => (ErrorCode::NoSpace, "/run is full"),
        _ => (ErrorCode::CommandExecutionError, "the kernel refused"),
    };
    ApiError::new(code, format!("cannot start the session's shell: {cause}")).with("errno", error)
}

/// The child could not become the shell, or the shell did not come to its loop.
fn refused(failure: Option<Failure>) -> ApiError {
    match failure {
        Some(Failure { step: Step::Exec, errno: errno::ENOENT }) => ApiError::new(
            ErrorCode::ShellNotAvailable,
            "the image has no bash, which sessions need; install it, or run commands without a \
             session",
        ),
        Some(Failure { errno, .. }) => not_started(errno),
        None => ApiError::new(
            ErrorCode::CommandExecutionError,
            "the session's shell did not start; the sandbox may be out of memory or of process ids",
        ),
    }
}
