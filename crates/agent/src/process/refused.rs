//! What the network policy refuses to the sandbox, as the kernel shows it to the agent.
//!
//! Nothing is read but when somebody asks: refusals wait in a socket. Those for which it has no room are
//! counted by the host alone.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use api::exec::Refused;
use jail::refusal::{DATAGRAM_BYTES, Refusal};
use sys::{errno, netlink};

/// Refusals that are remembered; the socket has room for about as many.
const REMEMBERED: usize = 64;

/// Destinations that are told with an ending.
const TOLD: usize = 8;

/// Datagrams that are read at once: whoever has packets refused without end must not keep the agent.
const READ_AT_ONCE: usize = 256;

/// The refusals to one sandbox.
#[derive(Debug)]
pub(super) struct Refusals {
    socket: Option<OwnedFd>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// How many there were.
    count: u64,
    /// The newest, each with how many there were with it.
    newest: VecDeque<(u64, Refusal)>,
}

impl Refusals {
    /// Without a socket there are none.
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        Self { socket, seen: Mutex::default() }
    }

    /// How many there were until now.
    pub(super) fn count(&self) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = &self.socket else { return 0 };
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
        seen.count
    }

    /// What was refused since there were so many. None: nothing.
    pub(super) fn since(&self, before: u64) -> Option<Refused> {
        self.count();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).told(before)
    }
}

impl Seen {
    fn note(&mut self, refusal: Refusal) {
        self.count += 1;
        if self.newest.len() == REMEMBERED {
            self.newest.pop_front();
        }
        self.newest.push_back((self.count, refusal));
    }

    fn told(&self, before: u64) -> Option<Refused> {
        let connections = self.count.checked_sub(before).filter(|count| *count > 0)?;
        let mut destinations: Vec<String> = Vec::new();
        for (_, refusal) in self.newest.iter().rev().take_while(|(count, _)| *count > before) {
            let destination = written(refusal);
            if destinations.len() < TOLD && !destinations.contains(&destination) {
                destinations.push(destination);
            }
        }
        Some(Refused { connections, destinations })
    }
}

/// A destination as people write it.
fn written(refusal: &Refusal) -> String {
    let Refusal { to, protocol, port, .. } = refusal;
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
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_so_many_are_remembered_and_each_is_told_once() {
        let refusals = Refusals::new(None);
        let mut seen = refusals.seen.lock().unwrap();
        for number in 0..1000 {
            let to = Ipv4Addr::new(10, 0, 0, 1);
            seen.note(Refusal { to, protocol: 6, port: Some(80 + number % 10) });
        }
        assert_eq!((seen.count, seen.newest.len()), (1000, REMEMBERED));
        let told = |before| seen.told(before).unwrap();
        assert_eq!(told(0).connections, 1000);
        assert_eq!(told(0).destinations.len(), TOLD);
        assert_eq!(told(998).destinations, ["10.0.0.1:89/tcp", "10.0.0.1:88/tcp"]);
        assert_eq!(seen.told(1000), None);
    }

    #[test]
    fn destinations_read_as_people_write_them() {
        let to = Ipv4Addr::new(10, 0, 0, 1);
        for (protocol, port, expected) in [
            (6, Some(80), "10.0.0.1:80/tcp"),
            (17, Some(53), "10.0.0.1:53/udp"),
            (1, None, "10.0.0.1/icmp"),
            (47, None, "10.0.0.1/47"),
        ] {
            assert_eq!(written(&Refusal { to, protocol, port }), expected);
        }
    }
}
