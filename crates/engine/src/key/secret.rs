//! Secrets of keys, and what is kept of them.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// So that a leaked key is recognised by people and by secret scanners.
const PREFIX: &str = "sbk_";

/// Bytes of randomness of a generated secret: what cannot be guessed by whatever is known of it.
const RANDOM_BYTES: usize = 32;

/// Characters of a secret an operator sets: from what cannot be guessed to what fits a header.
const CHARS: std::ops::RangeInclusive<usize> = 32..=256;

/// The text that makes a caller the holder of a key. Never printed, and kept nowhere but in the key
/// file of the machine's own clients.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a text is not a secret. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// Too short to be unguessable, or too long for a header.
    #[error("has not {} to {} characters", CHARS.start(), CHARS.end())]
    Length,
    /// It could not be sent in a header.
    #[error("has characters other than printable ASCII without spaces")]
    Character,
}

impl Secret {
    /// The secret with this text.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub fn new(text: &str) -> Result<Self, InvalidSecret> {
        if !CHARS.contains(&text.len()) {
            return Err(InvalidSecret::Length);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidSecret::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// A new one: `sbk_` and 256 random bits in hexadecimal digits.
    ///
    /// # Errors
    /// When the kernel has no randomness, which happens only where getrandom(2) is forbidden.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0_u8; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{PREFIX}{digits}")))
    }

    /// The text, for the one place where it is told.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// SHA-256 of a secret. One round is enough, because a secret is not a password: it cannot be found
/// by trying likely ones, however fast trying is. In words, because so it is compared faster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u64; 4]);

impl Digest {
    pub(crate) fn of(presented: &[u8]) -> Self {
        let bytes: [u8; 32] = Sha256::digest(presented).into();
        Self::from_bytes(bytes)
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        let (words, _none) = bytes.as_chunks::<8>();
        Self(std::array::from_fn(|index| u64::from_be_bytes(words[index])))
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let words = self.0.map(u64::to_be_bytes);
        std::array::from_fn(|index| words[index / 8][index % 8])
    }
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secrets_differ_and_are_recognised() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());

        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert!(one.reveal().starts_with("sbk_"));
        assert_eq!(Secret::new(one.reveal()), Ok(one));
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_no_secret() {
        for (text, expected) in [
            ("a".repeat(31), Err(InvalidSecret::Length)),
            ("a".repeat(32), Ok(())),
            ("a".repeat(256), Ok(())),
            ("a".repeat(257), Err(InvalidSecret::Length)),
            (format!("{} ", "a".repeat(40)), Err(InvalidSecret::Character)),
            (format!("{}\n", "a".repeat(40)), Err(InvalidSecret::Character)),
            ("ä".repeat(40), Err(InvalidSecret::Character)),
        ] {
            assert_eq!(Secret::new(&text).map(drop), expected, "{text:?}");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_standard_and_survives_storing() {
        // FIPS 180-2, appendix B.1.
        let digest = Digest::of(b"abc");
        assert_eq!(digest.0[0], 0xba78_16bf_8f01_cfea);
        assert_eq!(Digest::from_bytes(digest.to_bytes()), digest);
        assert!(bool::from(digest.ct_eq(&Digest::of(b"abc"))));
        assert!(!bool::from(digest.ct_eq(&Digest::of(b"abd"))));
    }

    #[test]
    fn neither_is_ever_printed() {
        let secret = Secret::new(&"secret".repeat(8)).unwrap();
        assert_eq!(format!("{secret:?} {:?}", secret.digest()), "Secret(hidden) Digest(hidden)");
    }
}
