//! What is looked at on a machine, before anything is made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sys::{
    file_system::{self, FileSystem},
    mount,
};

use super::trial::{Outcome, Trial};
use crate::cgroup::devices;

/// The sysctls that are looked at, as paths below /proc/sys. One that cannot be read is left out.
pub(super) const SETTINGS: [&str; 15] = [
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "fs/protected_fifos",
    "fs/protected_hardlinks",
    "fs/protected_regular",
    "fs/protected_symlinks",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/core_pattern",
    "kernel/kptr_restrict",
    "kernel/osrelease",
    "kernel/pid_max",
    "kernel/threads-max",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "user/max_user_namespaces",
];

/// Whom the server is by default: the id below those of sandboxes.
pub(super) const SERVER_USER: u32 = (1 << 30) - 1;

/// Whether a map of ids, `user_namespaces(7)`, has this one inside.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().filter_map(|field| field.parse::<u32>().ok());
        let (first, _, count) = (fields.next(), fields.next(), fields.next());
        first.zip(count).is_some_and(|(first, count)| id.wrapping_sub(first) < count && id >= first)
    })
}

/// A machine, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Effective user id.
    pub(super) uid: u32,
    /// Effective capabilities, a bit each.
    pub(super) capabilities: u64,
    /// Whether the user and the group of [`SERVER_USER`] can be had here.
    pub(super) has_server_user: bool,
    /// Sysctls by their names in [`SETTINGS`].
    pub(super) settings: BTreeMap<&'static str, String>,
    /// Names in /proc/self/ns.
    pub(super) namespaces: BTreeSet<String>,
    /// Whether the kernel has overlay (a module not loaded yet counts when it can be loaded).
    pub(super) overlay: bool,
    /// What was tried.
    pub(super) trial: Trial,
    /// Controllers of mounted v1 trees.
    pub(super) cgroup_v1: BTreeSet<String>,
    /// Controllers of the v2 tree, where one is mounted.
    pub(super) cgroup_v2: Option<BTreeSet<String>>,
    /// Whether the kernel takes the program that decides about devices.
    pub(super) device_program: Outcome,
    /// Answers that seccomp filters can give.
    pub(super) seccomp: BTreeSet<String>,
    /// Where the program nft is.
    pub(super) nft: Option<PathBuf>,
    /// Whether nft can talk to the kernel.
    pub(super) nf_tables: Outcome,
    /// Where the program mmdebstrap is.
    pub(super) mmdebstrap: Option<PathBuf>,
    /// Whether the kernel knows btrfs.
    pub(super) btrfs: Outcome,
    /// Where the program mkfs.btrfs is.
    pub(super) mkfs_btrfs: Option<PathBuf>,
    /// Whether there can be loop devices.
    pub(super) loop_devices: bool,
    /// The state directory, or the nearest one above it that exists.
    pub(super) state_dir: PathBuf,
    /// The file system it lies on, or why that is not known.
    pub(super) state: Result<FileSystem, String>,
    /// Hard limit of open files; none for no limit.
    pub(super) open_files: Option<u64>,
    /// KiB of swap.
    pub(super) swap_kib: u64,
    /// /sys/kernel/mm/ksm/run.
    pub(super) ksm: Option<String>,
    /// /sys/devices/system/cpu/smt/active.
    pub(super) smt: Option<String>,
    /// Weaknesses of the CPU that nothing makes up for, by name.
    pub(super) vulnerable: Vec<String>,
    /// /sys/kernel/security/lsm.
    pub(super) lsm: Option<String>,
    /// The clock source in use.
    pub(super) clock_source: Option<String>,
}

impl Facts {
    /// Looks at this machine.
    pub(super) fn gather(state_dir: &Path) -> Self {
        let status = Status::read();
        let state_dir = existing(state_dir);
        let nft = program("nft");
        let trial = if status.uid == 0 {
            Trial::run(&state_dir)
        } else {
            Trial::untried("only root can try it")
        };
        let (cgroup_v1, cgroup_v2) = cgroups(&text("/proc/self/mounts").unwrap_or_default());
        Self {
            uid: status.uid,
            capabilities: status.capabilities,
            has_server_user: ["uid_map", "gid_map"].iter().all(|map| {
                maps(&text(&format!("/proc/self/{map}")).unwrap_or_default(), SERVER_USER)
            }),
            settings: SETTINGS
                .into_iter()
                .filter_map(|name| Some((name, text(&format!("/proc/sys/{name}"))?)))
                .collect(),
            namespaces: names("/proc/self/ns"),
            // The trial has loaded the module, where it is one.
            overlay: text("/proc/filesystems").is_some_and(|list| list.contains("\toverlay")),
            trial,
            cgroup_v1,
            cgroup_v2,
            device_program: device_program(status.uid),
            seccomp: words(&text("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default()),
            nf_tables: nf_tables(nft.as_deref(), status.uid),
            nft,
            mmdebstrap: program("mmdebstrap"),
            btrfs: btrfs(status.uid),
            mkfs_btrfs: program("mkfs.btrfs"),
            loop_devices: Path::new("/dev/loop-control").exists(),
            state: file_system(&state_dir),
            state_dir,
            open_files: open_files(),
            swap_kib: swap_kib(),
            ksm: text("/sys/kernel/mm/ksm/run"),
            smt: text("/sys/devices/system/cpu/smt/active"),
            vulnerable: vulnerable(),
            lsm: text("/sys/kernel/security/lsm"),
            clock_source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

/// Who this process is.
struct Status {
    uid: u32,
    capabilities: u64,
}

impl Status {
    /// A process that cannot read its own status has no privilege that could be relied on.
    fn read() -> Self {
        let status = text("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        let capabilities =
            field("CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        Self { uid: uid.unwrap_or(u32::MAX), capabilities: capabilities.unwrap_or(0) }
    }
}

/// A file's text without blanks around it; none when it cannot be read.
fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// `dir`, or the nearest directory above it that exists.
fn existing(dir: &Path) -> PathBuf {
    let absolute = env::current_dir().map_or_else(|_gone| dir.to_owned(), |here| here.join(dir));
    let found = absolute.ancestors().find(|dir| dir.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Where the program `name` is: on `PATH`, or where distributions put root's programs.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The controllers of v1 trees, and those of the v2 tree, in a table of mounts.
fn cgroups(mounts: &str) -> (BTreeSet<String>, Option<BTreeSet<String>>) {
    let (mut v1, mut v2) = (BTreeSet::new(), None);
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            [_, _, "cgroup", options, ..] => v1.extend(options.split(',').map(str::to_owned)),
            [_, path, "cgroup2", ..] => {
                let controllers = text(&format!("{path}/cgroup.controllers")).unwrap_or_default();
                v2 = Some(words(&controllers));
            }
            _ => {}
        }
    }
    (v1, v2)
}

fn device_program(uid: u32) -> Outcome {
    if uid != 0 {
        return Outcome::Untried("only root can try it");
    }
    match devices::program() {
        Ok(_) => Outcome::Works,
        Err(error) => Outcome::Fails(error.to_string()),
    }
}

fn nf_tables(nft: Option<&Path>, uid: u32) -> Outcome {
    let Some(nft) = nft else { return Outcome::Untried("there is no nft to try it with") };
    if uid != 0 {
        return Outcome::Untried("only root can try it");
    }
    match Command::new(nft).args(["list", "tables"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Outcome::Works,
        Ok(output) => {
            Outcome::Fails(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))
        }
        Err(error) => Outcome::Fails(error.to_string()),
    }
}

/// Asks for a file system of that kind, which loads the module where it is one, and makes none.
fn btrfs(uid: u32) -> Outcome {
    if uid != 0 {
        return Outcome::Untried("only root can try it");
    }
    match mount::new_filesystem(c"btrfs") {
        Ok(_) => Outcome::Works,
        Err(error) => Outcome::Fails(error.to_string()),
    }
}

fn file_system(dir: &Path) -> Result<FileSystem, String> {
    let path = CString::new(dir.as_os_str().as_encoded_bytes());
    let path = path.map_err(|_zero| "its path holds a zero byte".to_owned())?;
    file_system::at(&path).map_err(|error| error.to_string())
}

fn open_files() -> Option<u64> {
    let limits = text("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn swap_kib() -> u64 {
    let swaps = text("/proc/swaps").unwrap_or_default();
    let sizes = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2));
    sizes.filter_map(|size| size.parse::<u64>().ok()).sum()
}

fn vulnerable() -> Vec<String> {
    const DIR: &str = "/sys/devices/system/cpu/vulnerabilities";
    let open = |name: &String| {
        text(&format!("{DIR}/{name}")).is_some_and(|state| state.starts_with("Vulnerable"))
    };
    names(DIR).into_iter().filter(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_in_both_kinds_of_trees() {
        let (v1, v2) = cgroups(
            "cgroup /c/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup /c/pids cgroup rw,pids 0 0\nproc /proc proc rw 0 0\n",
        );
        assert!(["cpu", "cpuacct", "pids"].iter().all(|name| v1.contains(*name)), "{v1:?}");
        assert_eq!(v2, None);
        let (v1, v2) = cgroups("cgroup2 /none/such cgroup2 rw 0 0\n");
        assert_eq!((v1.len(), v2), (0, Some(BTreeSet::new())));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        assert_eq!(existing(Path::new("/proc/self/none/such")), Path::new("/proc/self"));
        assert_eq!(existing(Path::new("/none/such")), Path::new("/"));
    }
}
