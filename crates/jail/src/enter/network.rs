//! Step: the jail's side of its network. *After fork.*

use std::{ffi::CStr, os::fd::AsFd};

use sys::{
    SysError,
    file::{self, How},
    netlink,
};

use super::{Failure, Plan, in_step};
use crate::network::exchange;

/// Settings of the jail's own network namespace, with the reason for each. Written through the
/// host's `/proc`, which shows the writer's namespace.
const SETTINGS: [(&CStr, &[u8]); 2] = [
    // Programs that want port 80 need no privilege for it; the ports are the jail's own.
    (c"/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0"),
    // `ping` works without raw sockets (icmp(7)).
    (c"/proc/sys/net/ipv4/ping_group_range", b"0 65535"),
];

/// IPv6 is off on the link out, where nothing would answer it; loopback keeps it.
const LINK_WITHOUT_V6: &CStr = c"/proc/sys/net/ipv6/conf/eth0/disable_ipv6";

pub(super) fn configure(plan: &Plan<'_>) -> Result<(), Failure> {
    const STEP: &str = "network";
    for (path, value) in SETTINGS {
        in_step(STEP, write(path, value))?;
    }
    if plan.address.is_some() {
        // Absent on a kernel without IPv6, where there is nothing to switch off.
        match write(LINK_WITHOUT_V6, b"1") {
            Err(error) if !is_missing(error) => return Err((STEP, error)),
            _ => {}
        }
    }
    let (messages, count) = plan.network;
    let socket = in_step(STEP, netlink::open())?;
    in_step(STEP, exchange(&socket, messages, count))
}

fn write(path: &CStr, value: &[u8]) -> Result<(), SysError> {
    let setting = file::open(file::cwd(), path, How::new(file::O_WRONLY))?;
    file::write_all(setting.as_fd(), value)
}

/// errno(3), "no such file or directory".
fn is_missing(error: SysError) -> bool {
    error.errno == 2
}
