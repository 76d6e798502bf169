//! One interpreter: a process with a socket to the agent, and two outputs.
//!
//! The socket is its descriptor 3, which programs that code starts do not inherit; its standard input
//! is `/dev/null`. What code prints goes to the outputs and never to the socket.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    exec::Command,
    interpreter::Language,
    process::OutputStream,
};
use sys::{
    errno,
    signal::SIGINT,
    spawn::{Spawn, Step},
    wait::Status,
};
use tokio::{
    net::{UnixStream, unix::pipe},
    time::timeout,
};

use super::{
    frame::{Frame, Said, Wire},
    language::Recipe,
    warm,
};
use crate::{
    init::Agent,
    process::{
        Child, Exit, Output, StartError, Tree, c_string, not_started, output, programs,
        read_report, refused,
    },
};

/// How long an interpreter may take to start. Usual ones take a tenth of a second; a machine may be
/// very busy, and what an image imports at the start of every Python may be much.
const START_WAIT: Duration = Duration::from_secs(60);

/// How long a killed process may take to end: only one that is stuck in the kernel takes any.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Bytes of what an interpreter that does not start said, for the error.
const COMPLAINT_BYTES: usize = 4096;

/// What is started from the beginning.
struct Asked<'a> {
    language: Language,
    recipe: &'a Recipe,
    /// A module of Python that asks for more than code to be taken.
    more: Option<&'a str>,
}

/// A program: where it may be, and its arguments.
struct Program {
    paths: Vec<CString>,
    argv: Vec<CString>,
}

impl Program {
    fn of(recipe: &Recipe, env: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        let paths = programs(recipe.program, env.get("PATH").map(String::as_str));
        let argv = recipe.arguments.iter().map(|text| (*text).to_owned());
        Ok(Self { paths: c_strings(paths)?, argv: c_strings(argv)? })
    }
}

fn c_strings(texts: impl IntoIterator<Item = String>) -> Result<Vec<CString>, ApiError> {
    texts.into_iter().map(c_string).collect()
}

#[derive(Debug)]
pub(super) struct Kernel {
    agent: Arc<Agent>,
    pub(super) pid: i32,
    tree: Tree,
    pub(super) exit: Exit,
    pub(super) wire: Wire,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// Of the last run.
    pub(super) id: u64,
    /// Since it was last given code.
    pub(super) was_interrupted: bool,
}

impl Kernel {
    /// Starts an interpreter in `cwd` with these variables, and returns when it takes code.
    pub(super) async fn start(
        agent: &Arc<Agent>,
        (language, recipe): (Language, &Recipe),
        env: &BTreeMap<String, String>,
        cwd: OwnedFd,
    ) -> Result<Self, ApiError> {
        if language == Language::Python
            && warm::is_there()
            && let Some(kernel) = Self::resume(agent, env, &cwd).await
        {
            return Ok(kernel);
        }
        let asked = Asked { language, recipe, more: None };
        let (mut kernel, said) = Self::begin(agent, &asked, env, &cwd).await?;
        match said {
            Said::Ready => Ok(kernel),
            _ => {
                let error = kernel.complaint(language).await;
                kernel.kill().await;
                Err(error)
            }
        }
    }

    /// One that goes on from the file of a warm start; none where that does not fit, after the few
    /// milliseconds in which it was tried.
    async fn resume(
        agent: &Arc<Agent>,
        env: &BTreeMap<String, String>,
        cwd: &OwnedFd,
    ) -> Option<Self> {
        let (program, argv) = warm::program();
        let program = Program { paths: vec![program], argv: argv.into() };
        let (mut kernel, _report) = Self::spawn(agent, &program, env, cwd).ok()?;
        let said = timeout(START_WAIT, kernel.wire.next()).await;
        if matches!(said, Ok(Ok(Frame { said: Said::Ready, .. }))) {
            return Some(kernel);
        }
        kernel.kill().await;
        None
    }

    /// Has a Python of its own start, import these modules, and keep its memory in the file from
    /// which others start; the bytes of the file.
    pub(super) async fn keep(
        agent: &Arc<Agent>,
        imports: &[String],
        mut env: BTreeMap<String, String>,
        cwd: OwnedFd,
    ) -> Result<u64, ApiError> {
        let recipe = Recipe::python();
        env.extend(warm::VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let unfit = |why: &str| {
            let text = format!("this interpreter cannot be kept: {why}");
            ApiError::new(ErrorCode::InterpreterNotAvailable, text)
        };
        let Some(more) = warm::request(recipe, imports) else {
            return Err(unfit("that is not built for this processor yet"));
        };
        let asked = Asked { language: Language::Python, recipe, more: Some(&more) };
        let (mut kernel, said) = Self::begin(agent, &asked, &env, &cwd).await?;
        let kept = match said {
            Said::Kept { bytes } => Ok(bytes),
            Said::Unfit { why } => Err(unfit(&why)),
            _ => Err(kernel.complaint(Language::Python).await),
        };
        kernel.kill().await;
        let bytes = kept?;
        env.retain(|name, _| warm::VARIABLES.iter().all(|(added, _)| name != added));
        if let Some(mut kernel) = Self::resume(agent, &env, &cwd).await {
            // Without it the file is as good, and slower.
            drop(timeout(START_WAIT, kernel.rehearse()).await);
            kernel.kill().await;
        }
        Ok(bytes)
    }

    /// Runs code for nobody.
    async fn rehearse(&mut self) -> io::Result<()> {
        for request in warm::REHEARSAL {
            self.wire.send(request.as_bytes()).await?;
            loop {
                match self.wire.next().await? {
                    Frame { said: Said::End { .. }, .. } => break,
                    Frame { awaits: true, .. } => self.wire.acknowledge().await,
                    Frame { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Starts an interpreter from the beginning, and returns what it says first.
    async fn begin(
        agent: &Arc<Agent>,
        asked: &Asked<'_>,
        env: &BTreeMap<String, String>,
        cwd: &OwnedFd,
    ) -> Result<(Self, Said), ApiError> {
        let Asked { language, recipe, .. } = *asked;
        let (mut kernel, report) = Self::spawn(agent, &Program::of(recipe, env)?, env, cwd)?;
        let said = match timeout(START_WAIT, kernel.hear_first(asked, report)).await {
            Ok(said) => said,
            Err(_late) => {
                let text = format!(
                    "the {language} interpreter did not start within {} s",
                    START_WAIT.as_secs()
                );
                Err(ApiError::new(ErrorCode::CommandExecutionError, text))
            }
        };
        match said {
            Ok(said) => Ok((kernel, said)),
            Err(error) => {
                kernel.kill().await;
                Err(error)
            }
        }
    }

    /// Makes the child and what it speaks through.
    fn spawn(
        agent: &Arc<Agent>,
        program: &Program,
        env: &BTreeMap<String, String>,
        cwd: &OwnedFd,
    ) -> Result<(Self, pipe::Receiver), ApiError> {
        let envp = c_strings(env.iter().map(|(name, value)| format!("{name}={value}")))?;
        let pipes = |error| not_started(&StartError::Pipes(error));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(pipes)?;
        ours.set_nonblocking(true).map_err(pipes)?;
        let wire = Wire::new(UnixStream::from_std(ours).map_err(pipes)?);
        let (stdout, stdout_end) = output(OutputStream::Stdout).map_err(pipes)?;
        let (stderr, stderr_end) = output(OutputStream::Stderr).map_err(pipes)?;
        let spawn = Spawn {
            programs: &program.paths,
            argv: &program.argv,
            envp: &envp,
            cwd: cwd.as_fd(),
            stdio: [agent.null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()],
            private: Some(theirs.as_fd()),
            has_terminal: false,
            cgroup: None,
            tasks: &[],
        };
        let Child { tree, report, exit } =
            Child::spawn(agent, &spawn).map_err(|error| not_started(&error))?;
        let kernel = Self {
            agent: Arc::clone(agent),
            pid: tree.leader,
            exit: Exit::new(exit),
            tree,
            wire,
            stdout,
            stderr,
            id: 0,
            was_interrupted: false,
        };
        Ok((kernel, report))
    }

    /// Gives it its program and hears what it says first.
    async fn hear_first(
        &mut self,
        asked: &Asked<'_>,
        report: pipe::Receiver,
    ) -> Result<Said, ApiError> {
        let Asked { language, recipe, more } = *asked;
        if let Some(failure) = read_report(&mut Some(report)).await {
            if failure.step == Step::Exec && failure.errno == errno::ENOENT {
                let why = format!("there is no {}", recipe.program);
                return Err(recipe.unavailable(language, recipe.program, &why));
            }
            let command = Command::Program(vec![recipe.program.to_owned()]);
            return Err(refused(Some(failure), &command));
        }
        let more = more.map(|source| (warm::REQUEST, source));
        let sources: BTreeMap<_, _> = recipe.sources.iter().copied().chain(more).collect();
        let sources = serde_json::to_vec(&sources).expect("texts are JSON");
        let said = match self.wire.send(&sources).await {
            Ok(()) => self.wire.next().await,
            Err(error) => Err(error),
        };
        match said.map(|frame| frame.said) {
            Ok(Said::Missing { what, why, version }) => {
                let why = format!("{language} {version} is there, but: {why}");
                Err(recipe.unavailable(language, &what, &why))
            }
            Ok(said) => Ok(said),
            Err(_ended) => Err(self.complaint(language).await),
        }
    }

    /// Why it ended before it took code: what it said.
    async fn complaint(&mut self, language: Language) -> ApiError {
        let (_, said) = self.stderr.rest().await.unwrap_or((OutputStream::Stderr, Vec::new()));
        let start = said.len().saturating_sub(COMPLAINT_BYTES);
        let said = String::from_utf8_lossy(said.get(start..).unwrap_or_default()).into_owned();
        let text = format!("the {language} interpreter did not start");
        ApiError::new(ErrorCode::CommandExecutionError, text).with("stderr", said)
    }

    /// Interrupts what runs in it, as Ctrl-C does.
    pub(super) fn interrupt(&mut self) {
        self.was_interrupted = true;
        self.tree.signal_group(SIGINT);
    }

    /// Ends it with everything that it started, and says how it ended. It may have ended before.
    pub(super) async fn kill(&mut self) -> Option<Status> {
        self.kill_now();
        timeout(KILL_WAIT, self.exit.wait()).await.ok()
    }

    fn kill_now(&mut self) {
        if self.exit.now().is_none() {
            self.tree.kill();
        } else {
            self.tree.kill_rest();
        }
    }
}

impl Drop for Kernel {
    /// Also of one whose start was given up.
    fn drop(&mut self) {
        self.kill_now();
        self.tree.cgroup.iter().for_each(|cgroup| drop(self.agent.forest.fell(cgroup)));
    }
}
