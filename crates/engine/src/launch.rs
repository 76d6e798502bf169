//! The launchers at work: each is owned by one thread and does one thing at a time, so requests in
//! flight are at most as many as launchers. The rest wait in one queue, because more creations at
//! once than processors only make each of them slower.
//!
//! One launcher is kept apart for removing files, which takes long and nobody waits for.
//!
//! Invariant: a launch whose caller has gone is undone by the thread that made it.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use jail::{JailError, JailId, Launcher};
use tokio::sync::{mpsc, oneshot};

use crate::{
    number::Number,
    record::{Change, Records},
};

/// Requests that may wait for a launcher: at 200 a second, what is served in five seconds.
const QUEUED_JOBS: usize = 1024;

/// How long a request may wait to get into the queue and then for its end: ten seconds that a
/// kill may take (see [`Launcher::kill`]), behind a queue that was full of launches.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// Destroyed sandboxes whose files may wait to be removed. Past it, destroying waits for the
/// remover: files must not pile up faster than they go.
const QUEUED_REMOVALS: usize = 1024;

/// How long what is to be removed waits for more of its kind. To take file systems down writes to the
/// disk what all volumes have in memory, however many are taken down at once.
const GATHERING: Duration = Duration::from_millis(100);

/// Chores that are done together at most.
const AT_ONCE: usize = 64;

/// Why a launcher did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Jail(JailError),
    #[error("no launcher was free in time")]
    Busy,
    #[error("the launcher took longer than {} s", .0.as_secs())]
    Late(Duration),
    /// A blank's agent has ended before it could be told whose it is.
    #[error("the agent cannot be told whose it is")]
    Claim(#[source] std::io::Error),
    /// The engine is closed.
    #[error("the launchers take no more work")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Launcher) + Send>;

/// The launchers that build and end jails.
#[derive(Debug)]
pub(crate) struct Launchers {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Launchers {
    /// Gives each launcher a thread.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(launchers: Vec<Launcher>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job>(QUEUED_JOBS);
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = launchers
            .into_iter()
            .map(|launcher| {
                let jobs = Arc::clone(&jobs);
                Builder::new().name("launcher".to_owned()).spawn(move || work(launcher, &jobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue: Mutex::new(Some(queue)), threads: Mutex::new(threads) })
    }

    /// Has a launcher do `work`. If the caller is gone by then, `undo` takes back what it made.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind that `undo` does not remove.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Launcher) -> Result<T, JailError> + Send + 'static,
        undo: impl FnOnce(&mut Launcher, T) + Send + 'static,
    ) -> Result<T, LaunchError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |launcher| {
            if reply.is_closed() {
                // Nobody waits any more: what has not begun is not begun.
                return;
            }
            if let Err(Ok(unwanted)) = reply.send(work(launcher)) {
                undo(launcher, unwanted);
            }
        });
        let queue = lock(&self.queue).clone().ok_or(LaunchError::Closed)?;
        queue.send_timeout(job, JOB_TIMEOUT).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => LaunchError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => LaunchError::Closed,
        })?;
        match tokio::time::timeout(JOB_TIMEOUT, answer).await {
            Ok(Ok(result)) => result.map_err(LaunchError::Jail),
            Ok(Err(_)) => Err(LaunchError::Closed),
            Err(_) => Err(LaunchError::Late(JOB_TIMEOUT)),
        }
    }

    /// Ends every process of a jail and removes what the kernel has for it.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn clear(&self, jail: JailId) -> Result<(), LaunchError> {
        self.call(move |launcher| launcher.clear(jail), |_, ()| {}).await
    }

    /// Ends every process and connection of a jail. What is returned goes with the jail's [`Removal`].
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn kill(&self, jail: JailId) -> Result<Option<OwnedFd>, LaunchError> {
        self.call(move |launcher| launcher.kill(jail), |_, root| drop(root)).await
    }

    /// Stops every process of a jail where it is. After an error it is not frozen, unless the error
    /// is that the launcher did not answer in time.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn freeze(&self, jail: JailId) -> Result<(), LaunchError> {
        let undo = move |launcher: &mut Launcher, ()| {
            if let Err(error) = launcher.thaw(jail) {
                tracing::error!(%jail, error = &error as &dyn std::error::Error,
                    "a jail that was frozen too late cannot be thawed");
            }
        };
        self.call(move |launcher| launcher.freeze(jail), undo).await
    }

    /// Tells the processes of a jail that they are to end.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn notify(&self, jail: JailId) -> Result<(), LaunchError> {
        let work = move |launcher: &mut Launcher| {
            launcher.thaw(jail)?;
            launcher.notify(jail)
        };
        self.call(work, |_, ()| {}).await
    }

    /// Lets the processes of a jail go on.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn thaw(&self, jail: JailId) -> Result<(), LaunchError> {
        self.call(move |launcher| launcher.thaw(jail), |_, ()| {}).await
    }

    /// Makes volume `to` a copy of volume `from`. One that comes too late stays: whoever asked has a
    /// burial of it on record.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub(crate) async fn copy_volume(
        &self,
        from: JailId,
        to: JailId,
        is_read_only: bool,
    ) -> Result<(), LaunchError> {
        self.call(move |launcher| launcher.copy_volume(from, to, is_read_only), |_, ()| {}).await
    }

    /// Takes no more work and returns the threads, which end after what was queued.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        drop(lock(&self.queue).take());
        std::mem::take(&mut *lock(&self.threads))
    }
}

/// Works until there is nothing more to do. A launcher process that ends is replaced by its handle.
fn work(mut launcher: Launcher, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // Threads that find the queue empty wait for the lock instead of the queue.
        let Some(job) = lock(jobs).blocking_recv() else { return };
        job(&mut launcher);
    }
}

/// Whoever panicked under one of these locks did so between whole states.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What takes long and hurries nobody.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Leave nothing of a jail.
    Remove(Removal),
    /// Remove a volume, which has a burial on record and which nothing can reach.
    RemoveFiles(Number),
    /// Push out the memory of a jail.
    Reclaim(JailId),
}

/// A jail of which nothing is to be left: it has a burial on record, and no process.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) number: Number,
    /// See [`Launcher::kill`].
    pub(crate) root: Option<OwnedFd>,
}

/// The launcher that removes files, and the jails that wait for it.
#[derive(Debug)]
pub(crate) struct Remover {
    queue: Mutex<Option<mpsc::Sender<Chore>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What is queued is left to the next start.
    is_hasty: Arc<AtomicBool>,
}

impl Remover {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(launcher: Launcher, records: Records) -> std::io::Result<Self> {
        let (queue, chores) = mpsc::channel(QUEUED_REMOVALS);
        let is_hasty = Arc::new(AtomicBool::new(false));
        let hasty = Arc::clone(&is_hasty);
        let thread = Builder::new()
            .name("remover".to_owned())
            .spawn(move || do_all(launcher, chores, &records, &hasty))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)), is_hasty })
    }

    /// Waits for room for one jail. None: the node is stopping, and the burial on record resumes
    /// the removal.
    pub(crate) async fn reserve(&self) -> Option<mpsc::OwnedPermit<Chore>> {
        let queue = lock(&self.queue).clone()?;
        queue.reserve_owned().await.ok()
    }

    /// Leaves a volume, which has a burial on record and which nothing can reach, to be removed.
    pub(crate) async fn remove(&self, volume: Number) {
        if let Some(room) = self.reserve().await {
            room.send(Chore::RemoveFiles(volume));
        }
    }

    /// Leaves the memory of a jail to be pushed out.
    pub(crate) async fn reclaim(&self, jail: JailId) {
        if let Some(room) = self.reserve().await {
            room.send(Chore::Reclaim(jail));
        }
    }

    /// Takes no more jails and returns the thread, which ends after those that are queued, or with
    /// `leave_queued` after the one at hand.
    pub(crate) fn close(&self, leave_queued: bool) -> Option<JoinHandle<()>> {
        self.is_hasty.store(leave_queued, Ordering::Relaxed);
        drop(lock(&self.queue).take());
        lock(&self.thread).take()
    }
}

fn do_all(
    mut launcher: Launcher,
    mut chores: mpsc::Receiver<Chore>,
    records: &Records,
    is_hasty: &AtomicBool,
) {
    while let Some(first) = chores.blocking_recv() {
        if chores.len() < AT_ONCE {
            std::thread::sleep(GATHERING);
        }
        let others = std::iter::from_fn(|| chores.try_recv().ok()).take(AT_ONCE - 1);
        let gathered: Vec<_> = std::iter::once(first).chain(others).collect();
        // Dropped when all volumes are gone: the first that goes writes for all.
        let mut roots = Vec::new();
        let mut removed = Vec::new();
        for chore in gathered {
            if is_hasty.load(Ordering::Relaxed) {
                break;
            }
            match chore {
                Chore::Remove(Removal { number, root }) => {
                    let result = launcher.remove(number.id());
                    removed.push((number, result));
                    roots.extend(root);
                }
                Chore::RemoveFiles(volume) => {
                    let result = launcher.remove_files(volume.id());
                    removed.push((volume, result));
                }
                Chore::Reclaim(jail) => {
                    if let Err(error) = launcher.reclaim(jail) {
                        tracing::warn!(%jail, error = &error as &dyn std::error::Error,
                            "the memory of a frozen sandbox cannot be pushed out");
                    }
                }
            }
        }
        for (number, result) in removed {
            settle(&number, result, records);
        }
        drop(roots);
        if is_hasty.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A burial is over when what it is of has been removed.
fn settle(number: &Number, removed: Result<(), JailError>, records: &Records) {
    let jail = number.id();
    match removed {
        Ok(()) => records.submit_blocking(Change::Buried(jail)),
        Err(error) => tracing::error!(%jail, error = &error as &dyn std::error::Error,
            "what is left of a destroyed sandbox cannot be removed; it is tried again later"),
    }
}
