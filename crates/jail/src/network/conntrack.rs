//! Messages about tracked connections. `linux/netfilter/nfnetlink_conntrack.h`

use std::net::Ipv4Addr;

use super::message::{DUMP, Message, find, find_in};
use crate::spec::Protocol;

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const FAMILY_IPV4: u8 = 2;

/// The addresses and ports of whoever opened it.
const ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Compare the source address, and nothing else.
const BY_SOURCE: u32 = 1;
const ADDRESSES: u16 = 1;
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;
const TRANSPORT: u16 = 2;
const TRANSPORT_PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// One connection that an address has opened, as the kernel describes it.
#[derive(Debug)]
pub(super) struct Flow(Vec<u8>);

/// Asks for the connections that `address` has opened.
pub(super) fn list(address: Ipv4Addr) -> Message {
    let mut message = head(GET, DUMP);
    message.nested(ORIGINAL, |tuple| {
        tuple.nested(ADDRESSES, |both| both.attribute(SOURCE, address.octets()));
    });
    message.nested(FILTER, |filter| {
        filter.attribute(FILTER_ORIGINAL, BY_SOURCE.to_ne_bytes());
        filter.attribute(FILTER_REPLY, 0_u32.to_ne_bytes());
    });
    message.finish()
}

fn head(kind: u16, flags: u16) -> Message {
    let mut message = Message::new(kind, flags);
    // struct nfgenmsg: family, version, resource
    message.put([FAMILY_IPV4, 0, 0, 0]);
    message
}

impl Flow {
    /// The connection in one message of an answer.
    pub(super) fn of(mut body: Vec<u8>) -> Self {
        // Behind the nfgenmsg.
        Self(body.split_off(body.len().min(4)))
    }

    /// Forgets the connection: what still comes of it counts as the first packet of another.
    pub(super) fn forget(&self) -> Message {
        let mut message = head(DELETE, 0);
        // With its id, so that nothing else is meant that has its addresses and ports by now.
        for kind in [ORIGINAL, ZONE, ID] {
            match find(&self.0, kind) {
                Some(value) if kind == ORIGINAL => message.nested(kind, |tuple| tuple.put(value)),
                Some(value) => message.attribute(kind, value),
                None => {}
            }
        }
        message.finish()
    }

    /// Where to.
    pub(super) fn destination(&self) -> Option<Ipv4Addr> {
        let address = find_in(&self.0, &[ORIGINAL, ADDRESSES, DESTINATION])?;
        address.first_chunk::<4>().copied().map(Ipv4Addr::from)
    }

    /// Protocol and port there, for protocols that have ports.
    pub(super) fn service(&self) -> Option<(Protocol, u16)> {
        let transport = find_in(&self.0, &[ORIGINAL, TRANSPORT])?;
        let protocol = Protocol::of_number(*find(transport, TRANSPORT_PROTOCOL)?.first()?)?;
        let port = find(transport, DESTINATION_PORT)?.first_chunk()?;
        Some((protocol, u16::from_be_bytes(*port)))
    }
}
