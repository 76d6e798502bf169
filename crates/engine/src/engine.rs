//! What the daemon can ask of a node. Each answer is one call of the file that has it.

use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use api::{
    checkpoint::{
        Checkpoint, CheckpointCreated, CheckpointExport, CreateCheckpoint, ForkSandbox,
        RestoreCheckpoint,
    },
    event::{EventList, ListEvents},
    id::{CheckpointId, IdPrefix, SandboxId, WebhookName},
    image::{BuildEvent, BuildImage, Image},
    node::ShutdownSandboxes,
    port::{ExposePort, PortNumber, PreviewLabel, RotatePort},
    sandbox::{
        CreateSandbox, ListSandboxes, NetworkUsage, Sandbox, SandboxList, SandboxState,
        SandboxUsage, UpdateSandbox,
    },
    webhook::{CreateWebhook, NewWebhook, Webhook, WebhookTested},
};
use jail::{JailId, Keeper, Launcher, VolumesFileSystem};
use link::Links;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    EngineConfig, EngineError,
    build::{self, KeptBuilders},
    checkpoint,
    create::{self, FirstUse},
    destroy, diff,
    error::{self, Publish},
    event::{self, Cause, EventFollower},
    export::{self, Import},
    fork, freeze, idle,
    key::{By, Key, Keys, Store},
    launch::{Launchers, Remover},
    list::Page,
    memory,
    node::{Node, Parts},
    pool,
    port::{self, Exposure, Found, Secret, Visit},
    reader::Reader,
    reconcile,
    record::{Loaded, Records},
    recover,
    resolver::{self, NameSockets},
    sandbox::{InUse, Sandbox as Resident},
    shutdown,
    state::AgentIdentity,
    update, webhook,
};

/// Launchers that an engine needs: one that builds jails, one for the network, one that removes
/// files.
const MIN_LAUNCHERS: usize = 3;

/// What an engine works with, all of it root's: taken, opened and started by a server that gives up being
/// root before it opens its engine.
#[derive(Debug)]
pub struct Tools {
    /// Starts what is to be started.
    pub keeper: Arc<Keeper>,
    /// At least three; the last one only removes files, the one before is for the network.
    pub launchers: Vec<Launcher>,
    /// What the volumes are in.
    pub volumes: VolumesFileSystem,
    /// Where names are asked for; none on a node without a network.
    pub names: Option<io::Result<NameSockets>>,
}

/// The sandboxes of one node. Cheap to clone.
///
/// The state directory is free for another engine when the last clone is dropped. The engine works
/// on the runtime it was opened on.
#[derive(Debug, Clone)]
pub struct Engine {
    node: Arc<Node>,
    keys: Keys,
    /// The database's thread; taken by the shutdown.
    records: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// A running sandbox, as one request needs it. It is not frozen until this is dropped, unless its
/// settings say that such a request is no use: hold it to the last byte of the answer.
#[derive(Debug)]
pub struct Active {
    /// Where its agent is reached, see [`Links::send`].
    pub jail: JailId,
    sandbox: Arc<Resident>,
    agent: AgentIdentity,
    /// Counts this use.
    _user: Option<InUse>,
}

impl Active {
    /// Of a sandbox that may be frozen once the use has ended.
    pub(crate) fn unheld(user: &InUse) -> Self {
        let (sandbox, agent) = (Arc::clone(user.sandbox()), user.agent().clone());
        Self { jail: sandbox.jail, sandbox, agent, _user: None }
    }

    /// Ends when the sandbox is known to be without the agent that it had. Whoever finds an agent gone
    /// is sooner than that: the kernel closes what a process had open, and tells of its end when all of
    /// its sandbox have ended. Pending for as long as the agent runs.
    pub async fn outlived(&self) {
        self.sandbox.outlived(&self.agent).await;
    }
}

impl From<InUse> for Active {
    fn from(user: InUse) -> Self {
        let unheld = Self::unheld(&user);
        Self { _user: Some(user), ..unheld }
    }
}

impl Engine {
    /// Opens the state directory (one engine at a time, by a lock), and recovers: adopts running
    /// sandboxes, finishes or buries what was under way.
    ///
    /// # Errors
    /// `RESOURCE_BUSY` when the directory is in use, `NO_SPACE` when its disk is full,
    /// `INTERNAL_ERROR` when it is damaged, `SANDBOX_FAILED` when the kernel or the network could not
    /// be brought into order. Nothing was changed that another start would miss.
    ///
    /// `keys` get those on record, and open nothing but `local` before.
    pub async fn open(
        config: EngineConfig,
        mut tools: Tools,
        links: Links,
        keys: Keys,
    ) -> Result<Self, EngineError> {
        let names = tools.names.take();
        let assembled = tokio::task::spawn_blocking(move || assemble(config, tools, links)).await;
        let (node, mut loaded, records) =
            assembled.map_err(|_panicked| error::internal("opening the node"))??;
        let node = Arc::new(node);
        let store = Store {
            records: node.records.clone(),
            work: node.work.clone(),
            closing: node.closing.clone(),
        };
        keys.open(std::mem::take(&mut loaded.keys), store);
        let webhooks = std::mem::take(&mut loaded.webhooks);
        if let (Some(network), Some(names)) = (node.config.node.network, names) {
            resolver::spawn(&node, network.gateway(), names);
        }
        recover::recover(&node, loaded).await?;
        webhook::restore(&node, webhooks);
        idle::sweep::spawn(&node);
        memory::spawn(&node);
        pool::spawn(&node);
        reconcile::spawn(&node);
        Ok(Self { node, keys, records: Arc::new(Mutex::new(Some(records))) })
    }

    /// The keys of the node, which can be changed from now on.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Creates a sandbox, or returns the existing one when the settings agree; either runs at
    /// return. `true`: it is new.
    ///
    /// # Cancel safety
    /// A creation that has begun goes on without its caller.
    ///
    /// # Errors
    /// `SANDBOX_EXISTS`, `IMAGE_NOT_FOUND`, `VALIDATION_FAILED`, `CAPACITY_EXCEEDED`,
    /// `TOO_MANY_REQUESTS`, `FORBIDDEN` for an id that `by` does not cover, `SANDBOX_FAILED` with
    /// `details.step`, `NO_SPACE`, `SHUTTING_DOWN`.
    pub async fn create(
        &self,
        request: CreateSandbox,
        by: &Key,
    ) -> Result<(Sandbox, bool), EngineError> {
        let (sandbox, is_new) = create::create(&self.node, request, by).await?;
        let description = sandbox.describe(None).ok_or_else(|| error::not_found(&sandbox.id))?;
        Ok((description, is_new))
    }

    /// One sandbox, with its usage.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn get(&self, id: &SandboxId) -> Result<Sandbox, EngineError> {
        let sandbox = self.node.find(id).ok_or_else(|| error::not_found(id))?;
        let usage = if sandbox.has_processes() { usage(&self.node, &sandbox).await } else { None };
        sandbox.describe(usage).ok_or_else(|| error::not_found(id))
    }

    /// Changes a sandbox that exists. What it runs goes on.
    ///
    /// # Cancel safety
    /// A change that has begun goes on without its caller.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `VALIDATION_FAILED`, `NO_SPACE`; `SANDBOX_FAILED` when the kernel refuses:
    /// the change is recorded, and is to be asked for again.
    pub async fn update(
        &self,
        id: &SandboxId,
        request: UpdateSandbox,
        by: &Key,
    ) -> Result<Sandbox, EngineError> {
        self.node.check_open()?;
        let sandbox = update::update(&self.node, id, request, by).await?;
        sandbox.describe(None).ok_or_else(|| error::not_found(id))
    }

    /// A page of the sandboxes whose ids begin with `prefix`.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` for a bad cursor or label filter.
    #[expect(clippy::unused_async, reason = "the list of a cluster is not in memory")]
    pub async fn list(
        &self,
        query: &ListSandboxes,
        prefix: Option<&IdPrefix>,
    ) -> Result<SandboxList, EngineError> {
        let page = Page::of(query, prefix)?;
        Ok(self.node.survey(|all| page.take(all)))
    }

    /// The state of each sandbox: cheap however many there are.
    #[must_use]
    pub fn states(&self) -> Vec<SandboxState> {
        self.node.survey(|all| all.values().filter_map(|one| one.public_state()).collect())
    }

    /// Sandboxes that were made ahead of the creations that will take them.
    #[must_use]
    pub fn sandboxes_ahead(&self) -> usize {
        self.node.pool.len()
    }

    /// How often something was found that was nobody's, and removed, since the engine was opened.
    #[must_use]
    pub fn remains_found(&self) -> u64 {
        self.node.finds.remains()
    }

    /// How often the node's firewall rules were found to be missing since this engine started.
    #[must_use]
    pub fn networks_restored(&self) -> u64 {
        self.node.finds.networks()
    }

    /// Finds, starts or, if `first_use` creates, creates the sandbox, for one request to it. Whether
    /// `by` covers the id was checked before; here a start is counted in its name.
    /// The one function that knows where a sandbox lives. For one that runs, it takes no lock
    /// across an await and touches no disk.
    ///
    /// # Cancel safety
    /// As [`Engine::create`].
    ///
    /// # Errors
    /// As [`Engine::create`]; `SANDBOX_NOT_FOUND` where the first use is refused.
    pub async fn activate(
        &self,
        id: &SandboxId,
        first_use: FirstUse,
        by: &Key,
    ) -> Result<Active, EngineError> {
        self.node.check_open()?;
        create::activate(&self.node, id, first_use, by).await.map(Active::from)
    }

    /// Stops every process of a running sandbox where it is, once no request is under way. A frozen
    /// sandbox keeps its memory and uses no CPU; the next request to it, or to a preview of it, lets
    /// it go on. One that does not run stays as it is.
    ///
    /// # Cancel safety
    /// A freeze that has begun goes on without its caller; so for thaw, stop and start.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`; `RESOURCE_BUSY` when it is used all the time; `SANDBOX_FAILED` when
    /// processes do not come to rest.
    pub async fn freeze(&self, id: &SandboxId, by: &Key) -> Result<Sandbox, EngineError> {
        self.node.check_open()?;
        freeze::freeze(&self.node, id, Cause::request(by)).await?;
        self.get(id).await
    }

    /// Lets a frozen sandbox go on. One that is not frozen stays as it is.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `SANDBOX_FAILED`.
    pub async fn thaw(&self, id: &SandboxId, by: &Key) -> Result<Sandbox, EngineError> {
        self.node.check_open()?;
        freeze::thaw(&self.node, id, Cause::request(by)).await?;
        self.get(id).await
    }

    /// Ends the sandbox's processes, with 5 s of notice; its files and settings stay. Needs no help of
    /// the agent.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`; `SANDBOX_FAILED` when processes cannot be ended.
    pub async fn stop(&self, id: &SandboxId, by: &Key) -> Result<Sandbox, EngineError> {
        self.node.check_open()?;
        destroy::stop(&self.node, id, &Cause::request(by)).await?;
        self.get(id).await
    }

    /// Has an existing sandbox run, whatever it was.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`; as [`Engine::create`].
    pub async fn start(&self, id: &SandboxId, by: &Key) -> Result<Sandbox, EngineError> {
        self.node.check_open()?;
        let sandbox = self.node.find(id).ok_or_else(|| error::not_found(id))?;
        let cause = Cause::request(by);
        let user = create::bring_up(&self.node, &sandbox, By::Key(by), &cause).await?;
        let user = user.ok_or_else(|| error::not_found(id))?;
        let described = self.get(id).await;
        drop(user);
        described
    }

    /// Ends the sandbox and forgets it. At return no process of it is left and the id is free;
    /// its files go in the background. Needs no help of the agent.
    ///
    /// # Cancel safety
    /// A destroy that has begun goes on without its caller.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`; `SANDBOX_FAILED` when processes cannot be ended: it can then only be
    /// destroyed again.
    pub async fn destroy(&self, id: &SandboxId, by: &Key) -> Result<(), EngineError> {
        destroy::destroy(&self.node, id, &Cause::request(by)).await
    }

    /// Makes a checkpoint of a sandbox, which need not run. Its processes stand still for a moment.
    ///
    /// # Cancel safety
    /// Work that has begun goes on without its caller; so for everything about checkpoints.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_EXISTS`, `TOO_MANY_REQUESTS`, `CHECKPOINTS_NOT_AVAILABLE`,
    /// `NO_SPACE`, `SANDBOX_FAILED`, `SHUTTING_DOWN`.
    pub async fn create_checkpoint(
        &self,
        id: &SandboxId,
        request: CreateCheckpoint,
        by: &Key,
    ) -> Result<CheckpointCreated, EngineError> {
        checkpoint::create(&self.node, id, request, by).await
    }

    /// The checkpoints of a sandbox, oldest first.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub fn checkpoints(&self, id: &SandboxId) -> Result<Vec<Checkpoint>, EngineError> {
        checkpoint::list(&self.node, id)
    }

    /// One checkpoint of a sandbox.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`.
    pub fn checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: &CheckpointId,
    ) -> Result<Checkpoint, EngineError> {
        checkpoint::get(&self.node, id, checkpoint)
    }

    /// Removes a checkpoint. Sandboxes that were made from it stay.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`.
    pub async fn remove_checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: &CheckpointId,
        by: &Key,
    ) -> Result<(), EngineError> {
        checkpoint::remove(&self.node, id, checkpoint, by).await
    }

    /// Ends the processes of a sandbox and gives it the files of one of its checkpoints. It is
    /// stopped at return, unless somebody uses it by then.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, `NO_SPACE`, `SANDBOX_FAILED`.
    pub async fn restore_checkpoint(
        &self,
        id: &SandboxId,
        request: RestoreCheckpoint,
        by: &Key,
    ) -> Result<Sandbox, EngineError> {
        let sandbox = checkpoint::restore(&self.node, id, request, by).await?;
        sandbox.describe(None).ok_or_else(|| error::not_found(id))
    }

    /// Starts a reader whose agent answers `/diff`: what differs between the sandbox's files (those of
    /// checkpoint `of`, or the present ones) and those of checkpoint `against`, or of its image.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, `CHECKPOINTS_NOT_AVAILABLE`, `TOO_MANY_REQUESTS`,
    /// `NO_SPACE`, `SANDBOX_FAILED`, `SHUTTING_DOWN`.
    pub async fn diff(
        &self,
        id: &SandboxId,
        against: Option<CheckpointId>,
        of: Option<CheckpointId>,
        by: &Key,
    ) -> Result<Reader, EngineError> {
        diff::reader(&self.node, id, against, of, by).await
    }

    /// Starts a reader whose agent answers `GET /layer` with the files of a checkpoint, and says what they
    /// are.
    ///
    /// # Errors
    /// As [`Engine::diff`].
    pub async fn export_checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: &CheckpointId,
        by: &Key,
    ) -> Result<(Reader, CheckpointExport), EngineError> {
        export::export(&self.node, id, checkpoint, by).await
    }

    /// Begins to import a checkpoint into a sandbox.
    ///
    /// # Errors
    /// `CHECKPOINT_EXISTS`, and as [`Engine::diff`].
    pub async fn import_checkpoint(
        &self,
        id: &SandboxId,
        checkpoint: Option<CheckpointId>,
        by: &Key,
    ) -> Result<Import, EngineError> {
        export::import(&self.node, id, checkpoint, by).await
    }

    /// Makes sandboxes with the files of this one, or of one of its checkpoints. They run at return.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `CHECKPOINT_NOT_FOUND`, `SANDBOX_EXISTS`, those of [`Engine::create`].
    /// None of them is there then.
    pub async fn fork(
        &self,
        id: &SandboxId,
        request: ForkSandbox,
        by: &Key,
    ) -> Result<Vec<Sandbox>, EngineError> {
        let forks = fork::fork(&self.node, id, request, by).await?;
        Ok(forks.iter().filter_map(|fork| fork.describe(None)).collect())
    }

    /// Exposes a port of a sandbox, which is created or started as by [`Engine::activate`]. At
    /// return it is on record.
    ///
    /// # Cancel safety
    /// A change that has begun goes on without its caller; so for the other changes of ports.
    ///
    /// # Errors
    /// `INVALID_PORT`, `VALIDATION_FAILED` naming the field, `PORT_ALREADY_EXPOSED`,
    /// `TOO_MANY_REQUESTS` when the sandbox has its limit of ports; those of [`Engine::activate`].
    pub async fn expose_port(
        &self,
        id: &SandboxId,
        first_use: FirstUse,
        request: ExposePort,
        by: &Key,
    ) -> Result<Exposure, EngineError> {
        port::expose(&self.node, (id, first_use), request, by).await
    }

    /// Hides an exposed port. Its URL is refused at once, and works again when it is exposed again.
    ///
    /// # Errors
    /// `PORT_NOT_EXPOSED`, `SANDBOX_NOT_FOUND`.
    pub async fn hide_port(&self, id: &SandboxId, port: PortNumber) -> Result<(), EngineError> {
        port::hide(&self.node, id, port).await
    }

    /// Gives an exposed port another token. The old URL is unknown at once, and for ever.
    ///
    /// # Errors
    /// `PORT_NOT_EXPOSED`, `SANDBOX_NOT_FOUND`; `VALIDATION_FAILED` for a public port or a token of
    /// another port.
    pub async fn rotate_port(
        &self,
        id: &SandboxId,
        port: PortNumber,
        request: RotatePort,
    ) -> Result<Exposure, EngineError> {
        port::rotate(&self.node, id, port, request).await
    }

    /// The exposed ports of a sandbox, sorted, and how to ask its agent if it runs. Creates, thaws
    /// and starts nothing.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub fn ports(&self, id: &SandboxId) -> Result<(Vec<Exposure>, Option<Active>), EngineError> {
        let (exposed, user) = port::list(&self.node, id)?;
        Ok((exposed, user.map(Active::from)))
    }

    /// Whether `token` is that of the exposed port, in a time that does not depend on how much of it
    /// is right.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub fn is_port_token(
        &self,
        id: &SandboxId,
        port: PortNumber,
        token: &str,
    ) -> Result<bool, EngineError> {
        port::is_token(&self.node, id, port, token)
    }

    /// What is behind the label of a preview's host name. Creates and starts nothing, touches no
    /// disk.
    #[must_use]
    pub fn find_preview(&self, label: &PreviewLabel) -> Found {
        port::find(&self.node, label)
    }

    /// Has the sandbox of a preview run, for one visitor.
    ///
    /// # Errors
    /// As [`Engine::activate`]; `SANDBOX_NOT_FOUND` when it was destroyed meanwhile.
    pub async fn visit(&self, visit: &Visit) -> Result<Active, EngineError> {
        self.node.check_open()?;
        visit.activate(&self.node).await
    }

    /// A page of the events of sandboxes whose ids begin with `prefix`, oldest first. Those of every
    /// change that was acknowledged before are there.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the field, `EVENTS_MISSED`.
    pub async fn events(
        &self,
        query: &ListEvents,
        prefix: Option<&IdPrefix>,
    ) -> Result<EventList, EngineError> {
        event::list(&self.node, query, prefix).await
    }

    /// The same events, as they happen.
    ///
    /// # Errors
    /// As [`Engine::events`], `SHUTTING_DOWN`.
    pub async fn follow_events(
        &self,
        query: &ListEvents,
        prefix: Option<&IdPrefix>,
    ) -> Result<EventFollower, EngineError> {
        event::follow(&self.node, query, prefix).await
    }

    /// Makes a webhook, for the events from now on. It is on record when its secret is returned.
    ///
    /// # Cancel safety
    /// A change that has begun goes on without its caller; so for the removal.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the field, `WEBHOOK_EXISTS`, `RESOURCE_BUSY`, `CAPACITY_EXCEEDED`,
    /// `NO_SPACE`, `SHUTTING_DOWN`.
    pub async fn create_webhook(&self, request: CreateWebhook) -> Result<NewWebhook, EngineError> {
        webhook::create(&self.node, request).await
    }

    /// All webhooks, sorted by name.
    #[must_use]
    pub fn webhooks(&self) -> Vec<Webhook> {
        webhook::list(&self.node)
    }

    /// One webhook.
    ///
    /// # Errors
    /// `WEBHOOK_NOT_FOUND`.
    pub fn webhook(&self, name: &WebhookName) -> Result<Webhook, EngineError> {
        webhook::get(&self.node, name)
    }

    /// Removes a webhook. At return nothing more is sent to it.
    ///
    /// # Errors
    /// `WEBHOOK_NOT_FOUND`, `RESOURCE_BUSY`, `SHUTTING_DOWN`.
    pub async fn remove_webhook(&self, name: &WebhookName) -> Result<(), EngineError> {
        webhook::remove(&self.node, name).await
    }

    /// Sends a webhook's receiver a delivery without an event, once.
    ///
    /// # Errors
    /// `WEBHOOK_NOT_FOUND`; that it is not taken is an answer.
    pub async fn test_webhook(&self, name: &WebhookName) -> Result<WebhookTested, EngineError> {
        webhook::test(&self.node, name).await
    }

    /// Images in the store.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` when the store cannot be read.
    pub async fn images(&self) -> Result<Vec<Image>, EngineError> {
        build::images(&self.node).await
    }

    /// Builds an image; the events end with `done` or `failed`. Dropping the receiver cancels.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` for a recipe that does not parse, `PAYLOAD_TOO_LARGE`, `SHUTTING_DOWN`.
    #[expect(clippy::unused_async, reason = "a build may be another node's")]
    pub async fn build_image(
        &self,
        request: BuildImage,
    ) -> Result<mpsc::Receiver<BuildEvent>, EngineError> {
        build::build(&self.node, request)
    }

    /// Refuses new work, waits for what is under way, ends what `sandboxes` says. Only the first
    /// call does anything.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` naming what could not be ended, `TIMEOUT`.
    pub async fn shut_down(&self, sandboxes: ShutdownSandboxes) -> Result<(), EngineError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).take();
        match records {
            Some(records) => shutdown::shut_down(&self.node, sandboxes, records).await,
            None => Ok(()),
        }
    }
}

/// Takes hold of the state directory and starts the engine's threads.
fn assemble(
    config: EngineConfig,
    tools: Tools,
    links: Links,
) -> Result<(Node, Loaded, JoinHandle<()>), EngineError> {
    let Tools { keeper, mut launchers, volumes, names: _ } = tools;
    if launchers.len() < MIN_LAUNCHERS {
        let message = format!("an engine needs {MIN_LAUNCHERS} launchers or more");
        return Err(error::invalid("launchers", &message));
    }
    let state_dir = &config.node.state_dir;
    let refused = |attempt: &'static str| move |cause| error::state_dir(attempt, &cause);
    make_private_dir(links.run_dir()).map_err(refused("making the directory of sockets"))?;
    let lock = lock(&state_dir.join("lock"))?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(refused("reading the machine's boot id"))?
        .trim()
        .to_owned();
    let images = image::Store::open_with(state_dir.join("images"), Box::new(KeptBuilders(keeper)))
        .map_err(|error| error::of_store(&error))?;
    let (records, loaded, thread) = Records::open(&state_dir.join("sandbar.db"))
        .map_err(|error| error.publish("opening the database"))?;
    let secret = Secret::establish(state_dir).map_err(refused("reading the secret of tokens"))?;
    let threads = refused("starting a thread");
    let remover = launchers.pop().ok_or_else(|| error::internal("starting the launchers"))?;
    let remover = Remover::start(remover, records.clone()).map_err(threads)?;
    let network = launchers.pop().ok_or_else(|| error::internal("starting the launchers"))?;
    let network = Launchers::start(vec![network]).map_err(threads)?;
    let launchers = Launchers::start(launchers).map_err(threads)?;
    let closing = CancellationToken::new();
    let parts = Parts {
        config,
        links,
        images,
        records,
        secret,
        launchers,
        network,
        remover,
        volumes,
        boot_id,
        closing,
        lock,
    };
    Ok((Node::new(parts), loaded, thread))
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Also one that was there: whoever connects to an agent commands it.
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Locks the state directory until the file is closed, by whatever end of this process.
fn lock(path: &Path) -> Result<File, EngineError> {
    let refused = |cause: &io::Error| error::state_dir("locking the state directory", cause);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| refused(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(error::in_use()),
        Err(TryLockError::Error(error)) => Err(refused(&error)),
    }
}

/// None: it has stopped, or its cgroups cannot be read.
async fn usage(node: &Node, sandbox: &Resident) -> Option<SandboxUsage> {
    let spec = node.config.node.clone();
    let (jail, files) = (sandbox.jail, sandbox.files());
    let has_network = spec.network.is_some();
    let read = tokio::task::spawn_blocking(move || jail::usage(&spec.name, jail));
    let asked = node.network.call(
        move |launcher| {
            let own = launcher.volume_bytes(files.volume).ok().flatten();
            let refused = if has_network { launcher.refused(jail).unwrap_or(0) } else { 0 };
            Ok((own.map(|own| own + files.inherited_bytes), refused))
        },
        |_, _| {},
    );
    let (read, asked) = tokio::join!(read, asked);
    let jail::Usage { memory_bytes, pids, cpu_ms, oom_kills } = read.ok()?.ok()?;
    let (disk_bytes, refused_packets) = asked.unwrap_or_default();
    let (refused_names, newest_refused_names) = sandbox.asker.refused_names();
    let network = NetworkUsage { refused_packets, refused_names, newest_refused_names };
    Some(SandboxUsage { memory_bytes, pids, cpu_ms, oom_kills, disk_bytes, network })
}

#[cfg(test)]
mod tests {
    use api::error::ErrorCode;

    use super::*;

    #[test]
    fn a_state_directory_admits_one_engine_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().code, ErrorCode::ResourceBusy);
        drop(first);
        lock(&path).unwrap();
    }

    #[test]
    fn a_state_directory_is_private_also_when_it_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        make_private_dir(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
