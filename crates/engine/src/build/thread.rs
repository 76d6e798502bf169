//! The threads of builds. They start programs and write files of others, which the threads that requests
//! are read on may not; so they are started by a thread that may.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread::{Builder, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

/// Builds that may wait to be started; a start takes no time.
const QUEUED: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// Starts a thread for each build, and waits for all of them at its end.
#[derive(Debug)]
pub(crate) struct Builders {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Builders {
    /// Starts the thread that starts the others. They may do what the caller's may.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUED);
        let thread = Builder::new().name("builders".to_owned()).spawn(move || start_all(jobs))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Has `work` done on a thread of its own. None: the node is stopping, no thread can be started,
    /// or `work` panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may be gone.
        let job: Job = Box::new(move || drop(reply.send(work())));
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        queue.send(job).await.ok()?;
        answer.await.ok()
    }

    /// Takes no more work and returns the thread, which ends after that of all builds.
    pub(crate) fn close(&self) -> Option<JoinHandle<()>> {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn start_all(mut jobs: mpsc::Receiver<Job>) {
    let mut builds: Vec<JoinHandle<()>> = Vec::new();
    while let Some(job) = jobs.blocking_recv() {
        builds.retain(|build| !build.is_finished());
        match Builder::new().name("build".to_owned()).spawn(job) {
            Ok(build) => builds.push(build),
            // Whoever waits for it sees that it was dropped.
            Err(error) => tracing::error!(%error, "a build has no thread"),
        }
    }
    for build in builds {
        // A panic was told to whoever waited for the build.
        drop(build.join());
    }
}
