//! Changes of the store, made by a process that may: one process of root's for each.
//!
//! ```text
//! server ──length u32, task as JSON──► builder
//!        ◄──lines of JSON: what is said meanwhile, and what came of it──
//! ```
//!
//! A task names layers by their keys, sandboxes by their numbers and images by their names, each checked
//! as it is read, and no path: whoever takes the server over can have a layer made that should not be, and
//! that is all. A builder that is not listened to any more stops and ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use api::{id::ImageRef, image::Image};
use serde::{Deserialize, Serialize};

use crate::{
    debian::{self, Release},
    error::{Attempt, ImageError},
    follow::Cancel,
    host,
    key::LayerKey,
    store::{Manifest, Store},
};

/// Bytes of a task at most: a manifest has the environment and the labels of an image.
const TASK_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes of one line that a builder says at most; what a task comes to is the longest.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// How long a cancel may go unnoticed while a builder is silent.
const CANCEL_LATENCY: Duration = Duration::from_millis(100);

/// The environment that a download may have: what tells of proxies.
const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];

/// Bytes of one such variable.
const PROXY_BYTES: usize = 4096;

/// Starts builders.
pub trait Builders: fmt::Debug + Send + Sync {
    /// A stream to a new one, which makes one change.
    ///
    /// # Errors
    /// When it cannot be started.
    fn start(&self) -> io::Result<OwnedFd>;
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Task {
    /// Make the directories, and sweep what a crash left.
    Open,
    /// Make the layer of the image `host`.
    Host,
    /// Make the base layer of a release of Debian.
    Base {
        /// Its codename.
        release: String,
        /// See [`crate::Downloads::proxies`].
        proxies: BTreeMap<String, String>,
    },
    /// Make the upper layer of a sandbox that has ended a layer.
    Layer {
        /// The layer.
        key: LayerKey,
        /// The sandbox's number.
        sandbox: u64,
    },
    /// Write a name and what it means.
    Put {
        /// The name.
        name: ImageRef,
        /// Its size is found out.
        manifest: Manifest,
    },
    /// Take a name away.
    Remove {
        /// The name.
        name: ImageRef,
    },
    /// Remove what neither a name nor a sandbox needs.
    Collect {
        /// Digests of images that sandboxes stand on.
        in_use: BTreeSet<String>,
    },
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is made.
    Done,
    /// The layer of the image `host`.
    Host {
        /// Its key.
        key: LayerKey,
    },
    /// The image with its name.
    Named {
        /// It.
        image: Image,
    },
    /// Bytes that are free.
    Freed {
        /// How many.
        bytes: u64,
    },
}

/// What a builder says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Said {
    Line(String),
    Ended(Outcome),
    /// A file operation failed.
    Io {
        attempt: String,
        errno: i32,
    },
    /// It failed for another reason.
    Failed(String),
    Cancelled,
}

/// Makes a change, in this process.
pub(crate) fn carry_out(
    store: &Store,
    task: &Task,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
) -> Result<Outcome, ImageError> {
    match task {
        Task::Open => store.prepare()?,
        Task::Host => return Ok(Outcome::Host { key: host::make(store, Path::new("/"))? }),
        Task::Base { release, proxies } => {
            let refused = || ImageError::Builder(format!("{release} is no release to build on"));
            let release = Release::of_codename(release).ok_or_else(refused)?;
            check_proxies(proxies)?;
            let scratch = store.scratch()?;
            debian::bootstrap(release, scratch.path(), proxies, cancel, line)?;
            store.commit_layer(&release.key(), scratch.path())?;
        }
        Task::Layer { key, sandbox } => store.commit_layer(key, &store.upper_of(*sandbox))?,
        Task::Put { name, manifest } => {
            return Ok(Outcome::Named { image: store.write_name(name, manifest)? });
        }
        Task::Remove { name } => store.remove_name(name)?,
        Task::Collect { in_use } => {
            return Ok(Outcome::Freed { bytes: store.collect_now(in_use)? });
        }
    }
    Ok(Outcome::Done)
}

/// Refuses an environment that is not one of proxies: it is that of programs of root's.
fn check_proxies(proxies: &BTreeMap<String, String>) -> Result<(), ImageError> {
    let is_plain = |value: &String| {
        value.len() <= PROXY_BYTES && value.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match proxies.iter().find(|(name, value)| {
        !PROXY_VARIABLES.contains(&name.to_ascii_lowercase().as_str()) || !is_plain(value)
    }) {
        Some((name, _)) => Err(ImageError::Builder(format!("{name:?} is no variable of a proxy"))),
        None => Ok(()),
    }
}

/// A builder came to what was not asked for.
pub(crate) fn unexpected() -> ImageError {
    ImageError::Builder("the builder did something else".to_owned())
}

/// Has a builder make a change.
pub(crate) fn ask(
    builders: &dyn Builders,
    task: &Task,
    cancel: &Cancel,
    line: &mut dyn FnMut(&str),
) -> Result<Outcome, ImageError> {
    let attempt = || "having the image store changed".to_owned();
    let mut stream = UnixStream::from(builders.start().attempt(attempt)?);
    let task = serde_json::to_vec(task).map_err(io::Error::other).attempt(attempt)?;
    let length = u32::try_from(task.len()).ok().filter(|length| *length <= TASK_BYTES);
    let length = length.ok_or_else(|| ImageError::Builder("the image says too much".to_owned()))?;
    stream.write_all(&length.to_le_bytes()).attempt(attempt)?;
    stream.write_all(&task).attempt(attempt)?;
    stream.set_read_timeout(Some(CANCEL_LATENCY)).attempt(attempt)?;
    let mut said = BufReader::new(&stream);
    let mut bytes = Vec::new();
    loop {
        if cancel.is_cancelled() {
            // It sees that and stops; what it still says is its end.
            stream.shutdown(Shutdown::Write).unwrap_or_default();
        }
        match said.by_ref().take(LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) => return Err(ImageError::Builder("the builder has ended".to_owned())),
            Ok(_) => {}
            Err(error) if is_pause(&error) => continue,
            Err(error) => return Err(error).attempt(attempt),
        }
        match serde_json::from_slice(&bytes).map_err(io::Error::other).attempt(attempt)? {
            Said::Line(text) => line(&text),
            Said::Ended(outcome) => return Ok(outcome),
            Said::Io { attempt, errno } => {
                let source = io::Error::from_raw_os_error(errno);
                return Err(ImageError::Io { attempt, source });
            }
            Said::Failed(why) => return Err(ImageError::Builder(why)),
            Said::Cancelled => return Err(ImageError::Cancelled),
        }
        bytes.clear();
    }
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// What a builder process does: the change that it is told on `stream`, in the store at `images`.
#[must_use]
pub fn builder_main(stream: UnixStream, images: PathBuf) -> ExitCode {
    match build(stream, &Store::look(images)) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more.
        Err(_closed) => ExitCode::FAILURE,
    }
}

fn build(mut stream: UnixStream, store: &Store) -> io::Result<()> {
    let task = read(&mut stream);
    let cancel = Cancel::default();
    let (mut watched, canceller) = (stream.try_clone()?, cancel.clone());
    // It ends with the process.
    thread::Builder::new().name("hang-up".to_owned()).spawn(move || {
        // Nothing more comes but the end.
        if watched.read(&mut [0]).is_ok() {
            canceller.cancel();
        }
    })?;
    let made = match task {
        Ok(task) => carry_out(store, &task, &cancel, &mut |line| {
            if say(&stream, &Said::Line(line.to_owned())).is_err() {
                cancel.cancel();
            }
        }),
        Err(error) => Err(ImageError::Builder(format!("the task is malformed: {error}"))),
    };
    let said = match made {
        Ok(outcome) => Said::Ended(outcome),
        Err(ImageError::Cancelled) => Said::Cancelled,
        Err(ImageError::Io { attempt, source }) => match source.raw_os_error() {
            Some(errno) => Said::Io { attempt, errno },
            None => Said::Failed(format!("{attempt} failed: {source}")),
        },
        Err(other) => Said::Failed(other.to_string()),
    };
    say(&stream, &said)
}

/// The task that comes on `stream`.
fn read(stream: &mut impl Read) -> io::Result<Task> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > TASK_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut task = Vec::new();
    stream.by_ref().take(length.into()).read_to_end(&mut task)?;
    serde_json::from_slice(&task).map_err(Into::into)
}

fn say(mut stream: &UnixStream, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests;
