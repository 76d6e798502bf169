//! What differs between two states of a sandbox's files: has a reader look at copies of both.
//!
//! Owns: which two. What differs is found in the reader, by the agent's `diff.rs`.

use std::sync::Arc;

use api::id::{CheckpointId, SandboxId};

use crate::{EngineError, checkpoint, error, key::Key, node::Node, reader::Reader};

/// Starts a reader that compares the sandbox's files, those of checkpoint `of` or the present ones,
/// with those of checkpoint `against`, or of its image.
pub(crate) async fn reader(
    node: &Arc<Node>,
    id: &SandboxId,
    against: Option<CheckpointId>,
    of: Option<CheckpointId>,
    by: &Key,
) -> Result<Reader, EngineError> {
    let sandbox = checkpoint::find_sandbox(node, id)?;
    checkpoint::check_available(node)?;
    for known in [&against, &of].into_iter().flatten() {
        checkpoint::find(&sandbox, known)?;
    }
    let mut reader = Reader::begin(node, by)?;
    let owner = Arc::clone(node);
    // A task of the node: what it makes is on record, and goes with the reader.
    let work = async move {
        match of {
            Some(of) => reader.lend_copy(&sandbox, &of).await?,
            None => reader.lend(checkpoint::seal(&owner, &sandbox).await?.0),
        }
        if let Some(against) = against {
            reader.lend_copy(&sandbox, &against).await?;
        }
        reader.start(&sandbox, None).await
    };
    node.work.spawn(work).await.map_err(|_panicked| error::internal("comparing files"))?
}
