//! Messages of netlink(7), as bytes: headers and attributes, whatever they are about.
//!
//! ```text
//! length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32 │ body │ attributes: length u16, type u16, value, padding
//! ```

use sys::SysError;

/// One request that wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

// linux/netlink.h
const REQUEST: u16 = 0x1;
const ANSWER: u16 = 0x4;
/// All there is, not one thing.
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const REPLACE: u16 = 0x100;
/// Behind the other rules.
pub(super) const APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are not flags.
const TYPE: u16 = 0x3fff;

/// Bytes of the message header.
const HEADER: usize = 16;

impl Message {
    /// A request of this kind; its body follows.
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | ANSWER | flags).to_ne_bytes());
        Self(bytes)
    }

    /// A mark that gets no answer of its own.
    pub(super) fn mark(kind: u16) -> Self {
        let mut message = Self::new(kind, 0);
        message.0[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
        message
    }

    /// The finished message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends to the body.
    pub(super) fn put(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.extend_from_slice(bytes.as_ref());
    }

    /// Writes the length into the header.
    pub(super) fn finish(mut self) -> Self {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// The finished message under this number, which its answers repeat.
    pub(super) fn numbered(mut self, sequence: u32) -> Self {
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: impl AsRef<[u8]>) {
        self.enclose(kind, |message| message.put(value));
    }

    /// Appends an attribute whose value is text and ends with a zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.enclose(kind, |message| {
            message.put(value);
            message.put([0]);
        });
    }

    /// Appends an attribute made of attributes, which `fill` appends.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.enclose(kind | NESTED, fill);
    }

    /// Padded to four bytes behind its length.
    fn enclose(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.put([0; 2]);
        self.put(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// One message of the kernel's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The request was carried out, or a list is at its end.
    Done,
    /// It was refused, with this errno(3).
    Refused(i32),
    /// What was asked for: the body.
    Data(&'a [u8]),
}

/// The messages of one datagram with the numbers of their requests. *After fork.*
pub(super) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Answer<'_>)> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = bytes.get(HEADER..length)?;
        let error = || body.first_chunk::<4>().map(|errno| i32::from_ne_bytes(*errno));
        let answer = match u16::from_ne_bytes([k0, k1]) {
            NLMSG_ERROR | NLMSG_DONE => match error() {
                Some(0) | None => Answer::Done,
                Some(errno) => Answer::Refused(errno.wrapping_neg()),
            },
            _ => Answer::Data(body),
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u32::from_ne_bytes([s0, s1, s2, s3]), answer))
    })
}

/// Counts the good answers in one datagram; the first refusal is an error. *After fork.*
pub(super) fn check_answers(bytes: &[u8]) -> Result<usize, SysError> {
    let mut count = 0;
    for (_, answer) in answers(bytes) {
        match answer {
            Answer::Done => count += 1,
            Answer::Refused(errno) => return Err(SysError { call: "netlink", errno }),
            Answer::Data(_) => {}
        }
    }
    Ok(count)
}

/// The value of the first attribute of this kind.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let ([l0, l1, k0, k1], _) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([*k0, *k1]) & TYPE == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// The value at the end of a path of nested attributes.
pub(super) fn find_in<'a>(attributes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(attributes, |inside, kind| find(inside, *kind))
}

/// The values of all attributes of a list.
pub(super) fn each(mut attributes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let ([l0, l1, ..], _) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = attributes.get(4..length)?;
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_attributes() -> Message {
        let mut message = Message::new(7, 0);
        message.attribute(1, [9]);
        message.nested(2, |inner| {
            inner.attribute(3, [1, 2, 3, 4, 5]);
            inner.text(4, "four");
        });
        message.finish()
    }

    #[test]
    fn a_message_says_its_length_and_pads_its_attributes() {
        let message = with_attributes().numbered(42);
        let bytes = message.bytes();
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
        assert_eq!(bytes[8..12], 42_u32.to_ne_bytes());
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn attributes_are_found_where_they_were_put() {
        let message = with_attributes();
        let attributes = &message.bytes()[HEADER..];
        assert_eq!(find(attributes, 1), Some(&[9][..]));
        assert_eq!(find_in(attributes, &[2, 4]), Some(&b"four\0"[..]));
        assert_eq!(find_in(attributes, &[2, 5]), None);
        assert_eq!(each(find(attributes, 2).unwrap()).count(), 2);
        for cut in 0..attributes.len() {
            let cut = &attributes[..cut];
            assert_eq!(find_in(cut, &[2, 4]), None);
            assert!(each(cut).count() < 2);
        }
        for length in [0_u16, 3, u16::MAX] {
            let odd = [&length.to_ne_bytes()[..], &[1, 0, 0, 0]].concat();
            assert_eq!(find(&odd, 1), None, "length {length}");
            assert_eq!(each(&odd).count(), 0, "length {length}");
        }
    }

    #[test]
    fn answers_are_told_from_refusals() {
        let answer = |errno: i32| {
            let mut message = Message::new(NLMSG_ERROR, 0);
            message.put(errno.to_ne_bytes());
            message.put([0; HEADER]);
            message.finish().0
        };
        assert_eq!(check_answers(&[answer(0), answer(0)].concat()), Ok(2));
        assert_eq!(check_answers(&answer(-17)).map_err(|error| error.errno), Err(17));
        assert_eq!(check_answers(&[]), Ok(0));
        assert_eq!(check_answers(&[255; 40]), Ok(0));
    }
}
