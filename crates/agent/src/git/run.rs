//! One run of git: how it is started, and what it says.
//!
//! Credentials are in no argument, no environment and no directory. They are in a file in memory
//! that git and its children have open as descriptor 3 while they talk to the server: a password for
//! the one helper that answers for the one server, a header as a piece of git's configuration.
//! It is gone with the last of them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    exec::{Command, Ending},
    git::GitEvent,
    process::OutputStream,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    progress::{self, Line, Lines},
    remote::{Credentials, Remote},
};
use crate::{
    init::Agent,
    process::{
        About, Cause, Keep, Kill, Process, Wish, WishedStdin, launch,
        log::{Read, Retention},
    },
};

/// Starts git with its own stdin as descriptor 3.
const SCRIPT: &str = "exec 3<&0 </dev/null && exec \"$@\"";

/// The helper that shows git the password, when it asks for that of its server.
const HELPER: &str = "!cat /proc/self/fd/3;:";

/// The header, as a piece of configuration.
const HEADER: &str = "include.path=/proc/self/fd/3";

/// What would run programs of the sandbox's own configuration, or would go on by itself when git
/// has ended, and what the checkout does not depend on.
const SETTINGS: [&str; 7] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

/// The same in the environment. No questions; only transports that are no commands; English; an end
/// for connections that are dead: less than 1 KiB a second for half a minute.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", ""),
    ("GIT_PROXY_COMMAND", ""),
    ("GIT_ALLOW_PROTOCOL", "https:http:git:ssh:file"),
    (
        "GIT_SSH_COMMAND",
        "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 \
         -o ServerAliveCountMax=2",
    ),
    ("GIT_HTTP_LOW_SPEED_LIMIT", "1024"),
    ("GIT_HTTP_LOW_SPEED_TIME", "30"),
    ("LC_ALL", "C"),
];

/// Of git's own variables, what a sandbox may set: which certificates to believe.
const KEPT: [&str; 3] = ["GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_NO_VERIFY"];

/// Lines of git kept for its error; the last ones say most.
const LINES: usize = 20;

/// Bytes kept of what git answers on stdout: an id and a name.
const ANSWER_BYTES: usize = 4096;

/// Bytes of output read at once.
const READ_BYTES: usize = 16 * 1024;

/// Git in this sandbox, for one checkout.
pub(super) struct Git {
    pub(super) agent: Arc<Agent>,
    pub(super) remote: Remote,
    program: String,
    /// Changes of the sandbox's variables.
    env: BTreeMap<String, Option<String>>,
    pub(super) deadline: Instant,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ending: Ending,
    /// What it answered.
    pub(super) stdout: String,
    /// Its last lines, redacted, without progress.
    pub(super) lines: Vec<String>,
}

impl Ran {
    pub(super) fn is_success(&self) -> bool {
        self.ending == Ending::Exited { code: 0 }
    }
}

impl Git {
    /// Finds git.
    pub(super) fn new(
        agent: Arc<Agent>,
        remote: Remote,
        limit: Duration,
    ) -> Result<Self, ApiError> {
        let now = agent.env.now();
        let is_unset = |name: &str| {
            let is_ours = name.starts_with("GIT_") || name.starts_with("SSH_ASKPASS");
            (is_ours && !KEPT.contains(&name)) || name == "LANGUAGE"
        };
        let mut env: BTreeMap<_, _> =
            now.keys().filter(|name| is_unset(name)).map(|name| (name.clone(), None)).collect();
        env.extend(ENVIRONMENT.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
        let path = now.get("PATH").map_or("", String::as_str);
        let program = path
            .split(':')
            .map(|dir| format!("{dir}/git"))
            .find(|path| is_program(Path::new(path)))
            .ok_or_else(|| {
                let text = "there is no git in the sandbox; use an image that has it, or install it \
                            (apt-get install git)";
                ApiError::new(ErrorCode::CommandNotFound, text).with("program", "git")
            })?;
        Ok(Self { agent, remote, program, env, deadline: Instant::now() + limit })
    }

    /// Runs git with `arguments`; with `credentials`, for a run that talks to the server. What it
    /// says while it works goes to `events`; when nobody takes them any more it is killed.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        credentials: bool,
        place: OwnedSemaphorePermit,
        events: &mpsc::Sender<GitEvent>,
    ) -> Result<Ran, ApiError> {
        let wish = self.wish(arguments, credentials)?;
        let shown = Command::Program(vec!["git".to_owned(), self.remote.url.clone()]);
        let process = Process::new(&self.agent, About::exec(&shown, None), Retention::Newest);
        // Generated ids are never taken.
        self.agent.processes.add(&process, Keep::Nothing).unwrap_or(());
        launch(&self.agent, &process, wish, None, place).await?;
        Ok(self.follow(&process, events).await)
    }

    fn wish(&self, arguments: &[&str], credentials: bool) -> Result<Wish, ApiError> {
        let mut settings: Vec<String> = SETTINGS.map(str::to_owned).into();
        let mut stdin = WishedStdin::Null;
        let server = self.remote.server.as_deref().unwrap_or_default();
        match self.remote.credentials.as_ref().filter(|_| credentials) {
            None => {}
            Some(Credentials::Password { username, password }) => {
                settings.push(format!("credential.{server}.helper={HELPER}"));
                let answer = format!("username={username}\npassword={password}\n");
                stdin = WishedStdin::File(in_memory(&answer)?);
            }
            Some(Credentials::Header { name, value }) => {
                // To wherever it leads the header would go as well.
                settings.push("http.followRedirects=false".to_owned());
                settings.push(HEADER.to_owned());
                let value = value.replace('\\', r"\\").replace('"', "\\\"");
                let section = format!("[http \"{server}/\"]\nextraHeader = \"{name}: {value}\"\n");
                stdin = WishedStdin::File(in_memory(&section)?);
            }
        }
        let settings = settings.iter().flat_map(|setting| ["-c", setting]);
        let argv = ["/bin/sh", "-c", SCRIPT, "sh", &self.program]
            .into_iter()
            .chain(settings)
            .chain(arguments.iter().copied());
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(Wish {
            command: Command::Program(argv.map(str::to_owned).collect()),
            cwd: None,
            env: self.env.clone(),
            // A run that begins too late is killed at once.
            timeout_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)),
            stdin,
        })
    }

    /// Follows a run to its end.
    async fn follow(&self, process: &Process, events: &mpsc::Sender<GitEvent>) -> Ran {
        let mut stdout = Vec::new();
        let mut said = Said { remote: &self.remote, lines: Lines::default(), last: Vec::new() };
        let mut cursor = 0;
        loop {
            tokio::select! {
                () = process.log.readable(cursor) => {}
                () = events.closed() => {
                    process.kill(Kill::now(Cause::CallerGone));
                    break;
                }
            }
            let next = process.log.read(cursor, READ_BYTES, |read| match read {
                Read::Bytes { stream, bytes, .. } => {
                    Some((bytes.len() as u64, Some((stream, bytes.to_vec()))))
                }
                // Only runs of code put events in.
                Read::Event { length, .. } | Read::Dropped(length) => Some((length, None)),
                Read::Pending => Some((0, None)),
                Read::End => None,
            });
            let Some((length, output)) = next else { break };
            cursor += length;
            match output {
                Some((OutputStream::Stdout, bytes)) => {
                    stdout.extend(bytes);
                    stdout.truncate(ANSWER_BYTES);
                }
                Some((OutputStream::Stderr, bytes)) => {
                    for event in said.take(&bytes) {
                        // Nobody there: seen above.
                        events.send(event).await.ok();
                    }
                }
                None => {}
            }
        }
        let ending = process.ended().await.ending;
        said.finish();
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        Ran { ending, stdout, lines: said.last }
    }
}

/// What a run says on stderr.
struct Said<'a> {
    remote: &'a Remote,
    lines: Lines,
    last: Vec<String>,
}

impl Said<'_> {
    fn take(&mut self, bytes: &[u8]) -> Vec<GitEvent> {
        let lines = self.lines.feed(bytes);
        lines.into_iter().map(|line| self.note(&line)).collect()
    }

    fn finish(&mut self) {
        if let Some(line) = self.lines.finish() {
            self.note(&line);
        }
    }

    fn note(&mut self, line: &Line) -> GitEvent {
        let whole = if line.is_cut { self.remote.uncut(&line.text) } else { &line.text };
        let event = progress::event(self.remote.redact(whole));
        if let GitEvent::Progress { phase: None, line, .. } = &event {
            if self.last.len() == LINES {
                self.last.remove(0);
            }
            self.last.push(line.clone());
        }
        event
    }
}

/// A file with `text` that is in no directory.
fn in_memory(text: &str) -> Result<OwnedFd, ApiError> {
    let make = || -> io::Result<OwnedFd> {
        let file = sys::memfd::create(c"git", false).map_err(io::Error::from)?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes())?;
        sys::memfd::seal(file.as_fd())?;
        Ok(file.into())
    };
    make().map_err(|error| {
        let text = format!("cannot hand git its credentials: {error}");
        ApiError::new(ErrorCode::CommandExecutionError, text)
    })
}

fn is_program(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
