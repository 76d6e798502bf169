//! The keys of one node: who may call, for what, and how much at once.
//!
//! ```text
//! presented text ─► SHA-256 ─► compared with every digest ─► Key (name, scope, places, its end)
//! ```
//!
//! Owns: which keys there are and when each ends. Does not: know what a request is, or keep a
//! secret. The key `local` is not on record: its secret is in a file of the state directory, which
//! is the daemon's.
//!
//! Invariants:
//! - What is presented is compared with the digests of all keys, each to its last bit. How long that
//!   takes depends on how many keys there are, and on nothing that is presented.
//! - A key is on disk before anybody learns its secret, and off the disk before anybody is told that
//!   it is gone. From then on it opens nothing, and what it had opened is told by [`Key::ended`].
//! - A name has one change at a time; a change that has begun goes on without its caller.

mod place;
mod secret;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use api::{
    id::{IdPrefix, KeyName, SandboxId},
    key::{CreateKey, Key as Description, KeyList, KeyScope, NewKey},
    limit::{CREATES_PER_KEY, JSON_BYTES_PER_KEY, KEY_EXPIRY_SECS, KEYS},
};
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::place::Own;
use crate::{
    EngineError,
    error::{self, Publish},
    node::now_ms,
    reader::READERS_PER_KEY,
    record::{Change, KeyRecord, Records},
};

pub(crate) use self::secret::Digest;
pub use self::{
    place::{Full, Place, Places},
    secret::{InvalidSecret, Secret},
};

/// The name of the key in the key file.
const LOCAL: &str = "local";

/// How exactly the last use is known. A key in use costs one write in so long.
const USE_STEP_MS: i64 = 60 * 60 * 1000;

/// Bytes of a body that one place stands for: a part that is smaller takes about as much memory.
pub const BODY_PLACE_BYTES: usize = 1024;

/// In whose name something is done.
#[derive(Debug)]
pub struct Key {
    name: KeyName,
    scope: KeyScope,
    created_at_ms: i64,
    expires_at_ms: Option<i64>,
    /// A multiple of [`USE_STEP_MS`]; 0 is never.
    used_at_ms: AtomicI64,
    requests: Own,
    bodies: Own,
    creates: Own,
    readers: Own,
    ended: CancellationToken,
}

impl Key {
    fn new(record: KeyRecord, requests: usize) -> Arc<Self> {
        let KeyRecord { name, scope, digest: _, created_at_ms, expires_at_ms, used_at_ms } = record;
        let own = |places| scope.prefix().map(|_| Arc::new(Semaphore::new(places)));
        Arc::new(Self {
            requests: own(requests),
            bodies: own(JSON_BYTES_PER_KEY / BODY_PLACE_BYTES),
            creates: own(CREATES_PER_KEY),
            readers: own(READERS_PER_KEY),
            name,
            scope,
            created_at_ms,
            expires_at_ms,
            used_at_ms: AtomicI64::new(used_at_ms.unwrap_or(0)),
            ended: CancellationToken::new(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What its holder may do.
    #[must_use]
    pub fn scope(&self) -> &KeyScope {
        &self.scope
    }

    /// Takes a place for a request.
    ///
    /// # Errors
    /// When there is none.
    pub fn place(&self, requests: &Places) -> Result<Place, Full> {
        requests.take(&self.requests, 1)
    }

    /// Takes room for a part of a body of so many bytes, one of `bodies` for each
    /// [`BODY_PLACE_BYTES`] that it begins.
    ///
    /// # Errors
    /// When there is not as much.
    pub fn room(&self, bodies: &Places, bytes: usize) -> Result<Place, Full> {
        let number = bytes.div_ceil(BODY_PLACE_BYTES);
        bodies.take(&self.bodies, u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Takes a place for a reader.
    pub(crate) fn reader(&self, readers: &Places) -> Result<Place, EngineError> {
        readers.take(&self.readers, 1).map_err(|taken| match taken {
            Full::Key => error::readers_too_many(&self.name),
            Full::Node => error::too_many_readers(readers.size()),
        })
    }

    /// What the ids of its holder's sandboxes begin with; none: with anything.
    pub(crate) fn prefix(&self) -> Option<&IdPrefix> {
        self.scope.prefix()
    }

    /// Refuses an id that its holder may not give to a sandbox.
    pub(crate) fn check(&self, id: &SandboxId) -> Result<(), EngineError> {
        match self.prefix() {
            Some(prefix) if !prefix.covers(id) => Err(error::out_of_scope(&self.name, prefix)),
            _ => Ok(()),
        }
    }

    /// Ends when the key does: it was removed or replaced, or it has expired. Whatever is still
    /// done in its name is then to be ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = self.ended.clone();
        let left = self.expires_at_ms.map(|at| Duration::from_millis(until(at)));
        async move {
            match left {
                None => ended.cancelled().await,
                Some(left) => tokio::select! {
                    () = ended.cancelled() => {}
                    () = sleep(left) => {}
                },
            }
        }
    }

    fn has_expired(&self) -> bool {
        self.expires_at_ms.is_some_and(|at| until(at) == 0)
    }

    /// Notes that it is used now. Returns the time, if it is worth a write.
    fn note_use(&self) -> Option<i64> {
        let now = now_ms();
        let step = now - now.rem_euclid(USE_STEP_MS);
        (self.used_at_ms.swap(step, Ordering::Relaxed) != step).then_some(step)
    }

    fn describe(&self) -> Description {
        let used = self.used_at_ms.load(Ordering::Relaxed);
        Description {
            name: self.name.clone(),
            scope: self.scope.clone(),
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
            last_used_at_ms: (used != 0).then_some(used),
        }
    }
}

/// In whose name a sandbox is made or started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    /// A caller with a key.
    Key(&'a Key),
    /// Visitors of previews, who share their places: nobody knows who they are.
    Visitors(&'a Visitors),
}

/// How many of the sandboxes that a key is for there may be at once.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    pub(crate) key: KeyName,
    pub(crate) prefix: IdPrefix,
    pub(crate) most: usize,
}

impl By<'_> {
    /// What bounds the number of sandboxes, beside the node.
    pub(crate) fn quota(self) -> Option<Quota> {
        let Self::Key(Key { name, scope, .. }) = self else { return None };
        let KeyScope::Sandboxes { prefix, max_sandboxes: Some(most) } = scope else { return None };
        let most = usize::try_from(*most).unwrap_or(usize::MAX);
        Some(Quota { key: name.clone(), prefix: prefix.clone(), most })
    }

    /// Takes a place for a sandbox that is being made or started.
    pub(crate) fn creation(self, creates: &Places) -> Result<Place, EngineError> {
        let (own, full) = match self {
            Self::Key(key) => (&key.creates, error::creates_too_many(&key.name)),
            Self::Visitors(Visitors(own)) => (own, error::visits_too_many()),
        };
        creates.take(own, 1).map_err(|taken| match taken {
            Full::Key => full,
            Full::Node => error::too_many_creations(),
        })
    }
}

/// The places of all visitors together for sandboxes that they have started: those of one key.
#[derive(Debug)]
pub(crate) struct Visitors(Own);

impl Default for Visitors {
    fn default() -> Self {
        Self(Some(Arc::new(Semaphore::new(CREATES_PER_KEY))))
    }
}

/// Milliseconds until a time; 0 when it has come.
fn until(at_ms: i64) -> u64 {
    u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0)
}

/// What a presented text is.
#[derive(Debug)]
pub enum Presented {
    /// This key, in force.
    Key(Arc<Key>),
    /// No key, or none any more.
    Unknown,
    /// It is not `local`, and the other keys are not read yet: ask again once the engine is open.
    NotYet,
}

/// The keys of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Never held across an await.
    table: RwLock<Table>,
    /// Set once the keys on record are in the table.
    store: OnceLock<Store>,
    requests_per_key: usize,
}

#[derive(Debug)]
struct Table {
    /// `local` first. Side by side, because each request looks at all of them.
    entries: Vec<Entry>,
    changing: BTreeSet<KeyName>,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    key: Arc<Key>,
}

/// Where changes are kept, and who waits for them at the node's end.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) records: Records,
    pub(crate) work: TaskTracker,
    pub(crate) closing: CancellationToken,
}

impl Keys {
    /// The key `local` alone, made at `created_at_ms`. `requests_per_key`: requests at once of a key
    /// with a prefix.
    #[must_use]
    pub fn new(local: &Secret, created_at_ms: i64, requests_per_key: usize) -> Self {
        let entries = vec![Entry::local(local, created_at_ms)];
        let table = RwLock::new(Table { entries, changing: BTreeSet::new() });
        Self(Arc::new(Shared { table, store: OnceLock::new(), requests_per_key }))
    }

    /// Adds the keys on record; from now on they can be changed.
    pub(crate) fn open(&self, records: Vec<KeyRecord>, store: Store) {
        let mut table = self.write();
        table.entries.extend(records.into_iter().map(|record| self.entry(record)));
        drop(table);
        // The second of two engines with the same keys would find them open; there is one.
        self.0.store.set(store).unwrap_or_default();
    }

    /// The key whose secret `presented` is.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Presented {
        let digest = Digest::of(presented);
        // Before the table: keys that come between are then only found, not missed.
        let store = self.0.store.get();
        let mut found = None;
        for entry in &self.read().entries {
            if bool::from(entry.digest.ct_eq(&digest)) {
                found = Some(Arc::clone(&entry.key));
            }
        }
        match found {
            Some(key) if key.has_expired() => Presented::Unknown,
            Some(key) => {
                if let (Some(at_ms), Some(store)) = (key.note_use(), store)
                    && key.name.as_str() != LOCAL
                {
                    store.records.note(Change::KeyUsed(key.name.clone(), at_ms));
                }
                Presented::Key(key)
            }
            None if store.is_none() => Presented::NotYet,
            None => Presented::Unknown,
        }
    }

    /// Whether `presented` is the secret of a key, in force or expired. That is no use of it.
    #[must_use]
    pub fn is_secret(&self, presented: &[u8]) -> bool {
        let digest = Digest::of(presented);
        let mut is_secret = subtle::Choice::from(0);
        for entry in &self.read().entries {
            is_secret |= entry.digest.ct_eq(&digest);
        }
        bool::from(is_secret)
    }

    /// Requests at once of a key with a prefix.
    #[must_use]
    pub fn requests_per_key(&self) -> usize {
        self.0.requests_per_key
    }

    /// All keys, sorted by name.
    #[must_use]
    pub fn list(&self) -> KeyList {
        let mut keys: Vec<_> = self.read().entries.iter().map(|e| e.key.describe()).collect();
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        KeyList { keys }
    }

    /// Makes a key. It is in force, and will be after a power cut, when its secret is returned.
    ///
    /// # Cancel safety
    /// A creation that has begun goes on without its caller.
    ///
    /// # Errors
    /// `KEY_EXISTS`, `VALIDATION_FAILED`, `CAPACITY_EXCEEDED`, `RESOURCE_BUSY`, `NO_SPACE`,
    /// `SHUTTING_DOWN`.
    pub async fn create(&self, request: CreateKey) -> Result<NewKey, EngineError> {
        let CreateKey { name, scope, expires_in_secs } = request;
        let expires = expires_in_secs.map(checked_expiry).transpose()?;
        let secret = Secret::generate().map_err(|_errno| error::internal("generating a key"))?;
        let created_at_ms = now_ms();
        let record = KeyRecord {
            name: name.clone(),
            scope,
            digest: secret.digest(),
            created_at_ms,
            expires_at_ms: expires.map(|ms| created_at_ms.saturating_add(ms)),
            used_at_ms: None,
        };
        let claim = self.claim(&name, |table| {
            if table.position(&name).is_some() {
                return Err(error::key_exists(&name));
            }
            // `local` is beside the limit.
            let taken = table.entries.len() - 1 + table.changing.len();
            if taken < KEYS { Ok(()) } else { Err(error::too_many_keys()) }
        })?;
        let keys = self.clone();
        let key = self.change(claim, async move |records| {
            let written = records.write(Change::CreateKey(Box::new(record.clone()))).await;
            if let Err(fault) = written {
                // A write that came late after all is taken back by this one.
                records.submit(Change::RemoveKey(record.name)).await;
                return Err(fault.publish("recording the key"));
            }
            let entry = keys.entry(record);
            let description = entry.key.describe();
            keys.write().entries.push(entry);
            Ok(description)
        });
        Ok(NewKey { key: key.await?, secret: secret.reveal().to_owned() })
    }

    /// Removes a key. At return it opens nothing any more, now or after a restart, and what it had
    /// opened is being ended.
    ///
    /// # Cancel safety
    /// A removal that has begun goes on without its caller.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`; `FORBIDDEN` for `local`; `RESOURCE_BUSY`, `SHUTTING_DOWN`.
    pub async fn remove(&self, name: &KeyName) -> Result<(), EngineError> {
        if name.as_str() == LOCAL {
            return Err(error::local_key_stays());
        }
        let claim = self.claim(name, |table| match table.position(name) {
            Some(_) => Ok(()),
            None => Err(error::key_not_found(name)),
        })?;
        let (keys, name) = (self.clone(), name.clone());
        self.change(claim, async move |records| {
            let written = records.write(Change::RemoveKey(name.clone())).await;
            written.map_err(|fault| fault.publish("recording that the key is gone"))?;
            let mut table = keys.write();
            let gone = table.position(&name).map(|index| table.entries.remove(index));
            drop(table);
            if let Some(entry) = gone {
                entry.key.ended.cancel();
            }
            Ok(())
        })
        .await
    }

    /// Replaces the key `local`, whose new secret is in its file already. The old one opens nothing
    /// any more, and what it had opened is being ended.
    #[must_use]
    pub fn replace_local(&self, secret: &Secret) -> Description {
        let entry = Entry::local(secret, now_ms());
        let description = entry.key.describe();
        let mut table = self.write();
        let old = std::mem::replace(&mut table.entries[0], entry);
        drop(table);
        old.key.ended.cancel();
        description
    }

    fn entry(&self, record: KeyRecord) -> Entry {
        Entry { digest: record.digest, key: Key::new(record, self.0.requests_per_key) }
    }

    /// Begins a change of a name, if `check` allows it and no other is under way.
    fn claim(
        &self,
        name: &KeyName,
        check: impl FnOnce(&Table) -> Result<(), EngineError>,
    ) -> Result<Claim, EngineError> {
        let mut table = self.write();
        check(&table)?;
        if !table.changing.insert(name.clone()) {
            return Err(error::key_busy(name));
        }
        Ok(Claim { keys: self.clone(), name: name.clone() })
    }

    /// Carries a change out as work of the node.
    async fn change<T: Send + 'static, F>(
        &self,
        claim: Claim,
        change: impl FnOnce(Records) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        let store = self.0.store.get().ok_or_else(|| error::internal("changing the keys"))?;
        if store.closing.is_cancelled() {
            return Err(error::shutting_down());
        }
        let change = change(store.records.clone());
        let task = store.work.spawn(async move {
            let _claim = claim;
            change.await
        });
        task.await.unwrap_or_else(|_panicked| Err(error::internal("changing the keys")))
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn position(&self, name: &KeyName) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key.name == *name)
    }
}

impl Entry {
    fn local(secret: &Secret, created_at_ms: i64) -> Self {
        let digest = secret.digest();
        let record = KeyRecord {
            name: LOCAL.parse().expect("`local` is a name"),
            scope: KeyScope::Admin {},
            digest,
            created_at_ms,
            expires_at_ms: None,
            used_at_ms: None,
        };
        // An admin key has no places of its own.
        Self { digest, key: Key::new(record, 0) }
    }
}

/// A name whose change is under way.
#[derive(Debug)]
struct Claim {
    keys: Keys,
    name: KeyName,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keys.write().changing.remove(&self.name);
    }
}

/// Milliseconds until a key expires.
fn checked_expiry(secs: u64) -> Result<i64, EngineError> {
    let ms = i64::try_from(secs.saturating_mul(1000)).ok();
    ms.filter(|_| (1..=KEY_EXPIRY_SECS).contains(&secs)).ok_or_else(|| {
        let message = format!("expiresInSecs is {secs}; it can be 1 to {KEY_EXPIRY_SECS}");
        error::invalid("expiresInSecs", &message)
    })
}
