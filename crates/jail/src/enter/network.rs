//! Step: the jail's side of its network. *After fork.*

use std::{ffi::CStr, os::fd::OwnedFd};

use sys::{
    SysError, errno,
    file::{self, How},
    netlink,
};

use super::{Failure, Plan, in_step, write_setting};
use crate::network::exchange;

/// Settings of the jail's own network namespace, with the reason for each.
const SETTINGS: [(&CStr, &[u8]); 3] = [
    // Programs that want port 80 need no privilege for it; the ports are the jail's own.
    (c"/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0"),
    // `ping` works without raw sockets (icmp(7)).
    (c"/proc/sys/net/ipv4/ping_group_range", b"0 65535"),
    // IPv6 is off on the link out, where nothing would answer it; loopback, which is there
    // already, keeps it. Absent on a kernel without IPv6, where there is nothing to switch off.
    (c"/proc/sys/net/ipv6/conf/default/disable_ipv6", b"1"),
];

/// Writes the settings.
pub(super) fn set() -> Result<(), Failure> {
    for (path, value) in SETTINGS {
        match write_setting(path, value) {
            Err(error) if error.errno == errno::ENOENT => {}
            other => in_step(STEP, other)?,
        }
    }
    Ok(())
}

/// Switches loopback on and, with an address, the link and the way out.
pub(super) fn configure(plan: &Plan<'_>) -> Result<(), Failure> {
    let (messages, count) = plan.network;
    let socket = in_step(STEP, netlink::open(netlink::Family::ROUTE))?;
    in_step(STEP, exchange(&socket, messages, count))
}

/// Makes the jail's own table, where the kernel can, and returns the socket that it shows refusals to;
/// else one that is shown nothing: they are told to programs in any case, and counted on the host.
pub(super) fn own_table(plan: &Plan<'_>) -> Result<OwnedFd, Failure> {
    let shown = || -> Result<OwnedFd, SysError> {
        let socket = netlink::open(netlink::Family::NETFILTER)?;
        for (requests, answers) in plan.own_table {
            exchange(&socket, requests, *answers)?;
        }
        Ok(socket)
    };
    let nothing = || file::open(file::cwd(), c"/dev/null", How::new(file::O_RDONLY));
    in_step(STEP, shown().or_else(|_not_here| nothing()))
}

const STEP: &str = "network";
