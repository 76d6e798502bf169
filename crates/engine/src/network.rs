//! What a sandbox may reach, as its jail is told.

use api::network::{NetworkRule, Protocol, Target};
use jail::{AddressRange, JailNetwork};

use crate::{node::Node, resolver::Asker};

/// The place on the node's network of whoever has this slot. None: the node has no network.
pub(crate) fn place(node: &Node, slot: u32, asker: &Asker) -> Option<JailNetwork> {
    let address = node.config.node.network?.address(slot)?;
    Some(JailNetwork { address, reach: asker.reach() })
}

/// The addresses that a rule allows by themselves; none for a rule about names.
pub(crate) fn range(rule: &NetworkRule) -> Option<AddressRange> {
    let Target::Range { base, prefix } = rule.target else { return None };
    let protocol = rule.protocol.map(protocol);
    Some(AddressRange { base, prefix, port: rule.port, protocol })
}

/// What of an address a rule allows: everything, or one port of some protocols.
pub(crate) fn services(rule: &NetworkRule) -> Vec<Option<(jail::Protocol, u16)>> {
    let Some(port) = rule.port else { return vec![None] };
    match rule.protocol {
        Some(only) => vec![Some((protocol(only), port))],
        None => jail::Protocol::ALL.map(|protocol| Some((protocol, port))).into(),
    }
}

fn protocol(protocol: Protocol) -> jail::Protocol {
    match protocol {
        Protocol::Tcp => jail::Protocol::Tcp,
        Protocol::Udp => jail::Protocol::Udp,
    }
}
