//! The sandboxes of this node: the only place that adds one or forgets one.
//!
//! Owns: ids, slots, and who waits for whom at the end. Knows nothing of how a jail
//! is made.
//!
//! Invariant: an id in the map, its slot, if the node has that, and its jail number are taken and given
//! back together.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use api::{
    id::{IdPrefix, SandboxId},
    limit::CREATES_AT_ONCE,
};
use jail::{JailId, VolumesFileSystem};
use link::Links;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EngineError,
    blank::Blank,
    capacity::Capacity,
    config::EngineConfig,
    error,
    idle::Alarm,
    key::{Places, Quota, Visitors},
    launch::{Launchers, Remover},
    number::{Number, Numbers},
    pool::{Kind, Pool},
    port::Secret,
    reader::{KEPT_READERS, READERS},
    reconcile::Finds,
    record::{Files, Origin, Phase, Records, SandboxRecord},
    resolver::Asker,
    sandbox::Sandbox,
    settings::Settings,
    slot::Slots,
    state::State,
    webhook::Webhooks,
};

/// Creations of [`CREATES_AT_ONCE`] that only admin keys get: a second's work.
const KEPT_CREATES: usize = 64;

/// Everything that the parts of the engine share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: EngineConfig,
    pub(crate) links: Links,
    pub(crate) images: Arc<image::Store>,
    pub(crate) records: Records,
    /// What the tokens of ports are made from.
    pub(crate) secret: Secret,
    pub(crate) launchers: Launchers,
    /// One launcher for what is quick, what names and policies ask of the firewall above all: nobody's
    /// question for a name waits behind somebody's creation.
    pub(crate) network: Launchers,
    /// Of jails and volumes, and whose they are.
    pub(crate) numbers: Numbers,
    /// What was found that was nobody's.
    pub(crate) finds: Finds,
    /// Blanks that were made ahead.
    pub(crate) pool: Pool,
    pub(crate) remover: Remover,
    /// What the volumes are in.
    pub(crate) volumes: Arc<VolumesFileSystem>,
    /// For jails that read files for others.
    pub(crate) readers: Places,
    /// For sandboxes that are being made or started; a waiter in the launchers' queue has one.
    pub(crate) creates: Places,
    /// Of the machine, for sandboxes that are to be made or started.
    pub(crate) capacity: Capacity,
    /// Those of [`Node::creates`] that visitors of previews may have.
    pub(crate) visitors: Visitors,
    /// This boot of the machine: a process of another boot is not running.
    pub(crate) boot_id: String,
    pub(crate) webhooks: Webhooks,
    /// The time, and who climbs the ladders of idle sandboxes.
    pub(crate) alarm: Arc<Alarm>,
    /// Work that must be finished: creations, stops, destroys, builds.
    pub(crate) work: TaskTracker,
    /// Work that only ends: watchers of agents, the resolver.
    pub(crate) watchers: TaskTracker,
    /// No new work from now on.
    pub(crate) closing: CancellationToken,
    /// Watchers end now.
    pub(crate) ending: CancellationToken,
    /// Never held across an await.
    residents: RwLock<Residents>,
    /// Keeps every other engine out of the state directory while it is open.
    _lock: File,
}

/// What a node is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: EngineConfig,
    pub(crate) links: Links,
    pub(crate) images: image::Store,
    pub(crate) records: Records,
    pub(crate) secret: Secret,
    pub(crate) launchers: Launchers,
    pub(crate) network: Launchers,
    pub(crate) remover: Remover,
    pub(crate) volumes: VolumesFileSystem,
    pub(crate) boot_id: String,
    pub(crate) closing: CancellationToken,
    pub(crate) lock: File,
}

#[derive(Debug)]
struct Residents {
    by_id: BTreeMap<SandboxId, Arc<Sandbox>>,
    /// Who asks the resolver, by slot: the sandboxes, and those of builds.
    askers: BTreeMap<u32, Arc<Asker>>,
    slots: Slots,
    /// Slots of guests that could not be ended, by their jails.
    lost: BTreeMap<JailId, u32>,
    /// Numbers of records that could not be read as a sandbox.
    kept: Vec<Number>,
}

/// A jail number and a slot without a sandbox: for a blank, or one RUN of a recipe.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) number: Number,
    pub(crate) slot: u32,
}

impl Guest {
    pub(crate) fn jail(&self) -> JailId {
        self.number.id()
    }
}

/// What came of adding a sandbox.
#[derive(Debug)]
pub(crate) enum Added {
    /// It is new, and has this blank if there was one.
    New(Option<Blank>),
    /// It was there.
    Known,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
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
        } = parts;
        let capacity = Capacity::new(config.kept_memory);
        let pool = Pool::new(config.pool);
        let slots = Slots::new(&config.node, config.uid_base);
        let residents = Residents {
            by_id: BTreeMap::new(),
            askers: BTreeMap::new(),
            slots,
            lost: BTreeMap::new(),
            kept: Vec::new(),
        };
        Self {
            config,
            links,
            images: Arc::new(images),
            records,
            secret,
            launchers,
            network,
            numbers: Numbers::new(),
            finds: Finds::default(),
            pool,
            remover,
            volumes: Arc::new(volumes),
            readers: Places::new(READERS, KEPT_READERS),
            creates: Places::new(CREATES_AT_ONCE, KEPT_CREATES),
            visitors: Visitors::default(),
            capacity,
            boot_id,
            webhooks: Webhooks::default(),
            alarm: Arc::new(Alarm::new()),
            work: TaskTracker::new(),
            watchers: TaskTracker::new(),
            closing,
            ending: CancellationToken::new(),
            residents: RwLock::new(residents),
            _lock: lock,
        }
    }

    /// The sandbox with this id.
    pub(crate) fn find(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.read().by_id.get(id).cloned()
    }

    /// Calls `look` with all sandboxes, under the lock.
    pub(crate) fn survey<T>(
        &self,
        look: impl FnOnce(&BTreeMap<SandboxId, Arc<Sandbox>>) -> T,
    ) -> T {
        look(&self.read().by_id)
    }

    /// Every sandbox there is now.
    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.survey(|all| all.values().cloned().collect())
    }

    /// Adds a sandbox in the state [`State::Creating`], which is the caller's to settle, or returns
    /// the one that has the id. A fork has an `origin`, and no blank.
    ///
    /// # Errors
    /// `CAPACITY_EXCEEDED`, `QUOTA_EXCEEDED`, `SHUTTING_DOWN`.
    pub(crate) fn add(
        &self,
        id: &SandboxId,
        settings: &Settings,
        image_digest: &str,
        (origin, quota): (Option<Origin>, Option<&Quota>),
    ) -> Result<(Arc<Sandbox>, Added), EngineError> {
        let mut residents = self.write();
        if let Some(sandbox) = residents.by_id.get(id) {
            return Ok((Arc::clone(sandbox), Added::Known));
        }
        self.check_open()?;
        if residents.by_id.len() >= self.config.max_sandboxes {
            return Err(error::capacity(self.config.max_sandboxes));
        }
        if let Some(Quota { key, prefix, most }) = quota
            && residents.count(prefix) >= *most
        {
            return Err(error::quota(key, *most));
        }
        let ahead = match origin {
            None => self.pool.take(Kind::of(settings, image_digest)),
            Some(_) => None,
        };
        let (guest, blank) = match ahead {
            Some((guest, blank)) => (guest, Some(blank)),
            None => (self.admit(&mut residents)?, None),
        };
        let Guest { number, slot } = guest;
        let jail = number.id();
        let record = SandboxRecord {
            id: id.clone(),
            jail,
            slot,
            settings: settings.clone(),
            image_digest: image_digest.to_owned(),
            created_at_ms: now_ms(),
            files: Files { volume: jail, inherited_bytes: 0 },
            origin,
            phase: Phase::Creating,
        };
        let numbers = (number.clone(), number);
        let sandbox = Arc::new(Sandbox::new(record, numbers, State::Creating, &self.alarm));
        residents.askers.insert(slot, Arc::clone(&sandbox.asker));
        residents.by_id.insert(id.clone(), Arc::clone(&sandbox));
        Ok((sandbox, Added::New(blank)))
    }

    /// Sandboxes that may still be created.
    pub(crate) fn room(&self) -> usize {
        let residents = self.read();
        let allowed = self.config.max_sandboxes.saturating_sub(residents.by_id.len());
        allowed.min(residents.slots.free())
    }

    /// Puts a recorded sandbox back, with its slot if the node has that. None: its id or a number is
    /// taken.
    pub(crate) fn restore(&self, record: SandboxRecord) -> Option<Arc<Sandbox>> {
        let number = self.numbers.own(record.jail)?;
        let volume = match record.files.volume {
            volume if volume == record.jail => number.clone(),
            volume => self.numbers.own(volume)?,
        };
        let mut residents = self.write();
        if residents.by_id.contains_key(&record.id) {
            return None;
        }
        let id = record.id.clone();
        let numbers = (number, volume);
        let mut sandbox = Sandbox::new(record, numbers, State::Creating, &self.alarm);
        sandbox.has_place = residents.slots.reserve(sandbox.slot);
        if sandbox.has_place {
            residents.askers.insert(sandbox.slot, Arc::clone(&sandbox.asker));
        }
        let sandbox = Arc::new(sandbox);
        residents.by_id.insert(id, Arc::clone(&sandbox));
        Some(sandbox)
    }

    /// Forgets a sandbox of which nothing runs. Those who wait for it look its id up again, or fail
    /// with `error`.
    pub(crate) fn forget(&self, sandbox: &Sandbox, error: Option<EngineError>) {
        let mut residents = self.write();
        residents.by_id.remove(&sandbox.id);
        if sandbox.has_place {
            residents.release(sandbox.slot);
        }
        drop(residents);
        sandbox.set(State::Gone(error.map(Box::new)));
    }

    /// These numbers are somebody's who is not here.
    pub(crate) fn keep_numbers(&self, numbers: impl Iterator<Item = JailId>) {
        let kept = numbers.filter_map(|number| self.numbers.own(number));
        self.write().kept.extend(kept);
    }

    /// Takes a jail number and a slot that no sandbox owns, for whoever asks the resolver like this.
    ///
    /// # Errors
    /// `CAPACITY_EXCEEDED`, `SHUTTING_DOWN`.
    pub(crate) fn acquire_guest(
        &self,
        asker: impl FnOnce(JailId) -> Asker,
    ) -> Result<(Guest, Arc<Asker>), EngineError> {
        self.check_open()?;
        let mut residents = self.write();
        let guest = self.admit(&mut residents)?;
        let asker = Arc::new(asker(guest.jail()));
        residents.askers.insert(guest.slot, Arc::clone(&asker));
        Ok((guest, asker))
    }

    /// Gives the slot back.
    pub(crate) fn release(&self, slot: u32) {
        self.write().release(slot);
    }

    /// A guest cannot be ended: its slot is nobody's else until that is done.
    pub(crate) fn lose(&self, guest: &Guest) {
        self.write().lost.insert(guest.jail(), guest.slot);
    }

    /// A jail has been ended that nobody had: if it was a guest's, gives its slot back.
    pub(crate) fn release_lost(&self, jail: JailId) {
        let mut residents = self.write();
        if let Some(slot) = residents.lost.remove(&jail) {
            residents.release(slot);
        }
    }

    /// Who asks the resolver from this address.
    pub(crate) fn asker_at(&self, address: IpAddr) -> Option<Arc<Asker>> {
        let IpAddr::V4(address) = address else { return None };
        let slot = self.config.node.network?.slot(address)?;
        self.read().askers.get(&slot).cloned()
    }

    fn admit(&self, residents: &mut Residents) -> Result<Guest, EngineError> {
        let slot = residents.slots.acquire();
        let slot = slot.ok_or_else(|| error::capacity(self.config.max_sandboxes))?;
        Ok(Guest { number: self.numbers.take(), slot })
    }

    /// # Errors
    /// `SHUTTING_DOWN`.
    pub(crate) fn check_open(&self) -> Result<(), EngineError> {
        if self.closing.is_cancelled() { Err(error::shutting_down()) } else { Ok(()) }
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn read(&self) -> RwLockReadGuard<'_, Residents> {
        self.residents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Residents> {
        self.residents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Residents {
    /// The sandboxes whose ids begin with a prefix, which are next to each other.
    fn count(&self, prefix: &IdPrefix) -> usize {
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let those = self.by_id.range::<str, _>(from);
        those.take_while(|(id, _)| id.as_str().starts_with(prefix.as_str())).count()
    }

    fn release(&mut self, slot: u32) {
        self.askers.remove(&slot);
        self.slots.release(slot);
    }
}

/// Milliseconds since 1970-01-01 UTC, for people to read.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
