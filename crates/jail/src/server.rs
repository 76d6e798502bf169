//! The launcher process: the only privileged code.
//!
//! Root, single-threaded, no runtime. It reads one request, does it, answers, and so on until its
//! socket closes. It parses no text that a tenant wrote but a checked host name, and opens no path
//! that a tenant chose.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
};

use failpoint::failpoint;
use sys::{
    errno::EMSGSIZE,
    fd,
    file::{self, How},
    namespace, pidfd, poll, process, signal, socket,
};

use crate::{
    Presence,
    cgroup::NodeCgroups,
    check::{check_learned, check_network},
    error::{InStep, JailError},
    figures::Machine,
    launch,
    launcher::Launched,
    network::HostNetwork,
    policy,
    process_dir::ProcessDir,
    rootfs::NodeFiles,
    spec::{Hostname, JailId, JailNetwork, NodeNetwork, NodeSpec, Reach},
    wire::{JAILS_PER_REPLY, MESSAGE_BYTES, Reply, Request},
};

/// Descriptors that wait to be closed at most, while there is always another request.
const MOST_SPENT: usize = 64;

/// Everything a launcher holds between requests.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) node: NodeSpec,
    pub(crate) cgroups: NodeCgroups,
    pub(crate) files: NodeFiles,
    pub(crate) network: Option<HostNetwork>,
    /// The system calls a jail may make.
    pub(crate) filter: Vec<sys::seccomp::Instruction>,
    /// What the figures of jails are made from.
    pub(crate) machine: Machine,
    /// The executable that the agents run, which is sealed.
    pub(crate) program: OwnedFd,
    /// Tells the next daemon that this process, or a jail's first process, is there.
    _presence: Presence,
}

/// What came of a request.
struct Done {
    reply: Reply,
    /// Goes with the reply.
    fd: Option<OwnedFd>,
    /// Closed when nobody waits, because that takes time.
    spent: Vec<OwnedFd>,
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self { reply, fd: None, spent: Vec::new() }
    }
}

/// Runs a launcher process: `sandbar __launcher STATE_DIR NAME BASE PREFIX`, with the daemon's
/// socket as standard input and the agents' program as standard output. Returns when the daemon is gone.
#[must_use]
pub fn launcher_main() -> ExitCode {
    let Ok((socket, program)) = take_inherited() else { return ExitCode::FAILURE };
    match Server::open(std::env::args_os().skip(2), program) {
        Ok(server) => server.serve(&socket),
        Err(error) => {
            answer(&socket, &Reply::Failed(error), None);
            ExitCode::FAILURE
        }
    }
}

/// Moves socket and program off standard input and output, so that no child inherits them as such.
pub(crate) fn take_inherited() -> Result<(OwnedFd, OwnedFd), sys::SysError> {
    /// Above the numbers that programs expect something at.
    const ABOVE: i32 = 10;
    let socket = fd::duplicate_above(std::io::stdin().as_fd(), ABOVE)?;
    let program = fd::duplicate_above(std::io::stdout().as_fd(), ABOVE)?;
    let null = file::open(file::cwd(), c"/dev/null", How::new(file::O_RDWR))?;
    fd::inherit_as(null.as_fd(), 0)?;
    fd::inherit_as(null.as_fd(), 1)?;
    Ok((socket, program))
}

fn answer(socket: &OwnedFd, reply: &Reply, pidfd: Option<BorrowedFd<'_>>) {
    // A daemon that is gone needs no answer; the next read ends this process.
    socket::send(socket.as_fd(), &reply.encode(), pidfd.as_slice()).unwrap_or_default();
}

impl Server {
    fn open(mut args: impl Iterator<Item = OsString>, program: OwnedFd) -> Result<Self, JailError> {
        const STEP: &str = "launcher";
        let node = node_spec(&mut args)
            .ok_or_else(|| JailError::Refused("the launcher's arguments are malformed".into()))?;
        failpoint::watch(&node.state_dir);
        // One whose daemon is gone must not go on: the next daemon looks at what there is once.
        process::end_with_parent().in_step(STEP)?;
        // A terminal's Ctrl-C is for the daemon; this process ends when the daemon closes the socket.
        process::new_session().in_step(STEP)?;
        signal::ignore_children().in_step(STEP)?;
        process::set_umask(0);
        sys::limits::raise_open_files().in_step(STEP)?;
        Ok(Self {
            cgroups: NodeCgroups::open(&node.name)?,
            files: NodeFiles::open(&node)?,
            network: HostNetwork::open(&node)?,
            filter: policy::agent_filter(),
            machine: Machine::look()?,
            program,
            _presence: Presence::show(&node)?,
            node,
        })
    }

    fn serve(&self, socket: &OwnedFd) -> ExitCode {
        answer(socket, &Reply::Done, None);
        let mut buffer = vec![0; MESSAGE_BYTES];
        let mut spent = Vec::new();
        loop {
            // An error is the next call's to tell.
            if spent.len() > MOST_SPENT || !poll::wait_readable(socket.as_fd(), 0).unwrap_or(true) {
                spent.clear();
            }
            let (length, fds) = match socket::receive(socket.as_fd(), &mut buffer) {
                Ok(received) => received,
                Err(error) if error.errno == EMSGSIZE => {
                    let refusal = JailError::Refused("the request is too long".to_owned());
                    answer(socket, &Reply::Failed(refusal), None);
                    continue;
                }
                Err(_lost) => return ExitCode::FAILURE,
            };
            let message = buffer.get(..length).unwrap_or_default();
            if message.is_empty() {
                return ExitCode::SUCCESS;
            }
            let Ok(request) = Request::decode(message) else {
                let refusal = JailError::Refused("the request is malformed".to_owned());
                answer(socket, &Reply::Failed(refusal), None);
                continue;
            };
            let fds: Vec<OwnedFd> = fds.into_iter().flatten().collect();
            let name = request.name();
            match self.carry_out(request, &fds) {
                Ok(done) => {
                    // What is done is not taken back: this one kills and holds up.
                    failpoint!("launcher.{name}.done").unwrap_or_default();
                    answer(socket, &done.reply, done.fd.as_ref().map(AsFd::as_fd));
                    spent.extend(done.spent);
                }
                Err(error) => answer(socket, &Reply::Failed(error), None),
            }
        }
    }

    /// Everything a launcher does.
    fn carry_out(&self, request: Request, fds: &[OwnedFd]) -> Result<Done, JailError> {
        failpoint!("launcher.{}", request.name()).in_step("launcher")?;
        match request {
            Request::Launch(spec) => {
                let (launched, spent) = launch::launch(self, &spec, fds)?;
                let Launched { pid, start_time, pidfd } = launched;
                let reply = Reply::Launched { pid, start_time };
                return Ok(Done { reply, fd: Some(pidfd), spent });
            }
            Request::Kill(jail) => {
                let root = self.agent("agent", jail).and_then(|agent| agent.place(c"root")).ok();
                self.cgroups.kill(jail)?;
                // Behind it: only what is dead makes no connection any more.
                self.release(jail)?;
                return Ok(Done { reply: Reply::Done, fd: root, spent: Vec::new() });
            }
            Request::Clear(jail) => self.clear(jail)?,
            Request::Freeze(jail) => self.cgroups.freeze(jail)?,
            Request::Thaw(jail) => self.cgroups.thaw(jail)?,
            Request::Reclaim(jail) => self.cgroups.reclaim(jail)?,
            Request::Notify(jail) => self.cgroups.notify(jail)?,
            Request::Remove(jail) => self.remove(jail)?,
            // Not the end of the jail of this number, which may run on another volume.
            Request::RemoveFiles(volume) => self.files.volumes.remove(volume)?,
            Request::Jails(from) => return Ok(Reply::Jails(self.jails(from)?).into()),
            Request::Volumes(from) => {
                let volumes = self.files.volumes.list(from, JAILS_PER_REPLY)?;
                let page = volumes.into_iter().map(|volume| (volume, 0)).collect();
                return Ok(Reply::Jails(page).into());
            }
            Request::Admit(jail, network) => self.admit(jail, &network)?,
            Request::Learn { jail, revision, learned } => {
                check_learned(&learned)?;
                let in_force = self.network()?.learn(jail, revision, &learned)?;
                return Ok(Reply::Learned { in_force }.into());
            }
            Request::Name(jail, hostname) => self.name(jail, &hostname)?,
            Request::Refused(jail) => {
                return Ok(Reply::Count(self.network()?.refused(jail)?).into());
            }
            Request::VolumeBytes(volume) => {
                let bytes = self.files.volumes.bytes(volume)?;
                return Ok(bytes.map_or(Reply::Done, Reply::Count).into());
            }
            Request::RemoveLinks(jail) => self.network()?.remove_links(jail)?,
            Request::SetUpNetwork => {
                let is_new = self.network.as_ref().map_or(Ok(false), HostNetwork::set_up)?;
                return Ok(Reply::Count(is_new.into()).into());
            }
            Request::CopyVolume { from, to, is_read_only } => {
                self.files.volumes.copy(from, to, is_read_only)?;
            }
            Request::SetUpVolumes => {
                return Ok(Reply::Volumes(self.files.volumes.set_up()?).into());
            }
            Request::TearDown => {
                // Refused while a jail is left: the rules must outlive every link.
                self.cgroups.remove_node()?;
                self.network.as_ref().map_or(Ok(()), HostNetwork::tear_down)?;
                // Nothing of the node is left that another could be confused with.
                unclaim(&self.node)?;
            }
        }
        Ok(Reply::Done.into())
    }

    /// Ends every process of a jail, and leaves nothing of it in the kernel.
    pub(crate) fn clear(&self, jail: JailId) -> Result<(), JailError> {
        self.cgroups.destroy(jail)?;
        self.release(jail)
    }

    /// Leaves nothing of the network of a jail whose processes have ended.
    fn release(&self, jail: JailId) -> Result<(), JailError> {
        self.network.as_ref().map_or(Ok(()), |network| network.release(jail))
    }

    /// Jails from number `from` on that have groups or rules, with their agents' process ids.
    fn jails(&self, from: JailId) -> Result<Vec<(JailId, i32)>, JailError> {
        let grouped = self.cgroups.jails(from, JAILS_PER_REPLY)?;
        let ruled = self.network.as_ref().map_or(Ok(Vec::new()), HostNetwork::jails)?;
        let ruled = ruled.into_iter().filter(|jail| *jail >= from).map(|jail| (jail, 0));
        // The later of two that are equal counts: the one with the process id.
        let all: BTreeMap<JailId, i32> = ruled.chain(grouped).collect();
        Ok(all.into_iter().take(JAILS_PER_REPLY).collect())
    }

    /// Gives a jail that runs another host name.
    fn name(&self, jail: JailId, hostname: &Hostname) -> Result<(), JailError> {
        const STEP: &str = "hostname";
        let name = CString::new(hostname.as_str())
            .map_err(|_nul| JailError::Refused("a host name holds a NUL".to_owned()))?;
        let theirs = self.agent(STEP, jail)?.file(c"ns/uts")?;
        let own = file::open(file::cwd(), c"/proc/self/ns/uts", How::new(file::O_RDONLY));
        let own = own.in_step(STEP)?;
        namespace::join_uts(theirs.as_fd()).in_step(STEP)?;
        let named = namespace::set_hostname(&name);
        if namespace::join_uts(own.as_fd()).is_err() {
            // The jails to come would begin with this one's name. Another launcher takes its place.
            process::exit(1);
        }
        named.in_step(STEP)
    }

    /// The directory of the agent of a jail that runs, for `step`.
    fn agent(&self, step: &'static str, jail: JailId) -> Result<ProcessDir, JailError> {
        let gone = || JailError::Refused(format!("jail {jail} does not run"));
        let pid = self.cgroups.agent_pid(jail).ok_or_else(gone)?;
        let pidfd = pidfd::open(pid).in_step(step)?;
        let process = ProcessDir::open(step, pid, pidfd.as_fd())?;
        // If it is the agent now, the directory is the agent's and not that of a later process.
        if self.cgroups.agent_pid(jail) != Some(pid) {
            return Err(gone());
        }
        Ok(process)
    }

    /// Puts what a jail that runs may reach in force. One that has had no network gets its link.
    fn admit(&self, jail: JailId, network: &JailNetwork) -> Result<(), JailError> {
        check_network(network, &self.node)?;
        let host = self.network()?;
        let process = self.agent("network", jail)?;
        let namespace = launch::network_namespace(&process)?;
        let has_link = launch::has_link(&process)?;
        if has_link {
            return host.admit(jail, network);
        }
        if network.reach == Reach::Nothing {
            return Ok(());
        }
        host.attach_running(jail, namespace.as_fd(), network).map(drop)
    }

    fn network(&self) -> Result<&HostNetwork, JailError> {
        self.network.as_ref().ok_or_else(|| JailError::Refused("the node has no network".into()))
    }

    fn remove(&self, jail: JailId) -> Result<(), JailError> {
        // The tree is taken apart by name: nobody may be there to change names meanwhile.
        self.clear(jail)?;
        self.files.volumes.remove(jail)
    }
}

/// Removes what says that the node's name and network are taken.
fn unclaim(node: &NodeSpec) -> Result<(), JailError> {
    for path in claim_files(node) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let call = format!("remove {}", path.display());
                return Err(JailError::io("claim", call, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where claims are: every machine with systemd and nearly every other has it (hier(7)).
pub const CLAIMS_DIR: &str = "/run";

/// Their names are this, what is claimed, and the other.
const CLAIM_PREFIX: &str = "sandbar-";
const CLAIM_SUFFIX: &str = ".lock";

/// The files that a server locks before it starts anything, so that nobody else on the machine has its
/// node's name or network: the name's, and the network's if it has one.
#[must_use]
pub fn claim_files(node: &NodeSpec) -> Vec<PathBuf> {
    // No name has a dot.
    let gateway = node.network.map(|network| network.gateway().to_string());
    let all = [node.name.clone()].into_iter().chain(gateway);
    all.map(|what| Path::new(CLAIMS_DIR).join(format!("{CLAIM_PREFIX}{what}{CLAIM_SUFFIX}")))
        .collect()
}

/// All such files on the machine, each with the name or the gateway that it is for.
///
/// # Errors
/// Those of reading [`CLAIMS_DIR`].
pub fn all_claim_files() -> io::Result<Vec<(String, PathBuf)>> {
    let files = fs::read_dir(CLAIMS_DIR)?.map(|entry| {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let what = name.strip_prefix(CLAIM_PREFIX).and_then(|rest| rest.strip_suffix(CLAIM_SUFFIX));
        Ok(what.map(str::to_owned).map(|what| (what, path)))
    });
    files.filter_map(io::Result::transpose).collect()
}

pub(crate) fn node_spec(args: &mut impl Iterator<Item = OsString>) -> Option<NodeSpec> {
    let state_dir = args.next()?.into();
    let name = args.next()?.into_string().ok()?;
    let base = args.next()?.into_string().ok()?;
    let prefix = args.next()?.into_string().ok()?.parse().ok()?;
    let network = match base.as_str() {
        "none" => None,
        base => Some(NodeNetwork { base: base.parse::<Ipv4Addr>().ok()?, prefix }),
    };
    let name_fits = (1..=8).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let prefix_fits = network.is_none() || (16..=28).contains(&prefix);
    (name_fits && prefix_fits).then_some(NodeSpec { state_dir, name, network })
}
