//! What a sandbox may reach.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Type, schema::Schema},
};

/// What a sandbox may reach: `"internet"`, `"none"`, or `{"allow": [...]}`.
///
/// Never, whatever is said here: the host, other sandboxes, private, link-local, metadata, multicast
/// and reserved ranges, IPv6, and mail servers (port 25).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkPolicy {
    /// Public addresses.
    #[default]
    Internet,
    /// Nothing but the sandbox's own loopback.
    None,
    /// What is listed, and nothing else.
    Listed(AllowList),
}

/// Everything that a sandbox may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowList {
    /// Up to 256 rules, each written `TARGET`, `TARGET:PORT` or `TARGET:PORT/PROTOCOL`.
    ///
    /// TARGET is a host name (`pypi.org`), all names below one (`*.example.com`, which is not
    /// `example.com` itself), or IPv4 addresses (`203.0.113.7`, `203.0.113.0/24`). Without a port
    /// everything there is allowed, also ping; without `tcp` or `udp` both are. A name stands for the
    /// addresses that the node's resolver has told the sandbox for it, for as long as the answer says
    /// (at least a minute, at most an hour). Names that no rule allows do not exist in the sandbox.
    #[schema(value_type = Vec<String>, example = json!(["pypi.org:443", "*.pythonhosted.org:443"]))]
    pub allow: Vec<NetworkRule>,
}

/// One thing that a sandbox may reach; see [`AllowList::allow`] for how it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkRule {
    /// Where to.
    pub target: Target,
    /// The only port.
    pub port: Option<u16>,
    /// The only protocol; only with a port.
    pub protocol: Option<Protocol>,
}

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A host name.
    Name(HostName),
    /// All names below one.
    Below(HostName),
    /// IPv4 addresses that share their first bits.
    Range {
        /// The first of them.
        base: Ipv4Addr,
        /// How many bits they share, 0 to 32.
        prefix: u8,
    },
}

/// A host name of two labels or more: lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why a text is no [`NetworkRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetworkRule {
    /// An IPv6 address.
    #[error("{0:?} looks like an IPv6 address, and sandboxes have IPv4 only")]
    Ipv6(String),
    /// Not a port.
    #[error("{0:?} is no port; write a number from 1 to 65535, one per rule")]
    Port(String),
    /// Not a protocol.
    #[error("{0:?} is no protocol; write tcp or udp behind the port, or nothing for both")]
    Protocol(String),
    /// Not addresses.
    #[error("{0:?} is no address range; write it as 203.0.113.0/24")]
    Range(String),
    /// Addresses that do not begin where their prefix says.
    #[error("{address}/{prefix} is no address range; the one it lies in is {base}/{prefix}")]
    Bits {
        /// As it was given.
        address: Ipv4Addr,
        /// As it was given.
        prefix: u8,
        /// The first address with these bits.
        base: Ipv4Addr,
    },
    /// Not a host name.
    #[error(
        "{0:?} is no host name; a name has two labels or more of letters, digits, '-' and '_', \
         joined by dots, others in their ASCII form (xn--...), and may begin with \"*.\""
    )]
    Name(String),
}

/// Characters of a host name (RFC 1035, written with dots).
const NAME_CHARS: usize = 253;

/// Characters of one label of it.
const LABEL_CHARS: usize = 63;

impl HostName {
    /// The name in a text, whatever its case; a dot at its end is not part of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_CHARS).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next()?;
        // What ends with a number is an address, well or badly written.
        let is_name = text.len() <= NAME_CHARS
            && text.contains('.')
            && text.split('.').all(is_label)
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        is_name.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when this name lies below `other`.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(&other.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl NetworkRule {
    /// True when the rule allows this name.
    #[must_use]
    pub fn allows_name(&self, name: &HostName) -> bool {
        match &self.target {
            Target::Name(allowed) => name == allowed,
            Target::Below(parent) => name.is_below(parent),
            Target::Range { .. } => false,
        }
    }
}

impl FromStr for NetworkRule {
    type Err = InvalidNetworkRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (target, service) = match text.split_once(':') {
            Some((target, service)) => (target, Some(service)),
            None => (text, None),
        };
        let Some(service) = service else {
            return Ok(Self { target: parse_target(target)?, port: None, protocol: None });
        };
        if service.contains(':') {
            return Err(InvalidNetworkRule::Ipv6(text.to_owned()));
        }
        let (port, protocol) = match service.split_once('/') {
            Some((port, protocol)) => (port, Some(protocol)),
            None => (service, None),
        };
        let number = port.parse().ok().filter(|number: &u16| *number > 0);
        // As it would be written: no sign, no zeros before it.
        let number = number.filter(|number| number.to_string() == port);
        Ok(Self {
            target: parse_target(target)?,
            port: Some(number.ok_or_else(|| InvalidNetworkRule::Port(port.to_owned()))?),
            protocol: protocol.map(parse_protocol).transpose()?,
        })
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, InvalidNetworkRule> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(InvalidNetworkRule::Protocol(other.to_owned())),
    }
}

fn parse_target(text: &str) -> Result<Target, InvalidNetworkRule> {
    if let Ok(base) = text.parse() {
        return Ok(Target::Range { base, prefix: 32 });
    }
    if let Some((address, prefix)) = text.split_once('/') {
        let bad = || InvalidNetworkRule::Range(text.to_owned());
        let address: Ipv4Addr = address.parse().map_err(|_fault| bad())?;
        let bits: u8 = prefix.parse().map_err(|_fault| bad())?;
        if bits > 32 || bits.to_string() != prefix {
            return Err(bad());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let base = Ipv4Addr::from_bits(address.to_bits() & mask);
        if base != address {
            return Err(InvalidNetworkRule::Bits { address, prefix: bits, base });
        }
        return Ok(Target::Range { base, prefix: bits });
    }
    let (name, kind): (_, fn(HostName) -> Target) = match text.strip_prefix("*.") {
        Some(parent) => (parent, Target::Below),
        None => (text, Target::Name),
    };
    let name = HostName::parse(name).ok_or_else(|| InvalidNetworkRule::Name(text.to_owned()))?;
    Ok(kind(name))
}

impl fmt::Display for NetworkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Name(name) => f.write_str(name.as_str())?,
            Target::Below(parent) => write!(f, "*.{}", parent.as_str())?,
            Target::Range { base, prefix: 32 } => base.fmt(f)?,
            Target::Range { base, prefix } => write!(f, "{base}/{prefix}")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.protocol {
            Some(Protocol::Tcp) => f.write_str("/tcp"),
            Some(Protocol::Udp) => f.write_str("/udp"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for NetworkRule {
    type Error = InvalidNetworkRule;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetworkRule> for String {
    fn from(rule: NetworkRule) -> Self {
        rule.to_string()
    }
}

impl Serialize for NetworkPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Internet => serializer.serialize_str("internet"),
            Self::None => serializer.serialize_str("none"),
            Self::Listed(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, so that a fault in a rule is told as what it is.
        deserializer.deserialize_any(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl<'de> de::Visitor<'de> for PolicyVisitor {
    type Value = NetworkPolicy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"internet\", \"none\" or {\"allow\": [...]}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match word {
            "internet" => Ok(NetworkPolicy::Internet),
            "none" => Ok(NetworkPolicy::None),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        AllowList::deserialize(de::value::MapAccessDeserializer::new(map))
            .map(NetworkPolicy::Listed)
    }
}

impl PartialSchema for NetworkPolicy {
    fn schema() -> RefOr<Schema> {
        let words = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["internet", "none"]))
            .description(Some("Public addresses, or nothing."));
        OneOfBuilder::new()
            .item(words)
            .item(AllowList::schema())
            .description(Some(
                "What a sandbox may reach. Never, whatever is said here: the host, other sandboxes, \
                 private, link-local, metadata, multicast and reserved ranges, IPv6, and mail servers \
                 (port 25).",
            ))
            .into()
    }
}

impl ToSchema for NetworkPolicy {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        AllowList::schemas(schemas);
    }
}

#[cfg(test)]
mod tests;
