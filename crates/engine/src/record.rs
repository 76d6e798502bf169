//! What is written to disk about sandboxes: `sandbar.db` in the state directory.
//!
//! Owns: the database file, its schema, and the one thread that writes it. Everything is read once,
//! at the start; from then on memory is the truth and the file follows it.
//!
//! ```text
//! sandbox: one row per sandbox that exists     burial: one row per jail that must not
//! checkpoint: one row per checkpoint
//! port: one row per port of a sandbox that was ever exposed
//! key: one row per key but `local`, with the digest of its secret
//! event: one row per event that is kept
//! webhook: one row per webhook, with its secret
//! ```
//!
//! Invariants:
//! - The row of a sandbox or a burial is on disk before the first kernel object of its jail is made,
//!   and every kernel object carries the jail's number; so after any crash, whatever exists is
//!   either a sandbox's, or to be buried.
//! - Destroying a sandbox is one transaction that turns its row into a burial.
//! - A jail's number is never given out twice: the highest is kept with each of them.
//! - An event is written in the transaction of the change it tells of, and told when that is on disk.
//!   Nothing is told of what has not happened, or has happened already.
//!
//! Does not: know which process really runs (see `recover.rs`).

mod event;
mod reserve;
mod schema;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    event::Event,
    id::{CheckpointId, KeyName, SandboxId, WebhookName},
    key::KeyScope,
    port::{PortNumber, PortToken},
    webhook::CreateWebhook,
};
use jail::JailId;
use tokio::sync::{broadcast, mpsc, oneshot};

pub(crate) use self::event::Chapter;
use self::{event::Kept, reserve::Reserve};
use crate::{
    event::Draft,
    key::Digest,
    settings::Settings,
    state::{AgentIdentity, Failure},
    webhook::WebhookSecret,
};

/// Changes that may wait for the writer. It takes them in groups, so a queue this long is written
/// in a few milliseconds; past it, those who write wait.
const QUEUED_CHANGES: usize = 1024;

/// How long a change may take to reach the disk before the caller is told that it did not.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Events that a follower may be behind before it has to read them from the disk again.
const FOLLOWED_EVENTS: usize = 1024;

/// What is known of a sandbox across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    pub(crate) jail: JailId,
    pub(crate) slot: u32,
    pub(crate) settings: Settings,
    /// Of the image at the creation: the sandbox's files fit no other, whatever its name means now.
    pub(crate) image_digest: String,
    pub(crate) created_at_ms: i64,
    pub(crate) files: Files,
    /// Whose files it begins with, as long as it has not got them.
    pub(crate) origin: Option<Origin>,
    pub(crate) phase: Phase,
}

/// Where a sandbox's own files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Files {
    /// Their volume: of its jail's number until a checkpoint is restored.
    pub(crate) volume: JailId,
    /// Bytes in it that it shares with others and that are charged to them. They count as its own,
    /// also when it has removed them: otherwise fork after fork, they would count nowhere.
    pub(crate) inherited_bytes: u64,
}

/// The read-only volume that a fork's files are copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) volume: JailId,
    /// What is in it.
    pub(crate) size_bytes: u64,
}

/// What is known of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointRecord {
    pub(crate) id: CheckpointId,
    /// A read-only volume.
    pub(crate) volume: JailId,
    pub(crate) created_at_ms: i64,
    /// Of the sandbox's own files then.
    pub(crate) size_bytes: u64,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) name: KeyName,
    pub(crate) scope: KeyScope,
    /// Of its secret, which is nowhere.
    pub(crate) digest: Digest,
    pub(crate) created_at_ms: i64,
    pub(crate) expires_at_ms: Option<i64>,
    /// Coarse, see `key.rs`.
    pub(crate) used_at_ms: Option<i64>,
}

/// What is known of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookRecord {
    pub(crate) request: CreateWebhook,
    /// As it is: with a digest nothing could be signed.
    pub(crate) secret: WebhookSecret,
    pub(crate) created_at_ms: i64,
    /// The last event that was taken, or the last there was when it was created.
    pub(crate) cursor: u64,
}

/// The last thing known to have begun or happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being made; nobody has been told that it exists.
    Creating,
    /// It is being started again, with the files it has.
    Starting,
    Running(AgentIdentity),
    Stopped,
    Failed(Failure),
}

/// What is known of a port that is exposed or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRecord {
    pub(crate) port: PortNumber,
    pub(crate) name: Option<String>,
    /// Its caller's own; without one it is made from the generation.
    pub(crate) token: Option<PortToken>,
    /// How often its token was rotated.
    pub(crate) generation: u64,
    /// Its URL has no token.
    pub(crate) is_public: bool,
    /// None: it is hidden.
    pub(crate) exposed_at_ms: Option<i64>,
}

/// One change of the database, whole or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new sandbox, in its first phase.
    Create(Box<SandboxRecord>),
    /// The phase of a sandbox. Nothing happens when it is gone.
    Phase(JailId, Phase),
    /// The settings of a sandbox. Nothing happens when it is gone.
    Settings(JailId, Box<Settings>),
    /// A port of a sandbox. Nothing happens when the sandbox is gone.
    Port(JailId, Box<PortRecord>),
    /// A checkpoint of a sandbox, whose volume has had a burial until now. Nothing happens when the
    /// sandbox is gone.
    Checkpoint(JailId, Box<CheckpointRecord>),
    /// A sandbox has its files there, and none to begin with any more: a burial of the volume ends,
    /// one of the volume before begins. Nothing happens when the sandbox is gone.
    Files(JailId, Files),
    /// The jail and the volume of this number must not exist: its sandbox, if it has one, is
    /// forgotten with its checkpoints, all of whose volumes must not exist either; so is the
    /// checkpoint, if it is one's.
    Bury(JailId),
    /// The jail and the volume of this number, which are nobody's, must not exist. Refused when they
    /// are somebody's.
    Remains(JailId),
    /// Nothing is left of the jail, or the volume.
    Buried(JailId),
    /// A new key.
    CreateKey(Box<KeyRecord>),
    /// The key is forgotten. Nothing happens when it is not there.
    RemoveKey(KeyName),
    /// When a key was last used, in milliseconds since 1970. Nothing happens when it is gone.
    KeyUsed(KeyName, i64),
    /// A new webhook.
    CreateWebhook(Box<WebhookRecord>),
    /// The webhook is forgotten. Nothing happens when it is not there.
    RemoveWebhook(WebhookName),
    /// An event was taken. Nothing happens when the webhook is gone.
    WebhookCursor(WebhookName, u64),
    /// Nothing of what is on record: for an event about what only the kernel knows.
    Nothing,
}

impl Change {
    /// The change, and what is told of it: nothing when nothing happens.
    pub(crate) fn telling(self, event: Draft) -> Entry {
        Entry { change: self, event: Some(Box::new(event)) }
    }
}

/// A change, and what is told of it when it is on disk.
#[derive(Debug)]
pub(crate) struct Entry {
    change: Change,
    event: Option<Box<Draft>>,
}

impl From<Change> for Entry {
    fn from(change: Change) -> Self {
        Self { change, event: None }
    }
}

impl Change {
    /// What changes, in the names of failpoints.
    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Phase(_, Phase::Creating) => "phase-creating",
            Self::Phase(_, Phase::Starting) => "phase-starting",
            Self::Phase(_, Phase::Running(_)) => "phase-running",
            Self::Phase(_, Phase::Stopped) => "phase-stopped",
            Self::Phase(_, Phase::Failed(_)) => "phase-failed",
            Self::Settings(..) => "settings",
            Self::Port(..) => "port",
            Self::Checkpoint(..) => "checkpoint",
            Self::Files(..) => "files",
            Self::Bury(_) => "bury",
            Self::Remains(_) => "remains",
            Self::Buried(_) => "buried",
            Self::CreateKey(_) => "create-key",
            Self::RemoveKey(_) => "remove-key",
            Self::KeyUsed(..) => "key-used",
            Self::CreateWebhook(_) => "create-webhook",
            Self::RemoveWebhook(_) => "remove-webhook",
            Self::WebhookCursor(..) => "webhook-cursor",
            Self::Nothing => "nothing",
        }
    }
}

/// Why a change is not on disk, or the database cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the disk of the state directory is full")]
    Full(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("the database sandbar.db is damaged or not Sandbar's")]
    Damaged(#[source] Option<Arc<rusqlite::Error>>),
    #[error("the database sandbar.db has version {found}, this program knows up to {known}")]
    Newer { found: i64, known: i64 },
    #[error("the database sandbar.db cannot be used")]
    Failed(#[source] Arc<rusqlite::Error>),
    #[error("a row of the database sandbar.db cannot be read: {0}")]
    BadRow(String),
    #[error("number {0} is on record as somebody's")]
    Owned(JailId),
    #[error("the database did not answer within {} s", WRITE_TIMEOUT.as_secs())]
    Late,
    #[error("the database is closed")]
    Closed,
}

/// Everything the database holds at the start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) sandboxes: Vec<SandboxRecord>,
    pub(crate) burials: Vec<JailId>,
    /// The ports of each sandbox that has some.
    pub(crate) ports: BTreeMap<JailId, Vec<PortRecord>>,
    /// The checkpoints of each sandbox that has some, oldest first.
    pub(crate) checkpoints: BTreeMap<JailId, Vec<CheckpointRecord>>,
    pub(crate) keys: Vec<KeyRecord>,
    pub(crate) webhooks: Vec<WebhookRecord>,
    /// No jail of this number or a higher one was ever recorded.
    pub(crate) next_jail: u64,
}

/// The way to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    /// None once closed.
    queue: Arc<Mutex<Option<mpsc::Sender<Asked>>>>,
    /// Where the writer tells of what is on disk.
    told: broadcast::Sender<Arc<Event>>,
}

/// What the writer is asked for.
#[derive(Debug)]
enum Asked {
    Write(Write),
    /// The events after a cursor, or from the oldest on; of all changes that were left before, too.
    Read(Option<u64>, oneshot::Sender<Result<Chapter, RecordError>>),
    /// What is to be buried, as of all changes that were left before.
    Burials(oneshot::Sender<Result<Vec<JailId>, RecordError>>),
}

/// A change on its way, and who waits for it. Without anybody, the writer logs a failure.
#[derive(Debug)]
struct Write {
    entry: Entry,
    reply: Option<oneshot::Sender<Result<(), RecordError>>>,
}

impl Records {
    /// Opens or makes the database and reads it. The thread ends, with everything written, after
    /// [`Records::close`] or when all [`Records`] are dropped. Blocks.
    ///
    /// # Errors
    /// When the file cannot be used; it is then as it was.
    pub(crate) fn open(
        path: &Path,
    ) -> Result<(Self, Loaded, std::thread::JoinHandle<()>), RecordError> {
        let database = schema::open(path)?;
        let loaded = schema::load(&database)?;
        let kept = Kept::count(&database)?;
        let reserve = Reserve::beside(path);
        let (queue, asked) = mpsc::channel(QUEUED_CHANGES);
        let (told, _) = broadcast::channel(FOLLOWED_EVENTS);
        let writer = writer::Writer { database, reserve, kept, told: told.clone() };
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || writer.work(asked))
            .map_err(|error| RecordError::BadRow(error.to_string()))?;
        Ok((Self { queue: Arc::new(Mutex::new(Some(queue))), told }, loaded, thread))
    }

    /// Writes a change. At return it has survived a power cut.
    ///
    /// # Errors
    /// When it did not reach the disk; after [`RecordError::Late`] it still may.
    pub(crate) async fn write(&self, entry: impl Into<Entry>) -> Result<(), RecordError> {
        let entry = entry.into();
        self.ask(|reply| Asked::Write(Write { entry, reply: Some(reply) })).await
    }

    /// The events after a cursor, or from the oldest on.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn events(&self, after: Option<u64>) -> Result<Chapter, RecordError> {
        self.ask(|reply| Asked::Read(after, reply)).await
    }

    /// What is to be buried.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn burials(&self) -> Result<Vec<JailId>, RecordError> {
        self.ask(Asked::Burials).await
    }

    /// The events that reach the disk from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.told.subscribe()
    }

    async fn ask<T>(
        &self,
        asked: impl FnOnce(oneshot::Sender<Result<T, RecordError>>) -> Asked,
    ) -> Result<T, RecordError> {
        let (reply, answer) = oneshot::channel();
        let answered = async {
            let queue = self.queue().ok_or(RecordError::Closed)?;
            queue.send(asked(reply)).await.map_err(|_closed| RecordError::Closed)?;
            drop(queue);
            answer.await.map_err(|_closed| RecordError::Closed)?
        };
        tokio::time::timeout(WRITE_TIMEOUT, answered).await.unwrap_or(Err(RecordError::Late))
    }

    /// Leaves a change that recovery could make up for with the writer. Changes are written in the
    /// order in which they were left.
    pub(crate) async fn submit(&self, entry: impl Into<Entry>) {
        // Without a writer, the next start finds out what is true.
        if let Some(queue) = self.queue() {
            drop(queue.send(Asked::Write(Write { entry: entry.into(), reply: None })).await);
        }
    }

    /// Leaves a change that may be lost: it is when the writer is busy.
    pub(crate) fn note(&self, change: Change) {
        if let Some(queue) = self.queue() {
            let write = Write { entry: change.into(), reply: None };
            queue.try_send(Asked::Write(write)).unwrap_or_default();
        }
    }

    /// As [`Records::submit`], from a thread.
    pub(crate) fn submit_blocking(&self, change: Change) {
        if let Some(queue) = self.queue() {
            let write = Write { entry: change.into(), reply: None };
            drop(queue.blocking_send(Asked::Write(write)));
        }
    }

    /// Takes no more changes; the writer ends after those it has.
    pub(crate) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn queue(&self) -> Option<mpsc::Sender<Asked>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
