//! Slows down who tries out tokens: after some wrong URLs of one port, that port is shown to the
//! visitor once a second at most, whether the next one is right or not.
//!
//! Counted by visitor and port, so nobody is kept from other previews, and nobody else from this one
//! (but who shares the visitor's address). Ports that do not exist are counted like others: nothing
//! is to be learned from it.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::port::PreviewLabel;

/// Wrong URLs at once before a visitor is slowed down: a page that was kept open reloads itself
/// under an old URL for a while.
const AT_ONCE: u32 = 20;

/// Then one in this time. A token of four characters is found in eleven days on average.
const EVERY: Duration = Duration::from_secs(1);

/// Visitors remembered, twice: when there are so many, those of before are forgotten. Each takes
/// some 32 bytes.
const REMEMBERED: usize = 16 * 1024;

/// Bits of an IPv6 address that one visitor has at least for itself (RFC 6177).
const VISITOR_BITS: u32 = 64;

/// Who has guessed how often.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// With keys of its own, so that nobody can choose to be counted as another.
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// When all guesses of a visitor at a port would be through at one per [`EVERY`].
#[derive(Debug, Default)]
struct Seen {
    now: HashMap<u64, Instant>,
    before: HashMap<u64, Instant>,
}

impl Guesses {
    /// True when the visitor has to wait.
    pub(super) fn is_slowed(&self, visitor: IpAddr, label: &PreviewLabel, now: Instant) -> bool {
        let number = self.number(visitor, label);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.until(number).is_some_and(|until| until > now + EVERY * (AT_ONCE - 1))
    }

    /// Counts a wrong URL.
    pub(super) fn count(&self, visitor: IpAddr, label: &PreviewLabel, now: Instant) {
        let number = self.number(visitor, label);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let until = seen.until(number).map_or(now, |until| until.max(now)) + EVERY;
        if seen.now.len() >= REMEMBERED {
            seen.before = std::mem::take(&mut seen.now);
        }
        seen.now.insert(number, until);
    }

    fn number(&self, visitor: IpAddr, label: &PreviewLabel) -> u64 {
        let visitor = match visitor {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let rest = u128::MAX >> VISITOR_BITS;
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !rest))
            }
        };
        self.hasher.hash_one(Key { visitor, id: label.id().as_str(), port: label.port().get() })
    }
}

#[derive(Hash)]
struct Key<'a> {
    visitor: IpAddr,
    id: &'a str,
    port: u16,
}

impl Seen {
    fn until(&self, number: u64) -> Option<Instant> {
        self.now.get(&number).or_else(|| self.before.get(&number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(port: u16) -> PreviewLabel {
        PreviewLabel::new("box".parse().unwrap(), api::port::PortNumber::new(port).unwrap(), None)
            .unwrap()
    }

    fn visitor(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn some_are_let_through_and_then_one_a_second() {
        let (guesses, begin) = (Guesses::default(), Instant::now());
        let (one, port) = (visitor(1), label(8080));
        for _ in 0..AT_ONCE {
            assert!(!guesses.is_slowed(one, &port, begin));
            guesses.count(one, &port, begin);
        }
        assert!(guesses.is_slowed(one, &port, begin));
        assert!(!guesses.is_slowed(visitor(2), &port, begin), "another visitor");
        assert!(!guesses.is_slowed(one, &label(8081), begin), "another port");
        assert!(guesses.is_slowed(one, &port, begin + EVERY / 2));
        assert!(!guesses.is_slowed(one, &port, begin + EVERY));
        guesses.count(one, &port, begin + EVERY);
        assert!(guesses.is_slowed(one, &port, begin + EVERY));
        assert!(!guesses.is_slowed(one, &port, begin + 2 * EVERY));
    }

    #[test]
    fn addresses_of_one_network_are_one_visitor() {
        let guesses = Guesses::default();
        let number = |text: &str| guesses.number(text.parse().unwrap(), &label(8080));
        assert_eq!(number("2001:db8:0:1::1"), number("2001:db8:0:1:ffff::2"));
        assert_ne!(number("2001:db8:0:1::1"), number("2001:db8:0:2::1"));
        assert_ne!(number("10.0.0.1"), number("10.0.0.2"));
    }

    #[test]
    fn so_many_visitors_are_remembered_and_no_more() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let port = label(8080);
        for _ in 0..AT_ONCE {
            guesses.count(visitor(0), &port, now);
        }
        for number in 1..u32::try_from(REMEMBERED).unwrap() {
            guesses.count(visitor(number), &port, now);
        }
        assert!(guesses.is_slowed(visitor(0), &port, now));
        for number in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            guesses.count(visitor((1 << 24) + number), &port, now);
        }
        assert!(!guesses.is_slowed(visitor(0), &port, now));
        let seen = guesses.seen.lock().unwrap();
        assert!(seen.now.len() + seen.before.len() <= 2 * REMEMBERED);
    }
}
