//! Who exists: the sessions of the sandbox, and what each starts with.

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    id::SessionId,
    limit::{NAME_CHARS, SESSION_QUEUE, SESSIONS},
    session::{CreateSession, DEFAULT_SESSION, Session as Described},
};
use tokio::{sync::watch, time::Instant};

use super::{check_own, destroyed, ended, invalid_name, name_as_id, not_found, proc, shell::Shell};
use crate::{
    definitions::KeptSession,
    file,
    init::Agent,
    process::{check::limit, log::now_ms},
};

/// Cgroups with what a session left in the background, before those that are gone are struck off.
const LEFT_CGROUPS: usize = 64;

/// How long killed processes may take to end before a deletion is answered without them: only what
/// is stuck in the kernel takes any.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// Between two looks at what was killed: the kernel gives no event for a cgroup of another's
/// children.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The sessions of the sandbox, by id.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: Mutex<BTreeMap<SessionId, Arc<Session>>>,
    default: Arc<Session>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    name: Option<String>,
    /// Where its shell starts; absolute.
    start: String,
    /// Its variables over those of the sandbox.
    env: Mutex<BTreeMap<String, Option<String>>>,
    /// The limit of commands that have none.
    pub(super) command_timeout: Option<Duration>,
    created_ms: i64,
    last_used_ms: AtomicI64,
    /// Of its shell; 0 while there is none.
    pid: AtomicI32,
    /// Where the session is while its shell is elsewhere, for a command with a directory of its own.
    stays: Mutex<Option<PathBuf>>,
    /// Commands that run or wait.
    places: Arc<AtomicUsize>,
    /// Whoever holds it speaks to the shell. In the order of asking.
    pub(super) turn: tokio::sync::Mutex<Slot>,
    is_destroyed: watch::Sender<bool>,
}

/// A session's shell, and what it left behind.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) shell: Option<Shell>,
    /// Names of cgroups in which something may still run.
    left: Vec<CString>,
}

/// A command's place among those that run or wait in a session.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    /// The default session alone.
    pub(crate) fn new(workdir: &str) -> Self {
        let id: SessionId = DEFAULT_SESSION.parse().expect("it is letters only");
        let default = Arc::new(Session::new(id.clone(), CreateSession::default(), workdir));
        let all = Mutex::new(BTreeMap::from([(id, Arc::clone(&default))]));
        Self { all, default }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.table().values().cloned().collect()
    }

    pub(super) fn default_session(&self) -> Arc<Session> {
        Arc::clone(&self.default)
    }

    /// A session by its id or, where none has it, by its name.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        find(&self.table(), id)
    }

    pub(super) fn known(&self, id: &str) -> Result<Arc<Session>, ApiError> {
        self.find(id).ok_or_else(|| not_found(id))
    }

    /// A session by its id or name; a new one of that id if there is none.
    pub(super) fn find_or_make(
        &self,
        agent: &Agent,
        id: &SessionId,
    ) -> Result<Arc<Session>, ApiError> {
        let mut table = self.table();
        if let Some(session) = find(&table, id.as_str()) {
            return Ok(session);
        }
        let session = Session::new(id.clone(), CreateSession::default(), &agent.workdir);
        let made = add(&mut table, session)?;
        // Nobody waits: it has nothing of its own but its id.
        agent.definitions.note();
        Ok(made)
    }

    /// What each is, for a later agent of the sandbox. A default session as every sandbox has it is
    /// left out.
    pub(crate) fn definitions(&self) -> Vec<KeptSession> {
        let all = self.all();
        let defined =
            all.iter().filter(|session| !session.is_default() || !session.own().is_empty());
        defined
            .map(|session| KeptSession {
                session: session.definition(),
                created_at_ms: session.created_ms,
            })
            .collect()
    }

    /// Puts back a session of an earlier agent. Its directory may be gone; its shell starts elsewhere
    /// then, as of any session whose directory goes.
    pub(crate) fn restore(
        &self,
        request: CreateSession,
        created_at_ms: i64,
    ) -> Result<(), ApiError> {
        check_own(&request.env)?;
        let Some(id) = request.id.clone() else { return Ok(()) };
        if id.as_str() == DEFAULT_SESSION {
            return self.default.change(&request.env);
        }
        let mut session = Session::new(id.clone(), request, "/");
        session.created_ms = created_at_ms;
        let mut table = self.table();
        if table.contains_key(&id) { Ok(()) } else { add(&mut table, session).map(drop) }
    }

    /// A new session as it was asked for.
    pub(super) fn create(
        &self,
        agent: &Agent,
        request: CreateSession,
    ) -> Result<Arc<Session>, ApiError> {
        check_own(&request.env)?;
        if request.name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS) {
            return Err(invalid_name(format!("a name has at most {NAME_CHARS} characters")));
        }
        if let Some(timeout_ms) = request.command_timeout_ms {
            limit(timeout_ms).map_err(|error| error.with("field", "commandTimeoutMs"))?;
        }
        if let Some(cwd) = &request.cwd {
            file::open_directory(&agent.workdir, cwd)?;
        }
        let mut table = self.table();
        let id = match &request.id {
            Some(id) if table.contains_key(id) => {
                let text = format!("session '{id}' already exists");
                let error = ApiError::new(ErrorCode::SessionAlreadyExists, text);
                return Err(error.with("sessionId", id.as_str()));
            }
            Some(id) => id.clone(),
            None => name_as_id(request.name.as_deref())
                .filter(|id| !table.contains_key(id))
                .unwrap_or_else(generate_id),
        };
        add(&mut table, Session::new(id, request, &agent.workdir))
    }

    /// Takes a session out; its id is free.
    pub(super) fn forget(&self, session: &Session) {
        let mut table = self.table();
        if table.get(&session.id).is_some_and(|known| std::ptr::eq(&raw const **known, session)) {
            table.remove(&session.id);
        }
    }
}

fn find(table: &BTreeMap<SessionId, Arc<Session>>, id: &str) -> Option<Arc<Session>> {
    let by_id = id.parse::<SessionId>().ok().and_then(|id| table.get(&id));
    let by_name = || table.values().find(|session| session.name.as_deref() == Some(id));
    by_id.or_else(by_name).cloned()
}

fn add(
    table: &mut BTreeMap<SessionId, Arc<Session>>,
    session: Session,
) -> Result<Arc<Session>, ApiError> {
    if table.len() >= SESSIONS {
        let text = format!("there are {SESSIONS} sessions in this sandbox; delete one");
        return Err(ApiError::new(ErrorCode::TooManyRequests, text).with("limit", SESSIONS));
    }
    let session = Arc::new(session);
    table.insert(session.id.clone(), Arc::clone(&session));
    Ok(session)
}

/// An id that no other session of this agent gets, and, by its time, none of an earlier one.
fn generate_id() -> SessionId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("session_{}_{number}", now_ms()).parse().expect("it is letters, digits and '_'")
}

impl Session {
    pub(super) fn new(id: SessionId, request: CreateSession, workdir: &str) -> Self {
        let start = match request.cwd {
            None => workdir.to_owned(),
            Some(cwd) if cwd.starts_with('/') => cwd,
            Some(cwd) => format!("{workdir}/{cwd}"),
        };
        let now = now_ms();
        Self {
            id,
            name: request.name,
            start,
            env: Mutex::new(request.env),
            command_timeout: request.command_timeout_ms.map(Duration::from_millis),
            created_ms: now,
            last_used_ms: AtomicI64::new(now),
            pid: AtomicI32::new(0),
            stays: Mutex::new(None),
            places: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            is_destroyed: watch::Sender::new(false),
        }
    }

    /// What it starts with.
    fn definition(&self) -> CreateSession {
        CreateSession {
            id: Some(self.id.clone()),
            name: self.name.clone(),
            env: self.own().clone(),
            cwd: Some(self.start.clone()),
            command_timeout_ms: self.command_timeout_ms(),
        }
    }

    fn command_timeout_ms(&self) -> Option<u64> {
        self.command_timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn is_default(&self) -> bool {
        self.id.as_str() == DEFAULT_SESSION
    }

    /// A place among the commands that run or wait.
    pub(super) fn place(&self) -> Result<Place, ApiError> {
        let place = Place(Arc::clone(&self.places));
        if self.places.fetch_add(1, Ordering::Relaxed) <= SESSION_QUEUE {
            return Ok(place);
        }
        let text = format!("{SESSION_QUEUE} commands wait in session '{}'", self.id);
        let error = ApiError::new(ErrorCode::TooManyRequests, text);
        Err(error.with("limit", SESSION_QUEUE).with("sessionId", self.id.as_str()))
    }

    /// The turn, unless the session is deleted before it comes.
    pub(super) async fn own_turn(&self) -> Result<tokio::sync::MutexGuard<'_, Slot>, ApiError> {
        tokio::select! {
            biased;
            () = self.destroyed() => Err(destroyed(&self.id)),
            slot = self.turn.lock() => Ok(slot),
        }
    }

    /// Ends when the session is deleted.
    ///
    /// Cancel safe.
    pub(super) async fn destroyed(&self) {
        // The sender is a field of `self`.
        drop(self.is_destroyed.subscribe().wait_for(|is_destroyed| *is_destroyed).await);
    }

    /// The session's shell. If it ended when nobody used it, that is the answer, once.
    pub(super) async fn shell<'a>(
        &self,
        agent: &Arc<Agent>,
        slot: &'a mut Slot,
    ) -> Result<&'a mut Shell, ApiError> {
        let status = slot.shell.as_mut().and_then(|shell| shell.exit.now());
        if let Some(status) = status {
            slot.give_up();
            self.set_pid(None);
            return Err(ended(&self.id, status));
        }
        let shell = match slot.shell.take() {
            Some(shell) => shell,
            None => Shell::start(agent, &self.variables(agent), self.start(agent)?).await?,
        };
        self.set_pid(Some(shell.pid));
        Ok(slot.shell.insert(shell))
    }

    /// What a new shell gets.
    fn variables(&self, agent: &Agent) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::clone(&agent.env.now());
        for (name, value) in self.own().iter() {
            match value {
                Some(value) => drop(variables.insert(name.clone(), value.clone())),
                None => drop(variables.remove(name)),
            }
        }
        variables
    }

    /// Where a new shell starts: the session may outlive its directory.
    fn start(&self, agent: &Agent) -> Result<OwnedFd, ApiError> {
        file::open_directory("/", &self.start)
            .or_else(|_gone| file::open_directory("/", &agent.workdir))
            .or_else(|_gone| file::open_directory("/", "/"))
    }

    fn own(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a variable is the session's own.
    pub(super) fn has_own(&self, name: &str) -> bool {
        self.own().contains_key(name)
    }

    /// Changes what a new shell gets.
    pub(super) fn change(
        &self,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ApiError> {
        let mut own = self.own();
        let mut changed = own.clone();
        changed.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
        check_own(&changed)?;
        *own = changed;
        Ok(())
    }

    pub(super) fn touch(&self) {
        self.last_used_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(super) fn set_pid(&self, pid: Option<i32>) {
        self.pid.store(pid.unwrap_or(0), Ordering::Relaxed);
    }

    /// Of its shell, if there is one that has not ended.
    fn pid(&self) -> Option<i32> {
        // While somebody speaks to the shell, its end is seen by whoever does.
        if let Ok(mut slot) = self.turn.try_lock()
            && slot.shell.as_mut().is_none_or(|shell| shell.exit.now().is_some())
        {
            return None;
        }
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Its current directory: that of its shell, or where that will start.
    pub(super) fn cwd(&self) -> PathBuf {
        let stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stays
            .or_else(|| self.pid().and_then(proc::cwd))
            .unwrap_or_else(|| PathBuf::from(&self.start))
    }

    /// The session is here, wherever its shell is, until this is taken back.
    pub(super) fn stay(&self, at: Option<PathBuf>) {
        *self.stays.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// It, as callers see it.
    pub(super) fn describe(&self) -> Described {
        let places = self.places.load(Ordering::Relaxed);
        Described {
            id: self.id.clone(),
            name: self.name.clone(),
            cwd: self.cwd().to_string_lossy().into_owned(),
            pid: self.pid(),
            busy: places > 0,
            waiting: places.saturating_sub(1),
            created_at_ms: self.created_ms,
            last_used_ms: self.last_used_ms.load(Ordering::Relaxed),
            command_timeout_ms: self.command_timeout_ms(),
        }
    }

    /// Ends everything of it, and returns when it has ended. It must be forgotten already.
    pub(crate) async fn bury(&self, agent: &Agent) {
        self.is_destroyed.send_replace(true);
        let mut slot = self.turn.lock().await;
        if let Some(shell) = &mut slot.shell {
            shell.kill().await;
        }
        slot.give_up();
        self.set_pid(None);
        let left = std::mem::take(&mut slot.left);
        kill_left(agent, &left).await;
    }
}

impl Slot {
    /// Gives up a shell that has ended.
    pub(super) fn give_up(&mut self) {
        if let Some(shell) = self.shell.take() {
            let left = shell.leave();
            self.left.extend(left);
        }
    }

    /// Remembers a cgroup that the session left, for its end.
    pub(super) fn keep_track(&mut self, agent: &Agent, left: Option<CString>) {
        self.left.extend(left);
        if self.left.len() > LEFT_CGROUPS {
            self.left.retain(|name| agent.forest.find(name).is_some());
        }
    }
}

/// Kills what is left in these cgroups, and waits for its end.
async fn kill_left(agent: &Agent, names: &[CString]) {
    let cgroups: Vec<_> = names.iter().filter_map(|name| agent.forest.find(name)).collect();
    for cgroup in &cgroups {
        // An error means that nothing is left.
        cgroup.kill().unwrap_or(());
    }
    let until = Instant::now() + KILL_WAIT;
    while cgroups.iter().any(|cgroup| !cgroup.members().is_empty()) && Instant::now() < until {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    drop(cgroups);
    agent.forest.sweep();
}
