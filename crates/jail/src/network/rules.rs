//! The nftables table of a node: what is the same for all its jails. What one jail may reach is an
//! element of `policies`, see [`super::policy`].

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
};

use crate::spec::{AddressRange, NodeNetwork};

/// The rules, with variables for what differs from node to node.
const RULES: &str = include_str!("../../../../policies/network.nft");

/// What becomes of a packet of each link: `accept`, or the chain that decides.
pub(super) const POLICIES: &str = "policies";
/// The address of each link.
pub(super) const ADDRESSES: &str = "addresses";
/// Links that have opened a connection, or tried to.
pub(super) const CONNECTED: &str = "connected";
/// How many packets of each link were refused.
pub(super) const REFUSED: &str = "refused";
/// The connections of each link that are counted.
pub(super) const FLOWS: &str = "flows";
/// The chain that refuses.
pub(super) const REFUSE: &str = "refuse";

/// Addresses no jail reaches, whatever its policy, with the reason for each. The host's own public
/// addresses are covered by the `to_host` chain, and other jails by their links' names.
const DENIED: [(&str, u8, &str); 14] = [
    ("0.0.0.0", 8, "this network (RFC 791)"),
    ("10.0.0.0", 8, "private (RFC 1918)"),
    ("100.64.0.0", 10, "carrier NAT and overlay networks (RFC 6598)"),
    ("127.0.0.0", 8, "loopback"),
    ("168.63.129.16", 32, "a cloud's host agent"),
    ("169.254.0.0", 16, "link-local, cloud metadata"),
    ("172.16.0.0", 12, "private (RFC 1918)"),
    ("192.0.0.0", 24, "protocol assignments (RFC 6890)"),
    ("192.88.99.0", 24, "6to4 relays (RFC 7526)"),
    ("192.168.0.0", 16, "private (RFC 1918)"),
    ("198.18.0.0", 15, "benchmarks (RFC 2544)"),
    ("224.0.0.0", 4, "multicast"),
    ("240.0.0.0", 5, "reserved"),
    ("248.0.0.0", 5, "reserved, broadcast"),
];

/// Why no jail reaches any address of `range`, whatever its policy. None: it may.
#[must_use]
pub fn why_out_of_reach(range: &AddressRange) -> Option<&'static str> {
    let denied = DENIED.iter().find(|(base, prefix, _)| {
        let base = base.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let denied = AddressRange { base, prefix: *prefix, port: None, protocol: None };
        denied.prefix <= range.prefix && denied.holds(range.base)
    });
    denied.map(|(_, _, reason)| *reason)
}

pub(super) fn table_name(node: &str) -> String {
    format!("sandbar_{node}")
}

/// The script that makes the table, whether or not one exists, and the name of an empty chain that
/// tells that the table came of it. One transaction. `links` are those that an earlier table knew:
/// they reach nothing until they are given a policy again, but are not forgotten.
pub(super) fn table(
    node: &str,
    network: NodeNetwork,
    links: &[(String, Ipv4Addr)],
) -> (String, String) {
    let denied: String = DENIED
        .iter()
        .map(|(base, prefix, reason)| format!("{base}/{prefix}, # {reason}\n"))
        .collect();
    let definitions = format!(
        "define links = \"{node}-*\"\ndefine gateway = {}\ndefine range = {}/{}\n\
         define denied = {{\n{denied}}}\n",
        network.gateway(),
        network.base,
        network.prefix
    );
    let mut hasher = DefaultHasher::new();
    (&definitions, RULES).hash(&mut hasher);
    let mark = format!("rules_{:016x}", hasher.finish());
    let (remove, name) = (no_table(node), table_name(node));
    let mut script =
        format!("{definitions}{remove}table inet {name} {{\n{RULES}chain {mark} {{\n}}\n}}\n");
    for (link, address) in links {
        script.push_str(&format!(
            "add element inet {name} {ADDRESSES} {{ \"{link}\" : {address} }}\n\
             add element inet {name} {CONNECTED} {{ \"{link}\" }}\n"
        ));
    }
    (script, mark)
}

/// How many rules each chain has that is the same for all jails.
pub(super) fn counts() -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    let mut chain = None;
    for line in RULES.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.split(' ').next();
        } else if line == "}" {
            chain = None;
        } else if let Some(chain) = chain
            && !(line.is_empty() || line.starts_with('#') || line.starts_with("type "))
        {
            *counts.entry(chain).or_default() += 1;
        }
    }
    counts
}

/// The script that removes the table, if there is one.
pub(super) fn no_table(node: &str) -> String {
    // Declaring an existing table is no error, deleting a missing one is.
    let name = table_name(node);
    format!("table inet {name} {{}}\ndelete table inet {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_by_chain() {
        let counts = counts();
        assert_eq!((counts["refuse"], counts["forward"], counts["postrouting"]), (3, 2, 1));
        assert_eq!(counts.len(), RULES.matches("\nchain ").count());
    }

    #[test]
    fn a_range_is_out_of_reach_when_all_of_it_is() {
        let reason = |base: &str, prefix| {
            let base = base.parse().unwrap();
            why_out_of_reach(&AddressRange { base, prefix, port: None, protocol: None })
        };
        assert_eq!(reason("10.0.0.0", 8), Some("private (RFC 1918)"));
        assert_eq!(reason("10.1.2.3", 32), Some("private (RFC 1918)"));
        assert_eq!(reason("169.254.169.254", 32), Some("link-local, cloud metadata"));
        assert_eq!(reason("255.255.255.255", 32), Some("reserved, broadcast"));
        for (base, prefix) in [("8.0.0.0", 6), ("0.0.0.0", 0), ("11.0.0.0", 8), ("1.1.1.1", 32)] {
            assert_eq!(reason(base, prefix), None, "{base}/{prefix}");
        }
    }

    #[test]
    fn the_mark_changes_with_the_rules_and_not_with_the_links() {
        let network = |third| NodeNetwork { base: Ipv4Addr::new(10, 213, third, 0), prefix: 24 };
        let links = [("sb0-1".to_owned(), Ipv4Addr::new(10, 213, 0, 5))];
        let (script, mark) = table("sb0", network(0), &[]);
        let (with_links, same) = table("sb0", network(0), &links);
        assert_eq!(mark, same);
        assert_ne!(script, with_links);
        assert_ne!(mark, table("sb0", network(1), &[]).1);
    }
}
