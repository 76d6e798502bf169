//! Checkpoints: copies of a sandbox's volume, to go back to or to begin others from.
//!
//! ```text
//! create:  record a burial ─▶ sync ─▶ hold: copy ─▶ record the checkpoint in the burial's place
//! remove:  record the burial ─▶ remove the volume
//! restore: stop ─▶ hold: record a burial, copy, exchange the volumes on record ─▶ remove the old one
//! ```
//!
//! A volume that is being made is on record as one to be buried, so after any crash each volume is a
//! sandbox's, a checkpoint's, or goes. As in `create.rs`, the work is a task of the node.
//!
//! Owns: which checkpoints a sandbox has. Does not: know how a volume is copied.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    checkpoint::{Checkpoint, CheckpointCreated, CreateCheckpoint, RestoreCheckpoint},
    event::EventKind,
    id::{CheckpointId, SandboxId},
    limit::CHECKPOINTS,
};
use jail::{JailError, JailId, Volumes};

use crate::{
    EngineError, create, destroy,
    error::{self, Publish},
    event::Cause,
    freeze,
    key::Key,
    launch::LaunchError,
    node::{Node, now_ms},
    number::Number,
    record::{Change, CheckpointRecord, Files},
    sandbox::Sandbox,
    state::{Operation, State},
};

/// What generated ids begin with.
pub(crate) const OWN_PREFIX: &str = "cp-";

/// How often a restore stops a sandbox that somebody starts meanwhile, before it gives up.
const ATTEMPTS: usize = 4;

/// How long what was written may take to reach the disk before a sandbox is held. Later, the copy
/// writes what is left, and the sandbox stands still meanwhile.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// The checkpoints of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Oldest first, with the numbers of their volumes.
    made: Vec<(CheckpointRecord, Number)>,
    /// Ids of those that are being made.
    begun: BTreeSet<CheckpointId>,
}

impl Checkpoints {
    /// Those on record.
    pub(crate) fn restore(&self, records: Vec<(CheckpointRecord, Number)>) {
        self.table().made = records;
    }

    /// The volumes of all.
    pub(crate) fn volumes(&self) -> Vec<Number> {
        self.table().made.iter().map(|(_, volume)| volume.clone()).collect()
    }

    pub(crate) fn find(&self, id: &CheckpointId) -> Option<CheckpointRecord> {
        let table = self.table();
        table.made.iter().find(|(record, _)| record.id == *id).map(|(record, _)| record.clone())
    }

    pub(crate) fn begin(&self, id: &CheckpointId) -> Result<(), EngineError> {
        let mut table = self.table();
        if table.begun.contains(id) || table.made.iter().any(|(record, _)| record.id == *id) {
            return Err(error::checkpoint_exists(id));
        }
        if table.made.len() + table.begun.len() >= CHECKPOINTS {
            return Err(error::too_many_checkpoints());
        }
        table.begun.insert(id.clone());
        Ok(())
    }

    /// The end of what was begun, with what has come of it.
    pub(crate) fn end(&self, id: &CheckpointId, made: Option<(CheckpointRecord, Number)>) {
        let mut table = self.table();
        table.begun.remove(id);
        table.made.extend(made);
    }

    fn take(&self, id: &CheckpointId) -> Option<(CheckpointRecord, Number)> {
        let made = &mut self.table().made;
        let at = made.iter().position(|(record, _)| record.id == *id)?;
        Some(made.remove(at))
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a checkpoint of the sandbox with this id, in whatever state that is.
pub(crate) async fn create(
    node: &Arc<Node>,
    id: &SandboxId,
    request: CreateCheckpoint,
    by: &Key,
) -> Result<CheckpointCreated, EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    check_available(node)?;
    node.check_open()?;
    let checkpoint = match request.id {
        Some(id) => id,
        None => create::random_id(OWN_PREFIX)?,
    };
    sandbox.checkpoints.begin(&checkpoint)?;
    let (owner, cause) = (Arc::clone(node), Cause::request(by).about(&checkpoint));
    let work = async move {
        let made = make(&owner, &sandbox, &checkpoint, cause).await;
        let (kept, pause) = made.inspect_err(|_| sandbox.checkpoints.end(&checkpoint, None))?;
        let checkpoint = settle(&owner, &sandbox, kept).await?;
        let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(sandbox_id = %sandbox.id, checkpoint = %checkpoint.id, pause_us,
            "checkpoint made");
        Ok(CheckpointCreated { checkpoint, pause_us })
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("making the checkpoint"))?
}

async fn make(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    id: &CheckpointId,
    cause: Cause,
) -> Result<((CheckpointRecord, Number), Duration), EngineError> {
    let (volume, size_bytes, pause) = seal(node, sandbox).await?;
    Ok((keep(node, (sandbox, id), (volume, size_bytes), cause).await?, pause))
}

/// Makes a volume that is on record as one to be buried a checkpoint on record.
pub(crate) async fn keep(
    node: &Node,
    (sandbox, id): (&Sandbox, &CheckpointId),
    (volume, size_bytes): (Number, u64),
    cause: Cause,
) -> Result<(CheckpointRecord, Number), EngineError> {
    let (id, created_at_ms) = (id.clone(), now_ms());
    let record = CheckpointRecord { id, volume: volume.id(), created_at_ms, size_bytes };
    let change = Change::Checkpoint(sandbox.jail, Box::new(record.clone()));
    let change = change.telling(sandbox.tells(EventKind::CheckpointCreated, cause));
    if let Err(error) = node.records.write(change).await {
        // Also a write that comes late is taken back by this one.
        node.records.submit(Change::Bury(volume.id())).await;
        node.remover.remove(volume).await;
        return Err(error.publish("recording the checkpoint"));
    }
    Ok((record, volume))
}

/// Ends what was begun with a checkpoint that is on record.
pub(crate) async fn settle(
    node: &Node,
    sandbox: &Sandbox,
    (record, volume): (CheckpointRecord, Number),
) -> Result<Checkpoint, EngineError> {
    sandbox.checkpoints.end(&record.id, Some((record.clone(), volume.clone())));
    if !sandbox.is_there() {
        // Its destroy did not see the checkpoint; its record went with it, or came too late.
        node.remover.remove(volume).await;
        return Err(error::not_found(&sandbox.id));
    }
    Ok(describe(sandbox, &record))
}

/// Copies the volume of a sandbox while nothing of it runs, to a new volume that is on record as one
/// to be buried. Returns it, the bytes of the sandbox's own files, and how long processes stood
/// still.
pub(crate) async fn seal(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
) -> Result<(Number, u64, Duration), EngineError> {
    let volume = node.numbers.take();
    let sealed = volume.id();
    let (recorded, ()) = tokio::join!(node.records.write(Change::Bury(sealed)), sync(node));
    recorded.map_err(|error| error.publish("recording the checkpoint"))?;
    let (owner, source) = (Arc::clone(node), Arc::clone(sandbox));
    // What is copied is decided while the sandbox is held: a restore exchanges it.
    let work = async move {
        let files = source.files();
        copy(&owner, files.volume, sealed, true).await?;
        Ok(files)
    };
    match freeze::hold(node, sandbox, work).await {
        Ok((files, pause)) => {
            let own = charge(node, files.volume).await;
            Ok((volume, own + files.inherited_bytes, pause))
        }
        Err(error) => {
            node.remover.remove(volume).await;
            Err(error)
        }
    }
}

/// The checkpoints of the sandbox with this id, oldest first.
pub(crate) fn list(node: &Node, id: &SandboxId) -> Result<Vec<Checkpoint>, EngineError> {
    let sandbox = find_sandbox(node, id)?;
    let table = sandbox.checkpoints.table();
    Ok(table.made.iter().map(|(record, _)| describe(&sandbox, record)).collect())
}

/// One checkpoint of the sandbox with this id.
pub(crate) fn get(
    node: &Node,
    id: &SandboxId,
    checkpoint: &CheckpointId,
) -> Result<Checkpoint, EngineError> {
    let sandbox = find_sandbox(node, id)?;
    let record = find(&sandbox, checkpoint)?;
    Ok(describe(&sandbox, &record))
}

/// Removes a checkpoint. Its files go in the background.
pub(crate) async fn remove(
    node: &Arc<Node>,
    id: &SandboxId,
    checkpoint: &CheckpointId,
    by: &Key,
) -> Result<(), EngineError> {
    let sandbox = find_sandbox(node, id)?;
    let cause = Cause::request(by).about(checkpoint);
    let (record, volume) = sandbox
        .checkpoints
        .take(checkpoint)
        .ok_or_else(|| error::checkpoint_not_found(checkpoint))?;
    let owner = Arc::clone(node);
    let work = async move {
        let told = sandbox.tells(EventKind::CheckpointRemoved, cause);
        let bury = Change::Bury(record.volume).telling(told);
        if let Err(error) = owner.records.write(bury).await {
            sandbox.checkpoints.table().made.push((record, volume));
            return Err(error.publish("recording that the checkpoint goes"));
        }
        owner.remover.remove(volume).await;
        Ok(())
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("removing the checkpoint"))?
}

/// Ends the processes of the sandbox with this id and gives it the files of a checkpoint.
pub(crate) async fn restore(
    node: &Arc<Node>,
    id: &SandboxId,
    request: RestoreCheckpoint,
    by: &Key,
) -> Result<Arc<Sandbox>, EngineError> {
    let sandbox = find_sandbox(node, id)?;
    check_available(node)?;
    find(&sandbox, &request.checkpoint)?;
    let (owner, cause) = (Arc::clone(node), Cause::request(by).about(&request.checkpoint));
    let work = async move {
        for _ in 0..ATTEMPTS {
            destroy::end(&owner, &sandbox, Operation::Stop, &cause).await?;
            let checkpoint = (request.checkpoint.clone(), cause.clone());
            let exchange = exchange(Arc::clone(&owner), Arc::clone(&sandbox), checkpoint);
            if let (true, _) = freeze::hold(&owner, &sandbox, exchange).await? {
                tracing::info!(sandbox_id = %sandbox.id, checkpoint = %request.checkpoint,
                    "checkpoint restored");
                return Ok(sandbox);
            }
        }
        Err(error::ended_at_once(&sandbox.id))
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("restoring the checkpoint"))?
}

/// Exchanges the volume of a sandbox that is held. False: it runs, somebody was faster.
async fn exchange(
    node: Arc<Node>,
    sandbox: Arc<Sandbox>,
    (checkpoint, cause): (CheckpointId, Cause),
) -> Result<bool, EngineError> {
    if matches!(sandbox.state(), State::Held(before) if before.agent().is_some()) {
        return Ok(false);
    }
    let record = find(&sandbox, &checkpoint)?;
    let (old, new) = (sandbox.volume(), node.numbers.take());
    let failed = "recording the restored files";
    node.records.write(Change::Bury(new.id())).await.map_err(|error| error.publish(failed))?;
    let exchanged = async {
        let inherited_bytes = inherit(&node, record.volume, record.size_bytes, new.id()).await?;
        let files = Files { volume: new.id(), inherited_bytes };
        let change = Change::Files(sandbox.jail, files);
        let change = change.telling(sandbox.tells(EventKind::Restored, cause));
        node.records.write(change).await.map_err(|error| error.publish(failed))?;
        Ok(files)
    };
    match exchanged.await {
        Ok(files) => {
            sandbox.set_files(files, new);
            node.remover.remove(old).await;
            Ok(true)
        }
        Err(error) => {
            // A write that came late has exchanged them on record; this one puts them back.
            let files = sandbox.files();
            node.records.submit(Change::Files(sandbox.jail, files)).await;
            node.remover.remove(new).await;
            Err(error)
        }
    }
}

/// Makes volume `new` a copy of the read-only volume `from`, whose files take `size_bytes`. Returns
/// those that are not charged to the copy itself: they count all the same.
pub(crate) async fn inherit(
    node: &Node,
    from: JailId,
    size_bytes: u64,
    new: JailId,
) -> Result<u64, EngineError> {
    copy(node, from, new, false).await?;
    Ok(size_bytes.saturating_sub(charge(node, new).await))
}

/// Makes volume `to` a copy of volume `from`.
pub(crate) async fn copy(
    node: &Node,
    from: JailId,
    to: JailId,
    is_read_only: bool,
) -> Result<(), EngineError> {
    let copied = node.launchers.copy_volume(from, to, is_read_only).await;
    copied.map_err(|error| match error {
        LaunchError::Jail(JailError::Refused(_)) => error::checkpoints_not_available(
            "its files are in a plain directory, made before this node had volumes",
        ),
        error => {
            tracing::warn!(volume = %from, error = &error as &dyn std::error::Error,
                "a volume cannot be copied");
            error.publish("copying the files")
        }
    })
}

/// Bytes charged to a volume; 0 when that is not known.
pub(crate) async fn charge(node: &Node, volume: JailId) -> u64 {
    let read = node.network.call(move |launcher| launcher.volume_bytes(volume), |_, _| {}).await;
    read.ok().flatten().unwrap_or(0)
}

/// Has most of what was written on disk before a sandbox has to stand still for the rest.
pub(crate) async fn sync(node: &Node) {
    let volumes = Arc::clone(&node.volumes);
    let synced = tokio::task::spawn_blocking(move || volumes.sync());
    // An error comes again with the copy, where it has a caller.
    drop(tokio::time::timeout(SYNC_TIMEOUT, synced).await);
}

pub(crate) fn check_available(node: &Node) -> Result<(), EngineError> {
    match &node.config.volumes {
        Volumes::Limited => Ok(()),
        Volumes::Plain(why) => Err(error::checkpoints_not_available(why)),
    }
}

pub(crate) fn find_sandbox(node: &Node, id: &SandboxId) -> Result<Arc<Sandbox>, EngineError> {
    let sandbox = node.find(id).filter(|sandbox| sandbox.is_there());
    sandbox.ok_or_else(|| error::not_found(id))
}

pub(crate) fn find(
    sandbox: &Sandbox,
    checkpoint: &CheckpointId,
) -> Result<CheckpointRecord, EngineError> {
    let found = sandbox.checkpoints.find(checkpoint);
    found.ok_or_else(|| error::checkpoint_not_found(checkpoint))
}

pub(crate) fn describe(sandbox: &Sandbox, record: &CheckpointRecord) -> Checkpoint {
    Checkpoint {
        id: record.id.clone(),
        sandbox_id: sandbox.id.clone(),
        created_at_ms: record.created_at_ms,
        size_bytes: record.size_bytes,
    }
}

#[cfg(test)]
mod tests {
    use api::error::ErrorCode;

    use super::*;
    use crate::number::Numbers;

    #[test]
    fn an_id_is_taken_once_and_their_number_is_limited() {
        let checkpoints = Checkpoints::default();
        let id = |number: usize| -> CheckpointId { format!("c{number}").parse().unwrap() };
        let record = |number: usize| CheckpointRecord {
            id: id(number),
            volume: JailId(7),
            created_at_ms: 0,
            size_bytes: 0,
        };
        checkpoints.begin(&id(0)).unwrap();
        assert_eq!(checkpoints.begin(&id(0)).unwrap_err().code, ErrorCode::CheckpointExists);
        checkpoints.end(&id(0), Some((record(0), Numbers::new().take())));
        assert_eq!(checkpoints.begin(&id(0)).unwrap_err().code, ErrorCode::CheckpointExists);
        for number in 1..CHECKPOINTS {
            checkpoints.begin(&id(number)).unwrap();
        }
        let full = checkpoints.begin(&id(CHECKPOINTS)).unwrap_err();
        assert_eq!(full.code, ErrorCode::TooManyRequests);
        // One that was not made leaves its place.
        checkpoints.end(&id(1), None);
        checkpoints.begin(&id(CHECKPOINTS)).unwrap();
        assert!(checkpoints.take(&id(0)).is_some() && checkpoints.take(&id(0)).is_none());
    }
}
