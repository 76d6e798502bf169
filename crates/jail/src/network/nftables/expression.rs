//! What rules are made of.

use super::{EXPRESSION_DATA, EXPRESSION_NAME, VALUE, Verdict};
use crate::network::message::Message;

/// One step of a rule. Registers hold four bytes each and follow one another.
#[derive(Debug, Clone)]
pub(in super::super) enum Expression {
    /// Loads the packet's transport protocol, in the first byte of a register.
    Protocol(Register),
    /// Loads the packet's destination address.
    Destination(Register),
    /// Loads the packet's destination port, in the first two bytes of a register.
    Port(Register),
    /// Loads the number of the link that the packet came by.
    CameBy(Register),
    /// Loads the number of the link that the packet leaves by.
    LeavesBy(Register),
    /// Loads how many hops the packet has left, in the first byte of a register.
    Hops(Register),
    /// Blanks the bits of a register that the mask has not.
    Mask(Register, [u8; 4]),
    /// Goes on if the register begins with these bytes.
    Equals(Register, Vec<u8>),
    /// Goes on if there are more packets than so many in a second, and so many at once.
    Over { rate: u64, burst: u32 },
    /// Shows the first so many bytes of the packet to who listens to this group, and goes on.
    Show { group: u16, bytes: u32 },
    /// Goes on if the set has what the registers from this one on hold.
    In(Register, String),
    /// Decides.
    Decide(Verdict),
}

/// A register, counted from 0.
pub(in super::super) type Register = u32;

/// `NFT_REG32_00`: the first of the registers of four bytes.
const FIRST: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

// What a packet has beside its bytes: `NFT_META_IIF`, `NFT_META_OIF`, `NFT_META_L4PROTO`.
const IIF: u32 = 4;
const OIF: u32 = 5;
const L4PROTO: u32 = 16;

// Where in a packet: `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

const EQUAL: u32 = 0;

// `NFT_LIMIT_PKTS`, `NFT_LIMIT_F_INV`.
const PACKETS: u32 = 0;
const OVER: u32 = 1;

impl Expression {
    pub(super) fn put(&self, item: &mut Message) {
        match self {
            Self::Protocol(register) => put_meta(item, *register, L4PROTO),
            Self::CameBy(register) => put_meta(item, *register, IIF),
            Self::LeavesBy(register) => put_meta(item, *register, OIF),
            Self::Hops(register) => put_payload(item, *register, NETWORK, (8, 1)),
            Self::Destination(register) => put_payload(item, *register, NETWORK, (16, 4)),
            Self::Port(register) => put_payload(item, *register, TRANSPORT, (2, 2)),
            Self::Mask(register, mask) => named(item, "bitwise", |bitwise| {
                number(bitwise, 1, FIRST + register);
                number(bitwise, 2, FIRST + register);
                number(bitwise, 3, 4);
                bitwise.nested(4, |value| value.attribute(VALUE, mask));
                bitwise.nested(5, |value| value.attribute(VALUE, [0; 4]));
            }),
            Self::Equals(register, bytes) => named(item, "cmp", |compare| {
                number(compare, 1, FIRST + register);
                number(compare, 2, EQUAL);
                compare.nested(3, |value| value.attribute(VALUE, bytes));
            }),
            Self::Over { rate, burst } => named(item, "limit", |limit| {
                limit.attribute(1, rate.to_be_bytes());
                // In each second.
                limit.attribute(2, 1_u64.to_be_bytes());
                number(limit, 3, *burst);
                number(limit, 4, PACKETS);
                number(limit, 5, OVER);
            }),
            Self::Show { group, bytes } => named(item, "log", |log| {
                log.attribute(1, group.to_be_bytes());
                number(log, 3, *bytes);
            }),
            Self::In(register, set) => named(item, "lookup", |lookup| {
                lookup.text(1, set);
                number(lookup, 2, FIRST + register);
            }),
            Self::Decide(verdict) => named(item, "immediate", |immediate| {
                number(immediate, 1, VERDICT_REGISTER);
                immediate.nested(2, |data| verdict.put(data));
            }),
        }
    }
}

fn named(item: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    item.text(EXPRESSION_NAME, name);
    item.nested(EXPRESSION_DATA, fill);
}

fn number(list: &mut Message, kind: u16, value: u32) {
    list.attribute(kind, value.to_be_bytes());
}

/// What to load into which register.
fn put_meta(item: &mut Message, register: Register, key: u32) {
    named(item, "meta", |meta| {
        number(meta, 2, key);
        number(meta, 1, FIRST + register);
    });
}

/// What to load, from where in which header, into which register.
fn put_payload(item: &mut Message, register: Register, header: u32, (offset, length): (u32, u32)) {
    named(item, "payload", |load| {
        for (kind, value) in [(1, FIRST + register), (2, header), (3, offset), (4, length)] {
            number(load, kind, value);
        }
    });
}
