//! THE LIST: what happens to a process before it may run foreign code.
//!
//! Two processes go through it. The *first* is a fork of the launcher: it gives up the host's ids
//! and moves into namespaces of its own, then makes the *second*, which is PID 1 of the jail,
//! builds the view of the world that foreign code will have, gives up everything else and becomes
//! the agent. In between the launcher does what only it can: id maps, mounts, the network link.
//!
//! Everything here runs after fork: no allocation, no lock. What it needs is in the [`Plan`]. The
//! first step that fails is reported to the launcher, which undoes the rest; success is silence
//! and an exec, which closes the channel.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use sys::{
    SysError,
    file::{self, How},
    namespace::Namespaces,
    process::{Fork, Strings},
    signal,
};

use crate::{cgroup, network::own::Requests};

pub(crate) mod channel;
mod counters;
mod credentials;
mod descriptors;
mod limits;
mod network;
mod room;
mod rootfs;

pub(crate) use descriptors::FIRST as FIRST_INHERITED;

use channel::Channel;

/// Everything the two processes need, made before the fork.
pub(crate) struct Plan<'a> {
    /// First host id of the jail's range.
    pub(crate) uid_base: u32,
    pub(crate) cgroups: &'a cgroup::JailCgroups,
    /// Offsets of the jail's clocks.
    pub(crate) clocks: &'a [u8],
    /// Processors that programs are told to use.
    pub(crate) cpus: &'a sys::cpu::Cpus,
    pub(crate) hostname: &'a CStr,
    /// Routing messages for the jail's own network namespace, and how many they are.
    pub(crate) network: (&'a [u8], usize),
    /// The table of that namespace, see [`crate::network::own`].
    pub(crate) own_table: &'a [Requests; 2],
    /// Where the trees of the host appear, in the order of their mounts, and behind them the views.
    pub(crate) binds: &'a [&'a CStr],
    /// Where the views appear.
    pub(crate) views: &'a [&'a CStr],
    /// Descriptors for the agent; the first becomes 3, the next 4 and so on.
    pub(crate) inherited: &'a [BorrowedFd<'a>],
    /// Whether the agent is to tell programs about the room on their disk.
    pub(crate) has_room: bool,
    pub(crate) filter: &'a [sys::seccomp::Instruction],
    pub(crate) program: BorrowedFd<'a>,
    pub(crate) argv: &'a Strings<'a>,
    pub(crate) envp: &'a Strings<'a>,
}

/// A step's name and what the kernel refused in it.
type Failure = (&'static str, SysError);

/// The first process, from the fork in the launcher to its end.
pub(crate) fn first(plan: &Plan<'_>, channel: &Channel) -> ! {
    if let Err((step, error)) = first_steps(plan, channel) {
        channel.report(step, error);
    }
    sys::process::exit(1)
}

fn first_steps(plan: &Plan<'_>, channel: &Channel) -> Result<(), Failure> {
    use sys::namespace::unshare;

    // Limits first: from here on nothing this process does is free. It also becomes the root of
    // the cgroup namespace, so it must come before that namespace. In v1 the agent stays there.
    in_step("cgroup", cgroup::join(&plan.cgroups.top_tasks))?;
    // Opened as the host's root: with other ids a process's own files in /proc are not its own.
    let clocks = How::new(file::O_WRONLY);
    let clocks = in_step("clocks", file::open(file::cwd(), c"/proc/self/timens_offsets", clocks))?;
    // Before the user namespace, so that the namespace belongs to the jail's own id and what is
    // counted per user (inotify, pipes, namespaces) is counted against the jail, not the host's root.
    in_step("host identity", sys::credentials::become_user(plan.uid_base, plan.uid_base))?;
    in_step("user namespace", unshare(Namespaces::USER))?;
    in_step("id maps", channel.ask_for_maps())?;
    // Root of the new namespace, so that it owns the namespaces that follow.
    in_step("identity", sys::credentials::become_user(0, 0))?;
    in_step("namespaces", unshare(Namespaces::ALL_BUT_USER))?;
    // Before the second process is known, because the link, which takes this when it is made, is
    // made behind it.
    network::disable_ipv6()?;
    // Before anybody is in the time namespace: the jail's clocks count from its start.
    in_step("clocks", file::write_all(clocks.as_fd(), plan.clocks))?;
    // Process ids and clocks change for children only; the child is the launcher's child too.
    let agent_group = plan.cgroups.agent.as_ref().map(AsFd::as_fd);
    match in_step("fork", sys::process::fork(agent_group, true))? {
        Fork::Parent { pid, pidfd } => in_step("fork", channel.tell_pid(pid, pidfd.as_fd())),
        Fork::Child => {
            if let Err((step, error)) = second_steps(plan, channel) {
                channel.report(step, error);
            }
            sys::process::exit(1)
        }
    }
}

/// PID 1 of the jail. Each line must stay behind the ones above it, for the reason given.
fn second_steps(plan: &Plan<'_>, channel: &Channel) -> Result<(), Failure> {
    // No terminal of the host can be reached or fed from here on.
    in_step("session", sys::process::new_session())?;
    // The launcher ignores its children's ends, and that would survive exec.
    in_step("signals", signal::default_action(signal::SIGCHLD))?;
    in_step("hostname", sys::namespace::set_hostname(plan.hostname))?;
    // A view of its own, while it sees the host's: the kernel gives a new one only to who does. In
    // the host's the same settings of all jails are one list, which each open would search.
    let proc = rootfs::new_proc()?;
    network::set(proc.as_fd())?;
    // Behind the namespaces, of which there are no more from here on.
    counters::set(proc.as_fd())?;
    // The launcher has made the mounts and set the last limits when this returns.
    let mounts = in_step("mounts", channel.wait_for_mounts())?;
    // Ends with the host's tree gone.
    rootfs::enter(plan, &mounts, &proc)?;
    // The launcher has made the link meanwhile.
    in_step("network", channel.wait_for_link())?;
    network::configure(plan)?;
    let refusals = network::own_table(plan)?;
    limits::set()?;
    // A hint and no limit, which the quota is: programs count the processors they may run on.
    in_step("processors", sys::cpu::run_on(plan.cpus))?;
    // Before the filter that allows no listener, and before anything of the tenant's.
    let room = room::ask_agent(plan, &mounts)?;
    // Behind every step that needs a descriptor by number or a privilege over mounts.
    let program = descriptors::arrange(plan, &mounts, &refusals, room.as_ref())?;
    credentials::drop_privileges()?;
    // Last: most calls above are refused by the filter.
    in_step("seccomp", sys::seccomp::load(plan.filter))?;
    Err(("exec", sys::process::exec(program.as_fd(), plan.argv, plan.envp)))
}

/// Names the step of a failure, and is the failpoint behind the step.
fn in_step<T>(step: &'static str, result: Result<T, SysError>) -> Result<T, Failure> {
    let done = result.and_then(|done| failpoint::step(step).map(|()| done));
    done.map_err(|error| (step, error))
}

/// Writes a setting of the namespaces that this process is in. `path` lies in `proc`.
fn write_setting(proc: BorrowedFd<'_>, path: &CStr, value: &[u8]) -> Result<(), SysError> {
    let setting = file::open(proc, path, How::new(file::O_WRONLY))?;
    file::write_all(setting.as_fd(), value)
}

/// What came from the launcher: the root, what lies in memory, the directory of the figures in that, binds
/// and views, and what the volume is charged with.
pub(crate) type Mounts = [Option<OwnedFd>; sys::socket::MESSAGE_FDS];
