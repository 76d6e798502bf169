//! Messages about links, addresses and routes, rtnetlink(7).

use std::{
    ffi::CStr,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::message::{CREATE, EXCLUSIVE, Message, REPLACE};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// Hardware addresses of the host's end of every link, and of the jail's: each link is a wire of its own,
/// so they need not differ from those of others. Made up, as their second bit says.
pub(super) const HOST_END: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const JAIL_END: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Message {
    /// `struct ifinfomsg`.
    fn link_body(&mut self, index: u32, flags: u32) {
        self.put([0; 4]);
        self.put(index.to_ne_bytes());
        self.put(flags.to_ne_bytes());
        self.put(flags.to_ne_bytes());
    }

    fn one_queue(&mut self) {
        self.attribute(IFLA_NUM_TX_QUEUES, 1_u32.to_ne_bytes());
        self.attribute(IFLA_NUM_RX_QUEUES, 1_u32.to_ne_bytes());
    }

    /// Switches a link on.
    pub(super) fn link_up(index: u32) -> Self {
        let mut message = Self::new(RTM_NEWLINK, 0);
        message.link_body(index, IFF_UP);
        message.finish()
    }

    /// Switches a link on that is to have no address of IPv6, which the kernel would make up, look for
    /// others with it and tell them of it. `EAFNOSUPPORT` where it knows no IPv6.
    pub(super) fn link_up_without_ipv6(index: u32) -> Self {
        let mut message = Self::new(RTM_NEWLINK, 0);
        message.link_body(index, IFF_UP);
        message.nested(IFLA_AF_SPEC, |families| {
            families.nested(AF_INET6, |own| {
                own.attribute(IFLA_INET6_ADDR_GEN_MODE, [IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        message.finish()
    }

    /// A veth pair, switched off: `name` here; `eth0` with index `peer_index` in the network
    /// namespace `namespace`. Each end has the one queue that the kernel uses: without a number it
    /// makes one per processor, and then waits for a grace period to switch the others off.
    pub(super) fn add_link_pair(name: &CStr, peer_index: u32, namespace: BorrowedFd<'_>) -> Self {
        let mut message = Self::new(RTM_NEWLINK, CREATE | EXCLUSIVE);
        message.link_body(0, 0);
        message.attribute(IFLA_ADDRESS, HOST_END);
        message.attribute(IFLA_IFNAME, name.to_bytes_with_nul());
        message.one_queue();
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.link_body(peer_index, 0);
                    peer.attribute(IFLA_ADDRESS, JAIL_END);
                    peer.attribute(IFLA_IFNAME, b"eth0\0");
                    peer.one_queue();
                    peer.attribute(IFLA_NET_NS_FD, namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        message.finish()
    }

    /// Removes a link, which waits until nobody uses it any more.
    pub(super) fn remove_link(index: u32) -> Self {
        let mut message = Self::new(RTM_DELLINK, 0);
        message.link_body(index, 0);
        message.finish()
    }

    fn address(kind: u16, flags: u16, index: u32, address: Ipv4Addr) -> Self {
        let mut message = Self::new(kind, flags);
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        message.put([AF_INET, 32, 0, RT_SCOPE_UNIVERSE]);
        message.put(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, address.octets());
        message.attribute(IFA_ADDRESS, address.octets());
        message.finish()
    }

    /// Gives a link an address that has no network around it.
    pub(super) fn add_address(index: u32, address: Ipv4Addr) -> Self {
        Self::address(RTM_NEWADDR, CREATE | EXCLUSIVE, index, address)
    }

    /// Takes it away.
    pub(super) fn remove_address(index: u32, address: Ipv4Addr) -> Self {
        Self::address(RTM_DELADDR, 0, index, address)
    }

    /// `address` has the hardware address `end` on link `index`, for ever. The kernel remembers what it
    /// had to ask for in one table for all network namespaces of the machine, and forgets or refuses
    /// above its limit (`gc_thresh3`, 1,024 by default); what it was told does not count.
    pub(super) fn neighbour(address: Ipv4Addr, end: [u8; 6], index: u32) -> Self {
        let mut message = Self::new(RTM_NEWNEIGH, CREATE | REPLACE);
        // struct ndmsg: family, padding, index, state, flags, type
        message.put([AF_INET, 0, 0, 0]);
        message.put(index.to_ne_bytes());
        message.put(NUD_PERMANENT.to_ne_bytes());
        message.put([0, RTN_UNICAST]);
        message.attribute(NDA_DST, address.octets());
        message.attribute(NDA_LLADDR, end);
        message.finish()
    }

    /// `struct rtmsg`.
    fn route_body(&mut self, prefix: u8, scope: u8, flags: u32) {
        self.put([AF_INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
        self.put(flags.to_ne_bytes());
    }

    /// `address` is behind link `index`, and is spoken to from `gateway`: a jail sees no other address
    /// of the host. Replaces the route of an earlier jail whose link has not vanished yet.
    pub(super) fn route_to(address: Ipv4Addr, index: u32, gateway: Ipv4Addr) -> Self {
        let mut message = Self::new(RTM_NEWROUTE, CREATE | REPLACE);
        message.route_body(32, RT_SCOPE_LINK, 0);
        message.attribute(RTA_DST, address.octets());
        message.attribute(RTA_OIF, index.to_ne_bytes());
        message.attribute(RTA_PREFSRC, gateway.octets());
        message.finish()
    }

    /// Everything else is behind `gateway` on link `index`, although no address says so.
    pub(super) fn default_route(gateway: Ipv4Addr, index: u32) -> Self {
        let mut message = Self::new(RTM_NEWROUTE, CREATE);
        message.route_body(0, RT_SCOPE_UNIVERSE, RTNH_F_ONLINK);
        message.attribute(RTA_GATEWAY, gateway.octets());
        message.attribute(RTA_OIF, index.to_ne_bytes());
        message.finish()
    }
}
