//! What a jail is: a complete description with no defaults left to fill in and no tenant text
//! beyond a checked host name.

use std::{
    ffi::CStr,
    fmt,
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Names a jail on its node. Never reused, so a name left over from the past can only mean the past.
///
/// It appears, in decimal, in everything the jail owns: cgroups, directory, socket, network link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JailId(pub u64);

impl fmt::Display for JailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Facts of the node that all its jails share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Where the node keeps its state; jail N lives in `sandboxes/N` below it.
    pub state_dir: PathBuf,
    /// Short name (at most 8 of `a-z0-9`) that sets this node's cgroups, links and nftables table
    /// apart from those of another server on the same machine.
    pub name: String,
    /// Address range of the sandboxes; none means that no sandbox of this node has a network.
    pub network: Option<NodeNetwork>,
}

/// Address range of a node's sandboxes: `gateway` is the first address, sandboxes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeNetwork {
    /// First address of the range, for example 10.213.0.0.
    pub base: Ipv4Addr,
    /// Bits of the prefix, 16 to 28.
    pub prefix: u8,
}

impl NodeNetwork {
    /// The host's address on every sandbox's link; the resolver of the sandboxes listens here.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + 1)
    }

    /// True for an address that a sandbox may have.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let offset = u64::from(address.to_bits()).checked_sub(u64::from(self.base.to_bits()));
        offset.is_some_and(|offset| offset >= 2 && offset < self.size() - 1)
    }

    /// Addresses in the range, the network's and the broadcast address included.
    fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix.min(32)))
    }

    /// The address of the sandbox in slot `slot`; none past the end of the range.
    #[must_use]
    pub fn address(&self, slot: u32) -> Option<Ipv4Addr> {
        let bits = self.base.to_bits().checked_add(slot.checked_add(2)?)?;
        Some(Ipv4Addr::from_bits(bits)).filter(|address| self.holds(*address))
    }

    /// The slot of the sandbox with this address; none for an address that no sandbox has.
    #[must_use]
    pub fn slot(&self, address: Ipv4Addr) -> Option<u32> {
        self.holds(address).then(|| address.to_bits() - self.base.to_bits() - 2)
    }
}

/// One jail, completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailSpec {
    /// Its name.
    pub jail: JailId,
    /// The volume of its own files, made when it is not there. None: a plain directory with the
    /// jail's number, without a limit, whose files are taken by renaming it.
    pub volume: Option<JailId>,
    /// Bytes of what is in the volume that are not charged to it but to those that it was copied from:
    /// what it may be charged with is the less by them, and its programs are told of them as used.
    pub inherited_bytes: u64,
    /// First of its 65,536 host user and group ids; a multiple of 65,536.
    pub uid_base: u32,
    /// Its place on the node's network; none for a jail with loopback only.
    pub network: Option<JailNetwork>,
    /// What it may use.
    pub limits: Limits,
    /// Its host name.
    pub hostname: Hostname,
    /// The layers of its image, topmost first; at least one.
    pub layers: Vec<Layer>,
    /// Read-only trees of the host bound into its root.
    pub binds: Vec<Bind>,
    /// What it is shown of images and volumes, read-only, each at its place of [`VIEWS`]. Only a jail
    /// in which no tenant's program ever runs has any.
    pub views: Vec<View>,
}

/// Where a jail sees its [`JailSpec::views`]: as many as a comparison of two volumes needs.
pub const VIEWS: [&CStr; 5] =
    [c"/run/views/0", c"/run/views/1", c"/run/views/2", c"/run/views/3", c"/run/views/4"];

/// A read-only look at files, with the ids they have inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The root of a sandbox that has changed nothing: the layers of the jail's image.
    Image,
    /// The root of a sandbox that has this volume, in which nothing changes any more.
    Whole(JailId),
    /// The files of this volume alone, as an overlay keeps them: with whiteouts, which are character
    /// devices 0:0, for what is deleted.
    Own(JailId),
}

/// A jail's place on the node's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailNetwork {
    /// Its own address.
    pub address: Ipv4Addr,
    /// What it reaches from there.
    pub reach: Reach,
}

/// What a jail reaches. Never, whatever is said here: the host, other jails, the ranges of
/// [`crate::why_out_of_reach`], mail servers (port 25).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everything else.
    Internet,
    /// Nothing.
    Nothing,
    /// What is listed.
    Listed(AllowList),
}

/// Ranges of one allow-list at most; each is a rule or two that a first packet may have to pass.
pub const RANGES_PER_LIST: usize = 256;

/// Addresses, each with what of it, that are known at once under one allow-list at most.
pub const LEARNED_AT_ONCE: usize = 2048;

/// Everything that a jail reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    /// Sets this list apart from others that the jail has had: what was learned under one of them
    /// is not allowed by another.
    pub revision: u64,
    /// Addresses that are always reached.
    pub ranges: Vec<AddressRange>,
    /// Addresses that an allowed name led to, and so are reached for a while.
    pub learned: Vec<Learned>,
}

/// Addresses, and what of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first address.
    pub base: Ipv4Addr,
    /// Bits that all addresses have in common, 0 to 32.
    pub prefix: u8,
    /// The port; all, and protocols without ports, unless given.
    pub port: Option<u16>,
    /// The protocol; both unless given. Only with a port.
    pub protocol: Option<Protocol>,
}

/// An address that an allowed name led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The address.
    pub address: Ipv4Addr,
    /// What of it; everything unless given.
    pub service: Option<(Protocol, u16)>,
    /// Seconds for which connections to it may be opened. With 0, those that there are may go on.
    pub seconds: u32,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its number in IP packets.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol with this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

impl AddressRange {
    /// True when `address` lies in it.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.base.to_bits()
    }

    /// True when a connection to this address and service is one of those meant.
    #[must_use]
    pub fn admits(&self, address: Ipv4Addr, service: Option<(Protocol, u16)>) -> bool {
        self.holds(address)
            && self.port.is_none_or(|port| {
                service.is_some_and(|(protocol, its_port)| {
                    its_port == port && self.protocol.is_none_or(|only| only == protocol)
                })
            })
    }

    /// The bits that count, set.
    #[must_use]
    pub fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }
}

impl Learned {
    /// True when a connection to this address and service is one of those meant.
    #[must_use]
    pub fn admits(&self, address: Ipv4Addr, service: Option<(Protocol, u16)>) -> bool {
        self.address == address && (self.service.is_none() || self.service == service)
    }
}

/// Shares of the processors that a jail may have, on the scale of `cpu.weight` in cgroup v2.
pub const CPU_WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// The share that the kernel gives whatever was given none.
pub const CPU_WEIGHT: u32 = 100;

/// What a jail may use, enforced by its cgroups and its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for user code; no swap beyond it.
    pub memory_bytes: u64,
    /// Processes and threads of user code.
    pub pids: u32,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Share of the processors beside other jails, [`CPU_WEIGHTS`].
    pub cpu_weight: u32,
    /// Bytes on disk of its own files; none where nothing limits them.
    pub disk_bytes: Option<u64>,
}

/// Digits of a layer's key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A layer of an image, by its key: which directory that is, only a launcher decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Where layers of its kind are.
    pub shelf: Shelf,
    /// Its key.
    pub key: [u8; KEY_BYTES],
}

/// Where layers are, below `images` in the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Those of images that were built.
    Layers,
    /// Those of the image `host`.
    Host,
}

impl Layer {
    /// The layer whose key has these lower-case hexadecimal digits.
    #[must_use]
    pub fn of_digits(shelf: Shelf, digits: &str) -> Option<Self> {
        let mut key = [0; KEY_BYTES];
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self { shelf, key }).filter(|layer| layer.digits() == digits)
    }

    fn digits(&self) -> String {
        self.key.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its directory below the state directory.
    pub(crate) fn place(&self) -> PathBuf {
        let shelf = match self.shelf {
            Shelf::Layers => "images/layers",
            Shelf::Host => "images/host",
        };
        PathBuf::from(shelf).join(self.digits())
    }
}

/// A tree of the host that a jail has read-only. There are no others: a launcher binds nothing because
/// somebody names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// The machine's programs, `/usr`: the image `host` stands on them.
    Programs,
    /// The certificate authorities that the machine trusts, for what a build downloads.
    Authorities,
}

/// Where distributions keep the bundle of certificate authorities that the machine trusts.
const AUTHORITIES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

impl Bind {
    /// Where it is on the host; none where the machine has no such thing.
    #[must_use]
    pub fn source(self) -> Option<&'static Path> {
        match self {
            Self::Programs => Some(Path::new("/usr")),
            Self::Authorities => AUTHORITIES.map(Path::new).into_iter().find(|it| it.is_file()),
        }
    }

    /// Where it appears, below the jail's root. The image must have a directory (for a file, a file)
    /// there.
    #[must_use]
    pub fn target(self) -> &'static CStr {
        match self {
            Self::Programs => c"usr",
            Self::Authorities => c"usr/share/sandbar/host-ca.crt",
        }
    }
}

/// A host name: 1 to 63 of `a-z0-9-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// Makes a host name of any text: lower-cased, other characters replaced by `-`, cut to length.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let clean: String = text
            .chars()
            .take(63)
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .collect();
        let clean = clean.trim_matches('-');
        Self(if clean.is_empty() { "sandbox".to_owned() } else { clean.to_owned() })
    }

    /// `text` itself, when it is a host name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self::of(text)).filter(|name| name.0 == text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
