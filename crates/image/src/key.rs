//! What a layer is called: a digest of everything that went into it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Counts changes to how layers are made or stored. A change makes every older layer unfindable,
/// which is what an older layer then deserves.
const FORMAT: &str = "sandbar layer 1";

/// Names a layer by its inputs: the instruction that made it and, through the chain, all before
/// it. Equal keys mean interchangeable layers. 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LayerKey(String);

impl LayerKey {
    /// The key of a layer that stands on nothing, made in the way `recipe` describes.
    pub(crate) fn base(recipe: &str) -> Self {
        Self::hash(&[FORMAT, "base", recipe])
    }

    /// The key after one more instruction, given in its canonical text.
    pub(crate) fn then(&self, instruction: &str) -> Self {
        Self::hash(&[FORMAT, "step", &self.0, instruction])
    }

    /// The key as 64 hexadecimal digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as an image digest, `sha256:` and the digits.
    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", self.0)
    }

    /// Each part goes in with its length before it, so that no two lists hash alike.
    fn hash(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hex(&hasher.finalize()))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text is no [`LayerKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a layer key is 64 lower-case hexadecimal digits")]
pub(crate) struct InvalidLayerKey;

impl FromStr for LayerKey {
    type Err = InvalidLayerKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLayerKey)
        }
    }
}

impl TryFrom<String> for LayerKey {
    type Error = InvalidLayerKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LayerKey> for String {
    fn from(key: LayerKey) -> Self {
        key.0
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_instruction_before_it_and_on_their_order() {
        let base = LayerKey::base("debian");
        let ab = base.then("a").then("b");

        assert_eq!(ab, LayerKey::base("debian").then("a").then("b"));
        assert_ne!(ab, base.then("b").then("a"));
        assert_ne!(ab, base.then("ab"));
        assert_ne!(ab, LayerKey::base("other").then("a").then("b"));
        assert_ne!(base.then(""), base);
        assert_ne!(LayerKey::base("xy"), LayerKey::base("x").then("y"));
    }

    #[test]
    fn only_what_prints_as_a_key_parses_as_one() {
        let key = LayerKey::base("x");

        assert_eq!(key.as_str().parse::<LayerKey>().unwrap(), key);
        for bad in ["", "..", "../x", &key.as_str().to_uppercase(), &key.as_str()[1..]] {
            assert!(bad.parse::<LayerKey>().is_err(), "{bad:?}");
        }
    }
}
