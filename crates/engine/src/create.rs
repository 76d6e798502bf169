//! Makes sandboxes, and starts those that are stopped.
//!
//! ```text
//! check ─▶ take an id and a blank ────────────────▶ record it ────────┬▶ running ─▶ record that it runs
//!                                                   claim it ─────────┤
//!        ─▶ take an id, a jail number and a slot ─▶ record it ────────┤
//!                           prepare, make a blank and claim it ───────┘
//! ```
//!
//! The second where no blank was made ahead. A jail that is made and not on record is one that nobody
//! was told of; whatever cuts this short, recovery finds it by its number and removes it.
//!
//! The work is a task of the node, not of the request that asked for it: a caller that goes away
//! leaves a whole sandbox or none, and those who ask for the same id meanwhile wait for the same
//! task. That the sandbox runs is recorded behind the reply: until it is, recovery finds the agent
//! by the jail's number.

use std::{os::fd::OwnedFd, str::FromStr, sync::Arc, time::Duration};

use api::{
    error::ErrorCode,
    event::EventKind,
    id::{IdPrefix, ImageRef, SandboxId},
    sandbox::CreateSandbox,
};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use image::{ImageError, Rootfs, Store};
use jail::Hostname;
use link::AgentConfig;
use serde_json::json;

use crate::{
    EngineError,
    blank::{self, Blank, Prepared},
    checkpoint, destroy,
    error::{self, Publish},
    event::Cause,
    freeze,
    key::{By, Key, Place},
    node::{Added, Guest, Node},
    record::{Change, Entry, Files, Origin, Phase, SandboxRecord},
    sandbox::{InUse, Sandbox},
    settings::{Rest, Settings},
    state::{Admission, AgentIdentity, Failure, Operation, State},
    watch,
};

/// Random bytes of a generated id: enough that two never meet.
const ID_BYTES: usize = 10;

/// What generated ids begin with, where the caller's key does not decide it.
pub(crate) const OWN_PREFIX: &str = "sb-";

/// Where, inside, the agent keeps what has to outlive a stop: among the sandbox's own files, so that it
/// goes where they go.
const DEFINITIONS: &str = "/var/lib/sandbox/definitions.json";

/// The id of the process that a sandbox starts with.
const ON_START_ID: &str = "on-start";

/// How long the agent may take to start it. The first caller waits that long at most.
const ON_START_DEADLINE: Duration = Duration::from_secs(5);

/// What is tried when a sandbox is started.
const STARTING: &str = "starting the sandbox";

/// How often a request starts a sandbox that stops, or looks an id up whose sandbox goes, before it
/// gives up: somebody else is ending it as fast.
const ATTEMPTS: usize = 4;

/// Creates a sandbox, or finds the one that has the id and the same settings, and has it run.
/// `true`: it is new.
pub(crate) async fn create(
    node: &Arc<Node>,
    request: CreateSandbox,
    by: &Key,
) -> Result<(Arc<Sandbox>, bool), EngineError> {
    let id = match &request.id {
        Some(id) => id.clone(),
        None => random_id(by.prefix().map_or(OWN_PREFIX, IdPrefix::as_str))?,
    };
    by.check(&id)?;
    let asked = Rest::asked(&request);
    let settings = Settings::of(request, &node.config)?;
    let cause = Cause::request(by);
    for _ in 0..ATTEMPTS {
        let (sandbox, is_new) = add(node, (&id, &settings), By::Key(by), &cause).await?;
        if sandbox.state() == State::Destroying {
            sandbox.settled().await?;
            continue;
        }
        let mut differences = settings.differences(&sandbox.settings());
        differences.extend(asked.differences(&sandbox.settings()));
        if !differences.is_empty() {
            return Err(error::exists(&id, &differences));
        }
        if bring_up(node, &sandbox, By::Key(by), &cause).await?.is_some() {
            return Ok((sandbox, is_new));
        }
    }
    Err(error::ended_at_once(&id))
}

/// What becomes of the use of a sandbox that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstUse {
    /// It creates it, with the node's defaults.
    Creates,
    /// It is refused: whoever asks wants the sandbox made in another way, or not at all.
    Refused,
}

/// Has the sandbox with this id run: finds it, starts it, or creates it.
pub(crate) async fn activate(
    node: &Arc<Node>,
    id: &SandboxId,
    first_use: FirstUse,
    by: &Key,
) -> Result<InUse, EngineError> {
    let by = By::Key(by);
    let cause = Cause::usage(by);
    for _ in 0..ATTEMPTS {
        let sandbox = match node.find(id) {
            Some(sandbox) => sandbox,
            None if first_use == FirstUse::Refused => {
                return Err(error::not_found(id).with("firstUse", "refused"));
            }
            None => {
                let settings = Settings::of(CreateSandbox::default(), &node.config)?;
                add(node, (id, &settings), by, &cause).await?.0
            }
        };
        if let Some(user) = bring_up(node, &sandbox, by, &cause).await? {
            return Ok(user);
        }
    }
    Err(error::ended_at_once(id))
}

/// A place for one more sandbox to be made or started, if the machine has room for it.
fn admitted(node: &Node, by: By<'_>) -> Result<Place, EngineError> {
    node.capacity.check()?;
    by.creation(&node.creates)
}

/// Adds the sandbox and begins to make it, if the id is free.
async fn add(
    node: &Arc<Node>,
    (id, settings): (&SandboxId, &Settings),
    by: By<'_>,
    cause: &Cause,
) -> Result<(Arc<Sandbox>, bool), EngineError> {
    if let Some(sandbox) = node.find(id) {
        return Ok((sandbox, false));
    }
    let place = admitted(node, by)?;
    // Before anything is taken: an unknown image leaves no sandbox behind.
    let name = settings.image.clone();
    let (image, rootfs) =
        read_image(node, &settings.image, move |images| images.get(&name)).await?;
    let (sandbox, added) = node.add(id, settings, &image.digest, (None, by.quota().as_ref()))?;
    match added {
        Added::New(blank) => {
            spawn_start(node, &sandbox, Some(New { rootfs, blank }), (place, cause.clone()));
            Ok((sandbox, true))
        }
        Added::Known => Ok((sandbox, false)),
    }
}

/// Has the sandbox run, for one user: waits, thaws it or starts it. None: it has gone, look the id
/// up again.
pub(crate) async fn bring_up(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    by: By<'_>,
    cause: &Cause,
) -> Result<Option<InUse>, EngineError> {
    for _ in 0..ATTEMPTS {
        if let Some(user) = sandbox.enter() {
            return Ok(Some(user));
        }
        // A sandbox that fails while we wait has failed for us; one that had failed before is
        // tried again.
        let (admission, before) = sandbox.begin(Operation::Use);
        if admission == Admission::Begin {
            match (node.check_open(), before) {
                (Err(error), before) => {
                    sandbox.set(before);
                    return Err(error);
                }
                (Ok(()), State::Frozen(agent)) => {
                    freeze::spawn_thaw(node, sandbox, agent, cause.clone()).await?;
                    continue;
                }
                (Ok(()), before) => match sandbox.check_place().and_then(|()| admitted(node, by)) {
                    Ok(place) => spawn_start(node, sandbox, None, (place, cause.clone())),
                    Err(error) => {
                        sandbox.set(before);
                        return Err(error);
                    }
                },
            }
        }
        match sandbox.settled().await? {
            State::Failed(failure) | State::Doomed(failure) => return Err(failure.to_error()),
            State::Gone(Some(error)) => return Err(*error),
            State::Gone(None) => return Ok(None),
            _ => {}
        }
    }
    sandbox.enter().map_or_else(|| Err(error::ended_at_once(&sandbox.id)), |user| Ok(Some(user)))
}

/// What a new sandbox has that another one would have to look for.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) rootfs: Rootfs,
    /// Its jail, if that was made ahead.
    pub(crate) blank: Option<Blank>,
}

/// Begins to start a sandbox that is [`State::Creating`]. `new` is given for a new one.
pub(crate) fn spawn_start(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    new: Option<New>,
    (place, cause): (Place, Cause),
) {
    let (owner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    node.work.spawn(async move {
        let _place = place;
        let is_new = new.is_some();
        let was_ahead = new.as_ref().is_some_and(|new| new.blank.is_some());
        match start(&owner, &sandbox, new, &cause).await {
            Ok((agent, pidfd)) => {
                let running = Change::Phase(sandbox.jail, Phase::Running(agent.clone()));
                let started = sandbox.tells(EventKind::Started, cause);
                owner.records.submit(running.telling(started)).await;
                sandbox.kills.begin();
                run_on_start(&owner, &sandbox).await;
                sandbox.set(State::Running(agent.clone()));
                tracing::info!(sandbox_id = %sandbox.id, jail = %sandbox.jail, is_new, was_ahead,
                    "sandbox started");
                watch::spawn(&owner, sandbox, agent, pidfd);
            }
            Err(error) => fail(&owner, &sandbox, error, (is_new, cause)).await,
        }
    });
}

/// Has the agent start what the sandbox is to start with. A command that cannot be started is told in
/// the log: it must not keep its sandbox, and whoever would repair it, from running.
async fn run_on_start(node: &Node, sandbox: &Sandbox) {
    let Some(command) = sandbox.settings().on_start.clone() else { return };
    let asked = async {
        let json = serde_json::to_vec(&json!({"command": command, "id": ON_START_ID}));
        let json = json.map_err(|error| error.to_string())?;
        let request = Request::post("/processes")
            .header(header::CONTENT_TYPE, "application/json")
            .body(link::Body::new(Full::from(json).map_err(|never| match never {})))
            .map_err(|error| error.to_string())?;
        let sent =
            tokio::time::timeout(ON_START_DEADLINE, node.links.send(sandbox.jail.0, request));
        match sent.await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("the agent answered {}", answer.status())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err("the agent did not answer".to_owned()),
        }
    };
    if let Err(why) = asked.await {
        tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail, why,
            "the command of a sandbox's start was not started");
    }
}

/// Records the start, and carries it out meanwhile.
async fn start(
    node: &Arc<Node>,
    sandbox: &Sandbox,
    new: Option<New>,
    cause: &Cause,
) -> Result<(AgentIdentity, OwnedFd), NotStarted> {
    let is_new = new.is_some();
    let intent = intent(sandbox, is_new, cause);
    // The intent first: what is made may have more to record.
    let (recorded, started) =
        tokio::join!(biased; node.records.write(intent), carry_out(node, sandbox, new));
    if let Err(error) = recorded {
        tracing::warn!(sandbox_id = %sandbox.id, error = &error as &dyn std::error::Error,
            "a sandbox is not started because that could not be recorded");
        let error = error.publish("recording the sandbox");
        return Err(NotStarted { error, is_recorded: false });
    }
    started.map_err(|error| NotStarted { error, is_recorded: true })
}

fn intent(sandbox: &Sandbox, is_new: bool, cause: &Cause) -> Entry {
    if !is_new {
        return Change::Phase(sandbox.jail, Phase::Starting).into();
    }
    let create = Change::Create(Box::new(SandboxRecord {
        id: sandbox.id.clone(),
        jail: sandbox.jail,
        slot: sandbox.slot,
        settings: (*sandbox.settings()).clone(),
        image_digest: sandbox.image_digest.clone(),
        created_at_ms: sandbox.created_at_ms,
        files: sandbox.files(),
        origin: sandbox.origin,
        phase: Phase::Creating,
    }));
    create.telling(sandbox.tells(EventKind::Created, cause.clone()))
}

async fn carry_out(
    node: &Arc<Node>,
    sandbox: &Sandbox,
    new: Option<New>,
) -> Result<(AgentIdentity, OwnedFd), EngineError> {
    let is_new = new.is_some();
    let New { rootfs, blank } = match new {
        Some(new) => new,
        None => {
            let digest = sandbox.image_digest.clone();
            let read = move |images: &Store| images.by_digest(&digest);
            let rootfs = read_image(node, &sandbox.settings().image, read).await?;
            New { rootfs, blank: None }
        }
    };
    let config = agent_config(&rootfs, &sandbox.settings());
    if let Some(blank) = blank {
        match blank.claim(node, hostname(sandbox), &config).await {
            Ok(claimed) => return Ok(claimed),
            Err(error) => {
                tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail,
                    error = &error as &dyn std::error::Error,
                    "a sandbox that was made ahead is of no use; it is made anew");
                let ended = destroy::end_jail(node, sandbox.jail).await;
                ended.map_err(|error| error.publish(STARTING))?;
            }
        }
    }
    let prepared = blank::prepare(node, sandbox.jail, rootfs).await?;
    make(node, sandbox, is_new, (prepared, config)).await
}

/// Makes the sandbox's blank, and claims it.
async fn make(
    node: &Arc<Node>,
    sandbox: &Sandbox,
    is_new: bool,
    (prepared, config): (Prepared, AgentConfig),
) -> Result<(AgentIdentity, OwnedFd), EngineError> {
    if !is_new {
        // What an earlier attempt may have left goes first.
        let killed = node.launchers.clear(sandbox.jail).await;
        killed.map_err(|error| error.publish(STARTING))?;
    }
    if let Some(origin) = sandbox.origin.filter(|_| is_new) {
        take_files(node, sandbox, origin).await?;
    }
    // It starts anew: what an earlier start was told of names is no more.
    sandbox.asker.forget();
    let guest = Guest { number: sandbox.number.clone(), slot: sandbox.slot };
    let limits = sandbox.settings().limits();
    let guest = (&guest, hostname(sandbox));
    let spec = blank::spec(node, guest, &sandbox.asker, sandbox.files(), limits);
    let claimed = async {
        let blank = blank::launch(node, spec, prepared).await?;
        blank.claim(node, hostname(sandbox), &config).await
    };
    claimed.await.map_err(|error| {
        tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail,
            error = &error as &dyn std::error::Error, "a sandbox cannot be started");
        error.publish(STARTING)
    })
}

fn hostname(sandbox: &Sandbox) -> Hostname {
    Hostname::of(sandbox.id.as_str())
}

/// Gives a new fork its files, and has that on record: from then on it is a sandbox like others.
async fn take_files(node: &Node, sandbox: &Sandbox, origin: Origin) -> Result<(), EngineError> {
    let Origin { volume, size_bytes } = origin;
    let inherited_bytes = checkpoint::inherit(node, volume, size_bytes, sandbox.jail).await?;
    let files = Files { volume: sandbox.jail, inherited_bytes };
    sandbox.set_files(files, sandbox.number.clone());
    let recorded = node.records.write(Change::Files(sandbox.jail, files)).await;
    recorded.map_err(|error| error.publish("recording the sandbox"))
}

/// Why a sandbox was not started, and whether the intent is on disk.
struct NotStarted {
    error: EngineError,
    is_recorded: bool,
}

/// Undoes an attempt to start. A new sandbox for which there was no room, which could not be
/// recorded, or which is a fork, has never been; any other stays, as failed, and the next request tries again.
async fn fail(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    failed: NotStarted,
    (is_new, cause): (bool, Cause),
) {
    let NotStarted { error, is_recorded } = failed;
    let cause = cause.failing(&error.message);
    // Of a launch that failed without an answer nobody knows how far it came.
    let ended = destroy::end_jail(node, sandbox.jail).await;
    let is_fork = sandbox.origin.is_some();
    if is_new && (!is_recorded || is_fork || error.code == ErrorCode::NoSpace) {
        // Also when nothing was recorded: a write that came late is taken back by this one.
        let told = sandbox.tells(EventKind::Destroyed, cause);
        let buried = node.records.write(Change::Bury(sandbox.jail).telling(told)).await;
        if let Err(error) = ended {
            sandbox.set(State::Doomed(destroy::failure(sandbox, &error, "undoing a start")));
            return;
        }
        match buried {
            // Its row is there, with its id and its slot.
            Err(_) if is_recorded => sandbox.set(State::Doomed(Failure::of(&error))),
            buried => {
                node.forget(sandbox, Some(error));
                if buried.is_ok() {
                    node.remover.remove(sandbox.number.clone()).await;
                }
            }
        }
        return;
    }
    let failure = Failure::of(&error);
    let phase = Change::Phase(sandbox.jail, Phase::Failed(failure.clone()));
    node.records.submit(phase.telling(sandbox.tells(EventKind::Failed, cause))).await;
    sandbox.set(State::Failed(failure));
}

/// Reads the image called `name` from the store.
pub(crate) async fn read_image<T: Send + 'static>(
    node: &Node,
    name: &ImageRef,
    read: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, EngineError> {
    let images = Arc::clone(&node.images);
    let found = tokio::task::spawn_blocking(move || read(&images)).await;
    found
        .map_err(|_panicked| error::internal("reading the image"))?
        .map_err(|error| error::of_image(name, &error))
}

fn agent_config(rootfs: &Rootfs, settings: &Settings) -> AgentConfig {
    let mut env = rootfs.env.clone();
    env.extend(settings.env.clone());
    AgentConfig {
        env,
        workdir: rootfs.workdir.clone(),
        definitions: Some(DEFINITIONS.to_owned()),
        services: settings.services.clone(),
    }
}

/// An id that nobody has: `prefix` and random digits.
pub(crate) fn random_id<T: FromStr>(prefix: &str) -> Result<T, EngineError> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|_errno| error::internal("generating an id"))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = format!("{prefix}{digits}");
    id.parse().map_err(|_not_an_id| error::internal("generating an id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_differ() {
        assert_ne!(
            random_id::<SandboxId>(OWN_PREFIX).unwrap(),
            random_id::<SandboxId>(OWN_PREFIX).unwrap()
        );
    }

    #[test]
    fn the_longest_prefix_leaves_room_for_an_id() {
        let prefix = format!("{}-", "1".repeat(api::limit::ID_PREFIX_CHARS - 1));
        let prefix: IdPrefix = prefix.parse().unwrap();
        assert!(prefix.covers(&random_id::<SandboxId>(prefix.as_str()).unwrap()));
    }

    #[test]
    fn a_sandboxs_variables_go_over_its_images() {
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let rootfs = Rootfs {
            layers: vec![],
            binds: vec![],
            env: pairs(&[("A", "image"), ("B", "image")]),
            workdir: "/w".to_owned(),
        };
        let mut settings = crate::record::tests::record("a", 1).settings;
        settings.env = pairs(&[("B", "sandbox")]);
        let config = agent_config(&rootfs, &settings);
        assert_eq!(config.env, pairs(&[("A", "image"), ("B", "sandbox")]));
        assert_eq!(config.workdir, "/w");
    }
}
