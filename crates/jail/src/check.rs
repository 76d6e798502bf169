//! Every reason a spec can be refused, before anything is touched.

use std::collections::BTreeSet;

use crate::{
    error::JailError,
    spec::{
        CPU_WEIGHTS, JailNetwork, JailSpec, LEARNED_AT_ONCE, Learned, NodeSpec, RANGES_PER_LIST,
        Reach, VIEWS,
    },
};

/// User and group ids of one jail.
pub(crate) const IDS_PER_JAIL: u32 = 65_536;

/// Bytes of memory below which not even a shell starts.
const LEAST_MEMORY_BYTES: u64 = 16 * 1024 * 1024;

/// Processes below which not even a pipeline runs.
const LEAST_PIDS: u32 = 8;

/// Thousandths of a CPU below which the kernel refuses the quota (1 ms per 100 ms).
const LEAST_CPU_MILLIS: u32 = 10;

/// Bytes of a volume below which not even its own bookkeeping fits.
const LEAST_DISK_BYTES: u64 = 16 * 1024 * 1024;

/// Trees of the host in one jail: each of those there are.
const MOST_BINDS: usize = 2;

/// Jail numbers that fit a link's name: six digits of base 36.
const MOST_JAILS: u64 = 36_u64.pow(6);

/// Refuses a spec that does not hold together.
pub(crate) fn check(spec: &JailSpec, node: &NodeSpec) -> Result<(), JailError> {
    let refuse = |why: String| Err(JailError::Refused(why));
    if spec.jail.0 >= MOST_JAILS {
        return refuse(format!("jail number {} is not below {MOST_JAILS}", spec.jail));
    }
    if spec.uid_base < IDS_PER_JAIL || !spec.uid_base.is_multiple_of(IDS_PER_JAIL) {
        return refuse(format!("uid base {} is not a multiple of {IDS_PER_JAIL}", spec.uid_base));
    }
    if spec.uid_base.checked_add(IDS_PER_JAIL).is_none() {
        return refuse(format!("uid base {} leaves no room for its ids", spec.uid_base));
    }
    if spec.limits.memory_bytes < LEAST_MEMORY_BYTES {
        return refuse(format!("memory is below {LEAST_MEMORY_BYTES} bytes"));
    }
    if spec.limits.pids < LEAST_PIDS {
        return refuse(format!("the limit of processes is below {LEAST_PIDS}"));
    }
    if spec.limits.cpu_millis < LEAST_CPU_MILLIS {
        return refuse(format!("the CPU limit is below {LEAST_CPU_MILLIS} thousandths"));
    }
    if !CPU_WEIGHTS.contains(&spec.limits.cpu_weight) {
        return refuse(format!("the CPU weight is not one of {CPU_WEIGHTS:?}"));
    }
    if spec.limits.disk_bytes.is_some_and(|bytes| bytes < LEAST_DISK_BYTES) {
        return refuse(format!("the disk limit is below {LEAST_DISK_BYTES} bytes"));
    }
    if spec.layers.is_empty() {
        return refuse("an image has at least one layer".to_owned());
    }
    if spec.binds.len() > MOST_BINDS {
        return refuse(format!("a jail has at most {MOST_BINDS} trees of the host"));
    }
    if let Some(network) = &spec.network {
        check_network(network, node)?;
    }
    if spec.views.len() > VIEWS.len() {
        return refuse(format!("a jail has at most {} views", VIEWS.len()));
    }
    Ok(())
}

/// Refuses a place on the network that does not hold together.
pub(crate) fn check_network(network: &JailNetwork, node: &NodeSpec) -> Result<(), JailError> {
    let refuse = |why: String| Err(JailError::Refused(why));
    let Some(range) = node.network else {
        return refuse("an address was given on a node without a network".to_owned());
    };
    if !range.holds(network.address) {
        return refuse(format!("address {} is not in the node's range", network.address));
    }
    let Reach::Listed(list) = &network.reach else { return Ok(()) };
    if list.ranges.len() > RANGES_PER_LIST {
        return refuse(format!("more than {RANGES_PER_LIST} address ranges"));
    }
    for range in &list.ranges {
        if range.prefix > 32 || !range.holds(range.base) {
            return refuse(format!("{}/{} is no address range", range.base, range.prefix));
        }
        if range.protocol.is_some() && range.port.is_none() {
            return refuse("a protocol without a port".to_owned());
        }
    }
    check_learned(&list.learned)
}

/// Refuses learned addresses that do not hold together.
pub(crate) fn check_learned(learned: &[Learned]) -> Result<(), JailError> {
    if learned.len() > LEARNED_AT_ONCE {
        return Err(JailError::Refused(format!("more than {LEARNED_AT_ONCE} learned addresses")));
    }
    let different: BTreeSet<_> = learned.iter().map(|one| (one.address, one.service)).collect();
    if different.len() < learned.len() {
        return Err(JailError::Refused("an address was learned twice".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::spec::{
        AddressRange, AllowList, Bind, Hostname, JailId, Layer, Limits, NodeNetwork, Protocol,
        Shelf, View,
    };

    fn node() -> NodeSpec {
        NodeSpec {
            state_dir: "/var/lib/sandbar".into(),
            name: "sb0".into(),
            network: Some(NodeNetwork { base: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 }),
        }
    }

    fn learned() -> Learned {
        Learned { address: Ipv4Addr::new(1, 2, 3, 4), service: None, seconds: 60 }
    }

    fn list(spec: &mut JailSpec) -> &mut AllowList {
        match &mut spec.network.as_mut().unwrap().reach {
            Reach::Listed(list) => list,
            other => panic!("{other:?}"),
        }
    }

    fn good() -> JailSpec {
        JailSpec {
            jail: JailId(1),
            volume: Some(JailId(1)),
            inherited_bytes: 0,
            uid_base: 65_536 * 7,
            network: Some(JailNetwork {
                address: Ipv4Addr::new(10, 213, 0, 2),
                reach: Reach::Listed(AllowList {
                    revision: 1,
                    ranges: vec![AddressRange {
                        base: Ipv4Addr::new(1, 2, 0, 0),
                        prefix: 16,
                        port: Some(443),
                        protocol: Some(Protocol::Tcp),
                    }],
                    learned: vec![learned()],
                }),
            }),
            limits: Limits {
                memory_bytes: 1 << 30,
                pids: 64,
                cpu_millis: 1000,
                cpu_weight: crate::CPU_WEIGHT,
                disk_bytes: Some(1 << 30),
            },
            hostname: Hostname::of("a"),
            layers: vec![Layer { shelf: Shelf::Host, key: [7; 32] }],
            binds: vec![Bind::Programs],
            views: Vec::new(),
        }
    }

    #[test]
    fn a_good_spec_passes() {
        check(&good(), &node()).unwrap();
    }

    #[test]
    fn each_fault_is_refused() {
        type Spoil = fn(&mut JailSpec);
        let cases: [(&str, Spoil); 21] = [
            ("uid zero", |s| s.uid_base = 0),
            ("uid unaligned", |s| s.uid_base = 65_537),
            ("uid at the end", |s| s.uid_base = 0xFFFF_0000),
            ("memory", |s| s.limits.memory_bytes = 1),
            ("pids", |s| s.limits.pids = 0),
            ("cpu", |s| s.limits.cpu_millis = 0),
            ("no weight", |s| s.limits.cpu_weight = 0),
            ("weight", |s| s.limits.cpu_weight = 10_001),
            ("disk", |s| s.limits.disk_bytes = Some(1)),
            ("jail number", |s| s.jail = JailId(u64::MAX)),
            ("foreign address", |s| s.network.as_mut().unwrap().address = Ipv4Addr::LOCALHOST),
            ("gateway's address", |s| {
                s.network.as_mut().unwrap().address = Ipv4Addr::new(10, 213, 0, 1);
            }),
            ("prefix", |s| list(s).ranges[0].prefix = 33),
            ("bits beyond the prefix", |s| list(s).ranges[0].prefix = 8),
            ("protocol without a port", |s| list(s).ranges[0].port = None),
            ("ranges", |s| list(s).ranges = vec![list(s).ranges[0]; RANGES_PER_LIST + 1]),
            ("learned", |s| list(s).learned = vec![learned(); LEARNED_AT_ONCE + 1]),
            ("learned twice", |s| list(s).learned.push(learned())),
            ("views", |s| s.views = vec![View::Image; VIEWS.len() + 1]),
            ("binds", |s| s.binds = vec![Bind::Programs; MOST_BINDS + 1]),
            ("layers", |s| s.layers.clear()),
        ];
        for (name, spoil) in cases {
            let mut spec = good();
            spoil(&mut spec);
            assert!(check(&spec, &node()).is_err(), "{name}");
        }
    }
}
