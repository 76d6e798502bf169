//! Other machines, and what is said about them.

use std::collections::BTreeSet;

use sys::file_system::FileSystem;

use super::*;
use crate::features::trial::Trial;

fn set(words: &str) -> BTreeSet<String> {
    words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A machine with nothing to complain about.
fn good() -> Facts {
    let works = || Outcome::Works;
    Facts {
        uid: 0,
        capabilities: 0x1ff_ffff_ffff,
        has_server_user: true,
        settings: [
            ("fs/inotify/max_user_instances", "1024"),
            ("fs/inotify/max_user_watches", "524288"),
            ("fs/protected_fifos", "1"),
            ("fs/protected_hardlinks", "1"),
            ("fs/protected_regular", "2"),
            ("fs/protected_symlinks", "1"),
            ("kernel/core_pattern", "core"),
            ("kernel/kptr_restrict", "1"),
            ("kernel/osrelease", "6.12.9-amd64"),
            ("kernel/pid_max", "4194304"),
            ("kernel/threads-max", "1000000"),
            ("net/ipv4/ip_forward", "1"),
            ("net/netfilter/nf_conntrack_max", "524288"),
            ("user/max_user_namespaces", "60000"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into(),
        namespaces: set("user pid mnt net uts ipc cgroup time pid_for_children"),
        overlay: true,
        trial: Trial {
            user_namespace: works(),
            shifted_ids: works(),
            overlay: works(),
            attributes: works(),
        },
        cgroup_v1: set(""),
        cgroup_v2: Some(set("cpuset cpu io memory pids")),
        device_program: works(),
        seccomp: set("kill_process kill_thread trap errno user_notif trace log allow"),
        nft: Some("/usr/sbin/nft".into()),
        nf_tables: works(),
        mmdebstrap: Some("/usr/bin/mmdebstrap".into()),
        btrfs: works(),
        mkfs_btrfs: Some("/usr/sbin/mkfs.btrfs".into()),
        loop_devices: true,
        state_dir: "/var/lib/sandbar".into(),
        state: Ok(FileSystem {
            magic: 0xef53,
            bytes: 200 << 30,
            free_bytes: 100 << 30,
            free_files: 1_000_000,
            files: 2_000_000,
        }),
        open_files: Some(1_048_576),
        swap_kib: 1 << 20,
        ksm: Some("0".to_owned()),
        smt: Some("0".to_owned()),
        vulnerable: Vec::new(),
        lsm: Some("lockdown,capability,landlock,yama,apparmor".to_owned()),
        clock_source: Some("tsc".to_owned()),
    }
}

/// What is not as it should be, with its status.
fn complaints(facts: &Facts) -> Vec<(&'static str, Status)> {
    let features = judge(facts).into_iter();
    features
        .filter(|feature| feature.status != Status::Present)
        .map(|feature| (feature.name, feature.status))
        .collect()
}

/// Whether a server may start.
fn is_fit(facts: &Facts) -> bool {
    judge(facts).iter().all(|feature| !(feature.required && feature.status == Status::Missing))
}

fn on_file_system(magic: u64) -> Facts {
    let mut facts = good();
    facts.state = facts.state.map(|state| FileSystem { magic, ..state });
    facts
}

use Status::{Degraded, Missing};

#[test]
fn a_container_with_few_ids_cannot_have_a_server_without_root() {
    let facts = Facts { has_server_user: false, ..good() };
    assert_eq!(complaints(&facts), [("server's user", Missing)]);
    assert!(!is_fit(&facts));
}

#[test]
fn nothing_is_said_against_a_good_machine() {
    assert_eq!(complaints(&good()), []);
}

#[test]
fn debian_12_has_a_kernel_for_few_layers() {
    let mut facts = good();
    facts.settings.insert("kernel/osrelease", "6.1.0-28-amd64".to_owned());
    facts.settings.insert("net/ipv4/ip_forward", "0".to_owned());
    facts.mmdebstrap = None;
    let expected = [("kernel", Degraded), ("IP forwarding", Degraded), ("mmdebstrap", Missing)];
    assert_eq!(complaints(&facts), expected);
    assert!(is_fit(&facts));
}

#[test]
fn ubuntu_24_04_restricts_others_than_root() {
    let mut facts = good();
    facts.settings.insert("kernel/osrelease", "6.8.0-49-generic".to_owned());
    facts.settings.insert("kernel/apparmor_restrict_unprivileged_userns", "1".to_owned());
    let pattern = "|/usr/share/apport/apport -p%p -s%s -c%c -d%d -P%P -u%u -g%g -F%F -- %E";
    facts.settings.insert("kernel/core_pattern", pattern.to_owned());
    assert_eq!(complaints(&facts), [("core files", Degraded)]);
    assert!(is_fit(&facts));
}

#[test]
fn hosts_with_v1_controllers_are_fit() {
    let mut facts = good();
    facts.cgroup_v1 = set("rw relatime cpu cpuacct memory pids");
    facts.cgroup_v2 = Some(set(""));
    assert_eq!(complaints(&facts), [], "hybrid");
    facts.cgroup_v2 = None;
    assert_eq!(
        complaints(&facts),
        [("cgroup v2 tree", Missing), ("device program", Missing)],
        "v1 only"
    );
    assert!(is_fit(&facts));
    facts.cgroup_v1.remove("pids");
    assert!(!is_fit(&facts));
}

#[test]
fn an_old_kernel_is_refused() {
    let mut facts = good();
    facts.settings.insert("kernel/osrelease", "5.10.0-28-amd64".to_owned());
    let refused = "mount_setattr: Function not implemented (os error 38)".to_owned();
    facts.trial = Trial {
        shifted_ids: Outcome::Fails(refused),
        overlay: Outcome::Untried("the step before it failed"),
        ..facts.trial
    };
    let expected =
        [("kernel", Missing), ("mounts with shifted ids", Missing), ("overlay", Degraded)];
    assert_eq!(complaints(&facts), expected);
    assert!(!is_fit(&facts));
}

#[test]
fn without_nft_there_is_no_network_but_sandboxes() {
    let mut facts = good();
    facts.nft = None;
    facts.nf_tables = Outcome::Untried("there is no nft to try it with");
    assert_eq!(complaints(&facts), [("nft", Missing), ("nf_tables", Degraded)]);
    assert!(is_fit(&facts));
}

#[test]
fn others_than_root_are_told_what_could_not_be_tried() {
    let mut facts = good();
    facts.uid = 1000;
    facts.capabilities = 0;
    facts.trial = Trial::untried("only root can try it");
    facts.nf_tables = Outcome::Untried("only root can try it");
    let expected = [
        ("root", Missing),
        ("capabilities", Missing),
        ("user namespaces", Degraded),
        ("mounts with shifted ids", Degraded),
        ("overlay", Degraded),
        ("extended attributes", Degraded),
        ("nf_tables", Degraded),
        ("raising limits", Missing),
    ];
    assert_eq!(complaints(&facts), expected);
    assert!(!is_fit(&facts));
}

#[test]
fn root_of_a_container_lacks_capabilities() {
    // Docker's fourteen.
    let facts = Facts { capabilities: 0xa804_25fb, ..good() };
    assert_eq!(complaints(&facts), [("capabilities", Missing), ("raising limits", Missing)]);
    let detail = &judge(&facts)[1].detail;
    assert!(detail.contains("SYS_ADMIN") && !detail.contains("CHOWN"), "{detail}");
}

#[test]
fn file_systems_that_cannot_hold_an_upper_layer_are_refused() {
    for (magic, status) in [
        (0x9123_683e, None),
        (0x0102_1994, Some(Degraded)),
        (0x1234, Some(Degraded)),
        (0x794c_7630, Some(Missing)),
        (0x6969, Some(Missing)),
    ] {
        let facts = on_file_system(magic);
        let expected: Vec<_> =
            status.map(|status| ("state directory", status)).into_iter().collect();
        assert_eq!(complaints(&facts), expected, "{magic:#x}");
        assert_eq!(is_fit(&facts), status != Some(Missing));
    }
    let facts = Facts { state: Err("statfs: denied".to_owned()), ..good() };
    assert_eq!(complaints(&facts), [("state directory", Missing), ("disk space", Missing)]);
}

#[test]
fn disks_are_full_by_bytes_or_by_files() {
    for (free_bytes, free_files, files, status) in [
        (10 << 30, 200_000, 1, None),
        ((10 << 30) - 1, 200_000, 1, Some(Degraded)),
        (2 << 30, 200_000, 1, Some(Degraded)),
        ((2 << 30) - 1, 200_000, 1, Some(Missing)),
        (10 << 30, 199_999, 1, Some(Degraded)),
        // btrfs makes files as long as there are bytes, and counts none.
        (10 << 30, 0, 0, None),
    ] {
        let magic = 0xef53;
        let state = Ok(FileSystem { magic, bytes: 200 << 30, free_bytes, free_files, files });
        let mut expected: Vec<_> =
            status.map(|status| ("disk space", status)).into_iter().collect();
        if status == Some(Missing) {
            expected.push(("disk limits", Degraded));
        }
        assert_eq!(complaints(&Facts { state, ..good() }), expected, "{free_bytes} {free_files}");
    }
}

#[test]
fn each_weakness_is_named() {
    type Spoil = fn(&mut Facts);
    let cases: [(&str, Status, Spoil); 23] = [
        ("disk limits", Missing, |facts| facts.btrfs = Outcome::Fails("x".to_owned())),
        ("disk limits", Missing, |facts| facts.mkfs_btrfs = None),
        ("disk limits", Missing, |facts| facts.loop_devices = false),
        ("kernel", Degraded, |facts| {
            facts.settings.insert("kernel/osrelease", "unknown".to_owned());
        }),
        ("namespaces", Missing, |facts| facts.namespaces = set("user pid mnt")),
        ("user namespaces", Missing, |facts| {
            facts.settings.insert("user/max_user_namespaces", "0".to_owned());
        }),
        ("overlay", Missing, |facts| {
            facts.trial.overlay = Outcome::Fails("fsopen: ENODEV".to_owned());
        }),
        ("extended attributes", Missing, |facts| {
            facts.trial.attributes = Outcome::Fails("setxattr: ENOTSUP".to_owned());
        }),
        ("device program", Missing, |facts| {
            facts.device_program = Outcome::Fails("bpf: EPERM".to_owned());
        }),
        ("seccomp filters", Missing, |facts| facts.seccomp = set("errno allow")),
        ("IP forwarding", Missing, |facts| {
            facts.settings.remove("net/ipv4/ip_forward");
        }),
        ("open files", Degraded, |facts| facts.open_files = Some(4096)),
        ("process ids", Degraded, |facts| {
            facts.settings.insert("kernel/pid_max", "32768".to_owned());
        }),
        ("process ids", Degraded, |facts| {
            facts.settings.insert("kernel/threads-max", "32768".to_owned());
        }),
        ("tracked connections", Degraded, |facts| {
            facts.settings.insert("net/netfilter/nf_conntrack_max", "65536".to_owned());
        }),
        ("tracked connections", Degraded, |facts| {
            facts.settings.remove("net/netfilter/nf_conntrack_max");
        }),
        ("inotify", Degraded, |facts| {
            facts.settings.insert("fs/inotify/max_user_watches", "8192".to_owned());
        }),
        ("swap", Missing, |facts| facts.swap_kib = 0),
        ("page merging", Degraded, |facts| facts.ksm = Some("1".to_owned())),
        ("link protections", Degraded, |facts| {
            facts.settings.insert("fs/protected_fifos", "0".to_owned());
        }),
        ("kernel addresses", Degraded, |facts| {
            facts.settings.insert("kernel/kptr_restrict", "0".to_owned());
        }),
        ("one thread per core", Degraded, |facts| facts.smt = Some("1".to_owned())),
        ("CPU weaknesses", Degraded, |facts| facts.vulnerable = vec!["mds".to_owned()]),
    ];
    for (name, status, spoil) in cases {
        let mut facts = good();
        spoil(&mut facts);
        assert_eq!(complaints(&facts), [(name, status)]);
    }
    for (lsm, status) in [(None, Degraded), (Some("capability,yama".to_owned()), Missing)] {
        assert_eq!(complaints(&Facts { lsm, ..good() }), [("security modules", status)]);
    }
    for clock_source in [None, Some("hpet".to_owned())] {
        assert_eq!(complaints(&Facts { clock_source, ..good() }), [("clock", Degraded)]);
    }
}

#[test]
fn what_bounds_all_sandboxes_together_names_its_setting_and_what_is_wanted() {
    let names = [
        ("process ids", "kernel/pid_max", "kernel.pid_max=", 128_000),
        ("process ids", "kernel/threads-max", "kernel.threads-max=", 128_000),
        (
            "tracked connections",
            "net/netfilter/nf_conntrack_max",
            "net.netfilter.nf_conntrack_max=",
            128_000,
        ),
    ];
    for (name, setting, sysctl, wanted) in names {
        let mut facts = good();
        let judged =
            |facts: &Facts| judge(facts).into_iter().find(|feature| feature.name == name).unwrap();
        facts.settings.insert(setting, (wanted - 1).to_string());
        let low = judged(&facts);
        assert_eq!(low.status, Status::Degraded, "{low:?}");
        assert!(low.detail.ends_with(&format!("2000 sandboxes want {wanted}")), "{low:?}");
        // What it says to do is enough.
        let (_, value) = low.remedy.split_once(sysctl).unwrap();
        let value: u64 = value.split_whitespace().next().unwrap().parse().unwrap();
        assert!(value >= wanted, "{low:?}");
        facts.settings.insert(setting, wanted.to_string());
        assert_eq!(judged(&facts).status, Status::Present);
    }
}
