//! Tools, directories and settings of the host.

use super::{Topic, number};
use crate::features::{Feature, facts::Facts, trial::Outcome};

/// Bytes in a GiB.
const GIB: u64 = 1 << 30;
/// Free bytes below which the default image cannot be built.
const LEAST_FREE: u64 = 2 * GIB;
/// Free bytes below which there is little room for sandboxes' files.
const AMPLE_FREE: u64 = 10 * GIB;
/// Files that may still be made, below which an image does not fit.
const LEAST_FREE_FILES: u64 = 200_000;
/// Open files that one process of a sandbox is given.
const OPEN_FILES: u64 = 65_536;
/// Sandboxes of a large node that do something at the same time.
const SANDBOXES: u64 = 2_000;
/// Process ids, and threads, for all of them with some dozen each.
const PROCESS_IDS: u64 = 64 * SANDBOXES;
/// Addresses of the links to sandboxes that the kernel remembers at once: one each, and the host's own.
const NEIGHBOURS: u64 = 2 * SANDBOXES;
/// Connections of all of them that the firewall keeps track of.
const CONNECTIONS: u64 = 64 * SANDBOXES;
/// Inotify instances per user that development tools need.
const WATCHERS: u64 = 128;
/// Inotify watches per user that a large source tree needs.
const WATCHES: u64 = 65_536;

/// What a kind of file system is worth for the state directory.
enum Worth {
    Good,
    Weak(&'static str),
    Useless(&'static str),
}

/// Kinds of file systems by their numbers in linux/magic.h, and what they are worth.
const KINDS: [(u64, &str, Worth); 14] = [
    (0xef53, "ext4", Worth::Good),
    (0x5846_5342, "xfs", Worth::Good),
    (0x9123_683e, "btrfs", Worth::Good),
    (0xf2f5_2010, "f2fs", Worth::Good),
    (0x2fc1_2fc1, "zfs", Worth::Weak("overlays over it work from OpenZFS 2.2 on")),
    (0x0102_1994, "tmpfs", Worth::Weak("everything is lost at a reboot, and it takes memory")),
    (0x794c_7630, "overlay", Worth::Useless("an overlay cannot hold the files of another")),
    (0x6969, "nfs", Worth::Useless("an overlay cannot write to it")),
    (0xfe53_4d42, "smb", Worth::Useless("an overlay cannot write to it")),
    (0xff53_4d42, "cifs", Worth::Useless("an overlay cannot write to it")),
    (0x6573_5546, "fuse", Worth::Useless("an overlay cannot write to it")),
    (0x0102_1997, "9p", Worth::Useless("an overlay cannot write to it")),
    (0x4d44, "vfat", Worth::Useless("it has neither owners nor modes")),
    (0x7371_7368, "squashfs", Worth::Useless("it cannot be written to")),
];

pub(super) fn state_directory(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "state directory",
        required: true,
        cost: "sandboxes' files have no place that an overlay can use",
        remedy: "put it on ext4, xfs or btrfs (--state-dir, SANDBAR_STATE_DIR)",
    };
    let path = facts.state_dir.display();
    let magic = match &facts.state {
        Ok(state) => state.magic,
        Err(error) => return topic.missing(format!("{path}: {error}")),
    };
    match KINDS.iter().find(|kind| kind.0 == magic) {
        Some((_, kind, Worth::Good)) => topic.present(format!("{path} is on {kind}")),
        Some((_, kind, Worth::Weak(why))) => topic.degraded(format!("{path} is on {kind}: {why}")),
        Some((_, kind, Worth::Useless(why))) => {
            topic.missing(format!("{path} is on {kind}: {why}"))
        }
        None => topic.degraded(format!("{path} is on a file system we do not know ({magic:#x})")),
    }
}

pub(super) fn attributes(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "extended attributes",
        required: true,
        cost: "an overlay could not remember what a sandbox removed or replaced",
        remedy: "keep the state directory on ext4, xfs or btrfs",
    };
    topic.tried(&facts.trial.attributes, "kept by the state directory's file system")
}

pub(super) fn disk(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "disk space",
        required: false,
        cost: "the default image takes about 2 GiB; sandboxes' files come on top",
        remedy: "make room, or put the state directory on another disk",
    };
    let Ok(state) = &facts.state else { return topic.missing("unknown") };
    let detail = format!("{:.1} GiB free", as_gib(state.free_bytes));
    let few_files = state.files > 0 && state.free_files < LEAST_FREE_FILES;
    if state.free_bytes < LEAST_FREE {
        topic.missing(detail)
    } else if few_files {
        topic.degraded(format!("{detail}, but only {} more files", state.free_files))
    } else if state.free_bytes < AMPLE_FREE {
        topic.degraded(detail)
    } else {
        topic.present(detail)
    }
}

/// See `volume.rs`: the same things are needed there.
pub(super) fn disk_limits(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "disk limits",
        required: false,
        cost: "a sandbox can fill the disk of the state directory, and there are no checkpoints",
        remedy: "apt-get install btrfs-progs, on a kernel with btrfs and loop devices, with 2 GiB free",
    };
    // A state directory that cannot be asked is a complaint of its own.
    let free = facts.state.as_ref().map_or(u64::MAX, |state| state.free_bytes);
    match (&facts.btrfs, &facts.mkfs_btrfs) {
        (Outcome::Fails(error), _) => topic.missing(format!("the kernel has no btrfs: {error}")),
        (_, None) => topic.missing("no program mkfs.btrfs"),
        _ if !facts.loop_devices => topic.missing("no /dev/loop-control"),
        _ if free < LEAST_FREE => {
            topic.degraded(format!("{:.1} GiB free: enough only for what is there", as_gib(free)))
        }
        (Outcome::Untried(reason), _) => topic.degraded(format!("not tried: {reason}")),
        (Outcome::Works, Some(_)) => topic.present("a btrfs volume for each sandbox"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn as_gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

pub(super) fn nft(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "nft",
        required: false,
        cost: "sandboxes have no network: what they may reach cannot be enforced",
        remedy: "apt-get install nftables",
    };
    match &facts.nft {
        Some(path) => topic.present(path.display().to_string()),
        None => topic.missing("no such program"),
    }
}

pub(super) fn nf_tables(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "nf_tables",
        required: false,
        cost: "sandboxes have no network: what they may reach cannot be enforced",
        remedy: "modprobe nf_tables; in a container, load it on the host",
    };
    topic.tried(&facts.nf_tables, "the kernel answers nft")
}

pub(super) fn forwarding(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "IP forwarding",
        required: false,
        cost: "packets of sandboxes would not leave the machine",
        remedy: "nothing to do: the server sets net.ipv4.ip_forward=1 when it sets up the network",
    };
    match number(facts, "net/ipv4/ip_forward") {
        Some(1) => topic.present("on"),
        Some(_) => topic.degraded("off until the server sets up the network"),
        None => topic.missing("no net.ipv4.ip_forward"),
    }
}

pub(super) fn mmdebstrap(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "mmdebstrap",
        required: false,
        cost: "images based on Debian, the default one among them, cannot be built; `host` can be used",
        remedy: "apt-get install mmdebstrap",
    };
    match &facts.mmdebstrap {
        Some(path) => topic.present(path.display().to_string()),
        None => topic.missing("no such program"),
    }
}

pub(super) fn open_files(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "open files",
        required: false,
        cost: "databases and build tools in sandboxes may run out of descriptors",
        remedy: "start the server with LimitNOFILE=1048576 (systemd) or ulimit -n 1048576",
    };
    match facts.open_files {
        None => topic.present("no hard limit"),
        Some(limit) if limit >= OPEN_FILES => topic.present(format!("hard limit {limit}")),
        Some(limit) => topic.degraded(format!("hard limit {limit}")),
    }
}

pub(super) fn process_ids(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "process ids",
        required: false,
        cost: "the whole machine may run out of process ids before its sandboxes reach their limits",
        remedy: "sysctl kernel.pid_max=4194304 kernel.threads-max=1000000",
    };
    let ids = number(facts, "kernel/pid_max");
    at_least(&topic, ids.min(number(facts, "kernel/threads-max")), PROCESS_IDS)
}

pub(super) fn neighbours(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "neighbour entries",
        required: false,
        cost: "with more sandboxes than that sending packets within seconds, some packets are lost",
        remedy: "sysctl net.ipv4.neigh.default.gc_thresh3=16384 net.ipv4.neigh.default.gc_thresh2=8192",
    };
    at_least(&topic, number(facts, "net/ipv4/neigh/default/gc_thresh3"), NEIGHBOURS)
}

pub(super) fn connections(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "tracked connections",
        required: false,
        cost: "with more connections of all sandboxes than that, new ones fail",
        remedy: "modprobe nf_conntrack; sysctl net.netfilter.nf_conntrack_max=524288",
    };
    at_least(&topic, number(facts, "net/netfilter/nf_conntrack_max"), CONNECTIONS)
}

/// A setting that bounds all sandboxes together.
fn at_least(topic: &Topic, most: Option<u64>, wanted: u64) -> Feature {
    match most {
        Some(most) if most >= wanted => topic.present(format!("up to {most}")),
        Some(most) => topic.degraded(format!("up to {most}; {SANDBOXES} sandboxes want {wanted}")),
        None => topic.degraded("unknown"),
    }
}

pub(super) fn inotify(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "inotify",
        required: false,
        cost: "development servers in a sandbox cannot watch large source trees",
        remedy: "sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288",
    };
    let instances = number(facts, "fs/inotify/max_user_instances").unwrap_or(0);
    let watches = number(facts, "fs/inotify/max_user_watches").unwrap_or(0);
    let detail = format!("{instances} instances and {watches} watches per sandbox");
    if instances >= WATCHERS && watches >= WATCHES {
        topic.present(detail)
    } else {
        topic.degraded(detail)
    }
}

pub(super) fn core_files(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "core files",
        required: false,
        cost: "a crash in a sandbox starts a program on the host, as root, with the sandbox's memory as its input",
        remedy: "sysctl kernel.core_pattern=core",
    };
    match facts.settings.get("kernel/core_pattern") {
        Some(pattern) if pattern.starts_with('|') => topic.degraded(format!("piped: {pattern}")),
        Some(pattern) => {
            topic.present(format!("a file ({pattern}), which sandboxes may not write"))
        }
        None => topic.degraded("unknown"),
    }
}

pub(super) fn swap(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "swap",
        required: false,
        cost: "memory of idle sandboxes stays in RAM",
        remedy: "add swap (on an encrypted disk, if sandboxes hold secrets), for example zram",
    };
    match facts.swap_kib {
        0 => topic.missing("none"),
        kib => topic.present(format!("{:.1} GiB", as_gib(kib << 10))),
    }
}
