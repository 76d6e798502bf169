//! What a sandbox may reach, as its jail is told.

use api::network::{NetworkRule, Protocol, Target};
use jail::{AddressRange, JailNetwork};

use crate::{launch::LaunchError, node::Node, resolver::Asker, sandbox::Sandbox};

/// The place on the node's network of whoever has this slot. None: the node has no network.
pub(crate) fn place(node: &Node, slot: u32, asker: &Asker) -> Option<JailNetwork> {
    let address = node.config.node.network?.address(slot)?;
    Some(JailNetwork { address, reach: asker.reach() })
}

/// Puts what a sandbox may reach in force again; nothing happens where it is. For whoever keeps it from
/// being changed meanwhile.
///
/// # Errors
/// Those of [`jail::Launcher::admit`].
pub(crate) async fn confine(node: &Node, sandbox: &Sandbox) -> Result<(), LaunchError> {
    let Some(place) = place(node, sandbox.slot, &sandbox.asker) else { return Ok(()) };
    let jail = sandbox.jail;
    node.network.call(move |launcher| launcher.admit(jail, &place), |_, ()| {}).await
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
