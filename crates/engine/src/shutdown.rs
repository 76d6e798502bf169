//! The end of an engine: no new work, then what was asked for the sandboxes, then everything that
//! runs in the engine itself.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use api::{event::EventCause, node::ShutdownSandboxes};
use futures_util::{StreamExt, stream};

use crate::{EngineError, destroy, error, event::Cause, node::Node, state::Operation};

/// How long work under way may take to end: longer than any launch or kill.
const WORK_TIMEOUT: Duration = Duration::from_secs(90);

/// How long threads may take to end once they have nothing to do. Removing the files of destroyed
/// sandboxes may need it; what is not done by then is done by the next start.
const THREAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Sandboxes ended together; they queue at the launchers.
const AT_ONCE: usize = 64;

pub(crate) async fn shut_down(
    node: &Arc<Node>,
    sandboxes: ShutdownSandboxes,
    records: JoinHandle<()>,
) -> Result<(), EngineError> {
    node.closing.cancel();
    drain(node).await?;
    let left = match sandboxes {
        ShutdownSandboxes::Keep => Ok(()),
        ShutdownSandboxes::Stop => end_all(node, Operation::Stop).await,
        ShutdownSandboxes::Destroy => end_all(node, Operation::Destroy).await,
    };
    // Again: an agent may have ended by itself meanwhile.
    drain(node).await?;
    node.ending.cancel();
    node.watchers.close();
    let ended = tokio::time::timeout(WORK_TIMEOUT, node.watchers.wait()).await;
    ended.map_err(|_elapsed| error::late("ending what watches the sandboxes", WORK_TIMEOUT))?;
    let removed = node.remover.close(sandboxes != ShutdownSandboxes::Destroy);
    join(removed.into_iter().collect(), "the removal of files").await?;
    let launchers = node.launchers.close().into_iter().chain(node.network.close());
    join(launchers.collect(), "the launchers").await?;
    node.records.close();
    join(vec![records], "the database").await?;
    left
}

async fn drain(node: &Node) -> Result<(), EngineError> {
    node.work.close();
    let drained = tokio::time::timeout(WORK_TIMEOUT, node.work.wait()).await;
    drained.map_err(|_elapsed| error::late("ending what was under way", WORK_TIMEOUT))
}

/// Ends all, whatever happens to some.
async fn end_all(node: &Arc<Node>, operation: Operation) -> Result<(), EngineError> {
    let failures: Vec<String> = stream::iter(node.all())
        .map(|sandbox| async move {
            let cause = Cause::of(EventCause::Shutdown);
            let ended = destroy::end(node, &sandbox, operation, &cause).await;
            ended.err().map(|error| format!("{}: {error}", sandbox.id))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    if failures.is_empty() {
        return Ok(());
    }
    Err(error::not_ended(&failures))
}

async fn join(threads: Vec<JoinHandle<()>>, what: &str) -> Result<(), EngineError> {
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().map(JoinHandle::join).all(|thread| thread.is_ok())
    });
    match tokio::time::timeout(THREAD_TIMEOUT, joined).await {
        Ok(Ok(true)) => Ok(()),
        Ok(_) => Err(error::internal(&format!("ending {what}"))),
        Err(_) => Err(error::late(&format!("ending {what}"), THREAD_TIMEOUT)),
    }
}
