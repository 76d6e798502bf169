//! What a jail's agent sees of packets that the network refuses to the jail.
//!
//! A refusal is a packet of the host's, and the only kind that has all its hops when it arrives
//! (`policies/network.nft`, `output`). A rule in the jail's own network namespace shows those to a
//! socket there, which the agent inherits: the kernel has shown a refusal before the program that it
//! is for can see it, so whoever looks after a program has ended misses none. The socket belongs to
//! the jail's namespace, and what it is told takes a privilege that the agent has not.

use std::net::Ipv4Addr;

use super::{
    JAIL_LINK,
    message::{Answer, Message, answers, find},
    nftables::Expression,
};

/// The group of the rule; the namespace has no other.
const GROUP: u16 = 1;

/// Bytes of each packet that are shown: of a refusal the headers, and those of the packet that it is
/// about, each with all the options that there may be.
const SHOWN_BYTES: u32 = 160;

/// Hops of a packet that nobody has passed on.
const ALL_HOPS: u8 = 255;

/// Bytes that hold one datagram of the socket: the kernel makes them of one packet each.
pub const DATAGRAM_BYTES: usize = 1024;

// linux/netfilter/nfnetlink_log.h
const CONFIGURE: u16 = 4 << 8 | 1;
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const AT_ONCE: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKETS: u8 = 2;
const PAYLOAD: u16 = 9;

// IANA's protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// "Communication administratively prohibited", RFC 1812.
const PROHIBITED: [u8; 2] = [3, 13];

/// The rule that shows refusals.
pub(super) fn rule() -> Vec<Expression> {
    use Expression::{CameBy, Equals, Hops, Show};
    vec![
        CameBy(0),
        Equals(0, JAIL_LINK.to_ne_bytes().to_vec()),
        Hops(0),
        Equals(0, vec![ALL_HOPS]),
        Show { group: GROUP, bytes: SHOWN_BYTES },
    ]
}

/// Has the socket that asks for it be shown them.
pub(super) fn listen() -> Message {
    let mut message = Message::new(CONFIGURE, 0);
    // struct nfgenmsg: family, version, group
    message.put([0, 0]);
    message.put(GROUP.to_be_bytes());
    message.attribute(COMMAND, [BIND]);
    let [b0, b1, b2, b3] = SHOWN_BYTES.to_be_bytes();
    message.attribute(MODE, [b0, b1, b2, b3, COPY_PACKETS, 0]);
    message.attribute(AT_ONCE, 1_u32.to_be_bytes());
    message.finish()
}

/// A packet of the jail's that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Where the packet was to go.
    pub to: Ipv4Addr,
    /// IANA's number of its protocol.
    pub protocol: u8,
    /// Of TCP and UDP.
    pub port: Option<u16>,
}

impl Refusal {
    /// Those in one datagram of the socket. What is none is passed over.
    pub fn read(datagram: &[u8]) -> impl Iterator<Item = Self> + '_ {
        answers(datagram).filter_map(|(_, answer)| {
            let Answer::Data(body) = answer else { return None };
            let attributes = body.get(4..)?;
            let packet = Packet::read(find(attributes, PAYLOAD)?)?;
            match packet.protocol {
                TCP => {
                    let port = u16::from_be_bytes(*packet.body.first_chunk()?);
                    Some(Self { to: packet.from, protocol: TCP, port: Some(port) })
                }
                ICMP if packet.body.starts_with(&PROHIBITED) => {
                    let refused = Packet::read(packet.body.get(8..)?)?;
                    let has_port = matches!(refused.protocol, TCP | UDP);
                    let port = refused.body.get(2..).filter(|_| has_port);
                    let port = port.and_then(|rest| rest.first_chunk().copied());
                    let (to, protocol) = (refused.to, refused.protocol);
                    Some(Self { to, protocol, port: port.map(u16::from_be_bytes) })
                }
                _ => None,
            }
        })
    }
}

/// What is of interest of an IPv4 packet, RFC 791.
struct Packet<'a> {
    protocol: u8,
    from: Ipv4Addr,
    to: Ipv4Addr,
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; 20] = bytes.first_chunk()?;
        let words = header[0].checked_sub(4 << 4)?;
        let body = bytes.get(4 * usize::from(words).max(5)..)?;
        let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
        Some(Self { protocol: header[9], from: address(12)?, to: address(16)?, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, from: [u8; 4], to: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ALL_HOPS, protocol, 0, 0];
        packet.extend_from_slice(&from);
        packet.extend_from_slice(&to);
        packet.extend_from_slice(body);
        packet
    }

    fn shown(packet: &[u8]) -> Vec<u8> {
        let mut message = Message::mark(4 << 8);
        message.put([2, 0, 0, 1]);
        message.attribute(PAYLOAD, packet);
        message.finish().bytes().to_vec()
    }

    const US: [u8; 4] = [10, 213, 0, 5];
    const THEM: [u8; 4] = [192, 168, 7, 7];
    const GATEWAY: [u8; 4] = [10, 213, 0, 1];

    fn prohibited(refused: &[u8]) -> Vec<u8> {
        packet(ICMP, GATEWAY, US, &[&[3, 13, 0, 0, 0, 0, 0, 0], refused].concat())
    }

    #[test]
    fn a_refusal_says_where_the_packet_was_to_go() {
        let to = Ipv4Addr::from(THEM);
        let reset = shown(&packet(TCP, THEM, US, &[0, 80, 200, 1, 0, 0, 0, 0]));
        let expected = Refusal { to, protocol: TCP, port: Some(80) };
        assert_eq!(Refusal::read(&reset).collect::<Vec<_>>(), [expected]);
        for (protocol, port) in [(UDP, Some(443)), (TCP, Some(443)), (ICMP, None)] {
            let refused = packet(protocol, US, THEM, &[200, 1, 1, 187, 0, 8, 0, 0]);
            let told = shown(&prohibited(&refused));
            let expected = Refusal { to, protocol, port };
            assert_eq!(Refusal::read(&told).collect::<Vec<_>>(), [expected]);
        }
        let echo = shown(&packet(ICMP, GATEWAY, US, &[0; 16]));
        assert_eq!(Refusal::read(&echo).count(), 0);
    }

    #[test]
    fn hostile_packets_are_read_or_passed_over() {
        let refused = packet(UDP, US, THEM, &[200, 1, 1, 187, 0, 8, 0, 0]);
        let examples =
            [shown(&packet(TCP, THEM, US, &[0, 80, 200, 1])), shown(&prohibited(&refused))];
        let examples: Vec<&[u8]> = examples.iter().map(Vec::as_slice).collect();
        hostile::bytes(&examples, |datagram| {
            for refusal in Refusal::read(datagram) {
                assert!(refusal.port.is_none() || matches!(refusal.protocol, TCP | UDP));
            }
        });
    }
}
