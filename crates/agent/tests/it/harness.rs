//! Starts an agent, talks to it, and leaves nothing behind.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    error::{ApiError, ErrorBody},
    exec::{ExecEvent, ExecResult},
    process::{Process, ProcessReady},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use jail::handoff::Handoff;
use link::AgentConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything awaited may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Held while descriptors of one agent are open to every program that this process starts, so
/// that no agent inherits another's.
static INHERITING: Mutex<()> = Mutex::new(());

static CGROUPS: AtomicU32 = AtomicU32::new(0);

/// A running agent with a directory of its own; commands start in `dir/work`.
pub(crate) struct Agent {
    child: Child,
    dir: TempDir,
    cgroup: Option<Cgroup>,
    /// Holds the agent and what it starts, so that nothing outlives the test.
    #[expect(dead_code, reason = "held for its Drop")]
    household: Cgroup,
}

/// Descriptors of limits that commands join.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) tasks: Vec<File>,
    pub(crate) memory_events: Option<File>,
    pub(crate) pids_events: Option<File>,
}

impl Agent {
    /// An agent without cgroups.
    pub(crate) fn start() -> Self {
        Self::with(None, &Limits::default())
    }

    /// An agent with a v2 cgroup for its commands.
    pub(crate) fn start_with_cgroup() -> Self {
        Self::with(Some(Cgroup::new(&v2_root())), &Limits::default())
    }

    pub(crate) fn with(cgroup: Option<Cgroup>, limits: &Limits) -> Self {
        let (dir, household) = (TempDir::new().unwrap(), Cgroup::new(&v2_root()));
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let (sender, channel) = link::config_channel().unwrap();
        let env = [("FROM".to_owned(), "config".to_owned())].into();
        let workdir = dir.path().join("work").to_str().unwrap().to_owned();
        sender
            .send(&AgentConfig { env, workdir, definitions: None, services: Vec::new() })
            .unwrap();
        let cgroup_dir = cgroup.as_ref().map(|cgroup| File::open(&cgroup.0).unwrap());
        let inheriting = INHERITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copies = Vec::new();
        let mut number = |fd: BorrowedFd<'_>| {
            let copy = fd.try_clone_to_owned().unwrap();
            let number = sys::fd::leave_open(copy.as_fd()).unwrap();
            copies.push(copy);
            number
        };
        let handoff = Handoff {
            listen: number(listener.as_fd()),
            config: number(channel.as_fd()),
            cgroup: cgroup_dir.as_ref().map(|dir| number(dir.as_fd())),
            tasks: limits.tasks.iter().map(|tasks| number(tasks.as_fd())).collect(),
            memory_events: limits.memory_events.as_ref().map(|events| number(events.as_fd())),
            pids_events: limits.pids_events.as_ref().map(|events| number(events.as_fd())),
            ..Handoff::default()
        };
        let child = Command::new(env!("CARGO_BIN_EXE_agent-alone"))
            .arg(handoff.to_string())
            .env_clear()
            .spawn()
            .unwrap();
        drop(copies);
        drop(inheriting);
        // Nobody has asked it to start anything yet.
        fs::write(household.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self { child, dir, cgroup, household }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The working directory of its commands.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The URL path of a file in the working directory.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("/files{}/{name}", self.work().display())
    }

    /// Cgroups of commands that exist now.
    pub(crate) fn exec_cgroups(&self) -> usize {
        let cgroup = self.cgroup.as_ref().unwrap();
        fs::read_dir(&cgroup.0)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count()
    }

    /// A connection of its own; closed when the sender is dropped.
    pub(crate) async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let socket = self.dir.path().join("agent.sock");
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends a request on a connection of its own and returns the head of the answer.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut sender = self.connect().await;
        within(sender.send_request(request)).await.unwrap()
    }

    /// Sends a request and returns the whole answer.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let (head, body) = self.open(request).await.into_parts();
        (head.status, head.headers, within(body.collect()).await.unwrap().to_bytes())
    }

    pub(crate) async fn get(&self, url: &str) -> (StatusCode, HeaderMap, Bytes) {
        self.send(request(Method::GET, url, "")).await
    }

    /// The error that an answer is.
    pub(crate) async fn refused(&self, request: Request<Full<Bytes>>) -> (StatusCode, ApiError) {
        let (status, _, body) = self.send(request).await;
        let body: ErrorBody = serde_json::from_slice(&body)
            .unwrap_or_else(|_| panic!("{status}: {}", String::from_utf8_lossy(&body)));
        (status, body.error)
    }

    /// Runs a command to its end.
    pub(crate) async fn exec(&self, request: Value) -> ExecResult {
        let (status, _, body) = self.send(post("/exec", &request)).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn sh(&self, text: &str) -> ExecResult {
        self.exec(json!({"command": text})).await
    }

    /// Follows a command.
    pub(crate) async fn follow(&self, request: Value) -> Events {
        self.events(post("/exec", &request)).await
    }

    /// Sends a request that is answered with events.
    pub(crate) async fn events(&self, request: Request<Full<Bytes>>) -> Events {
        let response = self.open(with(request, "accept", "text/event-stream")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), text: String::new(), cursor: 0 }
    }

    /// Sends a request and reads the JSON of its success.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> T {
        let (status, _, body) = self.send(request).await;
        assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Starts a process.
    pub(crate) async fn start_process(&self, request: Value) -> Process {
        self.json(post("/processes", &request)).await
    }

    pub(crate) async fn process(&self, name: &str) -> Process {
        self.json(request(Method::GET, &format!("/processes/{name}"), "")).await
    }

    /// Waits for a process.
    pub(crate) async fn wait(&self, name: &str, until: Value) -> ProcessReady {
        let body = json!({"until": until, "timeoutMs": 120_000});
        self.json(post(&format!("/processes/{name}/wait"), &body)).await
    }

    /// Ends a process.
    pub(crate) async fn kill(&self, name: &str, body: Value) -> Process {
        self.json(post(&format!("/processes/{name}/kill"), &body)).await
    }

    /// A line of the agent's /proc/PID/status, in KiB.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Events of a followed command. Dropping it closes the connection.
pub(crate) struct Events {
    body: Incoming,
    text: String,
    /// The `id:` of the last event that had one.
    pub(crate) cursor: u64,
}

impl Events {
    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<ExecEvent> {
        loop {
            if let Some((lines, rest)) = self.text.split_once("\n\n") {
                let data = lines.lines().find_map(|line| line.strip_prefix("data: "));
                let event = data.map(|data| serde_json::from_str(data).unwrap());
                if let Some(id) = lines.lines().find_map(|line| line.strip_prefix("id: ")) {
                    self.cursor = id.parse().unwrap();
                }
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            // A stream that breaks off ends here too.
            let Ok(frame) = within(self.body.frame()).await? else { return None };
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }

    pub(crate) async fn all(mut self) -> Vec<ExecEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// The rest of the stream as it is.
    pub(crate) async fn text(mut self) -> String {
        while let Some(bytes) = self.raw().await {
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        self.text
    }

    /// Bytes of the stream, without looking at them.
    pub(crate) async fn raw(&mut self) -> Option<Bytes> {
        within(self.body.frame()).await.map(|frame| frame.unwrap().into_data().unwrap())
    }
}

/// A cgroup of the test's own, removed with everything in it.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn new(parent: &Path) -> Self {
        let number = CGROUPS.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("agent-test-{}-{number}", std::process::id()));
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: are you root?", path.display()));
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.0.join("cgroup.kill").exists() {
            fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        }
        let removed = eventually_blocking(|| {
            for child in fs::read_dir(&self.0).unwrap().flatten() {
                // Files cannot be removed and need not be.
                drop(fs::remove_dir(child.path()));
            }
            fs::remove_dir(&self.0).is_ok()
        });
        assert!(removed, "{} stays", self.0.display());
    }
}

/// Where the v2 tree is mounted.
pub(crate) fn v2_root() -> PathBuf {
    mount_of(|kind, _| kind == "cgroup2").expect("a cgroup v2 tree must be mounted")
}

/// A mount by file system type and options.
pub(crate) fn mount_of(wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        wanted(fields[2], fields[3]).then(|| PathBuf::from(fields[1]))
    })
}

pub(crate) fn request(method: Method, url: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(url).body(Full::new(body.into())).unwrap()
}

/// A request with one more header.
pub(crate) fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

pub(crate) fn post(url: &str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = request(Method::POST, url, body.to_string());
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    request
}

/// Fails the test when `future` takes too long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing came before the deadline")
}

/// Waits until `is_so`; the kernel gives no event for it.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not before the deadline: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn eventually_blocking(is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Times for a command that is cut off by them, each twice the one before: whoever needs what it has written
/// until then takes the first that was long enough for that, however slow the machine is just now.
pub(crate) fn cut_off_after_ms() -> impl Iterator<Item = u64> {
    (0..8).map(|doubled| 200 << doubled)
}

/// True while `pid` is a process that has not ended.
pub(crate) fn is_alive(pid: &str) -> bool {
    let pid = pid.trim();
    assert!(!pid.is_empty(), "a process id was expected");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
