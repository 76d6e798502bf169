//! A handle to a launcher process.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use failpoint::failpoint;
use sys::{poll, socket};

use crate::{
    error::{InStep, JailError},
    keeper::Keeper,
    spec::{Hostname, JailId, JailNetwork, JailSpec, Learned},
    volume::Volumes,
    wire::{JAILS_PER_REPLY, MESSAGE_BYTES, Reply, Request},
};

/// Descriptors that go with a spec.
#[derive(Debug, Clone, Copy)]
pub struct JailFiles<'a> {
    /// The agent's listening unix socket.
    pub listener: BorrowedFd<'a>,
    /// The socket on which the agent gets its configuration.
    pub config: BorrowedFd<'a>,
}

/// A jail whose agent has been exec'd.
#[derive(Debug)]
pub struct Launched {
    /// The agent's process id on the host.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of /proc/PID/stat): with `pid` and the
    /// boot id it names the process for ever.
    pub start_time: u64,
    /// Readable when the agent has ended.
    pub pidfd: OwnedFd,
}

/// A running launcher process: root, single-threaded, one request at a time.
///
/// Dropping the handle closes its socket; the launcher then exits. Jails do not: they end only by
/// [`Launcher::kill`].
#[derive(Debug)]
pub struct Launcher {
    keeper: Arc<Keeper>,
    socket: OwnedFd,
    /// Its process id, for the keeper.
    pid: i32,
}

/// Milliseconds until an answer must be there. Building a jail takes a few; killing one may wait
/// for the kernel, and removing files for the disk.
const ANSWER_MS: i32 = 15 * 60 * 1000;

impl Launcher {
    /// Has the keeper start a launcher process.
    ///
    /// # Errors
    /// When the process cannot be started or refuses the node.
    pub fn start(keeper: &Arc<Keeper>) -> Result<Self, JailError> {
        let (socket, pid) = keeper.launcher(None)?;
        let mut launcher = Self { keeper: Arc::clone(keeper), socket, pid };
        launcher.greet()?;
        Ok(launcher)
    }

    /// Has another process started in the place of one that is gone, or of which nothing more is heard:
    /// the keeper ends that.
    fn replace(&mut self) -> Result<(), JailError> {
        (self.socket, self.pid) = self.keeper.launcher(Some(self.pid))?;
        self.greet()
    }

    /// Waits until the process is ready.
    fn greet(&mut self) -> Result<(), JailError> {
        match self.answer()? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Builds a jail and execs the agent in it. The agent's socket accepts connections at return.
    ///
    /// The jail's volume is made when missing; an existing one is used with the files it has, so launching again after a [`Launcher::clear`] continues with the same files.
    ///
    /// # Errors
    /// [`JailError::Step`]; nothing is left behind but the jail's volume.
    pub fn launch(
        &mut self,
        spec: &JailSpec,
        files: &JailFiles<'_>,
    ) -> Result<Launched, JailError> {
        let fds = [files.listener, files.config];
        match self.ask(&Request::Launch(spec.clone()), &fds)? {
            (Reply::Launched { pid, start_time }, Some(pidfd)) => {
                Ok(Launched { pid, start_time, pidfd })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Kills every process of the jail, waits until none is left, and removes its rules and its tracked
    /// connections. Its link vanishes with its last process; its cgroups stay until
    /// [`Launcher::clear`]. Safe to repeat, also for a jail that never was.
    ///
    /// Returns what keeps the jail's root file system mounted, unseen by anybody: taking it down writes
    /// everything to disk that the volumes have in memory, which nobody who ends a jail should wait
    /// for. Dropping it takes the file system down; see [`Launcher::remove`].
    ///
    /// # Errors
    /// [`JailError::Step`] when processes are left after 10 s.
    pub fn kill(&mut self, jail: JailId) -> Result<Option<OwnedFd>, JailError> {
        self.insist(&Request::Kill(jail))
    }

    /// As [`Launcher::kill`], and removes its cgroups; its files stay.
    ///
    /// # Errors
    /// As [`Launcher::kill`].
    pub fn clear(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Clear(jail))
    }

    /// Stops every process of the jail where it is, and waits until none runs. Repeating it does
    /// nothing; a frozen jail can be killed.
    ///
    /// # Errors
    /// [`JailError::Step`] when processes still run after 2 s, or the jail does not run;
    /// [`JailError::Refused`] when this host cannot freeze. The jail is then not frozen.
    pub fn freeze(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Freeze(jail))
    }

    /// Lets the processes of a frozen jail go on. Safe to repeat, also for a jail that is gone.
    ///
    /// # Errors
    /// [`JailError::Step`] when the kernel refuses.
    pub fn thaw(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Thaw(jail))
    }

    /// Tells every process of the jail but its agent that it is to end, and waits for none. Nothing
    /// for a jail that does not run; a frozen one hears it when it goes on.
    ///
    /// # Errors
    /// [`JailError::Step`] when its processes cannot be listed.
    pub fn notify(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Notify(jail))
    }

    /// Pushes out what the jail's processes have in memory, page cache first, as far as the kernel
    /// can: what was written goes to its files, the rest to swap where there is some. Takes as long
    /// as the disk. Nothing for a jail that does not run, or on a kernel that cannot.
    ///
    /// # Errors
    /// [`JailError::Step`] when the kernel refuses.
    pub fn reclaim(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Reclaim(jail))
    }

    /// As [`Launcher::clear`], and removes the volume with the jail's number, whatever is in it. Slow
    /// for large trees: call it on a launcher that no creation waits for. What [`Launcher::kill`] gave
    /// is to be dropped behind it.
    ///
    /// # Errors
    /// [`JailError::Step`] when something cannot be removed.
    pub fn remove(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::Remove(jail))
    }

    /// Removes the volume of this number, whatever is in it; nothing that can reach it may run. Slow
    /// for large trees: call it on a launcher that no creation waits for. Safe to repeat.
    ///
    /// # Errors
    /// [`JailError::Step`] when something cannot be removed.
    pub fn remove_files(&mut self, volume: JailId) -> Result<(), JailError> {
        self.repeat(&Request::RemoveFiles(volume))
    }

    /// Changes, in one step, what a running jail may reach, and ends connections that it may not
    /// have any more. A jail that has had no network gets its link. Safe to repeat.
    ///
    /// # Errors
    /// [`JailError::Step`] when the kernel refuses: what was in force may still be.
    /// [`JailError::Refused`] for a jail that does not run and has no link.
    pub fn admit(&mut self, jail: JailId, network: &JailNetwork) -> Result<(), JailError> {
        self.repeat(&Request::Admit(jail, network.clone()))
    }

    /// Removes the links of a jail that has ended, where the kernel has not. Safe to repeat.
    ///
    /// # Errors
    /// [`JailError::Step`] when the kernel refuses.
    pub fn remove_links(&mut self, jail: JailId) -> Result<(), JailError> {
        self.repeat(&Request::RemoveLinks(jail))
    }

    /// Lets a jail open connections to addresses that an allowed name led to, if the allow-list of
    /// this revision is in force. False: it is not.
    ///
    /// # Errors
    /// [`JailError::Step`] when the kernel refuses, for instance because there are too many.
    pub fn learn(
        &mut self,
        jail: JailId,
        revision: u64,
        learned: Vec<Learned>,
    ) -> Result<bool, JailError> {
        match self.ask(&Request::Learn { jail, revision, learned }, &[])?.0 {
            Reply::Learned { in_force } => Ok(in_force),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a running jail another host name, which its programs see from then on.
    ///
    /// # Errors
    /// [`JailError::Refused`] for a jail that does not run.
    pub fn name(&mut self, jail: JailId, hostname: &Hostname) -> Result<(), JailError> {
        self.ask_done(&Request::Name(jail, hostname.clone()))
    }

    /// Packets that were refused to a jail since it was started.
    ///
    /// # Errors
    /// When the rules cannot be read.
    pub fn refused(&mut self, jail: JailId) -> Result<u64, JailError> {
        match self.ask(&Request::Refused(jail), &[])?.0 {
            Reply::Count(packets) => Ok(packets),
            other => Err(unexpected(&other)),
        }
    }

    /// What a volume is charged with: bytes on disk that were written to it, as of the last
    /// transaction, which is a few seconds ago at most. None: it is a plain directory, or not there.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn volume_bytes(&mut self, volume: JailId) -> Result<Option<u64>, JailError> {
        match self.ask(&Request::VolumeBytes(volume), &[])?.0 {
            Reply::Count(bytes) => Ok(Some(bytes)),
            Reply::Done => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Jails that have a cgroup or rules on this node, with the agent's pid where it is alive.
    ///
    /// # Errors
    /// When the cgroup trees cannot be read.
    pub fn jails(&mut self) -> Result<Vec<(JailId, Option<i32>)>, JailError> {
        let alive = |pid| Some(pid).filter(|pid| *pid > 0);
        let all = self.pages(Request::Jails)?;
        Ok(all.into_iter().map(|(jail, pid)| (jail, alive(pid))).collect())
    }

    /// Volumes that there are.
    ///
    /// # Errors
    /// When their directories cannot be read.
    pub fn volumes(&mut self) -> Result<Vec<JailId>, JailError> {
        Ok(self.pages(Request::Volumes)?.into_iter().map(|(volume, _)| volume).collect())
    }

    /// Everything that is answered in pages, each asked for by the first number it may have.
    fn pages(
        &mut self,
        request: impl Fn(JailId) -> Request,
    ) -> Result<Vec<(JailId, i32)>, JailError> {
        let mut all: Vec<(JailId, i32)> = Vec::new();
        loop {
            let from = all.last().map_or(0, |(jail, _)| jail.0 + 1);
            match self.ask(&request(JailId(from)), &[])?.0 {
                Reply::Jails(page) => {
                    let is_full = page.len() == JAILS_PER_REPLY;
                    all.extend(page);
                    if !is_full {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Makes the node's network (address, nftables table, forwarding) exist. Rules are there
    /// before the first link. Safe to repeat; nothing on a node without a network. True when rules
    /// were missing: no jail reaches anything until [`Launcher::admit`].
    ///
    /// # Errors
    /// When `nft` is missing or refuses the rules.
    pub fn set_up_network(&mut self) -> Result<bool, JailError> {
        match self.ask(&Request::SetUpNetwork, &[])?.0 {
            Reply::Count(is_new) => Ok(is_new != 0),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes volume `to` a copy of volume `from`, in a time that does not depend on what is in it but
    /// on what of it is not on disk yet. The copy is whole and on disk at return.
    ///
    /// # Errors
    /// [`JailError::Refused`] when `from` is a plain directory; [`JailError::Step`] with `ENOENT`
    /// when it is not there, `EEXIST` when `to` is.
    pub fn copy_volume(
        &mut self,
        from: JailId,
        to: JailId,
        is_read_only: bool,
    ) -> Result<(), JailError> {
        self.ask_done(&Request::CopyVolume { from, to, is_read_only })
    }

    /// Makes the file system of the node's volumes exist and be mounted, if the machine allows it.
    /// Safe to repeat. This process, and so its launchers, must have [`crate::own_mounts`].
    ///
    /// # Errors
    /// When the node has volumes already and their file system cannot be mounted.
    pub fn set_up_volumes(&mut self) -> Result<Volumes, JailError> {
        match self.ask(&Request::SetUpVolumes, &[])?.0 {
            Reply::Volumes(volumes) => Ok(volumes),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes what [`Launcher::set_up_network`] made, the node's cgroup directories, which must hold
    /// no jail any more, and its [`crate::claim_files`].
    ///
    /// # Errors
    /// When `nft` refuses, or jails are left.
    pub fn tear_down(&mut self) -> Result<(), JailError> {
        self.ask_done(&Request::TearDown)
    }

    fn ask_done(&mut self, request: &Request) -> Result<(), JailError> {
        match self.ask(request, &[])?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Launcher::ask_done`], for what is the same done twice: once more when the process is lost,
    /// because nobody knows how far it came.
    fn repeat(&mut self, request: &Request) -> Result<(), JailError> {
        self.insist(request).map(drop)
    }

    /// As [`Launcher::repeat`], and returns what came with the answer.
    fn insist(&mut self, request: &Request) -> Result<Option<OwnedFd>, JailError> {
        let answer = match self.ask(request, &[]) {
            Err(JailError::Lost(_)) => self.ask(request, &[]),
            other => other,
        };
        match answer? {
            (Reply::Done, fd) => Ok(fd),
            (other, _) => Err(unexpected(&other)),
        }
    }

    fn ask(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Option<OwnedFd>), JailError> {
        self.say(request, fds)?;
        self.hear(request)
    }

    fn hear(&mut self, request: &Request) -> Result<(Reply, Option<OwnedFd>), JailError> {
        let answer = self.answer()?;
        failpoint!("heard.{}", request.name())
            .map_err(|_injected| JailError::Lost("its answer was lost".to_owned()))?;
        Ok(answer)
    }

    fn say(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), JailError> {
        let message = request.encode();
        failpoint!("ask.{}", request.name()).in_step("ask a launcher")?;
        if socket::send(self.socket.as_fd(), &message, fds).is_ok() {
            return Ok(());
        }
        // It was gone before it could hear: nothing was begun, so another one may do it.
        self.replace()?;
        socket::send(self.socket.as_fd(), &message, fds).in_step("ask a launcher")
    }

    /// Closes the socket of a process, so that the next request has another one started in its place.
    fn disown(&mut self) {
        if let Ok((closed, _)) = socket::message_pair() {
            self.socket = closed;
        }
    }

    fn answer(&mut self) -> Result<(Reply, Option<OwnedFd>), JailError> {
        if !poll::wait_readable(self.socket.as_fd(), ANSWER_MS).in_step("wait for a launcher")? {
            // Its answer, should it still come, must not be taken for that to the next request.
            self.disown();
            return Err(JailError::Lost("it has not answered in 15 minutes".to_owned()));
        }
        let mut buffer = vec![0; MESSAGE_BYTES];
        let (length, fds) =
            socket::receive(self.socket.as_fd(), &mut buffer).in_step("hear a launcher")?;
        let message = buffer.get(..length).unwrap_or_default();
        if message.is_empty() {
            return Err(JailError::Lost("it has ended".to_owned()));
        }
        match Reply::decode(message) {
            Ok(Reply::Failed(error)) => Err(error),
            Ok(reply) => Ok((reply, fds.into_iter().flatten().next())),
            Err(_malformed) => Err(JailError::Lost("its answer is malformed".to_owned())),
        }
    }
}

fn unexpected(reply: &Reply) -> JailError {
    JailError::Lost(format!("it answered something else: {reply:?}"))
}
