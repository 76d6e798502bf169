//! What the kernel must be and allow.

use super::{Outcome, Topic, number};
use crate::features::{
    Feature,
    facts::{Facts, SERVER_USER},
};

/// Capabilities the launcher uses, by bit, with what for.
const NEEDED: [(u32, &str); 13] = [
    (0, "CHOWN: files of a jail belong to its ids"),
    (1, "DAC_OVERRIDE: directories of a jail belong to others"),
    (3, "FOWNER: modes of files that belong to others"),
    (4, "FSETID: modes of unpacked files"),
    (5, "KILL: ending a jail's processes"),
    (6, "SETGID: becoming a jail's group"),
    (7, "SETUID: becoming a jail's user"),
    (8, "SETPCAP: giving up capabilities"),
    (12, "NET_ADMIN: links and packet rules"),
    (19, "SYS_PTRACE: opening the namespaces of a jail's first process"),
    (21, "SYS_ADMIN: namespaces and mounts"),
    (27, "MKNOD: a jail's own device nodes"),
    (31, "SETFCAP: id maps with root in them, Linux 5.12"),
];

/// Bit of `CAP_SYS_RESOURCE`.
const SYS_RESOURCE: u32 = 24;

/// The oldest kernel: overlays over layers with shifted ids.
const OLDEST: (u32, u32) = (5, 19);
/// From here on an overlay takes one layer per option, so any number of them.
const MANY_LAYERS: (u32, u32) = (6, 8);

pub(super) fn root(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "root",
        required: true,
        cost: "no sandbox can be made: id ranges, mounts and links need it",
        remedy: "run the server as root; user code never is",
    };
    match facts.uid {
        0 => topic.present("running as root"),
        uid => topic.missing(format!("running as user {uid}")),
    }
}

pub(super) fn server_user(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "server's user",
        required: true,
        cost: "the server does not start: what reads requests is not to be root",
        remedy: "give the container this machine is more ids, or set user to an account it has",
    };
    if facts.has_server_user {
        topic.present(format!("the server is user {SERVER_USER} once root has started it"))
    } else {
        topic.missing(format!("there is no user {SERVER_USER} here"))
    }
}

pub(super) fn capabilities(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "capabilities",
        required: true,
        cost: "a step of making a sandbox is refused by the kernel",
        remedy: "start the server as full root, not in a container or unit that drops capabilities",
    };
    let lacking = NEEDED.iter().filter(|(bit, _)| facts.capabilities >> bit & 1 == 0);
    let names = lacking.map(|(_, what)| what.split_once(':').map_or(*what, |(name, _)| name));
    let lacking: Vec<&str> = names.collect();
    if lacking.is_empty() {
        topic.present("all that are needed")
    } else {
        topic.missing(format!("lacking {}", lacking.join(", ")))
    }
}

pub(super) fn resource_capability(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "raising limits",
        required: false,
        cost: "hard limits of processes cannot be raised above those the server was started with",
        remedy: "start the server with CAP_SYS_RESOURCE, or with high limits",
    };
    if facts.capabilities >> SYS_RESOURCE & 1 == 1 {
        topic.present("CAP_SYS_RESOURCE")
    } else {
        topic.missing("no CAP_SYS_RESOURCE")
    }
}

pub(super) fn version(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "kernel",
        required: true,
        cost: "before 5.19 overlays refuse layers with shifted ids; before 6.8 an image can have about a dozen layers",
        remedy: "install a kernel of 6.8 or later (Debian 12: bookworm-backports; Ubuntu: linux-generic-hwe)",
    };
    let release = facts.settings.get("kernel/osrelease").cloned().unwrap_or_default();
    match parse(&release) {
        None => topic.degraded(format!("unknown release {release:?}")),
        Some(version) if version < OLDEST => topic.missing(release),
        Some(version) if version < MANY_LAYERS => topic.degraded(release),
        Some(_) => topic.present(release),
    }
}

/// Major and minor number of a kernel's release.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn namespaces(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "namespaces",
        required: true,
        cost: "sandboxes would share with the host what is not separated",
        remedy: "use a distribution's kernel: CONFIG_{USER,PID,NET,UTS,IPC,TIME}_NS and CONFIG_CGROUPS",
    };
    const ALL: [&str; 8] = ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time"];
    let lacking: Vec<&str> =
        ALL.into_iter().filter(|name| !facts.namespaces.contains(*name)).collect();
    if lacking.is_empty() {
        topic.present(ALL.join(", "))
    } else {
        topic.missing(format!("lacking {}", lacking.join(", ")))
    }
}

pub(super) fn user_namespaces(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "user namespaces",
        required: true,
        cost: "root inside a sandbox would be root outside, so none is made",
        remedy: "sysctl user.max_user_namespaces=100000",
    };
    if number(facts, "user/max_user_namespaces") == Some(0) {
        return topic.missing("user.max_user_namespaces is 0");
    }
    let restricted = number(facts, "kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    let detail = if restricted {
        "made one (AppArmor keeps them from other users than root, which is fine)"
    } else {
        "made one"
    };
    topic.tried(&facts.trial.user_namespace, detail)
}

pub(super) fn shifted_ids(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "mounts with shifted ids",
        required: true,
        cost: "an image could not be shared by sandboxes, which each have ids of their own",
        remedy: "keep the state directory on ext4, xfs or btrfs and use a kernel of 5.19 or later",
    };
    let works = format!("made one of {}", facts.state_dir.display());
    topic.tried(&facts.trial.shifted_ids, works)
}

pub(super) fn overlay(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "overlay",
        required: true,
        cost: "a sandbox could not have an image's files and its own on top of them",
        remedy: "modprobe overlay; keep the state directory on ext4, xfs or btrfs",
    };
    match &facts.trial.overlay {
        Outcome::Untried(reason) if facts.overlay => {
            topic.degraded(format!("the kernel has it; not tried: {reason}"))
        }
        outcome => topic.tried(outcome, format!("made one in {}", facts.state_dir.display())),
    }
}

pub(super) fn controllers(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "cgroup controllers",
        required: true,
        cost: "memory, processes and CPU of a sandbox could not be limited",
        remedy: "boot without cgroup_disable=; in a container, let it have a writable cgroup tree",
    };
    const ALL: [&str; 3] = ["memory", "pids", "cpu"];
    let place = |name: &str| {
        let unified = facts.cgroup_v2.as_ref().is_some_and(|tree| tree.contains(name));
        match (unified, facts.cgroup_v1.contains(name)) {
            (true, _) => Some("v2"),
            (false, true) => Some("v1"),
            (false, false) => None,
        }
    };
    let text = |name| format!("{name} ({})", place(name).unwrap_or("nowhere"));
    let detail = ALL.map(text).join(", ");
    if ALL.iter().all(|name| place(name).is_some()) {
        topic.present(detail)
    } else {
        topic.missing(detail)
    }
}

pub(super) fn unified_tree(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "cgroup v2 tree",
        required: false,
        cost: "a sandbox is ended process by process instead of at one stroke, and one command's tree cannot be ended for sure; freezing needs the v1 freezer",
        remedy: "mkdir /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
    };
    match &facts.cgroup_v2 {
        None => topic.missing("none is mounted"),
        Some(tree) if tree.contains("memory") => {
            topic.present("mounted: limits, ends and freezes sandboxes")
        }
        Some(_) => topic.present("mounted, controllers elsewhere: ends and freezes sandboxes"),
    }
}

pub(super) fn device_program(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "device program",
        required: false,
        cost: "that nodes cannot be made in a sandbox, and work nowhere but in its /dev, is the only lock on devices",
        remedy: "use a distribution's kernel (CONFIG_CGROUP_BPF), with a v2 cgroup tree mounted",
    };
    match &facts.cgroup_v2 {
        None => topic.missing("there is no v2 cgroup tree to attach it to"),
        Some(_) => topic.tried(&facts.device_program, "the kernel takes it"),
    }
}

pub(super) fn seccomp(facts: &Facts) -> Feature {
    let topic = Topic {
        name: "seccomp filters",
        required: true,
        cost: "sandboxes could reach the whole kernel",
        remedy: "use a distribution's kernel: CONFIG_SECCOMP_FILTER",
    };
    const ALL: [&str; 3] = ["allow", "errno", "kill_process"];
    if ALL.iter().all(|action| facts.seccomp.contains(*action)) {
        topic.present("allow, errno and kill_process")
    } else {
        topic.missing(format!("the kernel offers {:?}", facts.seccomp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        for (release, version) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.10.0-28-amd64", Some((5, 10))),
            ("6.8.0-31-generic", Some((6, 8))),
            ("6.12-rc1", Some((6, 12))),
            ("7.0", Some((7, 0))),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(parse(release), version, "{release}");
        }
    }
}
