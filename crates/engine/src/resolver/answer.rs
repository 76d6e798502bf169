//! The addresses in an answer (RFC 1035, sections 3.2 and 4.1.4).
//!
//! ```text
//! header │ question │ records: name, type u16, class u16, seconds u32, length u16, data
//! ```
//!
//! An answer comes from a server that the host trusts, but what is in it is whatever the owner of
//! the name, or of any name it leads to, has put there.

use std::net::Ipv4Addr;

use super::message::{HEADER, NAME_BYTES};

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const CLASS_IN: u16 = 1;

/// Addresses taken of one answer, which is more than a server gives in a datagram. What is beyond is
/// not reached.
const ADDRESSES: usize = 64;

/// Names that one leads to before the answer counts as nonsense; the C library follows as many.
const ALIASES: usize = 16;

/// Jumps within one name. An honest name needs one for each of its labels at most.
const JUMPS: usize = 128;

/// A name as labels behind their lengths, in lower case.
type Name = Vec<u8>;

/// The addresses to which the question of `answer` leads, directly or by aliases, each with its
/// seconds. Longer times than `most` are cut to it, also in the answer itself. None: the answer is
/// malformed.
pub(super) fn addresses(answer: &mut [u8], most: u32) -> Option<Vec<(Ipv4Addr, u32)>> {
    let records = records(answer)?;
    let (asked, _) = name(answer, HEADER)?;
    let mut names = vec![asked];
    // A list that grows while it is walked: an alias may stand behind what it leads to.
    let mut next = 0;
    while let Some(owner) = names.get(next).cloned() {
        next += 1;
        for record in records.iter().filter(|record| record.is(&owner, TYPE_CNAME)) {
            let (target, _) = name(answer, record.data)?;
            if !names.contains(&target) {
                names.push(target);
            }
        }
        if names.len() > ALIASES {
            return None;
        }
    }
    let mut found = Vec::new();
    for record in records.iter().filter(|it| names.iter().any(|name| it.is(name, TYPE_A))) {
        let address: [u8; 4] = answer.get(record.data..record.end)?.try_into().ok()?;
        let address = Ipv4Addr::from(address);
        let seconds = record.seconds.min(most);
        answer.get_mut(record.data - 6..record.data - 2)?.copy_from_slice(&seconds.to_be_bytes());
        if found.len() < ADDRESSES && !found.iter().any(|(known, _)| *known == address) {
            found.push((address, seconds));
        }
    }
    Some(found)
}

struct Record {
    owner: Name,
    kind: u16,
    class: u16,
    seconds: u32,
    /// Where its data begins and ends.
    data: usize,
    end: usize,
}

impl Record {
    fn is(&self, owner: &Name, kind: u16) -> bool {
        self.kind == kind && self.class == CLASS_IN && self.owner == *owner
    }
}

/// The records of the answer section.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let count = number(message, 6)?;
    let (_, question) = name(message, HEADER)?;
    let mut at = question + 4;
    (0..count)
        .map(|_| {
            let (owner, behind) = name(message, at)?;
            let seconds = [number(message, behind + 4)?, number(message, behind + 6)?];
            let seconds = u32::from(seconds[0]) << 16 | u32::from(seconds[1]);
            let data = behind + 10;
            let end = data + usize::from(number(message, behind + 8)?);
            message.get(data..end)?;
            at = end;
            Some(Record {
                owner,
                kind: number(message, behind)?,
                class: number(message, behind + 2)?,
                // Negative numbers, which RFC 2181 (section 8) forbids, mean 0.
                seconds: if seconds > i32::MAX.unsigned_abs() { 0 } else { seconds },
                data,
                end,
            })
        })
        .collect()
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The name at this place, and the place behind it.
fn name(message: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let mut labels = Vec::new();
    let mut behind = None;
    for _ in 0..JUMPS {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((labels, behind.unwrap_or(at + 1))),
            1..64 => {
                let label = message.get(at..=at + length)?;
                labels.extend(label.iter().map(u8::to_ascii_lowercase));
                if labels.len() >= NAME_BYTES {
                    return None;
                }
                at += 1 + length;
            }
            // A pointer; it leads back, so that names end.
            192.. => {
                let target = usize::from(number(message, at)? & 0x3fff);
                behind = behind.or(Some(at + 2));
                if target >= at {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
