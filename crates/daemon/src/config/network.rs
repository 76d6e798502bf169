//! The sandboxes' address range, and who is asked for names.

use std::net::{IpAddr, Ipv4Addr};

use jail::NodeNetwork;

use super::{reader::Reader, source::Raw, value};

/// Not a range that home routers, container engines or clouds hand out.
const DEFAULT: NodeNetwork = NodeNetwork { base: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 };

pub(super) fn read(reader: &mut Reader) -> Option<NodeNetwork> {
    reader.read("network.subnet", Some(DEFAULT), subnet, |network| {
        network.map_or_else(
            || "none".to_owned(),
            |network| format!("{}/{}", network.base, network.prefix),
        )
    })
}

/// Name servers at most; as many as the C library uses.
const NAME_SERVERS: usize = 3;

pub(super) fn read_name_servers(reader: &mut Reader) -> Vec<IpAddr> {
    reader.read("network.name_servers", Vec::new(), name_servers, |servers| {
        servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    })
}

fn name_servers(raw: &Raw) -> Result<Vec<IpAddr>, String> {
    let servers = value::list(raw)?;
    if servers.len() > NAME_SERVERS {
        return Err(format!("has {} addresses; write at most {NAME_SERVERS}", servers.len()));
    }
    let address = |text: &String| {
        text.parse().map_err(|_parse| format!("has {text:?}; write addresses, such as 9.9.9.9"))
    };
    servers.iter().map(address).collect()
}

/// Sandboxes the range has addresses for: all but its own name, the host and the broadcast address.
pub(super) fn room(network: &NodeNetwork) -> u32 {
    (1_u32 << (32 - u32::from(network.prefix))) - 3
}

fn subnet(raw: &Raw) -> Result<Option<NodeNetwork>, String> {
    let text = value::text(raw)?;
    if text == "none" {
        return Ok(None);
    }
    let wrong = |what: &str| {
        format!("is {text:?}{what}; write a private range such as \"10.213.0.0/16\", or \"none\"")
    };
    let (base, prefix) = text.split_once('/').ok_or_else(|| wrong(""))?;
    let base: Ipv4Addr = base.parse().map_err(|_parse| wrong(", which is no IPv4 address"))?;
    let prefix: u8 = prefix.parse().map_err(|_parse| wrong(""))?;
    if !(16..=28).contains(&prefix) {
        return Err(wrong(", whose prefix is not 16 to 28"));
    }
    if base.to_bits().trailing_zeros() < u32::from(32 - prefix) {
        return Err(wrong(", whose address has bits outside the prefix"));
    }
    if !is_private(base) {
        return Err(wrong(", which would hide public addresses"));
    }
    Ok(Some(NodeNetwork { base, prefix }))
}

/// RFC 1918 and the shared range of RFC 6598; whole ranges, because prefixes are 16 or longer.
fn is_private(base: Ipv4Addr) -> bool {
    let [a, b, ..] = base.octets();
    base.is_private() || (a == 100 && (64..128).contains(&b))
}
