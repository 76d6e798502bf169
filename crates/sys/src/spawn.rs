//! Starting a program in a new session and, where wanted, in a cgroup of its own.
//!
//! std's `Command` cannot join a cgroup at birth, close what it does not know, or put a filter in
//! front of one call. The child is a copy of a process that may have threads, so between its birth
//! and its exec it makes plain calls only: no allocation, no lock, no formatting. Everything it
//! needs is in [`Plan`], which is complete before the clone.
//!
//! The child reports a failed step as two integers on a pipe that its exec closes; silence and
//! end of file mean that the program runs.

use std::{
    convert::Infallible,
    ffi::CString,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use crate::SysError;

/// Bytes of a failed child's report: step and errno.
pub const REPORT_BYTES: usize = 8;

/// Exit code of a child that could not become its program; nobody but its own report explains it.
const FAILED_CODE: i32 = 127;

/// Highest signal number, signal(7).
const LAST_SIGNAL: i32 = 64;

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

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Joining a v1 cgroup.
    JoinCgroup,
    /// Becoming the leader of a session.
    Session,
    /// Setting the signal mask.
    Signals,
    /// Putting stdin, stdout and stderr in their places.
    Stdio,
    /// Changing to the working directory.
    WorkingDirectory,
    /// Marking all other descriptors to be closed.
    CloseOthers,
    /// Installing the filter that hides `clone3`.
    Filter,
    /// Becoming the program.
    Exec,
}

const STEPS: [Step; 8] = [
    Step::JoinCgroup,
    Step::Session,
    Step::Signals,
    Step::Stdio,
    Step::WorkingDirectory,
    Step::CloseOthers,
    Step::Filter,
    Step::Exec,
];

/// A failed child's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{step:?}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct Failure {
    /// What it was doing.
    pub step: Step,
    /// The kernel's answer.
    pub errno: i32,
}

impl Failure {
    fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let [a, b, c, d] = (self.step as i32).to_ne_bytes();
        let [e, f, g, h] = self.errno.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Reads a report; none when no child wrote this.
    #[must_use]
    pub fn from_bytes(report: [u8; REPORT_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = report;
        let index = usize::try_from(i32::from_ne_bytes([a, b, c, d])).ok()?;
        Some(Self { step: *STEPS.get(index)?, errno: i32::from_ne_bytes([e, f, g, h]) })
    }
}

/// [`Spawn`] as the child needs it: numbers and pointers, nothing to compute.
struct Plan {
    programs: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    cwd: RawFd,
    stdio: [RawFd; 3],
    tasks: Vec<RawFd>,
    report: RawFd,
}

impl Plan {
    fn of(spawn: &Spawn<'_>, report: RawFd) -> Self {
        let list = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
        };
        Self {
            programs: spawn.programs.iter().map(|s| s.as_ptr()).collect(),
            argv: list(spawn.argv),
            envp: list(spawn.envp),
            cwd: spawn.cwd.as_raw_fd(),
            stdio: spawn.stdio.map(|fd| fd.as_raw_fd()),
            tasks: spawn.tasks.iter().map(AsRawFd::as_raw_fd).collect(),
            report,
        }
    }
}

/// Starts a child that becomes the program. Does not wait for that: see [`Spawned::report`].
///
/// # Errors
/// Those of `clone3(2)`: `EAGAIN` at the pids limit, `EACCES`, `EBUSY` or `EOPNOTSUPP` when the
/// cgroup may not be joined; `EINVAL` when a stdio descriptor is not above 2.
///
/// Source: `clone3(2)`, Linux 5.7 for `CLONE_INTO_CGROUP`.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned, SysError> {
    // Below 3, a dup2 would overwrite a descriptor that a later one still needs.
    if spawn.stdio.iter().any(|fd| fd.as_raw_fd() < 3) {
        return Err(SysError { call: "spawn", errno: libc::EINVAL });
    }
    let (report, ours) = report_pipe()?;
    let plan = Plan::of(spawn, ours.as_raw_fd());
    let mut pidfd: RawFd = -1;
    let pid = clone(&mut pidfd, spawn.cgroup)?;
    if pid == 0 {
        child(&plan);
    }
    // SAFETY: clone3 has succeeded with CLONE_PIDFD, so it has stored a new descriptor, which
    // nothing else owns and which is close-on-exec by itself.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid, pidfd, report })
}

fn report_pipe() -> Result<(OwnedFd, OwnedFd), SysError> {
    let (reader, writer) = std::io::pipe().map_err(|error| SysError {
        call: "pipe2",
        errno: error.raw_os_error().unwrap_or_default(),
    })?;
    Ok((reader.into(), writer.into()))
}

fn clone(pidfd: &mut RawFd, cgroup: Option<BorrowedFd<'_>>) -> Result<i32, SysError> {
    // SAFETY: clone_args is integers, of which zero is a value and means "not used".
    let mut args = unsafe { MaybeUninit::<libc::clone_args>::zeroed().assume_init() };
    // CLEAR_SIGHAND, because a handler of this process that ran in the copy would act on what the
    // two share: the runtime's signal pipe.
    let mut flags = i64::from(libc::CLONE_PIDFD) | SIGHAND;
    args.pidfd = (&raw mut *pidfd).expose_provenance() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        flags |= INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    args.flags = flags.cast_unsigned();
    let args: *mut libc::clone_args = &raw mut args;
    // SAFETY: without CLONE_VM the child has a copy of this memory and stack, as after fork, and
    // needs no stack of its own (0). The structure has the size given; `pidfd` is a writable int.
    // The caller runs nothing in the child but `child`, which keeps to async-signal-safe calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args, size_of::<libc::clone_args>()) };
    match i32::try_from(pid) {
        Ok(pid @ 0..) => Ok(pid),
        _ => Err(SysError::last("clone3")),
    }
}

/// `CLONE_CLEAR_SIGHAND`, clone3(2): beyond the 32 bits of libc's constant.
const SIGHAND: i64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP`, clone3(2): likewise.
const INTO_CGROUP: i64 = 0x2_0000_0000;

fn child(plan: &Plan) -> ! {
    let Err(failure) = become_program(plan);
    let bytes = failure.to_bytes();
    // Nothing is left to be done if the parent cannot be told: it sees exit code 127.
    // SAFETY: the buffer is readable for the length given; the pipe is open in this copy.
    unsafe { libc::write(plan.report, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: ends this process at once, without running what the copied memory registered.
    unsafe { libc::_exit(FAILED_CODE) }
}

/// The child's steps. Cgroups come first, so that everything after is charged to them; the filter
/// after all calls but exec, because nothing before needs it.
fn become_program(plan: &Plan) -> Result<Infallible, Failure> {
    for tasks in &plan.tasks {
        check(Step::JoinCgroup, join(*tasks))?;
    }
    check(Step::Session, new_session())?;
    for signal in 1..=LAST_SIGNAL {
        default_action(signal);
    }
    check(Step::Signals, unblock_signals())?;
    for (target, source) in (0..).zip(plan.stdio) {
        check(Step::Stdio, duplicate(source, target))?;
    }
    check(Step::WorkingDirectory, change_directory(plan.cwd))?;
    check(Step::CloseOthers, close_others_on_exec())?;
    check(Step::Filter, hide_clone3())?;
    Err(Failure { step: Step::Exec, errno: exec_first(plan) })
}

/// Reads the thread's errno; std does so without allocating.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// Turns the answer of a call into the report of its step.
fn check(step: Step, answer: i64) -> Result<(), Failure> {
    if answer == -1 { Err(Failure { step, errno: errno() }) } else { Ok(()) }
}

fn join(tasks: RawFd) -> i64 {
    // SAFETY: one readable byte; "0" names the writer itself. cgroups(7).
    i64::try_from(unsafe { libc::write(tasks, c"0".as_ptr().cast(), 1) }).unwrap_or(-1)
}

fn new_session() -> i64 {
    // SAFETY: no arguments; a new process is never a group leader, so it cannot fail.
    i64::from(unsafe { libc::setsid() })
}

/// Ignored signals stay ignored across exec, and Rust ignores SIGPIPE. Fails, as it should, for
/// KILL and STOP. The bare call, because the C library refuses signals 32 and 33.
fn default_action(signal: i32) {
    // The kernel's struct sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0_u64; 4];
    let none: *const u64 = ptr::null();
    let mask_bytes: libc::size_t = 8;
    // SAFETY: the action is readable and of the kernel's size on 64-bit machines; the old action
    // is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, mask_bytes) };
}

fn unblock_signals() -> i64 {
    // SAFETY: a signal set is integers; zero is the empty set on Linux.
    let none = unsafe { MaybeUninit::<libc::sigset_t>::zeroed().assume_init() };
    // SAFETY: the set is readable; no old set is asked for.
    i64::from(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) })
}

fn duplicate(source: RawFd, target: RawFd) -> i64 {
    // SAFETY: integers only. The target is 0, 1 or 2, which no Rust value of this copy will use.
    i64::from(unsafe { libc::dup2(source, target) })
}

fn change_directory(dir: RawFd) -> i64 {
    // SAFETY: an integer only.
    i64::from(unsafe { libc::fchdir(dir) })
}

/// Closes by exec and not now, because the report's pipe must live until then.
fn close_others_on_exec() -> i64 {
    // SAFETY: integers only; nothing is closed yet.
    i64::from(unsafe {
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed())
    })
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Answers ENOSYS to clone3 and allows everything else: flags of clone3 lie in memory, where a
/// filter cannot look, so the jail's filter must allow it to the agent whole. C libraries fall
/// back to clone, whose flags the jail's filter does see. Another ABI is the jail's filter's to
/// kill.
static HIDE_CLONE3: [libc::sock_filter; 6] = [
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 4), // arch
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, AUDIT_ARCH),
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // number
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 435), // clone3, all architectures
    instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
];

/// One instruction; a comparison that fails skips `skip` instructions.
#[expect(clippy::cast_possible_truncation, reason = "opcodes are below 256; const has no try_from")]
const fn instruction(code: u32, skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: skip, k }
}

fn hide_clone3() -> i64 {
    let program = libc::sock_fprog { len: 6, filter: (&raw const HIDE_CLONE3).cast_mut().cast() };
    let program: *const libc::sock_fprog = &raw const program;
    // SAFETY: the program names 6 instructions that are there; the kernel copies and never writes
    // them, whatever the pointer's type says.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, program) }
}

/// Tries the programs in turn, as execvp(3) does, and returns the errno that tells most: what was
/// there and could not be executed before what was not there.
fn exec_first(plan: &Plan) -> i32 {
    let mut answer = libc::ENOENT;
    for program in &plan.programs {
        // SAFETY: the path and both lists end in a zero, point to strings of the caller, which
        // this copy still has, and are only read.
        unsafe { libc::execve(*program, plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => answer = libc::EACCES,
            other => return other,
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{PipeReader, Read},
        os::fd::AsFd,
    };

    use super::*;
    use crate::{prctl, wait};

    fn words(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// Runs a program to its end; its report, stdout and status.
    fn run(programs: &[&str], argv: &[&str]) -> (Option<Failure>, String, wait::Status) {
        prctl::no_new_privileges().unwrap();
        let null = File::open("/dev/null").unwrap();
        let root = File::open("/").unwrap();
        let (mut stdout, writer) = std::io::pipe().unwrap();
        let spawned = spawn(&Spawn {
            programs: &words(programs),
            argv: &words(argv),
            envp: &words(&["A=b"]),
            cwd: root.as_fd(),
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            cgroup: None,
            tasks: &[],
        })
        .unwrap();
        drop(writer);
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        let mut report = Vec::new();
        PipeReader::from(spawned.report).read_to_end(&mut report).unwrap();
        let failure = <[u8; REPORT_BYTES]>::try_from(report).ok().and_then(Failure::from_bytes);
        let ended = loop {
            match wait::any().unwrap() {
                Some(ended) if ended.pid == spawned.pid => break ended,
                _ => std::thread::yield_now(),
            }
        };
        (failure, text, ended.status)
    }

    #[test]
    fn a_program_gets_what_was_planned_and_nothing_else() {
        let script = "echo $A; pwd; ls /proc/self/fd; grep -E 'SigIgn|SigBlk' /proc/self/status";
        let (failure, text, status) = run(&["/nowhere/sh", "/bin/sh"], &["sh", "-c", script]);

        assert_eq!(failure, None);
        assert_eq!(
            text, "b\n/\n0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
            "descriptor 3 is ls's own"
        );
        assert_eq!(status, wait::Status::Exited(0));
    }

    #[test]
    fn clone3_is_hidden_and_programs_start_threads_all_the_same() {
        let script = "import ctypes,threading\n\
            l=ctypes.CDLL(None,use_errno=True)\n\
            print(l.syscall(435,0,0),ctypes.get_errno())\n\
            t=threading.Thread(target=print,args=('thread',));t.start();t.join()";
        let (failure, text, _) = run(&["/usr/bin/python3"], &["python3", "-c", script]);

        assert_eq!((failure, &*text), (None, "-1 38\nthread\n"));
    }

    #[test]
    fn a_program_that_cannot_run_is_reported_with_the_step() {
        for (programs, errno) in [
            (&["/nowhere"][..], libc::ENOENT),
            (&["/etc/passwd", "/nowhere"], libc::EACCES),
            (&["/etc"], libc::EACCES),
        ] {
            let (failure, _, status) = run(programs, &["x"]);
            assert_eq!(failure, Some(Failure { step: Step::Exec, errno }), "{programs:?}");
            assert_eq!(status, wait::Status::Exited(FAILED_CODE));
        }
    }

    #[test]
    fn a_cgroup_that_is_none_is_refused() {
        let null = File::open("/dev/null").unwrap();
        let root = File::open("/").unwrap();
        let error = spawn(&Spawn {
            programs: &words(&["/bin/true"]),
            argv: &words(&["true"]),
            envp: &[],
            cwd: root.as_fd(),
            stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
            cgroup: Some(root.as_fd()),
            tasks: &[],
        })
        .unwrap_err();

        assert_eq!(error, SysError { call: "clone3", errno: libc::EBADF });
    }

    #[test]
    fn a_report_reads_as_it_was_written() {
        for step in STEPS {
            let failure = Failure { step, errno: 7 };
            assert_eq!(Failure::from_bytes(failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes([255; REPORT_BYTES]), None);
    }
}
