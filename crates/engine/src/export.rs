//! Checkpoints that leave a node, and come to one.
//!
//! ```text
//! export: a reader with a copy of the checkpoint ─▶ its agent packs a layer
//! import: reserve the id ─▶ a reader that writes ─▶ its agent unpacks a layer into its root
//!         ─▶ end its jail ─▶ copy its volume ─▶ record the checkpoint in the burial's place
//! ```
//!
//! Until a checkpoint of an import is on record, everything of it is on record as to be buried.
//!
//! Owns: which checkpoint, and over which image. Does not know the format.

use std::sync::Arc;

use api::{
    checkpoint::{Checkpoint, CheckpointExport},
    id::{CheckpointId, SandboxId},
    limit::EXPORT_BYTES,
};
use jail::JailId;

use crate::{
    EngineError, checkpoint, create,
    error::{self, Publish},
    event::Cause,
    key::Key,
    node::Node,
    number::Number,
    reader::Reader,
    record::Change,
    sandbox::Sandbox,
};

/// Starts a reader whose agent answers `GET /layer`, and says what is to be said about it.
pub(crate) async fn export(
    node: &Arc<Node>,
    id: &SandboxId,
    checkpoint: &CheckpointId,
    by: &Key,
) -> Result<(Reader, CheckpointExport), EngineError> {
    let sandbox = checkpoint::find_sandbox(node, id)?;
    checkpoint::check_available(node)?;
    let record = checkpoint::find(&sandbox, checkpoint)?;
    if record.size_bytes > EXPORT_BYTES {
        return Err(error::checkpoint_too_large(&record));
    }
    let about = CheckpointExport {
        image: sandbox.settings().image.clone(),
        image_digest: sandbox.image_digest.clone(),
        sandbox_id: sandbox.id.clone(),
        checkpoint: record.id.clone(),
        created_at_ms: record.created_at_ms,
    };
    let mut reader = Reader::begin(node, by)?;
    let work = async move {
        reader.lend_copy(&sandbox, &record.id).await?;
        reader.start(&sandbox, None).await
    };
    let started = node.work.spawn(work).await;
    let reader = started.map_err(|_panicked| error::internal("exporting the checkpoint"))??;
    Ok((reader, about))
}

/// A checkpoint that is being imported. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Import {
    node: Arc<Node>,
    sandbox: Arc<Sandbox>,
    id: CheckpointId,
    /// None once the checkpoint is made.
    reader: Option<Reader>,
    /// The id is reserved.
    is_begun: bool,
}

impl Import {
    /// The number of the jail whose agent answers `PUT /layer`.
    #[must_use]
    pub fn jail(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::jail)
    }

    /// The image that the layer has to be of.
    #[must_use]
    pub fn image_digest(&self) -> &str {
        &self.sandbox.image_digest
    }

    /// Makes the checkpoint of what was unpacked.
    ///
    /// # Cancel safety
    /// Once begun it goes on without its caller.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, `NO_SPACE`, `SANDBOX_FAILED`.
    pub async fn finish(mut self, by: &Key) -> Result<Checkpoint, EngineError> {
        let (node, cause) = (Arc::clone(&self.node), Cause::request(by).about(&self.id));
        let work = async move {
            let Some(reader) = self.reader.take() else {
                return Err(error::internal("importing the checkpoint"));
            };
            let sealed = seal(&self.node, &reader).await?;
            let named = (&*self.sandbox, &self.id);
            let kept = checkpoint::keep(&self.node, named, sealed, cause).await?;
            self.is_begun = false;
            let made = checkpoint::settle(&self.node, &self.sandbox, kept).await?;
            tracing::info!(sandbox_id = %self.sandbox.id, checkpoint = %made.id,
                "checkpoint imported");
            Ok(made)
        };
        let made = node.work.spawn(work).await;
        made.map_err(|_panicked| error::internal("importing the checkpoint"))?
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        if self.is_begun {
            self.sandbox.checkpoints.end(&self.id, None);
        }
    }
}

/// Copies what a reader has written, once nothing of it runs.
async fn seal(node: &Arc<Node>, reader: &Reader) -> Result<(Number, u64), EngineError> {
    reader.end().await?;
    let (written, volume) = (JailId(reader.jail()), node.numbers.take());
    let bury = node.records.write(Change::Bury(volume.id()));
    let (recorded, ()) = tokio::join!(bury, checkpoint::sync(node));
    recorded.map_err(|error| error.publish("recording the checkpoint"))?;
    match checkpoint::copy(node, written, volume.id(), true).await {
        Ok(()) => Ok((volume, checkpoint::charge(node, written).await)),
        Err(error) => {
            node.remover.remove(volume).await;
            Err(error)
        }
    }
}

/// Reserves a checkpoint's id and starts a reader that is to be given its layer.
pub(crate) async fn import(
    node: &Arc<Node>,
    id: &SandboxId,
    checkpoint: Option<CheckpointId>,
    by: &Key,
) -> Result<Import, EngineError> {
    let sandbox = checkpoint::find_sandbox(node, id)?;
    checkpoint::check_available(node)?;
    let id = match checkpoint {
        Some(id) => id,
        None => create::random_id(checkpoint::OWN_PREFIX)?,
    };
    let reader = Reader::begin(node, by)?;
    sandbox.checkpoints.begin(&id)?;
    let mut import = Import {
        node: Arc::clone(node),
        sandbox: Arc::clone(&sandbox),
        id,
        reader: None,
        is_begun: true,
    };
    let writes = Some(sandbox.settings().limits().disk_bytes);
    let started = node.work.spawn(async move { reader.start(&sandbox, writes).await }).await;
    let reader = started.map_err(|_panicked| error::internal("importing the checkpoint"))??;
    import.reader = Some(reader);
    Ok(import)
}
