//! The nftables table of a node.

use crate::spec::NodeNetwork;

/// Addresses no sandbox reaches, whatever its policy, with the reason for each. The host's own
/// public addresses are covered by the `input` chain, and other sandboxes by their links' names.
const DENIED: [(&str, &str); 14] = [
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private (RFC 1918)"),
    ("100.64.0.0/10", "carrier NAT and overlay networks (RFC 6598)"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's host agent"),
    ("169.254.0.0/16", "link-local, cloud metadata"),
    ("172.16.0.0/12", "private (RFC 1918)"),
    ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    ("192.88.99.0/24", "6to4 relays (RFC 7526)"),
    ("192.168.0.0/16", "private (RFC 1918)"),
    ("198.18.0.0/15", "benchmarks (RFC 2544)"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/5", "reserved"),
    ("248.0.0.0/5", "reserved, broadcast"),
];

/// The script that makes the table, whether or not one exists. One transaction.
pub(super) fn table(node: &str, network: NodeNetwork) -> String {
    let gateway = network.gateway();
    let (base, prefix) = (network.base, network.prefix);
    let denied: String =
        DENIED.iter().map(|(range, reason)| format!("    {range}, # {reason}\n")).collect();
    let remove = no_table(node);
    format!(
        r#"{remove}
table inet sandbar_{node} {{
  set denied {{
    type ipv4_addr
    flags interval
    elements = {{
{denied}    }}
  }}
  # What comes from a sandbox and is not for the host itself.
  chain forward {{
    type filter hook forward priority filter - 5; policy accept
    oifname "{node}-*" iifname "{node}-*" drop
    oifname "{node}-*" ct state established,related accept
    oifname "{node}-*" drop
    iifname != "{node}-*" return
    meta nfproto != ipv4 drop
    fib saddr . iif oif missing counter drop comment "not its own address"
    ip daddr @denied counter drop
    tcp dport 25 counter drop comment "mail"
    accept
  }}
  # What comes from a sandbox for the host: names, and nothing else.
  chain input {{
    type filter hook input priority filter - 5; policy accept
    iifname != "lo" iifname != "{node}-*" ip daddr {gateway} counter drop comment "not from a sandbox"
    iifname != "{node}-*" return
    fib saddr . iif oif missing counter drop comment "not its own address"
    ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
    counter drop
  }}
  # Sandboxes are not servers on the host's network: only answers go in.
  chain output {{
    type filter hook output priority filter - 5; policy accept
    oifname != "{node}-*" return
    ct state established,related accept
    counter drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept
    ip saddr {base}/{prefix} oifname != "{node}-*" masquerade
  }}
}}
"#
    )
}

/// The script that removes the table, if there is one.
pub(super) fn no_table(node: &str) -> String {
    // Declaring an existing table is no error, deleting a missing one is.
    format!("table inet sandbar_{node} {{}}\ndelete table inet sandbar_{node}\n")
}
