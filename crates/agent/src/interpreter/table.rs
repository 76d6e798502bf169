//! Who exists: the contexts of the sandbox, and what each starts with.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    id::ContextId,
    interpreter::{Context as Described, CreateContext, Language},
    limit::{CONTEXT_QUEUE, CONTEXTS, EXPIRED_CONTEXTS, RUN_TIMEOUT_MS},
    session::CreateSession,
};
use tokio::sync::watch;

use super::{idle::Left, kernel::Kernel, language::Recipe};
use crate::{
    env::{check_bytes, check_names},
    file,
    init::Agent,
    process::{Process, check::limit, environment, log::now_ms},
    session::{self, Session},
};

/// The contexts of the sandbox, by id.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: BTreeMap<ContextId, Arc<Context>>,
    /// Those that were deleted for having been idle, the last one last.
    expired: VecDeque<ContextId>,
    /// Number of the next one.
    next: u64,
}

/// A context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: ContextId,
    number: u64,
    pub(super) language: Language,
    /// Where its interpreter starts; absolute.
    start: String,
    /// Its variables over those of the sandbox.
    env: BTreeMap<String, Option<String>>,
    /// The limit of runs that have none.
    pub(super) timeout: Duration,
    pub(super) idle_timeout: Option<Duration>,
    created_ms: i64,
    last_used_ms: AtomicI64,
    /// Of its interpreter; 0 while there is none.
    pid: AtomicI32,
    count: AtomicU64,
    /// Runs that run or wait, and others that want the turn.
    places: watch::Sender<usize>,
    /// Whoever holds it speaks to the interpreter. In the order of asking.
    pub(super) turn: tokio::sync::Mutex<Slot>,
    /// What runs.
    current: Mutex<Option<Arc<Process>>>,
    /// Counts restarts: what waited for its turn across one is not run.
    pub(super) generation: AtomicU64,
    is_deleted: watch::Sender<bool>,
}

/// A context's interpreter.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) kernel: Option<Kernel>,
    /// Of bash, whose interpreter is a session's shell.
    pub(super) session: Option<Arc<Session>>,
    pub(super) left: Left,
}

/// A place among those that run or wait in a context.
#[derive(Debug)]
pub(super) struct Place(Arc<Context>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.send_modify(|places| *places -= 1);
    }
}

impl Contexts {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Context>> {
        let mut all: Vec<_> = self.known().by_id.values().cloned().collect();
        all.sort_by_key(|context| context.number);
        all
    }

    /// The context `id`.
    pub(super) fn get(&self, id: &str) -> Result<Arc<Context>, ApiError> {
        let known = self.known();
        if let Some(context) = id.parse::<ContextId>().ok().and_then(|id| known.by_id.get(&id)) {
            return Ok(Arc::clone(context));
        }
        let error = if known.expired.iter().any(|expired| expired.as_str() == id) {
            let text = format!(
                "context '{id}' was not used for its idleTimeoutMs and was deleted; create it again"
            );
            ApiError::new(ErrorCode::ContextExpired, text)
        } else {
            ApiError::new(ErrorCode::ContextNotFound, format!("there is no context '{id}'"))
        };
        Err(error.with("contextId", id))
    }

    /// The context that code of `language` runs in when it names none.
    pub(super) fn default_of(
        &self,
        agent: &Agent,
        language: Language,
    ) -> Result<Arc<Context>, ApiError> {
        let id: ContextId =
            format!("default-{language}").parse().expect("it is letters and a dash");
        let mut known = self.known();
        if let Some(context) = known.by_id.get(&id) {
            return Ok(Arc::clone(context));
        }
        let request = CreateContext { id: Some(id), language, ..CreateContext::default() };
        known.add(request, &agent.workdir)
    }

    /// A new context as it was asked for.
    pub(super) fn create(
        &self,
        agent: &Agent,
        request: CreateContext,
    ) -> Result<Arc<Context>, ApiError> {
        check_names(&request.env)?;
        environment(&BTreeMap::new(), request.env.clone())?;
        check_bytes(
            request
                .env
                .iter()
                .map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)),
        )?;
        if let Some(timeout_ms) = request.timeout_ms {
            limit(timeout_ms)?;
        }
        if let Some(timeout_ms) = request.idle_timeout_ms {
            limit(timeout_ms).map_err(|error| error.with("field", "idleTimeoutMs"))?;
        }
        if let Some(cwd) = &request.cwd {
            file::open_directory(&agent.workdir, cwd)?;
        }
        let mut known = self.known();
        if let Some(id) = request.id.as_ref().filter(|id| known.by_id.contains_key(id)) {
            let text = format!("context '{id}' already exists; delete it, or take another id");
            let error = ApiError::new(ErrorCode::ContextExists, text);
            return Err(error.with("contextId", id.as_str()));
        }
        known.add(request, &agent.workdir)
    }

    /// Takes a context out; its id is free.
    pub(super) fn forget(&self, context: &Context) {
        let mut known = self.known();
        let is_it = |other: &Arc<Context>| std::ptr::eq(&raw const **other, context);
        if known.by_id.get(&context.id).is_some_and(is_it) {
            known.by_id.remove(&context.id);
        }
    }

    /// Takes a context out that was not used for too long.
    pub(super) fn expire(&self, context: &Context) {
        self.forget(context);
        let mut known = self.known();
        if known.expired.len() >= EXPIRED_CONTEXTS {
            known.expired.pop_front();
        }
        known.expired.push_back(context.id.clone());
    }
}

impl Known {
    fn add(&mut self, request: CreateContext, workdir: &str) -> Result<Arc<Context>, ApiError> {
        if self.by_id.len() >= CONTEXTS {
            let text = format!("there are {CONTEXTS} contexts in this sandbox; delete one");
            return Err(ApiError::new(ErrorCode::TooManyRequests, text).with("limit", CONTEXTS));
        }
        let number = self.next;
        self.next += 1;
        let id = match &request.id {
            Some(id) => id.clone(),
            None => {
                format!("ctx_{}_{number}", now_ms()).parse().expect("it is letters, digits and '_'")
            }
        };
        self.expired.retain(|expired| *expired != id);
        let context = Arc::new(Context::new(id.clone(), number, request, workdir));
        self.by_id.insert(id, Arc::clone(&context));
        Ok(context)
    }
}

impl Context {
    fn new(id: ContextId, number: u64, request: CreateContext, workdir: &str) -> Self {
        let start = match request.cwd {
            None => workdir.to_owned(),
            Some(cwd) if cwd.starts_with('/') => cwd,
            Some(cwd) => format!("{workdir}/{cwd}"),
        };
        let now = now_ms();
        Self {
            id,
            number,
            language: request.language,
            start,
            env: request.env,
            timeout: Duration::from_millis(request.timeout_ms.unwrap_or(RUN_TIMEOUT_MS)),
            idle_timeout: request.idle_timeout_ms.map(Duration::from_millis),
            created_ms: now,
            last_used_ms: AtomicI64::new(now),
            pid: AtomicI32::new(0),
            count: AtomicU64::new(0),
            places: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
            current: Mutex::new(None),
            generation: AtomicU64::new(0),
            is_deleted: watch::Sender::new(false),
        }
    }

    /// A place among those that run or wait.
    pub(super) fn place(self: &Arc<Self>) -> Result<Place, ApiError> {
        self.places.send_modify(|places| *places += 1);
        let place = Place(Arc::clone(self));
        if *self.places.borrow() <= CONTEXT_QUEUE + 1 {
            return Ok(place);
        }
        let text = format!("{CONTEXT_QUEUE} runs wait in context '{}'", self.id);
        let error = ApiError::new(ErrorCode::TooManyRequests, text);
        Err(error.with("limit", CONTEXT_QUEUE).with("contextId", self.id.as_str()))
    }

    pub(super) fn is_wanted(&self) -> bool {
        *self.places.borrow() > 0
    }

    /// Ends when somebody wants the turn.
    ///
    /// Cancel safe.
    pub(super) async fn wanted(&self) {
        // The sender is a field of `self`.
        drop(self.places.subscribe().wait_for(|places| *places > 0).await);
    }

    /// Ends when the context is deleted.
    ///
    /// Cancel safe.
    pub(super) async fn deleted(&self) {
        // The sender is a field of `self`.
        drop(self.is_deleted.subscribe().wait_for(|is_deleted| *is_deleted).await);
    }

    pub(super) fn is_deleted(&self) -> bool {
        *self.is_deleted.borrow()
    }

    /// Starts the context's interpreter, if there is none.
    pub(super) async fn start(&self, agent: &Arc<Agent>, slot: &mut Slot) -> Result<(), ApiError> {
        match Recipe::of(self.language) {
            Some(recipe) => self.kernel(agent, slot, recipe).await.map(drop),
            None => session::start(agent, &self.session(agent, slot)).await.map(|pid| {
                self.set_pid(pid);
            }),
        }
    }

    /// The session that is the context's interpreter.
    pub(super) fn session(&self, agent: &Agent, slot: &mut Slot) -> Arc<Session> {
        let session = slot.session.get_or_insert_with(|| {
            self.count.store(0, Ordering::Relaxed);
            let (env, cwd) = (self.env.clone(), Some(self.start.clone()));
            let request = CreateSession { env, cwd, ..CreateSession::default() };
            session::of_context(self.id.as_str(), request, &agent.workdir)
        });
        Arc::clone(session)
    }

    /// The context's interpreter, which is started if there is none.
    pub(super) async fn kernel<'a>(
        &self,
        agent: &Arc<Agent>,
        slot: &'a mut Slot,
        recipe: &Recipe,
    ) -> Result<&'a mut Kernel, ApiError> {
        let kernel = match slot.kernel.take() {
            Some(kernel) => kernel,
            None => {
                let variables = self.variables(agent)?;
                let cwd = self.directory(agent)?;
                self.count.store(0, Ordering::Relaxed);
                Kernel::start(agent, (self.language, recipe), &variables, cwd).await?
            }
        };
        self.set_pid(kernel.pid);
        Ok(slot.kernel.insert(kernel))
    }

    /// What a new interpreter gets.
    fn variables(&self, agent: &Agent) -> Result<BTreeMap<String, String>, ApiError> {
        environment(&agent.env.now(), self.env.clone())
    }

    /// Where a new interpreter starts: the context may outlive its directory.
    fn directory(&self, agent: &Agent) -> Result<OwnedFd, ApiError> {
        file::open_directory("/", &self.start)
            .or_else(|_gone| file::open_directory("/", &agent.workdir))
            .or_else(|_gone| file::open_directory("/", "/"))
    }

    pub(super) fn touch(&self) {
        self.last_used_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(super) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Another run has begun; its number.
    pub(super) fn count(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What runs from now on.
    pub(super) fn set_current(&self, process: Option<Arc<Process>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// What runs.
    pub(super) fn current(&self) -> Option<Arc<Process>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It, as callers see it.
    pub(super) fn describe(&self) -> Described {
        let places = *self.places.borrow();
        let busy = self.current().is_some();
        let milliseconds =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Described {
            id: self.id.clone(),
            language: self.language,
            cwd: self.start.clone(),
            pid: Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0),
            busy,
            waiting: places.saturating_sub(usize::from(busy)),
            execution_count: self.count.load(Ordering::Relaxed),
            created_at_ms: self.created_ms,
            last_used_ms: self.last_used_ms.load(Ordering::Relaxed),
            timeout_ms: milliseconds(self.timeout),
            idle_timeout_ms: self.idle_timeout.map(milliseconds),
        }
    }

    /// Ends everything of it, and returns when it has ended. It must be forgotten already.
    pub(super) async fn bury(&self, agent: &Agent) {
        self.is_deleted.send_replace(true);
        self.end(agent, &mut *self.turn.lock().await).await;
    }

    /// Ends its interpreter.
    pub(super) async fn end(&self, agent: &Agent, slot: &mut Slot) {
        if let Some(session) = slot.session.take() {
            session.bury(agent).await;
        }
        if let Some(mut kernel) = slot.kernel.take() {
            kernel.kill().await;
        }
        slot.left = Left::default();
        self.set_pid(0);
    }
}
