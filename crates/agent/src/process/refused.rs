//! What the network policy refuses to the sandbox, as the kernel shows it to the agent.
//!
//! Nothing is read but when somebody asks: refusals wait in a socket. Those for which it has no room are
//! counted by the host alone.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use api::exec::Refused;
use jail::refusal::{DATAGRAM_BYTES, Refusal};
use sys::{errno, netlink};

/// Refusals that are remembered; the socket has room for about as many.
const REMEMBERED: usize = 64;

/// Destinations, and names, that are told with an ending.
const TOLD: usize = 8;

/// Datagrams that are read at once: whoever has packets refused without end must not keep the agent.
const READ_AT_ONCE: usize = 256;

/// The refusals to one sandbox.
#[derive(Debug)]
pub(super) struct Refusals {
    socket: Option<OwnedFd>,
    seen: Mutex<Seen>,
}

/// How many refusals there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    packets: u64,
    names: u64,
}

impl Tally {
    fn all(self) -> u64 {
        self.packets + self.names
    }
}

#[derive(Debug, Default)]
struct Seen {
    tally: Tally,
    /// The newest, each with how many there were with it.
    newest: VecDeque<(u64, Refusal)>,
}

impl Refusals {
    /// Without a socket there are none.
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        Self { socket, seen: Mutex::default() }
    }

    /// How many there were until now.
    pub(super) fn tally(&self) -> Tally {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = &self.socket else { return Tally::default() };
        let mut datagram = [0; DATAGRAM_BYTES];
        for _datagram in 0..READ_AT_ONCE {
            match netlink::receive_now(socket.as_fd(), &mut datagram) {
                Ok(length) => {
                    let datagram = datagram.get(..length).unwrap_or_default();
                    Refusal::read(datagram).for_each(|refusal| seen.note(refusal));
                }
                // There was no room for more than what comes now.
                Err(error) if error.errno == errno::ENOBUFS => {}
                Err(_nothing_more) => break,
            }
        }
        seen.tally
    }

    /// What was refused since there were so many. None: nothing.
    pub(super) fn since(&self, before: Tally) -> Option<Refused> {
        self.tally();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).told(before)
    }
}

impl Seen {
    fn note(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Packet { .. } => self.tally.packets += 1,
            Refusal::Name(_) => self.tally.names += 1,
        }
        if self.newest.len() == REMEMBERED {
            self.newest.pop_front();
        }
        self.newest.push_back((self.tally.all(), refusal));
    }

    fn told(&self, before: Tally) -> Option<Refused> {
        if self.tally.all() <= before.all() {
            return None;
        }
        let connections = self.tally.packets.saturating_sub(before.packets);
        let (mut destinations, mut names) = (Vec::new(), Vec::new());
        for (_, refusal) in self.newest.iter().rev().take_while(|(at, _)| *at > before.all()) {
            let (all, one) = match refusal {
                Refusal::Packet { to, protocol, port } => {
                    (&mut destinations, written(*to, *protocol, *port))
                }
                Refusal::Name(name) => (&mut names, name.clone()),
            };
            if all.len() < TOLD && !all.contains(&one) {
                all.push(one);
            }
        }
        Some(Refused { connections, destinations, names })
    }
}

/// A destination as people write it.
fn written(to: Ipv4Addr, protocol: u8, port: Option<u16>) -> String {
    let protocol = match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    };
    match port {
        Some(port) => format!("{to}:{port}/{protocol}"),
        None => format!("{to}/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn packet(port: u16) -> Refusal {
        Refusal::Packet { to: TO, protocol: 6, port: Some(port) }
    }

    #[test]
    fn only_so_many_are_remembered_and_each_is_told_once() {
        let refusals = Refusals::new(None);
        let mut seen = refusals.seen.lock().unwrap();
        for number in 0..1000 {
            seen.note(packet(80 + number % 10));
        }
        assert_eq!((seen.tally.packets, seen.newest.len()), (1000, REMEMBERED));
        let told = |packets| seen.told(Tally { packets, names: 0 });
        assert_eq!(told(0).unwrap().connections, 1000);
        assert_eq!(told(0).unwrap().destinations.len(), TOLD);
        assert_eq!(told(998).unwrap().destinations, ["10.0.0.1:89/tcp", "10.0.0.1:88/tcp"]);
        assert_eq!(told(1000), None);
    }

    #[test]
    fn names_are_told_beside_connections_and_are_none() {
        let mut seen = Seen::default();
        for number in 0..20 {
            seen.note(packet(80));
            for _kind_of_address in 0..2 {
                seen.note(Refusal::Name(format!("n{number}.test")));
            }
        }
        let told = |packets, names| seen.told(Tally { packets, names }).unwrap();
        assert_eq!((told(0, 0).connections, told(0, 0).names.len()), (20, TOLD));
        let last = Refused {
            connections: 0,
            destinations: Vec::new(),
            names: vec!["n19.test".to_owned()],
        };
        assert_eq!(told(20, 38), last);
    }

    #[test]
    fn destinations_read_as_people_write_them() {
        for (protocol, port, expected) in [
            (6, Some(80), "10.0.0.1:80/tcp"),
            (17, Some(53), "10.0.0.1:53/udp"),
            (1, None, "10.0.0.1/icmp"),
            (47, None, "10.0.0.1/47"),
        ] {
            assert_eq!(written(TO, protocol, port), expected);
        }
    }
}
