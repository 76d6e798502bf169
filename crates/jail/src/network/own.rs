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

/// Requests that go in one datagram, and how many answers they get.
pub(crate) type Requests = (Vec<u8>, usize);

/// The port of the name server.
const DNS: u16 = 53;

/// Packets a second to the name server, and how many at once. The host has the same limit
/// (`policies/network.nft`, `to_host`), behind a link whose packets are worked on at the machine's
/// expense: here they cost who sends them.
const QUESTIONS: (u64, u32) = (500, 1000);

/// What a jail's process asks of its own network namespace, in turn: the table, and to be shown what
/// is refused. `gateway` has the name server.
pub(crate) fn requests(gateway: Option<Ipv4Addr>) -> [Requests; 2] {
    use Expression::{Decide, Destination, Equals, LeavesBy, Over, Port};
    const IN: &str = "in";
    const OUT: &str = "out";
    let table = Table("sandbar".to_owned());
    let mut changes = table.changes();
    changes.add_table();
    changes.add_input_chain(IN);
    changes.add_rule(IN, &refusal::rule());
    if let Some(gateway) = gateway {
        let (rate, burst) = QUESTIONS;
        let too_many = [
            LeavesBy(0),
            Equals(0, JAIL_LINK.to_ne_bytes().to_vec()),
            Destination(0),
            Equals(0, gateway.octets().to_vec()),
            Port(0),
            Equals(0, DNS.to_be_bytes().to_vec()),
            Over { rate, burst },
            Decide(Verdict::Drop),
        ];
        changes.add_output_chain(OUT);
        changes.add_rule(OUT, &too_many);
    }
    let (messages, answered) = changes.finish();
    let bytes = messages.iter().flat_map(|message| message.bytes().iter().copied());
    [(bytes.collect(), answered), (refusal::listen().bytes().to_vec(), 1)]
}
