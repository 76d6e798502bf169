//! What happens in a context while nothing runs in it.
//!
//! Threads and programs that code has left go on writing, an interpreter may end, and a context may
//! be idle for too long. One task per context with an interpreter sees to that; it holds the turn and
//! gives it up as soon as somebody wants it.

use std::sync::Arc;

use api::process::OutputStream;
use sys::wait::Status;
use tokio::time::{Instant, sleep_until};

use super::table::{Context, Slot};
use crate::init::Agent;

/// Bytes of what was written between two runs that the next one begins with, the newest of each
/// output.
const LEFT_BYTES: usize = 64 * 1024;

/// A moment that does not come.
const NEVER: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What the next run of a context begins with.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Written to each output since the last run.
    outputs: [Vec<u8>; 2],
    /// How the interpreter ended since the last run.
    pub(super) ended: Option<Status>,
}

impl Left {
    fn add(&mut self, stream: OutputStream, bytes: &[u8]) {
        let [stdout, stderr] = &mut self.outputs;
        let output = match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        };
        output.extend_from_slice(bytes);
        let surplus = output.len().saturating_sub(LEFT_BYTES);
        output.drain(..surplus);
    }

    /// What was written, which is nobody's from now on.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (OutputStream, Vec<u8>)> + use<> {
        let [stdout, stderr] = std::mem::take(&mut self.outputs);
        [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)]
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
    }
}

/// Sees to a context until somebody wants it or it has no interpreter any more.
pub(super) fn watch(agent: &Arc<Agent>, context: &Arc<Context>) {
    if context.is_wanted() {
        // Whoever wants it sees to it, and to this afterwards.
        return;
    }
    let (agent, context) = (Arc::clone(agent), Arc::clone(context));
    agent.tasks.clone().spawn(async move {
        let until = Instant::now() + context.idle_timeout.unwrap_or(NEVER);
        let is_expired = {
            let mut slot = context.turn.lock().await;
            tokio::select! {
                biased;
                () = context.deleted() => false,
                () = context.wanted() => false,
                () = sleep_until(until) => true,
                () = look_after(&context, &mut slot) => false,
            }
        };
        if is_expired {
            agent.contexts.expire(&context);
            context.bury(&agent).await;
        }
    });
}

/// Returns when the interpreter has ended.
async fn look_after(context: &Context, slot: &mut Slot) {
    let Slot { kernel: Some(kernel), left, .. } = slot else {
        // Only the time of its deletion can come.
        return std::future::pending().await;
    };
    let status = loop {
        tokio::select! {
            chunk = kernel.stdout.next() => left.add(OutputStream::Stdout, &chunk),
            chunk = kernel.stderr.next() => left.add(OutputStream::Stderr, &chunk),
            status = kernel.exit.wait() => break Some(status),
            said = kernel.wire.next() => match said {
                // What it shows is nobody's, but it waits until that was read.
                Ok(frame) if frame.awaits => kernel.wire.acknowledge().await,
                Ok(_) => {}
                // Without its socket it is of no use.
                Err(_broken) => break kernel.kill().await,
            },
        }
    };
    for (stream, bytes) in
        [kernel.stdout.rest().await, kernel.stderr.rest().await].into_iter().flatten()
    {
        left.add(stream, &bytes);
    }
    left.ended = Some(status.unwrap_or(Status::Signaled(sys::signal::SIGKILL)));
    slot.kernel = None;
    context.set_pid(0);
    // An idle context may still expire.
    std::future::pending::<()>().await;
}
