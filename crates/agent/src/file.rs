//! Files: contents, directories, and what is done with names.
//!
//! All of it is done by the agent inside the sandbox, so a path can only name the sandbox's own
//! things. Symbolic links are followed, also in the last component, except where a link itself is
//! meant: deleting, moving and listing. The links of /proc that are no paths
//! (`/proc/PID/{exe,cwd,fd/N}`) are refused, and so is everything in /proc that belongs to the
//! agent. Only regular files are read and written.
//!
//! Each file below is one operation with its route, or something that several share.
//!
//! Owns: nothing between requests but the walk of the last page of a list.
//! Does not: promise durability; the disk's own write-back does.

// Contents.
pub(crate) mod archive;
pub(crate) mod batch;
pub(crate) mod read;
pub(crate) mod write;
// Names.
pub(crate) mod chmod;
pub(crate) mod copy;
pub(crate) mod list;
pub(crate) mod mkdir;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod stat;
pub(crate) mod symlink;
// What they share.
mod condition;
mod content;
pub(crate) mod entry;
mod fault;
mod fresh;
mod mime;
mod path;
mod pattern;
mod range;
mod temporary;
mod walk;
pub(crate) mod watch;

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    time::{Duration, Instant},
};

use api::{
    error::{ApiError, ErrorCode},
    id::SessionId,
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use crate::{init::Agent, session};

pub(crate) use fresh::Fresh;
pub(crate) use mkdir::make_directories;
pub(crate) use path::open_directory;

/// Bytes of the longest content that is read or written [`quickly`]: some 20 µs of copying.
const QUICK_BYTES: u64 = 64 * 1024;

/// How long [`quickly`] done work takes at most, or it is done elsewhere for a while: ten times what it
/// takes from memory, and less than anybody notices who watches a terminal.
const QUICK: Duration = Duration::from_millis(2);

/// For how long: until a burst of writing has passed, and long enough that stalls of its length are rare.
const SLOW_FOR: Duration = Duration::from_secs(1);

thread_local! {
    /// Until when work is done elsewhere. Of the one thread that serves.
    static SLOW_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Where relative paths start: the session's current directory, or the sandbox's working directory.
pub(crate) fn base(agent: &Agent, session: Option<&SessionId>) -> Result<String, ApiError> {
    session.map_or_else(|| Ok(agent.workdir.clone()), |id| session::cwd(agent, id))
}

/// The same for the path of a URL, which without a session starts at the root.
fn place(agent: &Agent, session: Option<&SessionId>) -> Result<Option<String>, ApiError> {
    session.map(|session| base(agent, Some(session))).transpose()
}

/// The absolute path that a request's text names.
pub(crate) fn absolute_text(base: &str, text: &str) -> Result<String, ApiError> {
    Ok(path::absolute(base, text)?.trimmed().shown())
}

/// Writes a file of the agent's own, at an absolute path, as a request would.
pub(crate) async fn keep(path: &str, content: Vec<u8>, mode: u32) -> Result<(), ApiError> {
    let how = write::How { mode: Some(mode), ..Default::default() };
    write::write_whole(path::absolute("/", path)?, how, content).await.map(drop)
}

/// Reads such a file. Blocks.
///
/// # Errors
/// Also when it has more than `limit` bytes.
pub(crate) fn kept(path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let path = path::absolute("/", path).map_err(io::Error::other)?;
    let (file, _) = path::open_file("read", &path).map_err(io::Error::other)?;
    let mut content = Vec::new();
    let read = file.take(limit as u64 + 1).read_to_end(&mut content)?;
    if read > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content) }
}

/// Runs file work on a thread that may wait for the disk.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_stopped| {
        Err(ApiError::new(ErrorCode::InternalError, "the file operation was given up"))
    })
}

/// Runs file work that touches little where it is asked for, without the way to another thread and back,
/// which is longer than the work; or as [`blocking`], when such work has taken long lately.
///
/// The agent does nothing else meanwhile. What there is to wait for is the node's own disk, as when a
/// program is started; once that is slow, it is waited for here no more than once in [`SLOW_FOR`].
async fn quickly<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    let begin = Instant::now();
    if SLOW_UNTIL.get().is_some_and(|until| begin < until) {
        return blocking(work).await;
    }
    let done = work();
    if begin.elapsed() > QUICK {
        SLOW_UNTIL.set(Some(Instant::now() + SLOW_FOR));
    }
    done
}

/// A body of pieces that are made one by one, as they are sent, on threads that may wait for the
/// disk. An error breaks the connection.
fn pieces<F>(first: Option<Bytes>, next: F) -> Body
where
    F: FnMut() -> io::Result<Option<Bytes>> + Send + 'static,
{
    let rest = stream::try_unfold(next, |mut next| async move {
        let step = tokio::task::spawn_blocking(move || (next(), next));
        let (piece, next) = step.await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece?.map(|piece| (piece, next)))
    });
    Body::from_stream(stream::iter(first).map(Ok).chain(rest))
}

/// Bytes that must fit on a disk that is not full: somewhat more than what is left when a program
/// that writes in large pieces has been refused one.
const ROOM_BYTES: usize = 1 << 20;

/// True when there is no room at `workdir`; false also when that is not known.
///
/// The limit of a sandbox's volume is not in what its file system says of itself, so it is tried: in
/// a file without a name, of which nothing is left.
pub(crate) fn is_disk_full(workdir: &str) -> bool {
    let Ok(dir) = File::open(workdir) else { return false };
    if sys::file_system::of(dir.as_fd()).is_ok_and(|file_system| file_system.is_full()) {
        return true;
    }
    let trial = File::options().write(true).custom_flags(sys::file::O_TMPFILE).open(workdir);
    let written = trial.and_then(|mut file| {
        static PIECE: [u8; 64 << 10] = [0; 64 << 10];
        (0..ROOM_BYTES / PIECE.len()).try_for_each(|_| file.write_all(&PIECE))
    });
    written.is_err_and(|error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_for_a_while_after_some_that_was_not_quick() {
        let here = thread::current().id();
        let place = || Ok(thread::current().id());
        assert_eq!(quickly(place).await.unwrap(), here);
        // Even that may have taken long.
        SLOW_UNTIL.set(None);

        let slow = || {
            thread::sleep(QUICK * 2);
            Ok(())
        };
        let begin = Instant::now();
        quickly(slow).await.unwrap();

        assert!(SLOW_UNTIL.get().is_some_and(|until| until > begin + SLOW_FOR));
        // As if no time had passed since.
        SLOW_UNTIL.set(Some(Instant::now() + 60 * SLOW_FOR));
        assert_ne!(quickly(place).await.unwrap(), here);
    }
}
