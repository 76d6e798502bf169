//! What daemon and launcher say to each other: fixed binary messages over a packet socket.
//!
//! ```text
//! request   kind u8 │ fields, little-endian; texts as length u16 and bytes │ + descriptors
//! reply     kind u8 │ fields
//! ```
//!
//! One request, one reply, in turn. Decoding is total: any bytes give a value or
//! [`Malformed`], never a panic; the daemon may have been taken over by what it parses.

use std::net::Ipv4Addr;

use crate::{
    error::JailError,
    spec::{
        AddressRange, AllowList, Bind, Hostname, JailId, JailNetwork, JailSpec, KEY_BYTES, Layer,
        Learned, Limits, Protocol, Reach, Shelf, View,
    },
    volume::Volumes,
};

/// Bytes of one message at most. A spec with its binds takes a few hundred.
pub(crate) const MESSAGE_BYTES: usize = 64 * 1024;

/// Jails in one reply; a node has fewer slots than this times a few.
pub(crate) const JAILS_PER_REPLY: usize = 4096;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a launcher can do: everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Build a jail. Descriptors: listener, config.
    Launch(JailSpec),
    /// End its processes and connections.
    Kill(JailId),
    /// Leave nothing of it but its files.
    Clear(JailId),
    /// Leave nothing of it, nor of the volume with its number.
    Remove(JailId),
    /// Remove a volume, which nothing can reach.
    RemoveFiles(JailId),
    /// Which jails of the node, from this number on, have cgroups?
    Jails(JailId),
    /// Which volumes, from this number on, are there?
    Volumes(JailId),
    /// Make the node's network exist.
    SetUpNetwork,
    /// Make the node's volumes exist.
    SetUpVolumes,
    /// Make a volume a copy of another.
    CopyVolume {
        /// The one that is copied.
        from: JailId,
        /// The copy, which is not there yet.
        to: JailId,
        /// Nothing changes in the copy.
        is_read_only: bool,
    },
    /// Remove the network and the node's cgroups.
    TearDown,
    /// Stop its processes where they are.
    Freeze(JailId),
    /// Let them go on.
    Thaw(JailId),
    /// Push its memory out, as far as there is room for it.
    Reclaim(JailId),
    /// Tell its processes that they are to end.
    Notify(JailId),
    /// Change what a running jail may reach.
    Admit(JailId, JailNetwork),
    /// Let a jail reach these addresses too, if this revision of its allow-list is in force.
    Learn {
        /// The jail.
        jail: JailId,
        /// See [`AllowList::revision`].
        revision: u64,
        /// The addresses.
        learned: Vec<Learned>,
    },
    /// Remove the links of a jail that has ended.
    RemoveLinks(JailId),
    /// How many packets of a jail were refused?
    Refused(JailId),
    /// How many bytes is a volume charged with?
    VolumeBytes(JailId),
    /// Give a running jail another host name.
    Name(JailId, Hostname),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// The agent runs. Descriptor: its pidfd.
    Launched {
        /// Its process id on the host.
        pid: i32,
        /// Its start time in clock ticks.
        start_time: u64,
    },
    /// Jails and their agents' process ids, 0 for one that is dead; ordered by number.
    Jails(Vec<(JailId, i32)>),
    /// What the node's volumes are.
    Volumes(Volumes),
    /// The addresses can be reached, or another list is in force.
    Learned {
        /// The list is in force.
        in_force: bool,
    },
    /// So many.
    Count(u64),
    /// It did not work.
    Failed(JailError),
}

impl Request {
    /// What is asked for, in the names of failpoints.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::Kill(_) => "kill",
            Self::Clear(_) => "clear",
            Self::Remove(_) => "remove",
            Self::RemoveFiles(_) => "remove-files",
            Self::Jails(_) => "jails",
            Self::Volumes(_) => "volumes",
            Self::SetUpNetwork => "set-up-network",
            Self::SetUpVolumes => "set-up-volumes",
            Self::CopyVolume { .. } => "copy-volume",
            Self::TearDown => "tear-down",
            Self::Freeze(_) => "freeze",
            Self::Thaw(_) => "thaw",
            Self::Reclaim(_) => "reclaim",
            Self::Notify(_) => "notify",
            Self::Admit(..) => "admit",
            Self::Learn { .. } => "learn",
            Self::RemoveLinks(_) => "remove-links",
            Self::Refused(_) => "refused",
            Self::VolumeBytes(_) => "volume-bytes",
            Self::Name(..) => "name",
        }
    }

    /// The message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Launch(spec) => {
                w.u8(0);
                w.u64(spec.jail.0);
                w.u64(spec.volume.map_or(0, |volume| volume.0));
                w.u64(spec.inherited_bytes);
                w.u32(spec.uid_base);
                w.u8(spec.network.is_some().into());
                spec.network.iter().for_each(|network| w.network(network));
                w.u64(spec.limits.memory_bytes);
                w.u32(spec.limits.pids);
                w.u32(spec.limits.cpu_millis);
                w.u32(spec.limits.cpu_weight);
                w.u64(spec.limits.disk_bytes.unwrap_or(0));
                w.text(spec.hostname.as_str());
                w.u8(u8::try_from(spec.layers.len()).unwrap_or(u8::MAX));
                spec.layers.iter().for_each(|layer| w.layer(layer));
                w.u8(u8::try_from(spec.binds.len()).unwrap_or(u8::MAX));
                spec.binds.iter().for_each(|bind| w.bind(*bind));
                w.u8(u8::try_from(spec.views.len()).unwrap_or(u8::MAX));
                spec.views.iter().for_each(|view| w.view(*view));
            }
            Self::Kill(jail) => w.kind_and_jail(1, *jail),
            Self::Clear(jail) => w.kind_and_jail(15, *jail),
            Self::Remove(jail) => w.kind_and_jail(2, *jail),
            Self::RemoveFiles(volume) => w.kind_and_jail(17, *volume),
            Self::Jails(from) => w.kind_and_jail(3, *from),
            Self::Volumes(from) => w.kind_and_jail(32, *from),
            Self::SetUpNetwork => w.u8(4),
            Self::TearDown => w.u8(5),
            Self::Freeze(jail) => w.kind_and_jail(6, *jail),
            Self::Thaw(jail) => w.kind_and_jail(7, *jail),
            Self::SetUpVolumes => w.u8(8),
            Self::Reclaim(jail) => w.kind_and_jail(12, *jail),
            Self::Notify(jail) => w.kind_and_jail(30, *jail),
            Self::Admit(jail, network) => {
                w.kind_and_jail(9, *jail);
                w.network(network);
            }
            Self::Learn { jail, revision, learned } => {
                w.kind_and_jail(10, *jail);
                w.u64(*revision);
                w.learned(learned);
            }
            Self::RemoveLinks(jail) => w.kind_and_jail(31, *jail),
            Self::Refused(jail) => w.kind_and_jail(11, *jail),
            Self::VolumeBytes(volume) => w.kind_and_jail(14, *volume),
            Self::Name(jail, hostname) => {
                w.kind_and_jail(16, *jail);
                w.text(hostname.as_str());
            }
            Self::CopyVolume { from, to, is_read_only } => {
                w.kind_and_jail(13, *from);
                w.u64(to.0);
                w.u8((*is_read_only).into());
            }
        }
        w.0
    }

    /// The request in a message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let request = match r.u8()? {
            0 => Self::Launch(r.spec()?),
            1 => Self::Kill(JailId(r.u64()?)),
            2 => Self::Remove(JailId(r.u64()?)),
            17 => Self::RemoveFiles(JailId(r.u64()?)),
            15 => Self::Clear(JailId(r.u64()?)),
            3 => Self::Jails(JailId(r.u64()?)),
            32 => Self::Volumes(JailId(r.u64()?)),
            4 => Self::SetUpNetwork,
            5 => Self::TearDown,
            6 => Self::Freeze(JailId(r.u64()?)),
            7 => Self::Thaw(JailId(r.u64()?)),
            8 => Self::SetUpVolumes,
            12 => Self::Reclaim(JailId(r.u64()?)),
            30 => Self::Notify(JailId(r.u64()?)),
            9 => Self::Admit(JailId(r.u64()?), r.network()?),
            10 => Self::Learn { jail: JailId(r.u64()?), revision: r.u64()?, learned: r.learned()? },
            31 => Self::RemoveLinks(JailId(r.u64()?)),
            11 => Self::Refused(JailId(r.u64()?)),
            14 => Self::VolumeBytes(JailId(r.u64()?)),
            16 => Self::Name(JailId(r.u64()?), r.hostname()?),
            13 => Self::CopyVolume {
                from: JailId(r.u64()?),
                to: JailId(r.u64()?),
                is_read_only: match r.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed),
                },
            },
            _ => return Err(Malformed),
        };
        r.end(request)
    }
}

impl Reply {
    /// The message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Done => w.u8(0),
            Self::Launched { pid, start_time } => {
                w.u8(1);
                w.u32(pid.cast_unsigned());
                w.u64(*start_time);
            }
            Self::Jails(jails) => {
                w.u8(2);
                w.u32(u32::try_from(jails.len()).unwrap_or(u32::MAX));
                for (jail, pid) in jails {
                    w.u64(jail.0);
                    w.u32(pid.cast_unsigned());
                }
            }
            Self::Learned { in_force } => {
                w.u8(9);
                w.u8((*in_force).into());
            }
            Self::Count(number) => {
                w.u8(10);
                w.u64(*number);
            }
            Self::Failed(JailError::Step { step, call, errno }) => {
                w.u8(3);
                w.text(step);
                w.text(call);
                w.u32(errno.cast_unsigned());
            }
            Self::Failed(JailError::Refused(why)) => {
                w.u8(4);
                w.text(why);
            }
            Self::Failed(JailError::Lost(why)) => {
                w.u8(5);
                w.text(why);
            }
            Self::Failed(JailError::Entry(why)) => {
                w.u8(6);
                w.text(why);
            }
            Self::Volumes(Volumes::Limited) => w.u8(7),
            Self::Volumes(Volumes::Plain(why)) => {
                w.u8(8);
                w.text(why);
            }
        }
        w.0
    }

    /// The reply in a message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let reply = match r.u8()? {
            0 => Self::Done,
            1 => Self::Launched { pid: r.u32()?.cast_signed(), start_time: r.u64()? },
            2 => {
                let count = r.u32()?;
                let jail = |_| Ok((JailId(r.u64()?), r.u32()?.cast_signed()));
                Self::Jails((0..count).map(jail).collect::<Result<_, _>>()?)
            }
            3 => Self::Failed(JailError::Step {
                step: r.text()?,
                call: r.text()?,
                errno: r.u32()?.cast_signed(),
            }),
            4 => Self::Failed(JailError::Refused(r.text()?)),
            5 => Self::Failed(JailError::Lost(r.text()?)),
            6 => Self::Failed(JailError::Entry(r.text()?)),
            7 => Self::Volumes(Volumes::Limited),
            8 => Self::Volumes(Volumes::Plain(r.text()?)),
            9 => Self::Learned { in_force: r.flag()? },
            10 => Self::Count(r.u64()?),
            _ => return Err(Malformed),
        };
        r.end(reply)
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// Texts over 64 KiB are cut; only error texts could be that long.
    fn text(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes().iter().take(length.into()));
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn network(&mut self, network: &JailNetwork) {
        self.u32(network.address.to_bits());
        match &network.reach {
            Reach::Internet => self.u8(0),
            Reach::Nothing => self.u8(1),
            Reach::Listed(list) => {
                self.u8(2);
                self.u64(list.revision);
                self.u16(u16::try_from(list.ranges.len()).unwrap_or(u16::MAX));
                for AddressRange { base, prefix, port, protocol } in &list.ranges {
                    self.u32(base.to_bits());
                    self.u8(*prefix);
                    self.u16(port.unwrap_or(0));
                    self.u8(protocol.map_or(0, Protocol::number));
                }
                self.learned(&list.learned);
            }
        }
    }

    fn learned(&mut self, all: &[Learned]) {
        self.u16(u16::try_from(all.len()).unwrap_or(u16::MAX));
        for Learned { address, service, seconds } in all {
            self.u32(address.to_bits());
            self.u8(service.map_or(0, |(protocol, _)| protocol.number()));
            self.u16(service.map_or(0, |(_, port)| port));
            self.u32(*seconds);
        }
    }

    fn layer(&mut self, layer: &Layer) {
        self.u8(match layer.shelf {
            Shelf::Layers => 0,
            Shelf::Host => 1,
        });
        self.0.extend(layer.key);
    }

    fn bind(&mut self, bind: Bind) {
        self.u8(match bind {
            Bind::Programs => 0,
            Bind::Authorities => 1,
        });
    }

    fn view(&mut self, view: View) {
        match view {
            View::Image => self.u8(0),
            View::Whole(volume) => self.kind_and_jail(1, volume),
            View::Own(volume) => self.kind_and_jail(2, volume),
        }
    }

    fn kind_and_jail(&mut self, kind: u8, jail: JailId) {
        self.u8(kind);
        self.u64(jail.0);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u16()?.into();
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).map_err(|_not_utf8| Malformed)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A protocol, or 0 for none.
    fn protocol(&mut self) -> Result<Option<Protocol>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            number => Protocol::of_number(number).map(Some).ok_or(Malformed),
        }
    }

    fn network(&mut self) -> Result<JailNetwork, Malformed> {
        let address = Ipv4Addr::from_bits(self.u32()?);
        let reach = match self.u8()? {
            0 => Reach::Internet,
            1 => Reach::Nothing,
            2 => Reach::Listed(AllowList {
                revision: self.u64()?,
                ranges: (0..self.u16()?).map(|_| self.range()).collect::<Result<_, _>>()?,
                learned: self.learned()?,
            }),
            _ => return Err(Malformed),
        };
        Ok(JailNetwork { address, reach })
    }

    fn range(&mut self) -> Result<AddressRange, Malformed> {
        Ok(AddressRange {
            base: Ipv4Addr::from_bits(self.u32()?),
            prefix: self.u8()?,
            port: Some(self.u16()?).filter(|port| *port != 0),
            protocol: self.protocol()?,
        })
    }

    fn learned(&mut self) -> Result<Vec<Learned>, Malformed> {
        let one = |reader: &mut Self| {
            let address = Ipv4Addr::from_bits(reader.u32()?);
            let (protocol, port) = (reader.protocol()?, reader.u16()?);
            let service = protocol.map(|protocol| (protocol, port));
            Ok(Learned { address, service, seconds: reader.u32()? })
        };
        (0..self.u16()?).map(|_| one(self)).collect()
    }

    fn hostname(&mut self) -> Result<Hostname, Malformed> {
        Hostname::parse(&self.text()?).ok_or(Malformed)
    }

    fn spec(&mut self) -> Result<JailSpec, Malformed> {
        Ok(JailSpec {
            jail: JailId(self.u64()?),
            volume: Some(self.u64()?).filter(|number| *number != 0).map(JailId),
            inherited_bytes: self.u64()?,
            uid_base: self.u32()?,
            network: self.optional(Self::network)?,
            limits: Limits {
                memory_bytes: self.u64()?,
                pids: self.u32()?,
                cpu_millis: self.u32()?,
                cpu_weight: self.u32()?,
                disk_bytes: Some(self.u64()?).filter(|bytes| *bytes != 0),
            },
            hostname: self.hostname()?,
            layers: (0..self.u8()?).map(|_| self.layer()).collect::<Result<_, _>>()?,
            binds: (0..self.u8()?).map(|_| self.bind()).collect::<Result<_, _>>()?,
            views: (0..self.u8()?).map(|_| self.view()).collect::<Result<_, _>>()?,
        })
    }

    fn layer(&mut self) -> Result<Layer, Malformed> {
        let shelf = match self.u8()? {
            0 => Shelf::Layers,
            1 => Shelf::Host,
            _ => return Err(Malformed),
        };
        Ok(Layer { shelf, key: self.bytes::<KEY_BYTES>()? })
    }

    fn bind(&mut self) -> Result<Bind, Malformed> {
        match self.u8()? {
            0 => Ok(Bind::Programs),
            1 => Ok(Bind::Authorities),
            _ => Err(Malformed),
        }
    }

    fn view(&mut self) -> Result<View, Malformed> {
        match self.u8()? {
            0 => Ok(View::Image),
            1 => Ok(View::Whole(JailId(self.u64()?))),
            2 => Ok(View::Own(JailId(self.u64()?))),
            _ => Err(Malformed),
        }
    }

    /// `value`, if nothing is left over.
    fn end<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests;
