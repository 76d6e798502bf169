//! A server under test.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use client::Client;
use tempfile::TempDir;

use crate::{Leaks, Slot, slot::SANDBOXES};

/// How long a line that a test waits for may take to be logged: minutes' worth of what is logged, on a
/// machine that has other tests to run.
const LOG_DEADLINE: Duration = Duration::from_secs(60);

/// Settings on top of the test bench's own: names as in the environment, without `SANDBAR_`.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A real server, started from the real binary.
///
/// Dropping it ends it and everything it made, and fails the test if anything is left.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    slot: Slot,
    state: PathBuf,
    /// Removed last.
    #[expect(dead_code, reason = "held for its Drop")]
    temporary: Option<TempDir>,
    before: Leaks,
    settings: Vec<(String, String)>,
    /// Network namespace that the server, and commands for it, run in.
    namespace: Option<String>,
    /// Whom it trusts: see [`Server::trust`].
    trusted: Option<PathBuf>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    log: Arc<Log>,
    reader: JoinHandle<()>,
}

/// Lines of a server's standard error, as they come.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Server {
    /// Starts a server whose sandboxes use the image `host`.
    ///
    /// # Panics
    /// When it does not get ready; the message holds its log.
    #[must_use]
    pub fn start(binary: &str) -> Self {
        Self::start_with(binary, &[])
    }

    /// Starts a server with further settings.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_with(binary: &str, settings: Settings<'_>) -> Self {
        Self::start_on(binary, Slot::take(), state_for_host(), None, settings)
    }

    /// Starts a server whose sandboxes use the default image, which is built first if it is not
    /// there: see [`crate::default_images`].
    ///
    /// # Panics
    /// As [`Server::start`], and when the image cannot be built.
    #[must_use]
    pub fn start_with_default_image(binary: &str) -> Self {
        let images = crate::default_images(binary);
        let state = temporary_state();
        std::os::unix::fs::symlink(images, state.0.join("images"))
            .expect("the state directory is empty");
        Self::start_on(binary, Slot::take(), state, None, &[("DEFAULT_IMAGE", "default")])
    }

    /// Starts a server that has the same address again after a restart.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_at_one_address(binary: &str) -> Self {
        Self::start_at_one_address_with(binary, &[])
    }

    /// As [`Server::start_at_one_address`], with further settings.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_at_one_address_with(binary: &str, settings: Settings<'_>) -> Self {
        let slot = Slot::take();
        let address = format!("127.0.0.1:{}", slot.port());
        let settings = [&[("LISTEN", address.as_str())], settings].concat();
        Self::start_on(binary, slot, state_for_host(), None, &settings)
    }

    /// Starts a server with further settings whose host network is the network namespace `namespace`,
    /// as ip-netns(8) names it. Its API is reached from there only: through [`Server::command`].
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_in_namespace(binary: &str, namespace: &str, settings: Settings<'_>) -> Self {
        Self::start_on(binary, Slot::take(), state_for_host(), Some(namespace), settings)
    }

    /// Starts a server that keeps its state in `state`, which the caller removes.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_in(binary: &str, state: &Path, settings: Settings<'_>) -> Self {
        Self::start_on(binary, Slot::take(), (state.to_owned(), None), None, settings)
    }

    fn start_on(
        binary: &str,
        slot: Slot,
        (state, temporary): (PathBuf, Option<TempDir>),
        namespace: Option<&str>,
        settings: Settings<'_>,
    ) -> Self {
        let before = Leaks::look(&slot.name(), &state);
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut server = Self {
            binary: binary.into(),
            before,
            settings: settings.collect(),
            slot,
            state,
            temporary,
            namespace: namespace.map(str::to_owned),
            trusted: None,
            running: None,
        };
        server.restart();
        server
    }

    /// Starts the server again, after [`Server::kill`] or [`Server::stop`].
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn restart(&mut self) {
        let mut process = self
            .command(["serve"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stderr = process.stderr.take().expect("stderr is piped");
        let log = Arc::new(Log::default());
        let (ready_to, ready) = std::sync::mpsc::sync_channel(1);
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || read_log(stderr, &log, &ready_to)
        });
        self.running = Some(Running { process, log, reader });
        if ready.recv().is_err() {
            panic!("the server did not get ready:\n{}", self.log());
        }
    }

    /// A command line of the product, set up to find this server.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(&self.binary),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg(&self.binary);
                command
            }
        };
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SANDBAR_STATE_DIR", &self.state)
            .env("SANDBAR_LISTEN", "127.0.0.1:0")
            .env("SANDBAR_NAME", self.slot.name())
            .env("SANDBAR_NETWORK_SUBNET", self.slot.subnet())
            .env("SANDBAR_UID_BASE", self.slot.uid_base().to_string())
            .env("SANDBAR_MAX_SANDBOXES", SANDBOXES.to_string())
            .env("SANDBAR_DEFAULT_IMAGE", "host")
            // Tests compare what there is before and after; a pool changes it behind their backs.
            .env("SANDBAR_POOL", "0")
            .envs(self.trusted.iter().map(|file| ("SSL_CERT_FILE", file)))
            .envs(self.settings.iter().map(|(name, value)| (format!("SANDBAR_{name}"), value)));
        command
    }

    /// Runs a command that must refuse to start, and returns its complaint.
    ///
    /// # Panics
    /// When it ends well, or still runs after half a minute: it started.
    #[must_use]
    pub fn refusal(command: &mut Command) -> String {
        const PATIENCE_MS: i32 = 30_000;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let pid = i32::try_from(child.id()).expect("a process id is a positive i32");
        let pidfd = sys::pidfd::open(pid).expect("the child has not been waited for");
        let has_ended =
            sys::poll::wait_readable(pidfd.as_fd(), PATIENCE_MS).expect("it can be waited for");
        if !has_ended {
            child.kill().expect("it can be killed");
        }
        let output = child.wait_with_output().expect("it can be waited for");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(has_ended && !output.status.success(), "it was not refused:\n{complaint}");
        complaint
    }

    /// A client of this server.
    ///
    /// # Panics
    /// When the server has left no endpoint or key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::from_state_dir(&self.state).expect("the server has an endpoint and a key")
    }

    /// A client that calls this server with another key than the local one.
    ///
    /// # Panics
    /// As [`Server::client`].
    #[must_use]
    pub fn client_with(&self, key: &str) -> Client {
        Client::new(&self.url(), key).expect("the server has an address")
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.client().url().trim_end_matches('/').to_owned()
    }

    /// Its key.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn key(&self) -> String {
        let key = std::fs::read_to_string(self.state.join("key")).expect("there is a key");
        key.trim().to_owned()
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The slot that sets it apart.
    #[must_use]
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// What it has logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        let lines =
            self.running.as_ref().map(|running| running.log.lines.lock().map(|l| l.join("\n")));
        lines.and_then(Result::ok).unwrap_or_default()
    }

    /// Its log, once a line with `text` is in it.
    ///
    /// # Panics
    /// When the server ends without writing one, or has not within a minute; with the log so far.
    #[must_use]
    pub fn log_until(&self, text: &str) -> String {
        let running = self.running.as_ref().expect("the server runs");
        let deadline = Instant::now() + LOG_DEADLINE;
        let mut lines = running.log.lines.lock().expect("no reader has panicked");
        while !lines.iter().any(|line| line.contains(text)) {
            assert!(!running.reader.is_finished(), "{text:?} was not logged: {lines:#?}");
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{text:?} was not logged in {LOG_DEADLINE:?}: {lines:#?}");
            let grown = running.log.grown.wait_timeout(lines, left);
            lines = grown.expect("no reader has panicked").0;
        }
        lines.join("\n")
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").process.id()
    }

    /// The process id of its keeper, from which it has what only root can do.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn keeper_pid(&self) -> u32 {
        let path = format!("/proc/{pid}/task/{pid}/children", pid = self.pid());
        let children = std::fs::read_to_string(path).expect("the kernel lists children");
        let keeper = children.split_whitespace().next().expect("a server has a keeper");
        keeper.parse().expect("a process id is a number")
    }

    /// Waits until the daemon has ended with an error by itself, and returns its log.
    ///
    /// # Panics
    /// When it does not run, or ends well.
    pub fn expect_failure(&mut self) -> String {
        let (status, log) = self.wait().expect("the server runs");
        assert!(!status.success(), "the server ended well:\n{log}");
        log
    }

    /// Starts it again with one setting more, or another.
    ///
    /// # Panics
    /// As [`Server::restart`].
    pub fn restart_with(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
        self.restart();
    }

    /// Has it trust the authorities in this file, in place of the machine's, from its next start on.
    pub fn trust(&mut self, certificates: &Path) {
        self.trusted = Some(certificates.to_owned());
    }

    /// The host's process id of the only sandbox's agent.
    ///
    /// # Panics
    /// When there is no sandbox that runs.
    #[must_use]
    pub fn agent_pid(&self) -> i32 {
        let tree = "/sys/fs/cgroup/unified";
        let tree = if Path::new(tree).exists() { tree } else { "/sys/fs/cgroup" };
        let node = format!("{tree}/sandbar-{}", self.slot.name());
        let jails = std::fs::read_dir(node).expect("the node has cgroups").flatten();
        let jail = jails.map(|entry| entry.path()).find(|path| path.join("agent").exists());
        let procs = jail.expect("there is a jail").join("agent/cgroup.procs");
        let text = std::fs::read_to_string(procs).expect("the agent's group can be read");
        text.trim().parse().expect("one process is in it")
    }

    /// What it has now outside its state directory, see [`Leaks`].
    #[must_use]
    pub fn look(&self) -> Leaks {
        Leaks::look(&self.slot.name(), &self.state)
    }

    /// Fails unless the machine soon looks as it did at `before`.
    pub fn expect_again(&self, before: &Leaks) {
        before.expect_again(&self.slot.name(), &self.state);
    }

    /// Kills the daemon as a crash would: no warning, no clean-up.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.signal(sys::signal::SIGKILL);
        self.wait();
    }

    /// Ends the daemon as an operator would; its sandboxes keep running. Returns its log.
    ///
    /// # Panics
    /// When it does not run, or ends with an error.
    pub fn stop(&mut self) -> String {
        self.signal(sys::signal::SIGTERM);
        self.wait_for_end()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process id is a positive i32");
        let pidfd = sys::pidfd::open(pid).expect("the server runs");
        sys::signal::send(pidfd.as_fd(), signal).expect("the server can be signalled");
    }

    /// Waits until a daemon that was told to end has ended, and returns its log.
    ///
    /// # Panics
    /// When it does not run, or ends with an error.
    pub fn wait_for_end(&mut self) -> String {
        let (status, log) = self.wait().expect("the server runs");
        assert!(status.success(), "the server did not end well:\n{log}");
        log
    }

    /// Waits for the daemon's end, if it runs: how it ended, and its log.
    fn wait(&mut self) -> Option<(ExitStatus, String)> {
        let mut running = self.running.take()?;
        let status = running.process.wait().expect("the server can be waited for");
        running.reader.join().expect("the log is read");
        let lines = running.log.lines.lock().expect("no reader has panicked").join("\n");
        Some((status, lines))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let down = self.command(["down", "--destroy"]).output().expect("the binary starts");
        let log = self.log();
        self.wait();
        if std::thread::panicking() {
            return;
        }
        let complaint = String::from_utf8_lossy(&down.stderr).into_owned();
        assert!(down.status.success(), "`sandbar down` failed: {complaint}\n{log}");
        self.before.expect_again(&self.slot.name(), &self.state);
    }
}

fn temporary_state() -> (PathBuf, Option<TempDir>) {
    let state = tempfile::Builder::new()
        .prefix("sandbar-test-")
        .tempdir_in("/var/tmp")
        .expect("a state directory can be made");
    (state.path().to_owned(), Some(state))
}

/// The state directory of a server whose sandboxes use the image `host`.
fn state_for_host() -> (PathBuf, Option<TempDir>) {
    let state = temporary_state();
    crate::image::share_host_layer(&state.0);
    state
}

/// Collects the log; tells when the line comes that says that requests are served.
fn read_log(stderr: ChildStderr, log: &Log, ready: &std::sync::mpsc::SyncSender<()>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let is_ready = line.contains("serving");
        if let Ok(mut lines) = log.lines.lock() {
            lines.push(line);
        }
        log.grown.notify_all();
        if is_ready {
            // Only the first one is waited for.
            ready.try_send(()).unwrap_or_default();
        }
    }
    log.grown.notify_all();
}
