//! The host's part of building a jail: cgroups, id maps, mounts, the network link, and undoing all
//! of it when a step fails. The jail's own part is [`crate::enter`].

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use failpoint::failpoint;
use sys::{
    SysError,
    clock::{self, Clock},
    cpu::Cpus,
    fd, poll,
    process::{self, Fork, Strings},
    socket::{self, Kind},
};

use crate::{
    cgroup::JailCgroups,
    check::{IDS_PER_JAIL, check},
    enter::{
        self, Plan,
        channel::{self, Channel, PACKET_BYTES},
    },
    error::{InStep, JailError},
    handoff::{Handoff, Room},
    launcher::Launched,
    network,
    process_dir::ProcessDir,
    rootfs::{JailMounts, Trees},
    server::Server,
    spec::{JailSpec, VIEWS},
    start_time,
};

/// How long the jail's first processes may take over their part, which is a few milliseconds on a
/// quiet machine.
const ENTER_DEADLINE: Duration = Duration::from_secs(10);

/// What makes the program an agent.
const AGENT: &str = "__agent";

/// Above every number at which the agent inherits something.
const CHANNEL_ABOVE: i32 = 64;

/// A jail that has been built, and what is to be closed when nobody waits; see [`JailMounts`].
pub(crate) type Built = (Launched, Vec<OwnedFd>);

/// Builds the jail of `spec`. `fds` are the agent's socket and its configuration.
pub(crate) fn launch(
    server: &Server,
    spec: &JailSpec,
    fds: &[OwnedFd],
) -> Result<Built, JailError> {
    check(spec, &server.node)?;
    check_sockets(fds)?;
    if server.cgroups.is_alive(spec.jail) {
        return Err(JailError::Refused(format!("jail {} is running", spec.jail)));
    }
    let trees = server.files.open_trees(spec)?;
    let built = server
        .cgroups
        .create(spec.jail, spec.limits, spec.uid_base)
        .and_then(|cgroups| build(server, spec, &cgroups, fds, &trees));
    if built.is_err() {
        // The first error is the one to tell; what cannot be undone now is found at recovery.
        drop(server.clear(spec.jail));
    }
    built
}

/// Whether the descriptors that came with a spec are what the agent is to inherit, and nothing else: a
/// unix socket that listens, and one of a pair for messages.
fn check_sockets(fds: &[OwnedFd]) -> Result<(), JailError> {
    let kind = |fd: &OwnedFd| socket::kind(fd.as_fd()).ok();
    match fds {
        [listener, config]
            if kind(listener) == Some(Kind::Listener) && kind(config) == Some(Kind::Messages) =>
        {
            Ok(())
        }
        _ => Err(JailError::Refused("the agent's two sockets do not come with it".to_owned())),
    }
}

fn build(
    server: &Server,
    spec: &JailSpec,
    cgroups: &JailCgroups,
    fixed: &[OwnedFd],
    trees: &Trees,
) -> Result<Built, JailError> {
    failpoint!("launch.cgroups").in_step("cgroup")?;
    failpoint::arm_steps();
    let (ours, theirs) = socket::message_pair().in_step("channel")?;
    let jail_end = Channel(fd::duplicate_above(theirs.as_fd(), CHANNEL_ABOVE).in_step("channel")?);
    drop(theirs);
    let figures = server.machine.figures(spec.jail, spec.limits);
    let (first, channel) =
        start_first(server, spec, cgroups, (fixed, &figures.cpus), (&jail_end, ours))?;
    // From here on only the jail's processes hold the other end: their death closes it.
    drop(jail_end);
    let entry = Entry { channel, deadline: Instant::now() + ENTER_DEADLINE };

    entry.hear(channel::USER_NAMESPACE)?;
    let user = write_maps(&first, spec.uid_base)?;
    entry.tell(channel::MAPS, &[])?;
    // Made while the first process makes its namespaces.
    let mounts: JailMounts = server.files.mounts(spec, user.as_fd(), trees, &figures)?;

    let second = entry.hear_started()?;
    entry.wait(first.pidfd.as_fd())?;
    server.cgroups.settle(spec.jail, spec.limits)?;
    let mut fds = vec![mounts.root.as_fd(), mounts.memory.as_fd(), mounts.figures.as_fd()];
    fds.extend(mounts.binds.iter().chain(&mounts.views).map(AsFd::as_fd));
    fds.extend(mounts.charge.iter().flatten().map(AsFd::as_fd));
    entry.tell(channel::MOUNTS, &fds)?;
    // Made while the second process builds its root.
    if let (Some(host), Some(network)) = (&server.network, &spec.network) {
        let attached = second
            .dir("network")
            .and_then(|dir| network_namespace(&dir))
            .and_then(|namespace| host.attach(spec.jail, namespace.as_fd(), network));
        attached.map_err(|error| entry.blame(error))?;
    }
    entry.tell(channel::LINK, &[])?;

    entry.hear_exec()?;
    let agent = second.dir("agent")?;
    // Its end closes the channel as well.
    if !agent.text(c"cmdline")?.contains(AGENT) {
        return Err(not_expected(false));
    }
    let stat = agent.text(c"stat")?;
    let malformed =
        || JailError::Entry("the kernel does not say when the agent started".to_owned());
    let start_time = start_time::parse(&stat).ok_or_else(malformed)?;
    let Started { pid, pidfd } = second;
    Ok((Launched { pid, start_time, pidfd }, mounts.spent))
}

/// A process just started.
struct Started {
    pid: i32,
    pidfd: OwnedFd,
}

impl Started {
    /// Its directory in `/proc`, for `step`.
    fn dir(&self, step: &'static str) -> Result<ProcessDir, JailError> {
        ProcessDir::open(step, self.pid, self.pidfd.as_fd())
    }
}

/// Forks the jail's first process, with everything it and its child need made before. Returns the
/// launcher's end of the channel.
fn start_first(
    server: &Server,
    spec: &JailSpec,
    cgroups: &JailCgroups,
    (fixed, cpus): (&[OwnedFd], &Cpus),
    (channel, ours): (&Channel, OwnedFd),
) -> Result<(Started, OwnedFd), JailError> {
    let text = |text: &str| {
        CString::new(text).map_err(|_nul| JailError::Refused(format!("{text:?} holds a NUL")))
    };
    let (inherited, handoff) = inherited(fixed, cgroups, room(server, spec));
    let hostname = text(spec.hostname.as_str())?;
    let has_room = handoff.room.is_some();
    let handoff = text(&handoff.to_string())?;
    let targets = spec.binds.iter().map(|bind| bind.target());
    let views = &VIEWS[..spec.views.len().min(VIEWS.len())];
    let targets: Vec<&CStr> = targets.chain(views.iter().copied()).collect();
    let (messages, count) = network::jail_messages(
        server.node.network,
        spec.network.as_ref().map(|network| network.address),
    );
    let gateway = server.node.network.map(|network| network.gateway());
    let own_table = network::own::requests(gateway);
    let clocks = clocks_from_now().in_step("clocks")?;
    let argv = [c"sandbar", c"__agent", &handoff];
    let plan = Plan {
        uid_base: spec.uid_base,
        cgroups,
        clocks: clocks.as_bytes(),
        cpus,
        hostname: &hostname,
        network: (&messages, count),
        own_table: &own_table,
        binds: &targets,
        views,
        inherited: &inherited,
        has_room,
        filter: &server.filter,
        program: server.program.as_fd(),
        argv: &Strings::new(&argv),
        envp: &Strings::new::<&CStr>(&[]),
    };
    match process::fork(cgroups.top.as_ref().map(AsFd::as_fd), false).in_step("fork")? {
        Fork::Child => {
            // Only the launcher has it from here on: its death ends who waits for it.
            drop(ours);
            enter::first(&plan, channel)
        }
        Fork::Parent { pid, pidfd } => Ok((Started { pid, pidfd }, ours)),
    }
}

/// Bytes that the jail's volume may be charged with, and that it has from others, where its programs
/// are to be told of them.
fn room(server: &Server, spec: &JailSpec) -> Option<(u64, u64)> {
    let limit = spec.volume.and(spec.limits.disk_bytes)?;
    server.files.volumes.has_counts().then_some((limit, spec.inherited_bytes))
}

/// The descriptors that the agent inherits, in the order of their numbers, and what to call them.
fn inherited<'a>(
    fixed: &'a [OwnedFd],
    cgroups: &'a JailCgroups,
    room: Option<(u64, u64)>,
) -> (Vec<BorrowedFd<'a>>, Handoff) {
    let mut fds = Vec::new();
    let mut next = |fd: &'a OwnedFd| {
        fds.push(fd.as_fd());
        enter::FIRST_INHERITED + i32::try_from(fds.len()).unwrap_or(i32::MAX) - 1
    };
    let mut fixed = fixed.iter().map(&mut next);
    let (listen, config) = (fixed.next().unwrap_or(-1), fixed.next().unwrap_or(-1));
    drop(fixed);
    let handoff = Handoff {
        listen,
        config,
        cgroup: cgroups.user.as_ref().map(&mut next),
        tasks: cgroups.user_tasks.iter().map(&mut next).collect(),
        memory_events: Some(next(&cgroups.memory_events)),
        pids_events: Some(next(&cgroups.pids_events)),
        memory_stat: Some(next(&cgroups.memory_stat)),
        cpu_stat: cgroups.cpu_stat.as_ref().map(&mut next),
        figures: None,
        refusals: None,
        room: None,
    };
    // Made later; they come behind the others, see `enter::descriptors`.
    let figures = enter::FIRST_INHERITED + i32::try_from(fds.len()).unwrap_or(i32::MAX);
    let room = room.map(|(limit_bytes, inherited_bytes)| Room {
        charged: figures + 2,
        waiting: figures + 3,
        listener: figures + 4,
        limit_bytes,
        inherited_bytes,
    });
    (fds, Handoff { figures: Some(figures), refusals: Some(figures + 1), room, ..handoff })
}

/// Has the clocks of a time namespace that nobody is in yet count from now on, `time_namespaces(7)`.
fn clocks_from_now() -> Result<String, SysError> {
    let (awake, boot) = (clock::seconds(Clock::Monotonic)?, clock::seconds(Clock::BootTime)?);
    Ok(format!("monotonic -{awake} 0\nboottime -{boot} 0\n"))
}

/// Maps the jail's ids to its range on the host, and returns its user namespace.
fn write_maps(first: &Started, uid_base: u32) -> Result<OwnedFd, JailError> {
    let dir = first.dir("id maps")?;
    let map = format!("0 {uid_base} {IDS_PER_JAIL}\n");
    dir.set(c"uid_map", &map)?;
    dir.set(c"gid_map", &map)?;
    dir.file(c"ns/user")
}

/// Whether the network namespace of a process has a link to the host. Not asked by the names of the
/// host's links: one of an earlier life of the jail may be on its way out.
pub(crate) fn has_link(process: &ProcessDir) -> Result<bool, JailError> {
    let links = process.text(c"net/dev")?;
    Ok(links.lines().any(|line| line.trim_start().starts_with("eth0:")))
}

/// The network namespace of a process.
pub(crate) fn network_namespace(process: &ProcessDir) -> Result<OwnedFd, JailError> {
    process.file(c"ns/net")
}

/// What a jail's process said, and the descriptor that came with it.
type Packet = (Vec<u8>, Option<OwnedFd>);

/// The launcher's end of the channel to a jail's first processes.
struct Entry {
    channel: OwnedFd,
    deadline: Instant,
}

impl Entry {
    fn tell(&self, kind: u8, fds: &[BorrowedFd<'_>]) -> Result<(), JailError> {
        failpoint!("launch.tell-{}", char::from(kind)).in_step("channel")?;
        let told = socket::send(self.channel.as_fd(), &[kind], fds).in_step("channel");
        told.map_err(|error| self.blame(error))
    }

    /// Waits for a packet of the given kind, which has nothing in it.
    fn hear(&self, kind: u8) -> Result<(), JailError> {
        failpoint!("launch.hear-{}", char::from(kind)).in_step("channel")?;
        match self.packet()? {
            Some((packet, _)) if packet == [kind] => Ok(()),
            other => Err(not_expected(other.is_some())),
        }
    }

    /// Waits until PID 1 exists.
    fn hear_started(&self) -> Result<Started, JailError> {
        failpoint!("launch.hear-{}", char::from(channel::PID)).in_step("channel")?;
        let packet = self.packet()?;
        let has_spoken = packet.is_some();
        let started = packet.and_then(|(packet, handle)| {
            let number = packet.strip_prefix(&[channel::PID])?.try_into().ok()?;
            Some(Started { pid: i32::from_ne_bytes(number), pidfd: handle? })
        });
        started.ok_or_else(|| not_expected(has_spoken))
    }

    /// Waits for the exec of the agent, which closes the channel.
    fn hear_exec(&self) -> Result<(), JailError> {
        failpoint!("launch.hear-exec").in_step("channel")?;
        match self.packet()? {
            None => Ok(()),
            Some(_) => Err(not_expected(true)),
        }
    }

    /// Why a step on the host's side failed: what the jail's processes reported, if they did. One that
    /// is gone takes what others need of it along.
    fn blame(&self, error: JailError) -> JailError {
        let has_spoken = poll::wait_readable(self.channel.as_fd(), 0).unwrap_or(false);
        if has_spoken { self.packet().err().unwrap_or(error) } else { error }
    }

    /// The next packet; none at the end. A reported failure is an error.
    fn packet(&self) -> Result<Option<Packet>, JailError> {
        self.wait(self.channel.as_fd())?;
        let mut packet = vec![0; PACKET_BYTES];
        let (length, fds) =
            socket::receive(self.channel.as_fd(), &mut packet).in_step("channel")?;
        packet.truncate(length);
        match packet.split_first() {
            None => Ok(None),
            Some((&channel::ERROR, report)) => Err(reported(report)),
            Some(_) => Ok(Some((packet, fds.into_iter().flatten().next()))),
        }
    }

    fn wait(&self, fd: BorrowedFd<'_>) -> Result<(), JailError> {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = i32::try_from(left).unwrap_or(i32::MAX);
        if left > 0 && poll::wait_readable(fd, left).in_step("channel")? {
            return Ok(());
        }
        Err(JailError::Entry("a jail's process did not get ready".to_owned()))
    }
}

/// What a jail's process that `has_spoken` did wrong.
fn not_expected(has_spoken: bool) -> JailError {
    let what = if has_spoken { "spoke out of turn" } else { "died early" };
    JailError::Entry(format!("a jail's process {what}"))
}

/// The error in a report: step, call and errno, as [`Channel::report`] wrote them.
fn reported(report: &[u8]) -> JailError {
    let (texts, errno) = report.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
    let mut texts = texts.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut text = || texts.next().unwrap_or_default().into_owned();
    JailError::Step { step: text(), call: text(), errno: i32::from_ne_bytes(*errno) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a jail's process reports is no more than it sent, whatever it sent.
    #[test]
    fn hostile_reports_are_read_as_errors() {
        let examples: [&[u8]; 3] = [
            b"user namespace\0unshare\0\x01\0\0\0",
            b"\0\0\0\0\0\0",
            b"exec\0execveat\0\x02\0\0\0",
        ];
        hostile::bytes(&examples, |report| {
            let JailError::Step { step, call, .. } = reported(report) else {
                panic!("a report is of a step");
            };
            // What is no UTF-8 takes three bytes in place of one.
            assert!(step.len() + call.len() <= 3 * report.len());
        });
    }
}
