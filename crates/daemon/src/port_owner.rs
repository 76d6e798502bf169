//! Who listens on a port of this machine, for an error message.

use std::{fs, path::Path};

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortOwner {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// The state LISTEN in /proc/net/tcp (`TCP_LISTEN`, `include/net/tcp_states.h`).
const LISTEN: &str = "0A";

/// A process of this network namespace that listens on TCP port `port`, if its descriptors can be
/// seen.
pub(crate) fn find(port: u16) -> Option<PortOwner> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let process = format!("/proc/{pid}");
        let name = || fs::read_to_string(format!("{process}/comm")).unwrap_or_default();
        holds(Path::new(&process), &inodes)
            .then(|| PortOwner { pid, name: name().trim().to_owned() })
    })
}

/// Socket inodes of the table's listeners on `port`: columns are described in proc(5).
fn listening(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = columns.as_slice() else { return None };
            let is_it = local.ends_with(&suffix) && *state == LISTEN;
            is_it.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|target| {
            target.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        });
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}
