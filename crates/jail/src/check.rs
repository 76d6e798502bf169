//! Every reason a spec can be refused, before anything is touched.

use crate::{
    error::JailError,
    spec::{JailSpec, NodeSpec},
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

/// Jail numbers that fit a link's name: six digits of base 36.
const MOST_JAILS: u64 = 36_u64.pow(6);

/// Refuses a spec that does not hold together.
pub(crate) fn check(spec: &JailSpec, layers: usize, node: &NodeSpec) -> Result<(), JailError> {
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
    if spec.limits.disk_bytes.is_some_and(|bytes| bytes < LEAST_DISK_BYTES) {
        return refuse(format!("the disk limit is below {LEAST_DISK_BYTES} bytes"));
    }
    if layers == 0 {
        return refuse("an image has at least one layer".to_owned());
    }
    if let Some(address) = spec.address {
        let Some(network) = node.network else {
            return refuse("an address was given on a node without a network".to_owned());
        };
        if !network.holds(address) {
            return refuse(format!("address {address} is not in the node's range"));
        }
    }
    for bind in &spec.binds {
        if !is_plain_path(&bind.target) {
            return refuse(format!("bind target {:?} is not a plain relative path", bind.target));
        }
    }
    Ok(())
}

/// A relative path of ordinary names.
fn is_plain_path(path: &str) -> bool {
    path.len() < 256
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::spec::{Bind, Hostname, JailId, Limits, NodeNetwork};

    fn node() -> NodeSpec {
        NodeSpec {
            state_dir: "/var/lib/sandbar".into(),
            name: "sb0".into(),
            network: Some(NodeNetwork { base: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 }),
        }
    }

    fn good() -> JailSpec {
        JailSpec {
            jail: JailId(1),
            volume: Some(JailId(1)),
            uid_base: 65_536 * 7,
            address: Some(Ipv4Addr::new(10, 213, 0, 2)),
            limits: Limits {
                memory_bytes: 1 << 30,
                pids: 64,
                cpu_millis: 1000,
                disk_bytes: Some(1 << 30),
            },
            hostname: Hostname::of("a"),
            binds: vec![Bind { target: "usr".into() }],
        }
    }

    #[test]
    fn a_good_spec_passes() {
        check(&good(), 1, &node()).unwrap();
    }

    #[test]
    fn each_fault_is_refused() {
        type Spoil = fn(&mut JailSpec);
        let cases: [(&str, Spoil); 11] = [
            ("uid zero", |s| s.uid_base = 0),
            ("uid unaligned", |s| s.uid_base = 65_537),
            ("uid at the end", |s| s.uid_base = 0xFFFF_0000),
            ("memory", |s| s.limits.memory_bytes = 1),
            ("pids", |s| s.limits.pids = 0),
            ("cpu", |s| s.limits.cpu_millis = 0),
            ("disk", |s| s.limits.disk_bytes = Some(1)),
            ("jail number", |s| s.jail = JailId(u64::MAX)),
            ("foreign address", |s| s.address = Some(Ipv4Addr::LOCALHOST)),
            ("gateway's address", |s| s.address = Some(Ipv4Addr::new(10, 213, 0, 1))),
            ("bind", |s| s.binds[0].target = "../etc".into()),
        ];
        for (name, spoil) in cases {
            let mut spec = good();
            spoil(&mut spec);
            assert!(check(&spec, 1, &node()).is_err(), "{name}");
        }
        assert!(check(&good(), 0, &node()).is_err(), "no layers");
        for bad in ["", "/usr", "a//b", "a/./b", "..", "a\0b"] {
            assert!(!is_plain_path(bad), "{bad:?}");
        }
    }
}
