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
    spec::{Bind, Hostname, JailId, JailSpec, Limits},
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
    /// Build a jail. Descriptors: listener, config, layers, binds.
    Launch(JailSpec),
    /// End its processes and remove its cgroups.
    Kill(JailId),
    /// Remove its directory.
    RemoveFiles(JailId),
    /// Which jails of the node, from this number on, have cgroups?
    Jails(JailId),
    /// Make the node's network exist.
    SetUpNetwork,
    /// Make the node's volumes exist.
    SetUpVolumes,
    /// Remove the network and the node's cgroups.
    TearDown,
    /// Stop its processes where they are.
    Freeze(JailId),
    /// Let them go on.
    Thaw(JailId),
    /// Push its memory out, as far as there is room for it.
    Reclaim(JailId),
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
    /// It did not work.
    Failed(JailError),
}

impl Request {
    /// The message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Launch(spec) => {
                w.u8(0);
                w.u64(spec.jail.0);
                w.u64(spec.volume.map_or(0, |volume| volume.0));
                w.u32(spec.uid_base);
                w.u32(spec.address.map_or(0, Ipv4Addr::to_bits));
                w.u64(spec.limits.memory_bytes);
                w.u32(spec.limits.pids);
                w.u32(spec.limits.cpu_millis);
                w.u64(spec.limits.disk_bytes.unwrap_or(0));
                w.text(spec.hostname.as_str());
                w.u8(u8::try_from(spec.binds.len()).unwrap_or(u8::MAX));
                spec.binds.iter().for_each(|bind| w.text(&bind.target));
            }
            Self::Kill(jail) => w.kind_and_jail(1, *jail),
            Self::RemoveFiles(jail) => w.kind_and_jail(2, *jail),
            Self::Jails(from) => w.kind_and_jail(3, *from),
            Self::SetUpNetwork => w.u8(4),
            Self::TearDown => w.u8(5),
            Self::Freeze(jail) => w.kind_and_jail(6, *jail),
            Self::Thaw(jail) => w.kind_and_jail(7, *jail),
            Self::SetUpVolumes => w.u8(8),
            Self::Reclaim(jail) => w.kind_and_jail(20, *jail),
        }
        w.0
    }

    /// The request in a message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let request = match r.u8()? {
            0 => Self::Launch(r.spec()?),
            1 => Self::Kill(JailId(r.u64()?)),
            2 => Self::RemoveFiles(JailId(r.u64()?)),
            3 => Self::Jails(JailId(r.u64()?)),
            4 => Self::SetUpNetwork,
            5 => Self::TearDown,
            6 => Self::Freeze(JailId(r.u64()?)),
            7 => Self::Thaw(JailId(r.u64()?)),
            8 => Self::SetUpVolumes,
            20 => Self::Reclaim(JailId(r.u64()?)),
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

    fn spec(&mut self) -> Result<JailSpec, Malformed> {
        Ok(JailSpec {
            jail: JailId(self.u64()?),
            volume: Some(self.u64()?).filter(|number| *number != 0).map(JailId),
            uid_base: self.u32()?,
            address: Some(self.u32()?).filter(|bits| *bits != 0).map(Ipv4Addr::from_bits),
            limits: Limits {
                memory_bytes: self.u64()?,
                pids: self.u32()?,
                cpu_millis: self.u32()?,
                disk_bytes: Some(self.u64()?).filter(|bytes| *bytes != 0),
            },
            hostname: Hostname::parse(&self.text()?).ok_or(Malformed)?,
            binds: (0..self.u8()?)
                .map(|_| self.text().map(|target| Bind { target }))
                .collect::<Result<_, _>>()?,
        })
    }

    /// `value`, if nothing is left over.
    fn end<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        vec![
            Request::Launch(JailSpec {
                jail: JailId(7),
                volume: Some(JailId(9)),
                uid_base: 65_536,
                address: Some(Ipv4Addr::new(10, 0, 0, 2)),
                limits: Limits {
                    memory_bytes: 1 << 40,
                    pids: 9,
                    cpu_millis: 1500,
                    disk_bytes: Some(5),
                },
                hostname: Hostname::of("x"),
                binds: vec![Bind { target: "usr".into() }, Bind { target: "opt/a".into() }],
            }),
            Request::Kill(JailId(u64::MAX)),
            Request::RemoveFiles(JailId(0)),
            Request::Jails(JailId(5)),
            Request::SetUpNetwork,
            Request::SetUpVolumes,
            Request::TearDown,
            Request::Freeze(JailId(8)),
            Request::Thaw(JailId(9)),
            Request::Reclaim(JailId(10)),
        ]
    }

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Done,
            Reply::Launched { pid: 42, start_time: 1 << 40 },
            Reply::Jails(vec![(JailId(1), 10), (JailId(2), 0)]),
            Reply::Failed(JailError::Step { step: "a".into(), call: "b".into(), errno: 13 }),
            Reply::Failed(JailError::Refused("c".into())),
            Reply::Failed(JailError::Lost("d".into())),
            Reply::Failed(JailError::Entry("e".into())),
            Reply::Volumes(Volumes::Limited),
            Reply::Volumes(Volumes::Plain("f".into())),
        ]
    }

    #[test]
    fn messages_decode_to_what_was_encoded() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for reply in replies() {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn cut_longer_and_foreign_messages_are_malformed() {
        let messages = requests().iter().map(Request::encode).collect::<Vec<_>>();
        for message in messages {
            for cut in 0..message.len() {
                assert_eq!(Request::decode(&message[..cut]), Err(Malformed));
            }
            assert_eq!(Request::decode(&[&message[..], &[0]].concat()), Err(Malformed));
        }
        for message in replies().iter().map(Reply::encode) {
            for cut in 0..message.len() {
                assert_eq!(Reply::decode(&message[..cut]), Err(Malformed));
            }
        }
        assert_eq!(Request::decode(&[200]), Err(Malformed));
    }
}
