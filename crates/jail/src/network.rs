//! The network of a node and the link of each jail.
//!
//! ```text
//! jail: eth0 10.213.0.5/32 ──veth── host: sb0-3k  (route 10.213.0.5/32)     lo: 10.213.0.1 (gateway, resolver)
//! ```
//!
//! Every jail has a point-to-point link; there is no bridge, so sandboxes share no wire. All
//! policy is one nftables table whose rules match links by name prefix: it is complete before the
//! first link exists, and a link is born under it. Links are never deleted on a caller's path
//! (that takes 35 ms): they vanish with the jail's network namespace.

use std::{
    ffi::CString,
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use sys::{SysError, netlink};

use crate::{
    error::{InStep, JailError},
    spec::{JailId, NodeNetwork, NodeSpec},
    tool,
};

pub(crate) mod message;
mod rules;

use message::Message;

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

/// The file that switches forwarding between links.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The host's side of the network.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    netlink: OwnedFd,
    node_name: String,
    network: NodeNetwork,
    /// Exists while forwarding is on because of this node.
    forwarding_marker: PathBuf,
}

impl HostNetwork {
    /// The network of a node that has one.
    pub(crate) fn open(node: &NodeSpec) -> Result<Option<Self>, JailError> {
        let Some(network) = node.network else { return Ok(None) };
        Ok(Some(Self {
            netlink: netlink::open().in_step(STEP)?,
            node_name: node.name.clone(),
            network,
            forwarding_marker: node.state_dir.join("forwarding-was-off"),
        }))
    }

    /// Makes rules, address and forwarding exist, in this order. Safe to repeat.
    pub(crate) fn set_up(&self) -> Result<(), JailError> {
        nft(&rules::table(&self.node_name, self.network))?;
        let gateway = Message::add_address(LOOPBACK, self.network.gateway());
        match self.ask(&gateway) {
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::AlreadyExists => {}
            other => other.in_step(STEP)?,
        }
        let forwarding = fs::read_to_string(FORWARDING)
            .map_err(|error| JailError::io(STEP, format!("read {FORWARDING}"), &error))?;
        if forwarding.trim() == "0" {
            let mut private = fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
            private
                .create(true)
                .append(true)
                .open(&self.forwarding_marker)
                .map_err(|error| JailError::io(STEP, "note that forwarding was off", &error))?;
            set_forwarding("1")?;
        }
        Ok(())
    }

    /// Undoes [`HostNetwork::set_up`]. Forwarding is switched off only if this node switched it on.
    pub(crate) fn tear_down(&self) -> Result<(), JailError> {
        nft(&rules::no_table(&self.node_name))?;
        match self.ask(&Message::remove_address(LOOPBACK, self.network.gateway())) {
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::AddrNotAvailable => {}
            other => other.in_step(STEP)?,
        }
        if self.forwarding_marker.exists() {
            set_forwarding("0")?;
            fs::remove_file(&self.forwarding_marker)
                .map_err(|error| JailError::io(STEP, "forget that forwarding was off", &error))?;
        }
        Ok(())
    }

    /// Makes the link of jail `jail`, one end in the network namespace of process `pid`.
    pub(crate) fn attach(
        &self,
        jail: JailId,
        pid: i32,
        address: Ipv4Addr,
    ) -> Result<(), JailError> {
        let name = self.add_link(jail, pid).in_step(STEP)?;
        let index = netlink::link_index(&name).in_step(STEP)?;
        self.ask(&Message::route_to(address, index)).in_step(STEP)
    }

    /// Makes a link under the first free of the jail's names. A jail that is started soon after its
    /// end finds its last link on its way out.
    fn add_link(&self, jail: JailId, pid: i32) -> Result<CString, SysError> {
        let deadline = Instant::now() + LINK_DEADLINE;
        loop {
            for name in link_names(&self.node_name, jail) {
                match self.ask(&Message::add_link_pair(&name, JAIL_LINK, pid)) {
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

    fn ask(&self, message: &Message) -> Result<(), SysError> {
        exchange(&self.netlink, message.bytes(), 1)
    }
}

/// What a jail's first process sends to its own network namespace: loopback and, with an address,
/// `eth0` and the way out. With the number of answers to expect.
pub(crate) fn jail_messages(node: &NodeSpec, address: Option<Ipv4Addr>) -> (Vec<u8>, usize) {
    let mut messages = vec![Message::link_up(LOOPBACK)];
    if let (Some(address), Some(network)) = (address, node.network) {
        messages.push(Message::add_address(JAIL_LINK, address));
        messages.push(Message::link_up(JAIL_LINK));
        messages.push(Message::default_route(network.gateway(), JAIL_LINK));
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

/// The names that the host's end of a jail's link can have: the second for while the last one that
/// had the first is vanishing.
fn link_names(node_name: &str, jail: JailId) -> impl Iterator<Item = CString> {
    let first = link_name(node_name, "-", jail);
    let second = link_name(node_name, "-+", jail);
    [first, second].into_iter().filter(|name| name.count_bytes() <= LINK_NAME_BYTES)
}

/// The node, a separator, and the jail's number: at most 8 + 1 + 6 characters of the kernel's 15,
/// one more with the longer separator.
fn link_name(node_name: &str, separator: &str, jail: JailId) -> CString {
    let mut digits = Vec::new();
    let mut rest = jail.0;
    loop {
        let digit = u32::try_from(rest % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let name: String =
        node_name.chars().chain(separator.chars()).chain(digits.into_iter().rev()).collect();
    CString::new(name).unwrap_or_default()
}

fn set_forwarding(value: &str) -> Result<(), JailError> {
    fs::write(FORWARDING, value)
        .map_err(|error| JailError::io(STEP, format!("write {value} to {FORWARDING}"), &error))
}

/// Has `nft` carry out `script` as one transaction.
fn nft(script: &str) -> Result<(), JailError> {
    tool::run(STEP, ("nft", "nftables"), &["-f", "-"], script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_the_kernel() {
        let names = |node, jail| {
            let names = link_names(node, JailId(jail));
            names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names("sb0", 0), ["sb0-0", "sb0-+0"]);
        assert_eq!(names("sb0", 36), ["sb0-10", "sb0-+10"]);
        assert_eq!(names("abcdefgh", 36_u64.pow(6) - 1), ["abcdefgh-zzzzzz"]);
    }
}
