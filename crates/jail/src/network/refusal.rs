//! What a jail's agent sees of packets and names that the network refuses to the jail.
//!
//! A refusal is a packet of the host's, and the only kind that has all its hops when it arrives
//! (`policies/network.nft`, `output`; of names, the name server's answer with [`ALL_HOPS`]). A rule in
//! the jail's own network namespace shows those to a socket there, which the agent inherits: the kernel
//! has shown a refusal before the program that it is for can see it, so whoever looks after a program
//! has ended misses none. The socket belongs to the jail's namespace, and what it is told takes a
//! privilege that the agent has not.

use std::net::Ipv4Addr;

use super::{
    JAIL_LINK,
    message::{Answer, Message, answers, find},
    nftables::Expression,
};

/// The group of the rule; the namespace has no other.
const GROUP: u16 = 1;

/// Bytes of each packet that are shown: of a refusal the headers, and those of the packet that it is
/// about, each with all the options that there may be; or its headers with all options (60 and 60), the
/// length and the header of a message of the name server (2 and 12) and the longest name (255).
const SHOWN_BYTES: u32 = 400;

/// Hops of a packet that nobody has passed on: what a refusal is known by.
pub const ALL_HOPS: u8 = 255;

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
/// In the 14th byte of TCP's header, RFC 9293.
const RESET: u8 = 0x04;

/// The port of the name server.
const DNS: u16 = 53;
/// Bytes of a message of the name server before its question, RFC 1035.
const DNS_HEADER: usize = 12;
/// The code for "there is no such name".
const NO_SUCH_NAME: u8 = 3;
/// Bytes of a name, with the one at its end; RFC 1035, section 2.3.4.
const NAME_BYTES: usize = 255;

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

/// What was refused to the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A packet.
    Packet {
        /// Where it was to go.
        to: Ipv4Addr,
        /// IANA's number of its protocol.
        protocol: u8,
        /// Of TCP and UDP.
        port: Option<u16>,
    },
    /// A question for this name, as [`name`] writes it.
    Name(String),
}

impl Refusal {
    /// Those in one datagram of the socket. What is none is passed over.
    pub fn read(datagram: &[u8]) -> impl Iterator<Item = Self> + '_ {
        answers(datagram).filter_map(|(_, answer)| {
            let Answer::Data(body) = answer else { return None };
            let attributes = body.get(4..)?;
            Self::of(&Packet::read(find(attributes, PAYLOAD)?)?)
        })
    }

    fn of(packet: &Packet<'_>) -> Option<Self> {
        let body = packet.body;
        let port_at = |body: &[u8], at: usize| {
            body.get(at..)?.first_chunk().map(|port| u16::from_be_bytes(*port))
        };
        match packet.protocol {
            TCP if body.get(13)? & RESET != 0 => {
                let port = port_at(body, 0)?;
                Some(Self::Packet { to: packet.from, protocol: TCP, port: Some(port) })
            }
            // Each message comes after its length.
            TCP if port_at(body, 0)? == DNS => {
                let header = 4 * usize::from(body.get(12)? >> 4);
                Self::of_message(body.get(header.max(20) + 2..)?)
            }
            UDP if port_at(body, 0)? == DNS => Self::of_message(body.get(8..)?),
            ICMP if body.starts_with(&PROHIBITED) => {
                let refused = Packet::read(body.get(8..)?)?;
                let has_port = matches!(refused.protocol, TCP | UDP);
                let port = has_port.then(|| port_at(refused.body, 2)).flatten();
                Some(Self::Packet { to: refused.to, protocol: refused.protocol, port })
            }
            _ => None,
        }
    }

    /// The name server's answer that there is no such name; on a host all of whose packets have all
    /// their hops, others come here too.
    fn of_message(message: &[u8]) -> Option<Self> {
        let (header, question) = message.split_first_chunk::<DNS_HEADER>()?;
        let is_refusal = header[3] & 0x0f == NO_SUCH_NAME && header[6..] == [0; 6];
        is_refusal.then(|| name(question).map(Self::Name)).flatten()
    }
}

/// The name that a question of RFC 1035 begins with, as people write it: in lower case, without a dot at
/// its end, what is no letter, digit, `-` or `_` as `\DDD`; `.` is the root. None: it is none, or compressed.
#[must_use]
pub fn name(question: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = question;
    loop {
        let (&length, behind) = rest.split_first()?;
        if length == 0 {
            break;
        }
        // The upper two bits are for pointers and extensions.
        let label = behind.get(..usize::from(length)).filter(|_| length < 64)?;
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            match char::from(byte.to_ascii_lowercase()) {
                plain @ ('a'..='z' | '0'..='9' | '-' | '_') => text.push(plain),
                _ => text += &format!("\\{byte:03}"),
            }
        }
        rest = behind.get(usize::from(length)..)?;
        if question.len() - rest.len() >= NAME_BYTES {
            return None;
        }
    }
    Some(if text.is_empty() { ".".to_owned() } else { text })
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

    /// TCP from `port` with these flags.
    fn segment(port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut header = [0; 20];
        header[..2].copy_from_slice(&port.to_be_bytes());
        (header[12], header[13]) = (5 << 4, flags);
        [&header, data].concat()
    }

    /// That there is no `www.EXAMPLE.org`.
    const UNKNOWN: &[u8] =
        b"\0\x07\x81\x83\0\x01\0\0\0\0\0\0\x03www\x07EXAMPLE\x03org\0\0\x01\0\x01";

    #[test]
    fn a_refusal_says_where_the_packet_was_to_go() {
        let to = Ipv4Addr::from(THEM);
        let reset = shown(&packet(TCP, THEM, US, &segment(80, RESET, b"")));
        let expected = Refusal::Packet { to, protocol: TCP, port: Some(80) };
        assert_eq!(Refusal::read(&reset).collect::<Vec<_>>(), [expected]);
        for (protocol, port) in [(UDP, Some(443)), (TCP, Some(443)), (ICMP, None)] {
            let refused = packet(protocol, US, THEM, &[200, 1, 1, 187, 0, 8, 0, 0]);
            let told = shown(&prohibited(&refused));
            let expected = Refusal::Packet { to, protocol, port };
            assert_eq!(Refusal::read(&told).collect::<Vec<_>>(), [expected]);
        }
        let echo = shown(&packet(ICMP, GATEWAY, US, &[0; 16]));
        assert_eq!(Refusal::read(&echo).count(), 0);
    }

    #[test]
    fn a_refusal_says_which_name_was_asked_for() {
        let udp = [&[0, 53, 200, 1, 0, 0, 0, 0], UNKNOWN].concat();
        let tcp = segment(DNS, 0x18, &[&[0, 33], UNKNOWN].concat());
        for (protocol, body) in [(UDP, udp), (TCP, tcp)] {
            let told = shown(&packet(protocol, GATEWAY, US, &body));
            let expected = Refusal::Name("www.example.org".to_owned());
            assert_eq!(Refusal::read(&told).collect::<Vec<_>>(), [expected]);
        }
        let acknowledged = shown(&packet(TCP, GATEWAY, US, &segment(DNS, 0x10, b"")));
        assert_eq!(Refusal::read(&acknowledged).count(), 0);
        let mut known = [&[0, 53, 200, 1, 0, 0, 0, 0], UNKNOWN].concat();
        known[11] = 0x80;
        assert_eq!(Refusal::read(&shown(&packet(UDP, GATEWAY, US, &known))).count(), 0);
    }

    #[test]
    fn names_are_written_as_text_of_one_meaning() {
        let written = |question: &[u8]| name(question);
        assert_eq!(written(b"\x04_dmz\x02Lo\0rest").as_deref(), Some("_dmz.lo"));
        assert_eq!(written(b"\x03a.b\x02\x1b\xff\0").as_deref(), Some("a\\046b.\\027\\255"));
        assert_eq!(written(b"\0").as_deref(), Some("."));
        for other in [&b""[..], b"\x03ab", b"\xc0\x0c", b"\x02ab", &[1; 300]] {
            assert_eq!(written(other), None, "{other:?}");
        }
    }

    #[test]
    fn hostile_packets_are_read_or_passed_over() {
        let refused = packet(UDP, US, THEM, &[200, 1, 1, 187, 0, 8, 0, 0]);
        let told = [&[0, 53, 200, 1, 0, 0, 0, 0], UNKNOWN].concat();
        let examples = [
            shown(&packet(TCP, THEM, US, &segment(80, RESET, b""))),
            shown(&prohibited(&refused)),
            shown(&packet(UDP, GATEWAY, US, &told)),
        ];
        let examples: Vec<&[u8]> = examples.iter().map(Vec::as_slice).collect();
        hostile::bytes(&examples, |datagram| {
            for refusal in Refusal::read(datagram) {
                match refusal {
                    Refusal::Packet { protocol, port, .. } => {
                        assert!(port.is_none() || matches!(protocol, TCP | UDP));
                    }
                    Refusal::Name(name) => {
                        assert!(name.len() <= 4 * NAME_BYTES, "{name}");
                        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
                    }
                }
            }
        });
    }
}
