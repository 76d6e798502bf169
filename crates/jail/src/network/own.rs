//! The table in a jail's own network namespace: what is best done before a packet leaves, and what only
//! the jail itself can see.
//!
//! What a jail may reach is no business of this table: that is decided on the host's side of the link.
//! Where the kernel cannot make it, a jail is as well kept, and only less considerate and less told.

use std::net::Ipv4Addr;

use super::{
    JAIL_LINK,
    nftables::{Expression, Table, Verdict},
    refusal,
};
use crate::spec::Protocol;

/// Requests that go in one datagram, and how many answers they get.
pub(crate) type Requests = (Vec<u8>, usize);

/// Packets a second to the name server, and how many at once. The host has the same limit
/// (`policies/network.nft`, `to_host`), behind the queue of packets that all of the machine share:
/// whoever floods that has others lose theirs, and wait for a fifth of a second until they try again.
const QUESTIONS: (u64, u32) = (500, 1000);

/// The same of datagrams to anybody, and of first packets of connections: what costs the sender the
/// least for each packet that others have to wait behind.
const DATAGRAMS: (u64, u32) = (50_000, 1000);

/// IANA's number of the protocol.
const ICMP: u8 = 1;

/// The flags of TCP that tell a first packet, and those that it has.
const SYN: (u8, u8) = (0x17, 0x02);

/// What a jail's process asks of its own network namespace, in turn: the table, and to be shown what
/// is refused. `gateway` has the name server.
pub(crate) fn requests(gateway: Option<Ipv4Addr>) -> [Requests; 2] {
    use Expression::{Decide, Destination, Equals, Flags, LeavesBy, Mask, Over, Port};
    const IN: &str = "in";
    const OUT: &str = "out";
    let table = Table("sandbar".to_owned());
    let mut changes = table.changes();
    changes.add_table();
    changes.add_input_chain(IN);
    changes.add_rule(IN, &refusal::rule());
    changes.add_output_chain(OUT);
    let mut at_most = |(rate, burst): (u64, u32), of: &[Expression]| {
        let leaves = [LeavesBy(0), Equals(0, JAIL_LINK.to_ne_bytes().to_vec())];
        let drop = [Over { rate, burst }, Decide(Verdict::Drop)];
        changes.add_rule(OUT, &[&leaves[..], of, &drop].concat());
    };
    if let Some(gateway) = gateway {
        let to = [Destination(0), Equals(0, gateway.octets().to_vec())];
        let questions = [Port(0), Equals(0, 53_u16.to_be_bytes().to_vec())];
        at_most(QUESTIONS, &[&to[..], &questions].concat());
    }
    for protocol in [Protocol::Udp.number(), ICMP] {
        at_most(DATAGRAMS, &[Expression::Protocol(0), Equals(0, vec![protocol])]);
    }
    let (mask, first) = SYN;
    let is_tcp = [Expression::Protocol(0), Equals(0, vec![Protocol::Tcp.number()])];
    let is_first = [Flags(0), Mask(0, [mask, 0, 0, 0]), Equals(0, vec![first])];
    at_most(DATAGRAMS, &[&is_tcp[..], &is_first].concat());
    let (messages, answered) = changes.finish();
    let bytes = messages.iter().flat_map(|message| message.bytes().iter().copied());
    [(bytes.collect(), answered), (refusal::listen().bytes().to_vec(), 1)]
}
