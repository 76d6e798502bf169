//! Who a visitor is, where other proxies stand in front of this server.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use http::HeaderMap;

/// What proxies say of whom they ask for, nearest last.
const SAID: &str = "x-forwarded-for";

/// Proxies whose word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<AddressBlock>);

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressBlock {
    base: IpAddr,
    prefix: u8,
}

impl TrustedProxies {
    /// Those at these addresses.
    #[must_use]
    pub fn new(blocks: Vec<AddressBlock>) -> Self {
        Self(blocks)
    }

    /// Who asks, when the other end of the connection is `peer`: whom the proxies name, as far as
    /// each of them is trusted. Whoever is not may say what it likes.
    pub(crate) fn visitor(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let said = headers.get_all(SAID).iter().rev();
        let items = said.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut visitor = peer;
        for item in items {
            if !self.holds(visitor) {
                break;
            }
            let Some(before) = std::str::from_utf8(item).ok().and_then(address) else { break };
            visitor = before;
        }
        visitor
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|block| block.holds(address))
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: Vec<_> = self.0.iter().map(AddressBlock::to_string).collect();
        f.write_str(&blocks.join(", "))
    }
}

impl AddressBlock {
    fn holds(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let host_bits = 32 - u32::from(self.prefix);
                (base.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let host_bits = 128 - u32::from(self.prefix);
                (base.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for AddressBlock {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text, None),
        };
        let base = base.parse::<IpAddr>().map_err(|_fault| ())?.to_canonical();
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |prefix| prefix.parse().map_err(|_fault| ()))?;
        if prefix <= most { Ok(Self { base, prefix }) } else { Err(()) }
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// An address as proxies write it: some add the port.
fn address(item: &str) -> Option<IpAddr> {
    let item = item.trim();
    let bare = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item);
    let address = bare.parse().ok();
    address.or_else(|| Some(item.parse::<SocketAddr>().ok()?.ip())).map(|it| it.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn visitor(proxies: &[&str], peer: &str, said: &[&str]) -> String {
        let blocks = proxies.iter().map(|block| block.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in said {
            headers.append(SAID, HeaderValue::from_str(line).unwrap());
        }
        TrustedProxies::new(blocks).visitor(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_the_word_of_trusted_proxies_counts() {
        for (proxies, peer, said, expected) in [
            (&[][..], "9.9.9.9", &["1.1.1.1"][..], "9.9.9.9"),
            (&["10.0.0.0/8"], "9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
            (&["10.0.0.0/8"], "10.1.2.3", &["1.1.1.1"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.1.2.3", &[], "10.1.2.3"),
            // What a visitor says of itself stands before what the proxy says.
            (&["10.0.0.0/8"], "10.1.2.3", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.1.2.3", &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.1.2.3", &["6.6.6.6, 1.1.1.1, 10.9.9.9"], "1.1.1.1"),
            (&["10.0.0.0/8"], "10.1.2.3", &["10.5.5.5, 10.9.9.9"], "10.5.5.5"),
            (&["10.0.0.0/8"], "10.1.2.3", &["1.1.1.1, nonsense"], "10.1.2.3"),
            (&["10.0.0.0/8"], "10.1.2.3", &["1.1.1.1,"], "10.1.2.3"),
            (&["10.0.0.0/8"], "10.1.2.3", &["1.1.1.1:99"], "1.1.1.1"),
            (&["::1"], "::1", &["[2001:db8::1]:5"], "2001:db8::1"),
            (&["fd00::/8"], "fd12::1", &["[2001:db8::1]"], "2001:db8::1"),
            (&["fd00::/8"], "fe80::1", &["2001:db8::1"], "fe80::1"),
            (&["0.0.0.0/0"], "1.1.1.1", &["2.2.2.2"], "2.2.2.2"),
            (&["127.0.0.1"], "127.0.0.2", &["2.2.2.2"], "127.0.0.2"),
            (&["127.0.0.1"], "127.0.0.1", &["::ffff:2.2.2.2"], "2.2.2.2"),
        ] {
            assert_eq!(visitor(proxies, peer, said), expected, "{proxies:?} {peer} {said:?}");
        }
    }

    #[test]
    fn blocks_are_addresses_with_or_without_a_prefix() {
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "proxy.example", "10.0.0.0/-1"] {
            assert!(bad.parse::<AddressBlock>().is_err(), "{bad}");
        }
        let block: AddressBlock = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(block.to_string(), "10.0.0.1/32");
    }
}
