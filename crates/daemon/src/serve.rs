//! From a configuration to a running server and back to nothing.
//!
//! ```text
//! check ─► name, port, key ─► launchers ─► threads ─► engine ─► endpoint file ─► serve ─► stop
//! ```
//!
//! The order is the point. Name and port are taken before anything is made, so a second start fails
//! before it can touch the first one's sandboxes. Launchers are started while the process has one thread.
//!
//! The threads of the runtime, which read what callers, agents and name servers write, are confined from
//! their first instruction. The main thread, which only waits, and those that it has the engine start for
//! launchers, records and builds, are not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use api::{error::ApiError, node::ShutdownSandboxes};
use engine::{Engine, EngineConfig, Keys, Places, Secret};
use jail::{Confinement, JailError, Launcher, NodeSpec, Presence, Volumes};
use link::Links;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, CONNECTIONS_PER_TWO, KEPT, Parts, VISITS_PER_REQUEST, requests_at_once},
    claim::{self, Claim, ClaimError, Claimed},
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
};

/// Time for the runtime's last tasks once the engine has ended: there should be none.
const RUNTIME_GRACE: Duration = Duration::from_secs(5);

/// How long a thread for work that may block waits for more. Starting one costs as much as a small part
/// of a creation, because it is confined; keeping one costs some pages of memory.
const THREAD_KEPT: Duration = Duration::from_secs(10 * 60);

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The machine or the configuration does not allow a start.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The node's name is another's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
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
    let claims = claim(&config)?;
    let listener = preflight::listen(config.api.listen)?;
    let previews = config.preview.listen.map(preflight::listen).transpose()?;
    let tls = config.preview.tls.clone().map(|(cert, key)| Tls::load(cert, key)).transpose();
    let tls = tls.map_err(|error| PreflightError::Certificate(error.to_string()))?.map(Arc::new);
    let doors = Doors { api: listener, previews, tls, requests: requests_at_once(files) };
    let key = KeyFile::establish(&config.node.state_dir, config.api.key.as_ref())?;
    let node = Node::start(config, claims)?;
    let outcome = node.runtime.block_on(running(&node.config, node.tools, doors, key));
    node.ground.end(node.runtime, outcome)
}

/// Ends all sandboxes of a node whose server does not run, and takes its network down. To be called
/// while the process has one thread.
///
/// # Errors
/// [`ServeError`], also when a server does run.
pub fn down(config: Config, destroy: bool) -> Result<DownReport, ServeError> {
    preflight::preflight(&config)?;
    preflight::state_dir(&config.node.state_dir)?;
    let claims = claim(&config)?;
    let node = Node::start(config, claims)?;
    let outcome = node.runtime.block_on(ending(&node.config, node.tools, destroy));
    node.ground.end(node.runtime, outcome)
}

/// What an engine works with: its launchers, and what they found the node's volumes to be.
type Tools = (Vec<Launcher>, Volumes);

/// The processes and threads that everything else runs on.
struct Node {
    config: Config,
    tools: Tools,
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
        let launcher = || Launcher::start(&spec, &programs).map_err(failed);
        // One more is for what names ask of the firewall, one removes files, which can take long;
        // and one keeps the ground.
        let launchers = (0..config.node.launchers + 2).map(|_| launcher());
        let launchers = launchers.collect::<Result<Vec<_>, _>>()?;
        let mut ground = Ground { launcher: launcher()?, claims };
        let confinement = Confinement::prepare(&config.node.state_dir).map_err(|source| {
            ServeError::System { attempt: "preparing to confine threads", source }
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("daemon")
            .on_thread_start(move || confine(&confinement))
            .thread_keep_alive(THREAD_KEPT)
            .build()
            .map_err(|source| ServeError::System { attempt: "starting threads", source })?;
        match ground.begin() {
            Ok(volumes) => Ok(Self { config, tools: (launchers, volumes), ground, runtime }),
            Err(error) => {
                // The first error is the one to tell; what half a start made goes with it.
                drop(ground.clear());
                Err(error)
            }
        }
    }
}

/// Confines a thread that is about to read what strangers write. One that cannot be confined must not.
fn confine(confinement: &Confinement) {
    if let Err(error) = confinement.confine() {
        tracing::error!(%error, "a thread cannot be confined");
        std::process::abort();
    }
}

/// What the node's sandboxes stand on: its name, and what the engine made for all of them.
struct Ground {
    launcher: Launcher,
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
        self.launcher.tear_down().map_err(failed)?;
        self.claims.into_iter().for_each(Claim::release);
        Ok(())
    }
}

/// Claims what no other node of the machine may have.
fn claim(config: &Config) -> Result<Vec<Claim>, ServeError> {
    let name = Claimed::Name(config.node.name.clone());
    let gateway = config.node.network.map(|network| Claimed::Gateway(network.gateway()));
    let take = |what| Claim::take(Path::new(claim::DIR), what, &config.node.state_dir);
    let claims: Result<_, ClaimError> = [name].into_iter().chain(gateway).map(take).collect();
    Ok(claims?)
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
    (launchers, volumes): Tools,
    keys: Keys,
) -> Result<Engine, ServeError> {
    Engine::open(engine_config(config, volumes), launchers, links(config), keys)
        .await
        .map_err(|source| ServeError::Engine { attempt: "opening the state directory", source })
}

/// Answers requests from the moment the threads run; they wait for the engine to be open.
async fn running(
    config: &Config,
    tools: Tools,
    doors: Doors,
    key: Established,
) -> Result<(), ServeError> {
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
    let (engine, sandboxes) = outcome?;
    shut_down(&engine, sandboxes).await
}

/// What a server has before its engine is open.
struct Starting {
    tools: Tools,
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
) -> Result<(Engine, ShutdownSandboxes), ServeError> {
    let Starting { tools, address, keys, opened } = starting;
    let mut signals = Signals::new()
        .map_err(|source| ServeError::System { attempt: "waiting for signals", source })?;
    let engine = open(config, tools, keys).await?;
    opened.send_replace(Some(engine.clone()));
    let endpoint = endpoint::publish(&config.node.state_dir, address)
        .map_err(|source| ServeError::System { attempt: "writing the endpoint file", source })?;
    tracing::info!(url = endpoint.url(), "serving");
    let sandboxes = tokio::select! {
        sandboxes = asked.recv() => sandboxes.unwrap_or_default(),
        () = signals.next() => ShutdownSandboxes::Keep,
    };
    tracing::info!(?sandboxes, "stopping");
    Ok((engine, sandboxes))
}

async fn ending(config: &Config, tools: Tools, destroy: bool) -> Result<DownReport, ServeError> {
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
