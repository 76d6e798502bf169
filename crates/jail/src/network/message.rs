//! Messages of rtnetlink(7), as bytes.
//!
//! ```text
//! length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32 │ body │ attributes: length u16, type u16, value, padding
//! ```

use std::{ffi::CStr, net::Ipv4Addr};

use sys::SysError;

/// One request that wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

// linux/netlink.h and linux/rtnetlink.h
const REQUEST_WITH_ANSWER: u16 = 0x1 | 0x4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// Bytes of the message header.
const HEADER: usize = 16;

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST_WITH_ANSWER | flags).to_ne_bytes());
        Self(bytes)
    }

    /// The finished message.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes the length into the header.
    fn finish(mut self) -> Self {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// `struct ifinfomsg`.
    fn link_body(&mut self, index: u32, flags: u32) {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.0.extend(value));
    }

    /// An attribute whose value `fill` appends; padded to four bytes behind its length.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Switches a link on.
    pub(crate) fn link_up(index: u32) -> Self {
        let mut message = Self::new(RTM_NEWLINK, 0);
        message.link_body(index, IFF_UP);
        message.finish()
    }

    /// A veth pair: `name` here, switched on; `eth0` with index `peer_index` in the network namespace of process `pid`.
    pub(crate) fn add_link_pair(name: &CStr, peer_index: u32, pid: i32) -> Self {
        let mut message = Self::new(RTM_NEWLINK, CREATE | EXCLUSIVE);
        message.link_body(0, IFF_UP);
        message.attribute(IFLA_IFNAME, name.to_bytes_with_nul());
        message.nested(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.link_body(peer_index, 0);
                    peer.attribute(IFLA_IFNAME, b"eth0\0");
                    peer.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
                });
            });
        });
        message.finish()
    }

    fn address(kind: u16, flags: u16, index: u32, address: Ipv4Addr) -> Self {
        let mut message = Self::new(kind, flags);
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        message.0.extend([AF_INET, 32, 0, RT_SCOPE_UNIVERSE]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        message.finish()
    }

    /// Gives a link an address that has no network around it.
    pub(crate) fn add_address(index: u32, address: Ipv4Addr) -> Self {
        Self::address(RTM_NEWADDR, CREATE | EXCLUSIVE, index, address)
    }

    /// Takes it away.
    pub(crate) fn remove_address(index: u32, address: Ipv4Addr) -> Self {
        Self::address(RTM_DELADDR, 0, index, address)
    }

    /// `struct rtmsg`.
    fn route_body(&mut self, prefix: u8, scope: u8, flags: u32) {
        self.0.extend([AF_INET, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
        self.0.extend(flags.to_ne_bytes());
    }

    /// `address` is behind link `index`. Replaces the route of an earlier jail whose link has not
    /// vanished yet.
    pub(crate) fn route_to(address: Ipv4Addr, index: u32) -> Self {
        let mut message = Self::new(RTM_NEWROUTE, CREATE | REPLACE);
        message.route_body(32, RT_SCOPE_LINK, 0);
        message.attribute(RTA_DST, &address.octets());
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        message.finish()
    }

    /// Everything else is behind `gateway` on link `index`, although no address says so.
    pub(crate) fn default_route(gateway: Ipv4Addr, index: u32) -> Self {
        let mut message = Self::new(RTM_NEWROUTE, CREATE);
        message.route_body(0, RT_SCOPE_UNIVERSE, RTNH_F_ONLINK);
        message.attribute(RTA_GATEWAY, &gateway.octets());
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        message.finish()
    }
}

/// Counts the answers in one datagram; the first refusal is an error. *After fork.*
pub(crate) fn check_answers(mut bytes: &[u8]) -> Result<usize, SysError> {
    let mut count = 0;
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else { break };
        let error = message.get(HEADER..).and_then(|body| body.first_chunk::<4>());
        if let (NLMSG_ERROR, Some(error)) = (u16::from_ne_bytes([k0, k1]), error) {
            match i32::from_ne_bytes(*error) {
                0 => count += 1,
                errno => return Err(SysError { call: "rtnetlink", errno: -errno }),
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_length_and_pads_its_attributes() {
        let message = Message::add_link_pair(c"sb0-1", 2, 99);
        let length = u32::from_ne_bytes(message.0[..4].try_into().unwrap());
        assert_eq!(usize::try_from(length), Ok(message.0.len()));
        assert_eq!(message.0.len() % 4, 0);
    }

    #[test]
    fn answers_are_counted_and_refusals_found() {
        let answer = |errno: i32| {
            let mut bytes = Message::new(NLMSG_ERROR, 0).0;
            bytes.extend(errno.to_ne_bytes());
            bytes.extend([0; HEADER]);
            Message(bytes).finish().0
        };
        assert_eq!(check_answers(&[answer(0), answer(0)].concat()), Ok(2));
        assert_eq!(check_answers(&answer(-17)).map_err(|error| error.errno), Err(17));
        assert_eq!(check_answers(&[]), Ok(0));
        assert_eq!(check_answers(&[255; 40]), Ok(0));
    }
}
