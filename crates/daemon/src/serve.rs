//! From a configuration to a running server and back to nothing.
//!
//! ```text
//! check ─► name, port, key ─► keeper, launchers, network, volumes ─► no root ─► threads ─► engine ─► serve ─► stop
//! ```
//!
//! The order is the point. Name and port are taken before anything is made, so a second start fails
//! before it can touch the first one's sandboxes. Everything for which root is needed is taken, opened and
//! started before the process gives up being root (`user.rs`), while it has one thread; and that is before
//! it reads a byte of a caller's, an agent's or a name server's.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use api::{error::ApiError, node::ShutdownSandboxes};
use engine::{Engine, EngineConfig, Keys, NameSockets, Places, Secret, Tools};
use jail::{JailError, Keeper, Launcher, NodeSpec, Presence, Volumes, VolumesFileSystem};
use link::Links;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, CONNECTIONS_PER_TWO, KEPT, Parts, VISITS_PER_REQUEST, bodies, requests_at_once},
    claim::{self, Claim, ClaimError},
    config::{Config, DEFAULT_DOMAIN, PreviewUrl},
    docs::Docs,
    endpoint,
    hosts::Hosts,
    key::{Established, KeyError, KeyFile},
    log,
    metrics::Metrics,
    middleware,
    preflight::{self, PreflightError},
    preview::{Domain, Previews},
    routes,
    server::{self, Door, tls::Tls},
    user::{self, UserError},
};

/// Time for the runtime's last tasks once the engine has ended: there should be none.
const RUNTIME_GRACE: Duration = Duration::from_secs(5);

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The machine or the configuration does not allow a start.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The node's name is another's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The server could not give up being root.
    #[error(transparent)]
    User(#[from] UserError),
    /// The process that root's work is asked of is gone.
    #[error("the keeper has ended, without which nothing can be started: start the server again")]
    Keeper,
    /// The key could not be established.
    #[error("the API key could not be established")]
    Key(#[from] KeyError),
    /// A launcher or the network could not be started.
    #[error("{attempt}")]
    Jail {
        /// What was being done.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: JailError,
    },
    /// The state could not be opened, or sandboxes could not be ended.
    #[error("{attempt}")]
    Engine {
        /// What was being done.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: ApiError,
    },
    /// A call to the operating system failed.
    #[error("{attempt}")]
    System {
        /// What was being done.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What [`down`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownReport {
    /// Sandboxes there were.
    pub sandboxes: usize,
    /// Their files and settings are gone too.
    pub are_destroyed: bool,
}

/// Runs the server until SIGTERM, SIGINT or `POST /v1/node:shutdown`. To be called while the process
/// has one thread.
///
/// # Errors
/// [`ServeError`]; nothing is left behind by a start that failed.
pub fn serve(config: Config) -> Result<(), ServeError> {
    log::start(&config.log);
    preflight::preflight(&config)?;
    // Connections, sockets to agents and a handle to each sandbox: one descriptor each.
    let files = sys::limits::raise_open_files().map_err(|error| ServeError::System {
        attempt: "raising the limit of open files",
        source: error.into(),
    })?;
    preflight::state_dir(&config.node.state_dir)?;
    failpoint::watch(&config.node.state_dir);
    let claims = claim::take_all(&node_spec(&config))?;
    let listener = preflight::listen(config.api.listen)?;
    let previews = config.preview.listen.map(preflight::listen).transpose()?;
    if let Some((cert, key)) = &config.preview.tls {
        preflight::certificate(&[cert, key], &config.node.state_dir)?;
    }
    let tls = config.preview.tls.clone().map(|(cert, key)| Tls::load(cert, key)).transpose();
    let tls = tls.map_err(|error| PreflightError::Certificate(error.to_string()))?.map(Arc::new);
    let doors = Doors { api: listener, previews, tls, requests: requests_at_once(files) };
    let key = KeyFile::establish(&config.node.state_dir, config.api.key.as_ref())?;
    let node = Node::start(config, claims)?;
    doors.tls.iter().for_each(|tls| tls.ask(&node.tools.0.keeper));
    let outcome = node.runtime.block_on(running(&node.config, node.tools, doors, key));
    // The engine goes last: its lock tells `sandbar down` that the server has not ended.
    node.ground.end(node.runtime, outcome).map(drop)
}

/// Ends all sandboxes of a node whose server does not run, and takes its network down. To be called
/// while the process has one thread.
///
/// # Errors
/// [`ServeError`], also when a server does run.
pub fn down(config: Config, destroy: bool) -> Result<DownReport, ServeError> {
    preflight::preflight(&config)?;
    preflight::state_dir(&config.node.state_dir)?;
    let claims = claim::take_all(&node_spec(&config))?;
    let node = Node::start(config, claims)?;
    let outcome = node.runtime.block_on(ending(&node.config, node.tools, destroy));
    node.ground.end(node.runtime, outcome)
}

/// The processes and threads that everything else runs on.
struct Node {
    config: Config,
    /// And what the node's volumes were found to be.
    tools: (Tools, Volumes),
    ground: Ground,
    runtime: Runtime,
}

impl Node {
    fn start(config: Config, claims: Vec<Claim>) -> Result<Self, ServeError> {
        let spec = node_spec(&config);
        let failed = |source| ServeError::Jail { attempt: "starting a launcher", source };
        Presence::outlast(&spec).map_err(failed)?;
        // Before the launchers, which mount the volumes in it.
        jail::own_mounts().map_err(failed)?;
        let programs = jail::Programs::copy().map_err(failed)?;
        let keeper = Keeper::start(&spec, &programs, config.preview.tls.as_ref());
        let keeper = Arc::new(keeper.map_err(failed)?);
        let launcher = || Launcher::start(&keeper).map_err(failed);
        // One more is for what names ask of the firewall, one removes files, which can take long;
        // and one keeps the ground.
        let launchers = (0..config.node.launchers + 2).map(|_| launcher());
        let launchers = launchers.collect::<Result<Vec<_>, _>>()?;
        let mut ground = Ground { launcher: launcher()?, claims };
        let begun = ground.begin().and_then(|volumes| {
            let (tools, runtime) = give_up_root(&config, keeper, launchers)?;
            // Beside everything else: the first agents can do without.
            runtime.spawn_blocking(move || programs.enlarge());
            Ok(((tools, volumes), runtime))
        });
        match begun {
            Ok((tools, runtime)) => Ok(Self { config, tools, ground, runtime }),
            Err(error) => {
                // The first error is the one to tell; what half a start made goes with it.
                drop(ground.clear());
                Err(error)
            }
        }
    }
}

/// Takes what only root can, and is another user from then on; so are the threads of the runtime.
fn give_up_root(
    config: &Config,
    keeper: Arc<Keeper>,
    launchers: Vec<Launcher>,
) -> Result<(Tools, Runtime), ServeError> {
    let failed = |attempt| move |source| ServeError::System { attempt, source };
    let (state_dir, user) = (&config.node.state_dir, config.node.user);
    let volumes = VolumesFileSystem::open(state_dir).map_err(failed("opening the volumes"))?;
    let names = config.node.network.map(|network| NameSockets::bind(network.gateway()));
    user::hand_over(state_dir, user)?;
    user::become_user(user, state_dir)?;
    tracing::info!(user, "not root any more");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("daemon")
        .build()
        .map_err(failed("starting threads"))?;
    Ok((Tools { keeper, launchers, volumes, names }, runtime))
}

/// What the node's sandboxes stand on: its name, and what the engine made for all of them.
struct Ground {
    launcher: Launcher,
    /// Dropped last: by then nothing of root's runs.
    claims: Vec<Claim>,
}

impl Ground {
    fn begin(&mut self) -> Result<Volumes, ServeError> {
        let failed = |attempt| move |source| ServeError::Jail { attempt, source };
        let jails = self.launcher.jails().map_err(failed("looking for running sandboxes"))?;
        for claim in &mut self.claims {
            claim.settle(!jails.is_empty())?;
        }
        let volumes = self.launcher.set_up_volumes().map_err(failed("mounting the volumes"))?;
        if let Volumes::Plain(why) = &volumes {
            tracing::warn!(%why, "the disk space of sandboxes is not limited");
        }
        self.launcher.set_up_network().map_err(failed("setting up the network"))?;
        Ok(volumes)
    }

    /// Ends the threads and, if no sandbox is left to need them, the node's network and cgroups,
    /// whatever the outcome: a start that failed leaves nothing behind either.
    fn end<T>(self, runtime: Runtime, outcome: Result<T, ServeError>) -> Result<T, ServeError> {
        runtime.shutdown_timeout(RUNTIME_GRACE);
        let cleared = self.clear();
        outcome.and_then(|value| cleared.map(|()| value))
    }

    fn clear(mut self) -> Result<(), ServeError> {
        let failed = |source| ServeError::Jail { attempt: "taking the node down", source };
        if !self.launcher.jails().map_err(failed)?.is_empty() {
            return Ok(());
        }
        self.launcher.tear_down().map_err(failed)
    }
}

fn node_spec(config: &Config) -> NodeSpec {
    NodeSpec {
        state_dir: config.node.state_dir.clone(),
        name: config.node.name.clone(),
        network: config.node.network,
    }
}

fn engine_config(config: &Config, volumes: Volumes) -> EngineConfig {
    EngineConfig {
        node: node_spec(config),
        volumes,
        default_image: config.node.default_image.clone(),
        default_limits: config.limits.default,
        max_limits: config.limits.max,
        max_sandboxes: config.node.max_sandboxes,
        pool: config.node.pool,
        reconcile_every: Duration::from_secs(config.node.reconcile_seconds.into()),
        kept_memory: config.node.kept_memory,
        uid_base: config.node.uid_base,
        name_servers: config.node.name_servers.clone(),
        proxies: config.node.proxies.clone(),
        warm: agent::warm::version(),
    }
}

fn links(config: &Config) -> Links {
    Links::new(config.node.state_dir.join("run"))
}

async fn open(
    config: &Config,
    (tools, volumes): (Tools, Volumes),
    keys: Keys,
) -> Result<Engine, ServeError> {
    Engine::open(engine_config(config, volumes), tools, links(config), keys)
        .await
        .map_err(|source| ServeError::Engine { attempt: "opening the state directory", source })
}

/// Answers requests from the moment the threads run; they wait for the engine to be open.
async fn running(
    config: &Config,
    tools: (Tools, Volumes),
    doors: Doors,
    key: Established,
) -> Result<Engine, ServeError> {
    let failed = |source| ServeError::System { attempt: "listening on the port", source };
    let address = doors.api.local_addr().map_err(failed)?;
    let previews = doors.describe(config).map_err(failed)?;
    let requests = Places::new(doors.requests, doors.requests / KEPT);
    let (door, preview_door) = doors.open().map_err(failed)?;
    let (opened, engine) = watch::channel(None);
    let (shutdown, asked) = mpsc::channel(1);
    let (table, document) = routes::table();
    let Established { file, secret, created_at_ms } = key;
    let keys = Keys::new(&secret, created_at_ms, config.api.max_requests_per_key);
    let app = App::new(Parts {
        engine,
        links: links(config),
        keys: keys.clone(),
        key_file: Arc::new(file),
        hosts: Hosts::new(
            address,
            config.api.allowed_hosts.clone(),
            config.api.allowed_origins.clone(),
        ),
        metrics: Metrics::new(),
        previews,
        docs: Docs::new(&document, &endpoint::url(address)),
        requests,
        bodies: bodies(),
        shutdown,
    });
    let stop = CancellationToken::new();
    let router = middleware::around(table, &app);
    let serving = tokio::spawn({
        let (stop, others) = (stop.clone(), stop.clone());
        async move {
            let previews = async {
                if let Some(door) = preview_door {
                    server::run(door, router.clone(), others.cancelled()).await;
                }
            };
            tokio::join!(server::run(door, router.clone(), stop.cancelled()), previews);
        }
    });
    let starting = Starting { tools, address, keys, opened };
    let outcome = until_asked(config, starting, asked).await;
    stop.cancel();
    if let Err(error) = serving.await {
        tracing::error!(%error, "the server's task failed");
    }
    let (engine, end) = outcome?;
    match end {
        End::Asked(sandboxes) => shut_down(&engine, sandboxes).await.map(|()| engine),
        // Nothing can be begun any more, nor ended: sandboxes go on until the next start.
        End::Keeper => Err(ServeError::Keeper),
    }
}

/// Why a server ends.
#[derive(Debug)]
enum End {
    /// Somebody wants it to, and this to become of the sandboxes.
    Asked(ShutdownSandboxes),
    /// What starts processes of root's is gone.
    Keeper,
}

/// What a server has before its engine is open.
struct Starting {
    tools: (Tools, Volumes),
    address: SocketAddr,
    keys: Keys,
    opened: watch::Sender<Option<Engine>>,
}

/// Where connections come in, taken before anything is made.
struct Doors {
    api: TcpListener,
    /// Else previews come in by the API's.
    previews: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    /// Requests to the API that are worked on at once.
    requests: usize,
}

impl Doors {
    /// Where previews are, as their visitors see it.
    fn describe(&self, config: &Config) -> io::Result<Previews> {
        let own = self.previews.as_ref().unwrap_or(&self.api).local_addr()?;
        let domain = match &config.preview.url {
            Some(PreviewUrl { is_https, name, port }) => Domain::new(*is_https, name, *port),
            None => Domain::new(self.tls.is_some(), DEFAULT_DOMAIN, own.port()),
        };
        tracing::info!(%domain, address = %own, "previews");
        let trusted = config.preview.trusted_proxies.clone();
        Ok(Previews::new(domain, self.previews.is_some(), self.visits(), trusted))
    }

    /// Visits that are worked on at once.
    fn visits(&self) -> usize {
        VISITS_PER_REQUEST * self.requests
    }

    fn open(self) -> io::Result<(Door, Option<Door>)> {
        let visits = self.visits();
        let Self { api, previews, tls, requests } = self;
        let listener = tokio::net::TcpListener::from_std(api)?;
        let here = if previews.is_some() { requests } else { requests + visits };
        let connections_at_once = CONNECTIONS_PER_TWO * here / 2;
        let door = Door { listener, is_previews: false, tls: None, connections_at_once };
        let previews = previews.map(|listener| {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let connections_at_once = CONNECTIONS_PER_TWO * visits / 2;
            io::Result::Ok(Door { listener, is_previews: true, tls, connections_at_once })
        });
        Ok((door, previews.transpose()?))
    }
}

/// Opens the engine, tells that the server is there, and waits for the end: what becomes of the
/// sandboxes then.
///
/// Drops `opened` when the engine cannot be opened, which answers the requests that wait for it.
async fn until_asked(
    config: &Config,
    starting: Starting,
    mut asked: mpsc::Receiver<ShutdownSandboxes>,
) -> Result<(Engine, End), ServeError> {
    let Starting { tools, address, keys, opened } = starting;
    let mut signals = Signals::new()
        .map_err(|source| ServeError::System { attempt: "waiting for signals", source })?;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe because a descriptor could close or change; an OwnedFd \
                  does neither"
    )]
    let watch = |pidfd| AsyncFd::with_interest(pidfd, Interest::READABLE);
    let keeper = tools.0.keeper.ended().and_then(watch);
    let keeper =
        keeper.map_err(|source| ServeError::System { attempt: "watching the keeper", source })?;
    let engine = open(config, tools, keys).await?;
    opened.send_replace(Some(engine.clone()));
    let endpoint = endpoint::publish(&config.node.state_dir, address)
        .map_err(|source| ServeError::System { attempt: "writing the endpoint file", source })?;
    tracing::info!(url = endpoint.url(), "serving");
    let end = tokio::select! {
        sandboxes = asked.recv() => End::Asked(sandboxes.unwrap_or_default()),
        () = signals.next() => End::Asked(ShutdownSandboxes::Keep),
        _ended = keeper.readable() => End::Keeper,
    };
    tracing::info!(?end, "stopping");
    Ok((engine, end))
}

async fn ending(
    config: &Config,
    tools: (Tools, Volumes),
    destroy: bool,
) -> Result<DownReport, ServeError> {
    // Nobody calls: there is no server.
    let secret = Secret::generate().map_err(|error| ServeError::System {
        attempt: "asking the kernel for randomness",
        source: io::Error::other(error.to_string()),
    })?;
    let engine = open(config, tools, Keys::new(&secret, 0, 1)).await?;
    let sandboxes = engine.states().len();
    let fate = if destroy { ShutdownSandboxes::Destroy } else { ShutdownSandboxes::Stop };
    shut_down(&engine, fate).await?;
    Ok(DownReport { sandboxes, are_destroyed: destroy })
}

async fn shut_down(engine: &Engine, sandboxes: ShutdownSandboxes) -> Result<(), ServeError> {
    engine
        .shut_down(sandboxes)
        .await
        .map_err(|source| ServeError::Engine { attempt: "ending the sandboxes", source })
}

/// The signals that ask for the end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
