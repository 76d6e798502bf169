//! The network of a node and the link of each jail.
//!
//! ```text
//! jail: eth0 10.213.0.5/32 ──veth── host: sb0-3k  (route 10.213.0.5/32)     lo: 10.213.0.1 (gateway, resolver)
//! ```
//!
//! Every jail has a point-to-point link; there is no bridge, so sandboxes share no wire. All
//! policy is one nftables table: its rules (`rules.rs`) match links by name prefix and are complete
//! before the first link exists; what a jail may reach (`policy.rs`) is in the table before its
//! link is. Links are never deleted on a caller's path (that takes 35 ms): they vanish with the
//! jail's network namespace.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use sys::{
    SysError,
    errno::{EAFNOSUPPORT, ENODEV},
    namespace, netlink,
};

use crate::{
    error::{InStep, JailError},
    spec::{JailId, JailNetwork, Learned, NodeNetwork, NodeSpec},
    tool,
};

mod conntrack;
mod forwarding;
mod message;
mod nftables;
pub(crate) mod own;
mod policy;
pub mod refusal;
mod route;
pub(crate) mod rules;
mod socket;

use message::Message;
use policy::Policies;
use socket::Socket;

const STEP: &str = "network";

/// Index of the loopback link in every network namespace.
const LOOPBACK: u32 = 1;

/// Index of `eth0` in a jail: the first link made after loopback.
const JAIL_LINK: u32 = 2;

/// Characters of a link's name that the kernel takes.
const LINK_NAME_BYTES: usize = 15;

/// How long the links that a jail had before may take to vanish: the kernel takes namespaces apart
/// in batches, a second and more when many end at once.
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// Between looks whether a name is free.
const LINK_LOOK: Duration = Duration::from_millis(1);

/// The host's side of the network.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    routes: Socket,
    policies: Policies,
    node_name: String,
    network: NodeNetwork,
}

impl HostNetwork {
    /// The network of a node that has one.
    pub(crate) fn open(node: &NodeSpec) -> Result<Option<Self>, JailError> {
        let Some(network) = node.network else { return Ok(None) };
        Ok(Some(Self {
            routes: Socket::open(netlink::Family::ROUTE).in_step(STEP)?,
            policies: Policies::open(&node.name, network.gateway()).in_step(STEP)?,
            node_name: node.name.clone(),
            network,
        }))
    }

    /// Makes rules, address and forwarding exist, in this order. Safe to repeat: rules that are
    /// there already, and whole, stay, with the policies of the jails that run; others are replaced in
    /// one step, and the jails reach nothing until each is admitted again. True: that was so.
    pub(crate) fn set_up(&self) -> Result<bool, JailError> {
        let links = self.policies.addresses().in_step(STEP)?;
        let (script, mark) = rules::table(&self.node_name, self.network, &links);
        let is_new = !self.policies.has_rules(&mark).in_step(STEP)?;
        if is_new {
            nft(&script)?;
        }
        let gateway = Message::add_address(LOOPBACK, self.network.gateway());
        match self.ask(gateway) {
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::AlreadyExists => {}
            other => other.in_step(STEP)?,
        }
        forwarding::switch_on(&self.node_name)?;
        Ok(is_new)
    }

    /// Undoes [`HostNetwork::set_up`].
    pub(crate) fn tear_down(&self) -> Result<(), JailError> {
        nft(&rules::no_table(&self.node_name))?;
        match self.ask(Message::remove_address(LOOPBACK, self.network.gateway())) {
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::AddrNotAvailable => {}
            other => other.in_step(STEP)?,
        }
        forwarding::switch_off(&self.node_name)
    }

    /// Makes the link of jail `jail`, one end in the network namespace `namespace`, and before it
    /// what the jail may reach. Returns the index of the host's end.
    pub(crate) fn attach(
        &self,
        jail: JailId,
        namespace: BorrowedFd<'_>,
        network: &JailNetwork,
    ) -> Result<u32, JailError> {
        self.admit(jail, network)?;
        let name = self.add_link(jail, namespace).in_step(STEP)?;
        let index = netlink::link_index(&name).in_step(STEP)?;
        let start = |up| {
            let route = Message::route_to(network.address, index, self.network.gateway());
            let jail_end = Message::neighbour(network.address, route::JAIL_END, index);
            self.routes.ask_all(&[up, route, jail_end], 3)
        };
        let started = match start(Message::link_up_without_ipv6(index)) {
            Err(SysError { errno: EAFNOSUPPORT, .. }) => start(Message::link_up(index)),
            other => other,
        };
        started.in_step(STEP).map(|()| index)
    }

    /// As [`HostNetwork::attach`], for a jail that runs and has had no link: its side is set up too.
    pub(crate) fn attach_running(
        &self,
        jail: JailId,
        namespace: BorrowedFd<'_>,
        network: &JailNetwork,
    ) -> Result<(), JailError> {
        let index = self.attach(jail, namespace, network)?;
        let configured = socket_in(namespace).and_then(|socket| {
            let (messages, count) = jail_messages(Some(self.network), Some(network.address));
            exchange(&socket, &messages, count)
        });
        configured.in_step(STEP).inspect_err(|_error| {
            // Half a link would keep the next attempt from making a whole one. The first error is
            // the one to tell.
            self.ask(Message::remove_link(index)).unwrap_or_default();
        })
    }

    /// Makes a link under the first free of the jail's names. A jail that is started soon after its
    /// end finds its last link on its way out.
    fn add_link(&self, jail: JailId, namespace: BorrowedFd<'_>) -> Result<CString, SysError> {
        let deadline = Instant::now() + LINK_DEADLINE;
        loop {
            for name in link_names(&self.node_name, jail) {
                let name = CString::new(name).unwrap_or_default();
                match self.ask(Message::add_link_pair(&name, JAIL_LINK, namespace)) {
                    Ok(()) => return Ok(name),
                    Err(error) if !is_taken(error) || Instant::now() >= deadline => {
                        return Err(error);
                    }
                    Err(_taken) => {}
                }
            }
            // The kernel tells of links that go only to those who ask for all of them.
            thread::sleep(LINK_LOOK);
        }
    }

    /// See [`Policies::admit`].
    pub(crate) fn admit(&self, jail: JailId, network: &JailNetwork) -> Result<(), JailError> {
        self.policies.admit(jail, network).in_step(STEP)
    }

    /// See [`Policies::learn`].
    pub(crate) fn learn(
        &self,
        jail: JailId,
        revision: u64,
        learned: &[Learned],
    ) -> Result<bool, JailError> {
        self.policies.learn(jail, revision, learned).in_step(STEP)
    }

    /// See [`Policies::refused`].
    pub(crate) fn refused(&self, jail: JailId) -> Result<u64, JailError> {
        self.policies.refused(jail).in_step(STEP)
    }

    /// See [`Policies::release`].
    pub(crate) fn release(&self, jail: JailId) -> Result<(), JailError> {
        self.policies.release(jail).in_step(STEP)
    }

    /// Removes the links of a jail, whoever has their other ends. Takes some 35 ms for each.
    pub(crate) fn remove_links(&self, jail: JailId) -> Result<(), JailError> {
        for name in link_names(&self.node_name, jail) {
            let index = netlink::link_index(&CString::new(name).unwrap_or_default());
            match index.and_then(|index| self.ask(Message::remove_link(index))) {
                Err(SysError { errno: ENODEV, .. }) => {}
                other => other.in_step(STEP)?,
            }
        }
        Ok(())
    }

    /// Jails that have not been released, in no order.
    pub(crate) fn jails(&self) -> Result<Vec<JailId>, JailError> {
        let links = self.policies.addresses().in_step(STEP)?;
        Ok(links.iter().filter_map(|(link, _)| jail_of(&self.node_name, link)).collect())
    }

    fn ask(&self, message: Message) -> Result<(), SysError> {
        self.routes.ask(message)
    }
}

/// A socket to the routing part of another network namespace.
fn socket_in(namespace: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let own = sys::file::open(
        sys::file::cwd(),
        c"/proc/self/ns/net",
        sys::file::How::new(sys::file::O_RDONLY),
    )?;
    namespace::join_network(namespace)?;
    let socket = netlink::open(netlink::Family::ROUTE);
    if namespace::join_network(own.as_fd()).is_err() {
        // A launcher in a sandbox's network would make links and rules there from now on. Another
        // one takes its place.
        sys::process::exit(1);
    }
    socket
}

/// What a jail's first process sends to its own network namespace: loopback and, with an address,
/// `eth0`, the way out and who is there. With the number of answers to expect.
pub(crate) fn jail_messages(
    network: Option<NodeNetwork>,
    address: Option<Ipv4Addr>,
) -> (Vec<u8>, usize) {
    let mut messages = vec![Message::link_up(LOOPBACK)];
    if let (Some(address), Some(network)) = (address, network) {
        messages.push(Message::add_address(JAIL_LINK, address));
        messages.push(Message::link_up(JAIL_LINK));
        messages.push(Message::default_route(network.gateway(), JAIL_LINK));
        messages.push(Message::neighbour(network.gateway(), route::HOST_END, JAIL_LINK));
    }
    let count = messages.len();
    (messages.iter().flat_map(|message| message.bytes().iter().copied()).collect(), count)
}

/// Sends requests and expects as many answers, all of them good. *After fork.*
pub(crate) fn exchange(socket: &OwnedFd, requests: &[u8], count: usize) -> Result<(), SysError> {
    netlink::send(socket.as_fd(), requests)?;
    let mut answered = 0;
    let mut buffer = [0; 8192];
    while answered < count {
        let length = netlink::receive(socket.as_fd(), &mut buffer)?;
        let answers = buffer.get(..length).unwrap_or_default();
        answered += message::check_answers(answers)?;
    }
    Ok(())
}

fn is_taken(error: SysError) -> bool {
    io::Error::from(error).kind() == io::ErrorKind::AlreadyExists
}

/// The names that the host's end of a jail's link can have, of which the first is always there: the
/// second for while the last one that had the first is vanishing. What is in force for a jail is in
/// force for both.
fn link_names(node_name: &str, jail: JailId) -> impl Iterator<Item = String> {
    let first = link_name(node_name, "-", jail);
    let second = link_name(node_name, "-+", jail);
    [first, second].into_iter().filter(|name| name.len() <= LINK_NAME_BYTES)
}

/// The node, a separator, and the jail's number: at most 8 + 1 + 6 characters of the kernel's 15,
/// one more with the longer separator.
fn link_name(node_name: &str, separator: &str, jail: JailId) -> String {
    let mut digits = Vec::new();
    let mut rest = jail.0;
    loop {
        let digit = u32::try_from(rest % BASE).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= BASE;
        if rest == 0 {
            break;
        }
    }
    node_name.chars().chain(separator.chars()).chain(digits.into_iter().rev()).collect()
}

/// The jail whose link has this name, if it is one of the node's.
fn jail_of(node_name: &str, link: &str) -> Option<JailId> {
    numbered(node_name, "-", link)
}

fn numbered(node_name: &str, separator: &str, link: &str) -> Option<JailId> {
    let digits = link.strip_prefix(node_name)?.strip_prefix(separator)?;
    let jail = JailId(u64::from_str_radix(digits, 36).ok()?);
    (link_name(node_name, separator, jail) == link).then_some(jail)
}

/// Jails of the node of this name that have a link, in the network namespace of this process. The
/// kernel takes some seconds to remove that of a jail that has ended.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn links(node_name: &str) -> io::Result<BTreeSet<JailId>> {
    let table = fs::read_to_string("/proc/self/net/dev")?;
    Ok(linked(node_name, &table))
}

/// Two lines of headings, then a link in each, `NAME: figures`.
fn linked(node_name: &str, table: &str) -> BTreeSet<JailId> {
    let names = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let jail = |name| jail_of(node_name, name).or_else(|| numbered(node_name, "-+", name));
    names.filter_map(jail).collect()
}

/// Jail numbers are written in this base in the names of links.
const BASE: u64 = 36;

/// Has `nft` carry out `script` as one transaction.
fn nft(script: &str) -> Result<(), JailError> {
    tool::run(STEP, ("nft", "nftables"), &["-f", "-"], script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_the_kernel() {
        let names = |node, jail| link_names(node, JailId(jail)).collect::<Vec<_>>();
        assert_eq!(names("sb0", 0), ["sb0-0", "sb0-+0"]);
        assert_eq!(names("sb0", 36), ["sb0-10", "sb0-+10"]);
        assert_eq!(names("abcdefgh", 36_u64.pow(6) - 1), ["abcdefgh-zzzzzz"]);
        for jail in [0, 36, 36_u64.pow(6) - 1].map(JailId) {
            assert_eq!(jail_of("sb0", &link_name("sb0", "-", jail)), Some(jail));
        }
        let table =
            "Inter-|   Receive\n face |bytes\n    lo: 1 2\n sb0-+10: 5\nsb0-z: 1\n sb1-3: 4\n";
        assert_eq!(linked("sb0", table), BTreeSet::from([JailId(35), JailId(36)]));
        for foreign in ["sb1-5", "sb0-", "sb0-05", "sb0-+5", "sb05"] {
            assert_eq!(jail_of("sb0", foreign), None, "{foreign}");
        }
    }
}
