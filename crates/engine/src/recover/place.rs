//! Whether what runs has the user ids and the address that it would be given now.
//!
//! Both follow from a sandbox's slot and the node's settings. A sandbox that was started under other
//! settings has what another one may be given next: its ids, and with them its files and limits, or its
//! address.

use std::{fs, io, net::Ipv4Addr};

/// True when process `pid` has the host user id `uid`, and its network namespace no address but
/// `address`. Whoever asks holds a handle to the process, and sees afterwards whether it still lives.
///
/// # Errors
/// When there is no such process.
pub(super) fn is_in_place(pid: i32, uid: u32, address: Option<Ipv4Addr>) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let routes = fs::read_to_string(format!("/proc/{pid}/net/fib_trie"))?;
    Ok(user_of(&status) == Some(uid) && addresses(&routes).all(|own| Some(own) == address))
}

/// The real user id, proc(5).
fn user_of(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The namespace's own addresses, those of its loopback left out: below a line `|-- ADDRESS`, there is
/// a line `/32 host LOCAL`.
fn addresses(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    let own = routes.lines().filter_map(move |line| match line.trim() {
        "/32 host LOCAL" => leaf,
        line => {
            if let Some(address) = line.strip_prefix("|-- ") {
                leaf = address.parse::<Ipv4Addr>().ok();
            }
            None
        }
    });
    own.filter(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_understood() {
        assert_eq!(user_of("Name:\tUid:\nUid:\t70000\t1\t2\t3\nGid:\t4\n"), Some(70_000));
        assert_eq!(user_of("Gid:\t4\n"), None);
        let routes = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.213.0.5\n        /32 link UNICAST\n\
                      \x20       /32 host LOCAL\n\
                      Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                      \x20    |-- 10.213.0.1\n        /32 link UNICAST\n";
        assert_eq!(addresses(routes).collect::<Vec<_>>(), [Ipv4Addr::new(10, 213, 0, 5)]);
    }

    #[test]
    fn this_process_has_its_own_user_and_not_another() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let uid = user_of(&status).unwrap();
        assert!(!is_in_place(pid, uid + 1, None).unwrap());
        is_in_place(-1, uid, None).unwrap_err();
    }
}
