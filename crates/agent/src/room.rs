//! What statfs(2) and fstatfs(2) say of the sandbox's own files: the limit of its volume and what is left
//! of it, in place of what the node's whole file system has.
//!
//! The calls of programs wait for it, see [`sys::seccomp::listener`]. It answers those about the root file
//! system and leaves the others, and whatever it cannot tell, to the kernel: so errors are the kernel's.
//! It does nothing for a caller that the caller could not do, and is trusted by nobody but programs of
//! its own sandbox.
//!
//! Invariants: whoever asks gets an answer, whatever fails; nothing of a caller's is open when its call
//! returns; nothing is done on the thread that serves, because a path may lead over a slow disk.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use sys::{
    credentials,
    errno::{ENOTTY, EPERM},
    file::{self, How},
    file_system::{self, Told},
    memory_map, poll,
    seccomp::listener::{self, Answer, Call, Subject},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of a path at most, its closing zero included (`PATH_MAX`).
const PATH_BYTES: usize = 4096;

/// Digits of a number that a file of the kernel's tells, and its line's end.
const NUMBER_BYTES: usize = 24;

/// What the launcher handed over, see [`jail::handoff::Room`].
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) charged: File,
    pub(crate) waiting: File,
    pub(crate) listener: OwnedFd,
    pub(crate) limit_bytes: u64,
    pub(crate) inherited_bytes: u64,
}

/// Answers for the sandbox's own files, where there is something to tell.
#[derive(Debug, Default)]
pub(crate) struct Room(Option<Arc<Answers>>);

#[derive(Debug)]
struct Answers {
    handed: Handed,
    /// The root, which is the sandbox's own files over its image.
    root: OwnedFd,
    /// Which directory that is, and which file system.
    root_identity: ((u64, u64), (u64, u64)),
}

impl Room {
    /// Takes over what was handed over.
    ///
    /// # Errors
    /// When the root cannot be looked at.
    pub(crate) fn new(handed: Option<Handed>) -> io::Result<Self> {
        let Some(handed) = handed else { return Ok(Self::default()) };
        let root = file::open(file::cwd(), c"/", How::new(file::O_PATH))?;
        let directory = file::stat(root.as_fd(), c"")?.identity;
        let root_identity = (directory, file_system::told(root.as_fd())?.identity());
        Ok(Self(Some(Arc::new(Answers { handed, root, root_identity }))))
    }

    /// Answers, for ever.
    ///
    /// # Errors
    /// When the listener cannot be waited on: programs would wait for ever.
    pub(crate) async fn keep(&self) -> io::Result<Infallible> {
        let Some(answers) = &self.0 else { return std::future::pending().await };
        let listener = answers.handed.listener.as_fd();
        #[expect(
            deprecated,
            reason = "what takes its place is unsafe; the listener is borrowed, so it is open meanwhile"
        )]
        let calls = AsyncFd::with_interest(listener, Interest::READABLE);
        let calls = match calls {
            // What stands for a listener where there is none, see `jail::handoff::Room`.
            Err(error) if error.raw_os_error() == Some(EPERM) => std::future::pending().await,
            calls => calls?,
        };
        loop {
            let mut ready = calls.readable().await?;
            let answers = Arc::clone(answers);
            let answered = tokio::task::spawn_blocking(move || answers.answer_waiting()).await;
            // A call that came meanwhile is not forgotten by it. After a panic, some may wait.
            if answered.is_ok() {
                ready.clear_ready();
            }
        }
    }
}

impl Answers {
    /// Answers the calls that wait. Blocks.
    fn answer_waiting(&self) {
        let listener = self.handed.listener.as_fd();
        while poll::wait_readable(listener, 0).unwrap_or(false) {
            let Ok(call) = listener::receive(listener) else { return };
            let Some(call) = call else { continue };
            let answer = self.tell(&call).map_or(Answer::GoOn, |()| Answer::Done);
            // A caller that is gone needs none.
            listener::answer(listener, call.id, answer).unwrap_or_default();
        }
    }

    /// Writes what a call asks for where it asks for it. None: the kernel is to say it, or to say why not.
    fn tell(&self, call: &Call) -> Option<()> {
        let caller = Caller::open(call.thread)?;
        let asked = match call.subject {
            Subject::Descriptor(number) => caller.open_at(&format!("fd/{number}"), file::O_PATH)?,
            Subject::Path(address) => self.open_path(&caller, &caller.read_path(address)?)?,
        };
        // Until here it may all have been another's, who has got the number of a caller that was killed.
        if !listener::is_waiting(self.handed.listener.as_fd(), call.id) {
            return None;
        }
        let told = file_system::told(asked.as_fd()).ok()?;
        if told.identity() != self.root_identity.1 {
            return None;
        }
        caller.write(call.buffer, &self.narrow(told)?.to_bytes())
    }

    fn narrow(&self, told: Told) -> Option<Told> {
        let Handed { charged, waiting, limit_bytes, inherited_bytes, .. } = &self.handed;
        let used = number(charged)?.saturating_add(number(waiting)?);
        let size = limit_bytes.saturating_add(*inherited_bytes);
        Some(told.narrowed(size, limit_bytes.saturating_sub(used)))
    }

    /// Opens what a path of the caller's leads to. None also for a path through a link of `/proc` to a
    /// file: it would lead from this process.
    fn open_path(&self, caller: &Caller, path: &CString) -> Option<OwnedFd> {
        let root = caller.open_at("root", file::O_PATH)?;
        let is_ours = file::stat(root.as_fd(), c"").ok()?.identity == self.root_identity.0;
        let how = |resolve| How { resolve, ..How::new(file::O_PATH) };
        let is_absolute = path.as_bytes().first() == Some(&b'/');
        let cwd = if is_absolute { None } else { Some(caller.open_at("cwd", file::O_PATH)?) };
        let (from, how) = match (&cwd, is_ours) {
            (None, true) => (self.root.as_fd(), how(file::RESOLVE_NO_MAGICLINKS)),
            (None, false) => (root.as_fd(), how(file::RESOLVE_IN_ROOT)),
            (Some(cwd), true) => (cwd.as_fd(), how(file::RESOLVE_NO_MAGICLINKS)),
            // What leads up or back to the root of one that has changed it, the kernel finds.
            (Some(cwd), false) => (cwd.as_fd(), how(file::RESOLVE_BENEATH)),
        };
        file::open(from, path, how).ok()
    }
}

/// A number that the kernel tells in a file.
fn number(file: &File) -> Option<u64> {
    let mut text = [0; NUMBER_BYTES];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()
}

/// Who asks, while its files are opened in its name: by its user and group ids, and with the agent's
/// capabilities over files for root alone, as it has them itself.
///
/// The kernel lets a process look into another one of its own ids, unless that hides itself from them
/// (`PR_SET_DUMPABLE`); the agent has no capability that would change that.
struct Caller {
    /// Its directory in `/proc`.
    process: OwnedFd,
    memory: File,
    maps: OwnedFd,
    _identity: FileIdentity,
}

impl Caller {
    fn open(thread: u32) -> Option<Self> {
        let path = file::c_name(format!("/proc/{thread}")).ok()?;
        let process = file::open(file::cwd(), &path, How::new(file::O_PATH)).ok()?;
        let owner = file::stat(process.as_fd(), c"").ok()?;
        let identity = FileIdentity::assume(owner.uid, owner.gid);
        let open = |name, flags| file::open(process.as_fd(), name, How::new(flags)).ok();
        let (memory, maps) = (open(c"mem", file::O_RDWR)?, open(c"maps", file::O_RDONLY)?);
        Some(Self { process, memory: memory.into(), maps, _identity: identity })
    }

    fn open_at(&self, name: &str, flags: i32) -> Option<OwnedFd> {
        let name = file::c_name(name).ok()?;
        file::open(self.process.as_fd(), &name, How::new(flags)).ok()
    }

    fn read_path(&self, address: u64) -> Option<CString> {
        let mut path = vec![0; PATH_BYTES];
        // What follows its end need not be there.
        let length = self.memory.read_at(&mut path, address).ok()?;
        path.truncate(length);
        let end = path.iter().position(|byte| *byte == 0)?;
        path.truncate(end);
        CString::new(path).ok()
    }

    /// Writes what the caller may write there itself. A file of memory knows no more than that it is
    /// memory: a page that is not to be written would get a copy that is.
    fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        let end = address.checked_add(bytes.len().try_into().ok()?)?;
        match memory_map::at(self.maps.as_fd(), address) {
            Ok(Some(found)) if found.is_writable && end <= found.addresses.1 => {}
            // Before Linux 6.11 it is not told.
            Err(error) if error.errno == ENOTTY => {}
            _ => return None,
        }
        self.memory.write_all_at(bytes, address).ok()
    }
}

/// The ids by which this thread opens files, until it is dropped.
struct FileIdentity;

impl FileIdentity {
    fn assume(uid: u32, gid: u32) -> Self {
        credentials::set_file_identity(uid, gid);
        Self
    }
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        credentials::set_file_identity(0, 0);
    }
}
