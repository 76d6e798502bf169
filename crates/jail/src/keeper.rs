//! The keeper: the process from which everything of root's comes that a server has.
//!
//! ```text
//! server (no root) ──what to start──► keeper (root) ──fork, exec──► launchers, builders
//!                  ◄──socket, pid────
//! ```
//!
//! A server starts it while it is root still, and gives that up. From then on it can start no program: a
//! launcher that is gone, and whatever makes layers of images, is started by the keeper, which knows two
//! things to start and takes no argument for either. Beside that it opens two files that it was told of when
//! the server was root: those of a certificate, which is renewed and whose key only root reads.
//!
//! It ends when the server is gone, and with it everything it has started.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
};

use sys::{errno::EMSGSIZE, pidfd, poll, process, socket};

use crate::{
    Presence, Programs,
    error::{InStep, JailError},
    server::{node_spec, take_inherited},
    spec::NodeSpec,
};

/// What makes the program a keeper, a launcher and a builder.
pub(crate) const KEEPER: &str = "__keeper";
pub(crate) const LAUNCHER: &str = "__launcher";
pub(crate) const BUILDER: &str = "__builder";

/// The step in which a process is started.
const START: &str = "start a launcher";

/// Bytes of a message at most: a kind and a number.
const MESSAGE_BYTES: usize = 16;

/// Processes that a keeper has started and that have not ended, at most: the most launchers that a
/// server can be told to have (67), and as many builders as nobody needs. More are refused: who asks for
/// them means to fill the machine with processes of root's.
const MOST_STARTED: usize = 128;

/// Milliseconds until the keeper has answered: it forks, and waits for the end of what it replaces.
const ANSWER_MS: i32 = 60_000;

/// Milliseconds for which the keeper waits for the end of a process that it has killed. One that is
/// stuck in the kernel for longer must not keep another from taking its place.
const END_MS: i32 = 10_000;

/// What is asked of a keeper. In a message: kind u8, and for a launcher the process id u32 (little-endian)
/// of the one that it replaces, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Start one.
    Launcher { in_place_of: Option<i32> },
    /// Start one.
    Builder,
    /// Open its files.
    Certificate,
}

impl Wish {
    fn encode(self) -> Vec<u8> {
        match self {
            Self::Builder => vec![1],
            Self::Certificate => vec![2],
            Self::Launcher { in_place_of } => {
                let mut message = vec![0];
                message.extend(in_place_of.unwrap_or(0).to_le_bytes());
                message
            }
        }
    }

    /// None: the message is malformed.
    fn decode(message: &[u8]) -> Option<Self> {
        match message {
            [1] => Some(Self::Builder),
            [2] => Some(Self::Certificate),
            [0, pid @ ..] => {
                let pid = i32::from_le_bytes(pid.try_into().ok()?);
                (pid >= 0).then_some(Self::Launcher { in_place_of: Some(pid).filter(|it| *it > 0) })
            }
            _ => None,
        }
    }
}

/// A handle to the keeper process. Dropping it ends that, and waits for the end of everything it has
/// started.
#[derive(Debug)]
pub struct Keeper {
    /// None while it is dropped.
    socket: Mutex<Option<OwnedFd>>,
    process: Child,
    ended: OwnedFd,
}

impl Keeper {
    /// Starts the keeper of a node; `certificate` are the files of a certificate and its key.
    ///
    /// # Errors
    /// When the process cannot be started or refuses `node`.
    pub fn start(
        node: &NodeSpec,
        programs: &Programs,
        certificate: Option<&(PathBuf, PathBuf)>,
    ) -> Result<Self, JailError> {
        let (ours, theirs) = socket::message_pair().in_step(START)?;
        let path = format!("/proc/self/fd/{}", programs.launcher().as_raw_fd());
        let certificate = certificate.map(|(certificate, key)| [certificate, key]);
        let mut command = command(&path, KEEPER, node, theirs);
        command.stdout(copy_of(programs.agent())?);
        command.args(certificate.into_iter().flatten());
        let process = command.spawn().map_err(|error| JailError::io(START, "exec", &error))?;
        let pid = i32::try_from(process.id()).unwrap_or(0);
        let ended = pidfd::open(pid).in_step(START)?;
        let keeper = Self { socket: Mutex::new(Some(ours)), process, ended };
        {
            let socket = keeper.socket.lock().unwrap_or_else(PoisonError::into_inner);
            hear(socket.as_ref())?;
        }
        Ok(keeper)
    }

    /// Readable when the keeper has ended: then nothing can be started any more, and the server has to
    /// end, too.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn ended(&self) -> std::io::Result<OwnedFd> {
        self.ended.try_clone()
    }

    /// Has a launcher started; its socket and its process id.
    pub(crate) fn launcher(&self, in_place_of: Option<i32>) -> Result<(OwnedFd, i32), JailError> {
        match self.ask(Wish::Launcher { in_place_of })? {
            (pid, [Some(socket), _]) => Ok((socket, pid)),
            _ => Err(nothing()),
        }
    }

    /// Has a builder started: a process of root's for one change of the image store, which is said on
    /// this stream. It ends when the stream is closed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn builder(&self) -> Result<OwnedFd, JailError> {
        let (_, [socket, _]) = self.ask(Wish::Builder)?;
        socket.ok_or_else(nothing)
    }

    /// The files of the certificate that the keeper was told of, and of its key, as they are now.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn certificate(&self) -> Result<(File, File), JailError> {
        match self.ask(Wish::Certificate)? {
            (_, [Some(certificate), Some(key)]) => Ok((certificate.into(), key.into())),
            _ => Err(nothing()),
        }
    }

    fn ask(&self, wish: Wish) -> Result<Answer, JailError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || JailError::Lost("the keeper has ended".to_owned());
        let open = socket.as_ref().ok_or_else(gone)?;
        socket::send(open.as_fd(), &wish.encode(), &[]).map_err(|_closed| gone())?;
        match hear(Some(open))? {
            (0, _) => Err(nothing()),
            answer => Ok(answer),
        }
    }
}

/// What a keeper answers: a process id, or 0 when it did not do what it was asked; and descriptors.
type Answer = (i32, [Option<OwnedFd>; 2]);

fn nothing() -> JailError {
    JailError::Lost("the keeper did not do it; the log says why".to_owned())
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Closed before it is waited for, or both would wait.
        drop(self.socket.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.process.wait());
    }
}

fn hear(socket: Option<&OwnedFd>) -> Result<Answer, JailError> {
    const STEP: &str = "hear the keeper";
    let lost = |why: &str| JailError::Lost(format!("the keeper {why}"));
    let socket = socket.ok_or_else(|| lost("has ended"))?;
    if !poll::wait_readable(socket.as_fd(), ANSWER_MS).in_step(STEP)? {
        return Err(lost("has not answered in a minute"));
    }
    let mut buffer = [0; MESSAGE_BYTES];
    let (length, fds) = socket::receive(socket.as_fd(), &mut buffer).in_step(STEP)?;
    let pid = buffer.get(..length).and_then(|pid| pid.try_into().ok());
    let pid = pid.ok_or_else(|| lost("has ended"))?;
    let mut fds = fds.into_iter().flatten();
    Ok((i32::from_le_bytes(pid), [fds.next(), fds.next()]))
}

/// Runs a keeper process: `sandbar __keeper STATE_DIR NAME BASE PREFIX [CERTIFICATE KEY]`, with the server's
/// socket as standard input and the agents' program as standard output. Returns when the server is gone.
#[must_use]
pub fn keeper_main() -> ExitCode {
    let ended = take_inherited().in_step(START).and_then(|(socket, agent)| {
        let mut arguments = std::env::args_os().skip(2);
        let node = node_spec(&mut arguments);
        let node = node.ok_or_else(|| JailError::Refused("its arguments are malformed".into()))?;
        let certificate = arguments.next().zip(arguments.next());
        let certificate = certificate.map(|(certificate, key)| (certificate.into(), key.into()));
        let started = Started { processes: Vec::new(), certificate, agent };
        keep(&node, started, &socket)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn keep(node: &NodeSpec, mut started: Started, socket: &OwnedFd) -> Result<(), JailError> {
    // A terminal's Ctrl-C is for the server; this process ends when the server closes the socket.
    process::new_session().in_step(START)?;
    sys::limits::raise_open_files().in_step(START)?;
    let _presence = Presence::show(node)?;
    reply(socket, 0, &[]);
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        let message = match socket::receive(socket.as_fd(), &mut buffer) {
            Ok((0, _)) => return Ok(()),
            Ok((length, _unasked)) => buffer.get(..length).unwrap_or_default(),
            // Longer than any message: it is answered as what it is.
            Err(error) if error.errno == EMSGSIZE => &[],
            Err(error) => return Err(error).in_step(START),
        };
        match Wish::decode(message).map(|wish| started.grant(node, wish)) {
            Some(Ok((pid, fds))) => reply(socket, pid, &fds),
            Some(Err(error)) => {
                complain(&error);
                reply(socket, 0, &[]);
            }
            None => reply(socket, 0, &[]),
        }
    }
}

/// A server that is gone needs no answer; the next read ends this process.
fn reply(socket: &OwnedFd, pid: i32, fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    socket::send(socket.as_fd(), &pid.to_le_bytes(), &fds).unwrap_or_default();
}

#[expect(clippy::print_stderr, reason = "a keeper has no log but the server's standard error")]
fn complain(error: &JailError) {
    eprintln!("sandbar: the keeper: {error}");
}

/// What a keeper keeps.
struct Started {
    /// The processes that it has started, and has not seen end.
    processes: Vec<Child>,
    /// The files of a certificate and its key.
    certificate: Option<(PathBuf, PathBuf)>,
    /// What agents run, for launchers.
    agent: OwnedFd,
}

impl Started {
    fn grant(&mut self, node: &NodeSpec, wish: Wish) -> Result<(i32, Vec<OwnedFd>), JailError> {
        match wish {
            Wish::Launcher { in_place_of } => {
                in_place_of.into_iter().for_each(|pid| self.end(pid));
                let (ours, theirs) = socket::message_pair().in_step(START)?;
                let agent = copy_of(self.agent.as_fd())?;
                Ok((self.start(node, (LAUNCHER, agent), theirs)?, vec![ours]))
            }
            Wish::Builder => {
                let (ours, theirs) = UnixStream::pair()
                    .map_err(|error| JailError::io(START, "socketpair", &error))?;
                let pid = self.start(node, (BUILDER, Stdio::null()), theirs.into())?;
                Ok((pid, vec![ours.into()]))
            }
            Wish::Certificate => {
                let none = || JailError::Refused("there is no certificate".to_owned());
                let (certificate, key) = self.certificate.as_ref().ok_or_else(none)?;
                let opened = [certificate, key].map(|path| {
                    let failed = |error| {
                        let call = format!("open {}", path.display());
                        JailError::io("open the certificate", call, &error)
                    };
                    File::open(path).map(OwnedFd::from).map_err(failed)
                });
                // Any number but 0: nothing was started.
                Ok((1, opened.into_iter().collect::<Result<_, _>>()?))
            }
        }
    }

    fn start(
        &mut self,
        node: &NodeSpec,
        (kind, output): (&str, Stdio),
        theirs: OwnedFd,
    ) -> Result<i32, JailError> {
        self.processes.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        if self.processes.len() >= MOST_STARTED {
            let message = format!("{MOST_STARTED} processes that it has started are there");
            return Err(JailError::Refused(message));
        }
        let child = command("/proc/self/exe", kind, node, theirs)
            .stdout(output)
            .spawn()
            .map_err(|error| JailError::io(START, "exec", &error))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        self.processes.push(child);
        Ok(pid)
    }

    /// Ends one of them, and waits for that. A number that is none of theirs is nobody's business.
    fn end(&mut self, pid: i32) {
        let its = |child: &&mut Child| i32::try_from(child.id()) == Ok(pid);
        let Some(child) = self.processes.iter_mut().find(its) else { return };
        // An error means that it has ended, or is looked for again at the end.
        child.kill().unwrap_or_default();
        if let Ok(handle) = pidfd::open(pid) {
            poll::wait_readable(handle.as_fd(), END_MS).unwrap_or_default();
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.processes {
            child.kill().unwrap_or_default();
        }
        for child in &mut self.processes {
            drop(child.wait());
        }
    }
}

/// The standard output of a process that gets a program by it.
fn copy_of(program: BorrowedFd<'_>) -> Result<Stdio, JailError> {
    let copy = program.try_clone_to_owned();
    copy.map(Stdio::from).map_err(|error| JailError::io(START, "duplicate the program", &error))
}

/// What starts a process of this program; its end of the socket is its standard input.
fn command(program: &str, kind: &str, node: &NodeSpec, socket: OwnedFd) -> Command {
    let (network, prefix) = match node.network {
        Some(network) => (network.base.to_string(), network.prefix.to_string()),
        None => ("none".to_owned(), "0".to_owned()),
    };
    let mut command = Command::new(program);
    command
        .arg(kind)
        .arg(&node.state_dir)
        .args([&node.name, &network, &prefix])
        .env_clear()
        .current_dir("/")
        .stdin(socket);
    command
}

/// Runs a builder process: `sandbar __builder STATE_DIR NAME BASE PREFIX`, with a stream to the server as
/// standard input. `work` is told that stream and the directory of the images, and makes one change.
#[must_use]
pub fn builder_main(work: impl FnOnce(UnixStream, PathBuf) -> ExitCode) -> ExitCode {
    let begun = take_inherited().in_step(START).and_then(|(socket, _)| {
        let node = node_spec(&mut std::env::args_os().skip(2));
        let node = node.ok_or_else(|| JailError::Refused("its arguments are malformed".into()))?;
        failpoint::watch(&node.state_dir);
        // One whose server is gone must not go on: the next server sweeps what it finds half made.
        process::end_with_parent().in_step(START)?;
        process::new_session().in_step(START)?;
        process::set_umask(0o022);
        let presence = Presence::show(&node)?;
        Ok((socket, node.state_dir.join("images"), presence))
    });
    match begun {
        Ok((socket, images, _presence)) => work(UnixStream::from(socket), images),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_keeper_is_read_in_one_way() {
        let all = [
            Wish::Builder,
            Wish::Certificate,
            Wish::Launcher { in_place_of: None },
            Wish::Launcher { in_place_of: Some(i32::MAX) },
        ];
        for wish in all {
            assert_eq!(Wish::decode(&wish.encode()), Some(wish));
        }
        for bad in [&[][..], &[0], &[1, 0], &[3], &[0, 0, 0, 0, 0x80], &[0; 6], &[0; 16]] {
            assert_eq!(Wish::decode(bad), None, "{bad:?}");
        }
        let examples = all.map(Wish::encode);
        hostile::bytes(&examples.each_ref().map(Vec::as_slice), |bytes| {
            if let Some(wish) = Wish::decode(bytes) {
                assert_eq!(wish.encode(), bytes);
            }
        });
    }

    #[test]
    fn a_keeper_ends_nobody_but_its_own() {
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let own = Command::new("sleep").arg("1000").spawn().unwrap();
        let agent = File::open("/dev/null").unwrap().into();
        let mut started = Started { processes: vec![own], certificate: None, agent };
        started.end(i32::try_from(other.id()).unwrap());
        assert!(other.try_wait().unwrap().is_none());
        let own = started.processes[0].id();
        started.end(i32::try_from(own).unwrap());
        assert!(started.processes[0].try_wait().unwrap().is_some());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
