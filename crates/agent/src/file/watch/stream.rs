//! A watched tree as server-sent events.

use std::{fs::File, io, sync::Arc, time::Duration};

use api::{
    error::ApiError,
    watch::{FileChange, FileChangeType, WatchEvent},
};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sys::{SysError, errno};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout_at},
};

use super::{
    pending::{Change, Pending},
    tree::{Drained, Tree, WATCH},
};
use crate::{
    event,
    file::{blocking, entry, fault::fault, path::FilePath},
};

/// How long changes wait for others of the same path, from the first of them on.
const MERGE: Duration = Duration::from_millis(75);

/// Pause before events are read, so that a storm of them is read in hundreds and not one by one.
/// The kernel's queue holds what comes in it.
const PAUSE: Duration = Duration::from_millis(2);

/// How long an event is waited for that must come, as the second half of a rename. The kernel queues
/// it right after the first.
const ARRIVAL: Duration = Duration::from_millis(10);

/// Bytes of events put into one piece of the stream, about.
const PIECE_BYTES: usize = 16 * 1024;

/// A tree and what has happened in it.
#[derive(Debug)]
struct Watch {
    tree: Tree,
    pending: Pending,
    drained: Drained,
}

impl Watch {
    /// True when there is something to tell and no reason to wait for more.
    fn is_due(&self) -> bool {
        let Drained { has_more, has_overflowed, end } = self.drained;
        has_more || has_overflowed || end.is_some()
    }

    /// True while an event is missing that must come and is not among those still to be read.
    fn is_waiting(&self) -> bool {
        !self.drained.has_more && self.tree.is_waiting()
    }

    /// Gives up waiting; true when that has to be followed by a drain.
    fn settle(&mut self) -> bool {
        !self.drained.has_more && self.tree.settle()
    }
}

/// Answers with the events of `tree`.
///
/// Cancel safety: dropping the response ends the watch.
pub(super) fn respond(tree: Tree, place: OwnedSemaphorePermit) -> Result<Response, ApiError> {
    let events = Events::new(tree, place)?;
    Ok(event::respond(stream::unfold(events, |mut events| async move {
        let text = events.next().await?;
        Some((text, events))
    })))
}

/// The events of a watch, as they are asked for.
struct Events {
    /// None only while it is being drained.
    watch: Option<Box<Watch>>,
    /// None only at the end.
    readable: Option<AsyncFd<Arc<File>>>,
    /// What is to be told now.
    ready: Box<dyn Iterator<Item = WatchEvent> + Send>,
    /// The last event is among what is ready.
    is_ending: bool,
    _place: OwnedSemaphorePermit,
}

impl Events {
    fn new(tree: Tree, place: OwnedSemaphorePermit) -> Result<Self, ApiError> {
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe because a descriptor could close or change; an \
                      OwnedFd does neither"
        )]
        let readable = AsyncFd::with_interest(tree.inotify(), Interest::READABLE)
            .map_err(|error| broken(tree.path(), &error))?;
        let directories = tree.directories();
        let watching = WatchEvent::Watching { path: tree.path().shown(), directories };
        let watch = Watch { tree, pending: Pending::default(), drained: Drained::default() };
        Ok(Self {
            watch: Some(Box::new(watch)),
            readable: Some(readable),
            ready: Box::new(std::iter::once(watching)),
            is_ending: false,
            _place: place,
        })
    }

    /// The next text of the stream; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut text = String::new();
            while text.len() < PIECE_BYTES
                && let Some(event) = self.ready.next()
            {
                text.push_str(&event::render(event.name(), None, &event));
            }
            if !text.is_empty() {
                return Some(Bytes::from(text));
            }
            if self.is_ending {
                return None;
            }
            let has_more = self.watch.as_ref().is_some_and(|watch| watch.drained.has_more);
            if !has_more {
                readable(self.readable.as_ref()).await;
            }
            let gathered = self.gather().await;
            self.tell(gathered.err());
        }
    }

    /// Reads what has happened, and what follows on its heels.
    async fn gather(&mut self) -> Result<(), ApiError> {
        let until = Instant::now() + MERGE;
        self.drain().await?;
        while let Some(watch) = &self.watch
            && !watch.pending.is_empty()
            && !watch.is_due()
        {
            if timeout_at(until, readable(self.readable.as_ref())).await.is_err() {
                break;
            }
            self.drain().await?;
        }
        if self.watch.as_ref().is_some_and(|watch| watch.is_waiting()) {
            sleep(ARRIVAL).await;
            self.drain().await?;
        }
        if self.watch.as_mut().is_some_and(|watch| watch.settle()) {
            self.drain().await?;
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), ApiError> {
        sleep(PAUSE).await;
        let Some(mut watch) = self.watch.take() else { return Ok(()) };
        let (watch, drained) = blocking(move || {
            let drained = watch.tree.drain(&mut watch.pending);
            Ok((watch, drained))
        })
        .await?;
        let known = &mut self.watch.insert(watch).drained;
        let Drained { has_more, has_overflowed, end } = drained?;
        known.has_more = has_more;
        known.has_overflowed |= has_overflowed;
        known.end = known.end.or(end);
        Ok(())
    }

    /// Makes what has been gathered ready, and the error that ended it.
    fn tell(&mut self, error: Option<ApiError>) {
        let error = error.map(|error| WatchEvent::Error { error });
        let Some(watch) = &mut self.watch else {
            self.is_ending = true;
            self.ready = Box::new(error.into_iter());
            return;
        };
        let path = watch.tree.path().clone();
        let is_file = watch.tree.is_file();
        let Drained { has_overflowed, end, .. } = watch.drained;
        watch.drained.has_overflowed = false;
        let overflow = has_overflowed.then(|| WatchEvent::Overflow { path: path.shown() });
        let changes = watch.pending.take().map(move |change| told(&path, is_file, &change));
        let last = error.or_else(|| end.map(|reason| WatchEvent::Stopped { reason }));
        self.is_ending = last.is_some();
        self.ready = Box::new(overflow.into_iter().chain(changes).chain(last));
    }
}

impl Drop for Events {
    /// Closing an instance with many watches takes the kernel some time.
    fn drop(&mut self) {
        let readable = self.readable.take().map(AsyncFd::into_inner);
        let watch = self.watch.take();
        drop(tokio::task::spawn_blocking(move || drop((readable, watch))));
    }
}

/// Waits until there may be something to read, from now on.
async fn readable(fd: Option<&AsyncFd<Arc<File>>>) {
    let Some(fd) = fd else { return };
    // It fails when the runtime ends, and with it everything.
    if let Ok(mut guard) = fd.readable().await {
        guard.clear_ready();
    }
}

fn broken(path: &FilePath, error: &io::Error) -> ApiError {
    let errno = error.raw_os_error().unwrap_or(errno::EIO);
    fault(WATCH, path, SysError { call: "epoll_ctl", errno })
}

fn told(path: &FilePath, is_file: bool, change: &Change) -> WatchEvent {
    let absolute = |relative: &[u8]| match (path.as_bytes(), is_file) {
        (path, true) => path.to_vec(),
        (b"/", false) => [b"/", relative].concat(),
        (path, false) => [path, relative].join(&b'/'),
    };
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let here = absolute(&change.path);
    let other = change.other.as_ref().map(|other| shown(&absolute(other)));
    let (from, to) = match change.kind {
        FileChangeType::MoveTo => (other, None),
        _ => (None, other),
    };
    WatchEvent::Event(FileChange {
        event_type: change.kind,
        path: shown(&here),
        encoded_path: std::str::from_utf8(&here).is_err().then(|| entry::encode(&here)),
        is_directory: change.is_directory,
        from,
        to,
        timestamp_ms: change.at_ms,
    })
}
