//! Identifiers: parsed once at the edge, never a raw string again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limit::{
    ID_PREFIX_CHARS, IMAGE_NAME_CHARS, KEY_NAME_CHARS, NAME_CHARS, SANDBOX_ID_CHARS,
};

/// Names a sandbox. The caller chooses it; the same id is always the same sandbox.
///
/// 1 to 63 characters, letters, digits, `-`, `_` and `.`, beginning and ending with a letter or a
/// digit, and not digits alone. Case matters. The rule keeps ids usable as one URL path segment,
/// as a file name and, where they hold no `_` or `.`, as a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "my-sandbox")]
pub struct SandboxId(String);

impl SandboxId {
    /// The id as the caller wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Ids are ordered and compared as their texts.
impl std::borrow::Borrow<str> for SandboxId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`SandboxId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSandboxId {
    /// Nothing was given, or more than the limit.
    #[error("a sandbox id has 1 to {SANDBOX_ID_CHARS} characters")]
    Length,
    /// A character outside the allowed set.
    #[error("a sandbox id holds only letters, digits, '-', '_' and '.'")]
    Character,
    /// Begins or ends with punctuation.
    #[error("a sandbox id begins and ends with a letter or a digit")]
    Edge,
    /// A number could be taken for a port or a process id.
    #[error("a sandbox id is not digits alone")]
    Number,
}

impl FromStr for SandboxId {
    type Err = InvalidSandboxId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Err(InvalidSandboxId::Length);
        };
        if bytes.len() > SANDBOX_ID_CHARS {
            return Err(InvalidSandboxId::Length);
        }
        if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(InvalidSandboxId::Character);
        }
        if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
            return Err(InvalidSandboxId::Edge);
        }
        if bytes.iter().all(u8::is_ascii_digit) {
            return Err(InvalidSandboxId::Number);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidSandboxId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names nothing inside a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an id has 1 to {NAME_CHARS} letters, digits, '-', '_', '.' and ':', begins with a letter or a \
     digit and is not digits alone"
)]
pub struct InvalidName;

/// A process or session is named by its caller; digits alone would be taken for a process id of the
/// kernel's.
fn check_name(text: &str) -> Result<(), InvalidName> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    let bytes = text.as_bytes();
    let is_name = (1..=NAME_CHARS).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().copied().all(is_allowed)
        && !bytes.iter().all(u8::is_ascii_digit);
    if is_name { Ok(()) } else { Err(InvalidName) }
}

/// Defines an id that its caller may choose, all of the same form.
macro_rules! chosen_name {
    ($(#[$doc:meta])* $name:ident, $example:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 128 letters, digits, `-`, `_`, `.` and `:`, beginning with a letter or a digit, and
        /// not digits alone.
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, example = $example)]
        pub struct $name(String);

        impl $name {
            /// The id as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_name(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                check_name(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

chosen_name! {
    /// Names a process of a sandbox. The caller may choose it.
    ProcessId, "web"
}

chosen_name! {
    /// Names a session of a sandbox. The caller chooses it; `default` is there from the beginning.
    SessionId, "default"
}

chosen_name! {
    /// Names a context of the code interpreter. The caller may choose it.
    ContextId, "analysis"
}

chosen_name! {
    /// Names a checkpoint of a sandbox. The caller may choose it.
    CheckpointId, "before-tests"
}

chosen_name! {
    /// Names a webhook of a node. The caller chooses it.
    WebhookName, "billing"
}

chosen_name! {
    /// Names a terminal of a sandbox. The caller may choose it.
    TerminalId, "main"
}

/// What the ids of a key's sandboxes begin with: `ci-`, `team.a.`.
///
/// 2 to 40 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit and ending with `-`,
/// `_` or `.`: without an end of its own, `team1` would cover the sandboxes of `team10` as well.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "ci-")]
pub struct IdPrefix(String);

impl IdPrefix {
    /// The prefix as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `id` begins with it. Case matters, as it does in ids.
    #[must_use]
    pub fn covers(&self, id: &SandboxId) -> bool {
        id.as_str().starts_with(self.as_str())
    }
}

/// Why a text is not an [`IdPrefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a prefix has 2 to {ID_PREFIX_CHARS} letters, digits, '-', '_' and '.', begins with a letter or \
     a digit and ends with '-', '_' or '.', so that it covers no other prefix by chance"
)]
pub struct InvalidIdPrefix;

impl FromStr for IdPrefix {
    type Err = InvalidIdPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_mark = |b: &u8| matches!(b, b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        let is_prefix = (2..=ID_PREFIX_CHARS).contains(&bytes.len())
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(is_mark)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || is_mark(b));
        if is_prefix { Ok(Self(text.to_owned())) } else { Err(InvalidIdPrefix) }
    }
}

impl TryFrom<String> for IdPrefix {
    type Error = InvalidIdPrefix;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IdPrefix> for String {
    fn from(prefix: IdPrefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a key. Not secret: it stands in lists and in the log.
///
/// 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "ci")]
pub struct KeyName(String);

impl KeyName {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`KeyName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key's name has 1 to {KEY_NAME_CHARS} letters, digits, '-', '_' and '.' and begins with a \
     letter or a digit"
)]
pub struct InvalidKeyName;

impl FromStr for KeyName {
    type Err = InvalidKeyName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        let is_name = (1..=KEY_NAME_CHARS).contains(&bytes.len())
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(is_allowed);
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidKeyName) }
    }
}

impl TryFrom<String> for KeyName {
    type Error = InvalidKeyName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an image in the store of a node: `default`, `host`, `my-app` or `my-app:v2`.
///
/// A name of 1 to 128 lower-case letters, digits, `-`, `_`, `.`, `/` beginning and ending with a letter or a digit, and
/// optionally `:` and a tag of the same form. Without a tag, `latest` is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "default")]
pub struct ImageRef(String);

impl ImageRef {
    /// The part before the colon.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(name, _)| name)
    }

    /// The part after the colon; `latest` unless given.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.0.split_once(':').map_or("latest", |(_, tag)| tag)
    }
}

/// Why a text is not an [`ImageRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an image is named NAME or NAME:TAG, each 1 to {IMAGE_NAME_CHARS} lower-case letters, digits, '-', '_', '.' \
     (and '/' in the name), beginning and ending with a letter or a digit"
)]
pub struct InvalidImageRef;

impl FromStr for ImageRef {
    type Err = InvalidImageRef;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
        if !is_name(name, true) || !is_name(tag, false) {
            return Err(InvalidImageRef);
        }
        // One spelling per image, so that equal references are equal texts.
        Ok(Self(if tag == "latest" { name.to_owned() } else { text.to_owned() }))
    }
}

/// Refuses `..` as well, because names become directory names.
fn is_name(text: &str, with_slash: bool) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let in_range = (1..=IMAGE_NAME_CHARS).contains(&bytes.len());
    in_range
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| {
            alphanumeric(b) || matches!(b, b'-' | b'_' | b'.') || (with_slash && *b == b'/')
        })
        && !text.contains("..")
        && !text.contains("//")
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidImageRef;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_ids_follow_the_rule() {
        for good in ["a", "A1", "user-123", "x.y_z", &"a".repeat(63)] {
            assert_eq!(good.parse::<SandboxId>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", InvalidSandboxId::Length),
            (&*"a".repeat(64), InvalidSandboxId::Length),
            ("a b", InvalidSandboxId::Character),
            ("a/b", InvalidSandboxId::Character),
            ("ä", InvalidSandboxId::Character),
            ("a\0", InvalidSandboxId::Character),
            ("-a", InvalidSandboxId::Edge),
            ("a.", InvalidSandboxId::Edge),
            ("..", InvalidSandboxId::Edge),
            ("8080", InvalidSandboxId::Number),
        ] {
            assert_eq!(bad.parse::<SandboxId>().unwrap_err(), why, "{bad:?}");
        }
    }

    #[test]
    fn names_inside_a_sandbox_follow_the_rule() {
        for good in ["a", "web", "proc_1_2", "x:y.z-", "1a", &"a".repeat(128)] {
            assert_eq!(good.parse::<ProcessId>().unwrap().as_str(), good);
        }
        for bad in ["", "123", "-a", ".", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_and_names_of_keys_follow_their_rules() {
        for good in ["ci-", "a.", "Team_A_", &format!("{}-", "a".repeat(39))] {
            assert_eq!(good.parse::<IdPrefix>().unwrap().as_str(), good);
        }
        for bad in
            ["", "-", "ci", "a", "-a-", "a b-", "a/-", "%61-", &format!("{}-", "a".repeat(40))]
        {
            assert!(bad.parse::<IdPrefix>().is_err(), "{bad:?}");
        }
        for good in ["a", "CI_2.x-", "8080", &"a".repeat(64)] {
            assert_eq!(good.parse::<KeyName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".", "a/b", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn image_references_print_as_they_parse() {
        for good in ["default", "a/b", "x:1.2"] {
            assert_eq!(good.parse::<ImageRef>().unwrap().to_string(), good);
        }
        assert_eq!("x:latest".parse::<ImageRef>().unwrap(), "x".parse().unwrap());
        for bad in ["", ":", "a:", ":t", "A", "a..b", "../a", "a//b", "a:b/c", "a:b:c", "/a"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }

    /// What is taken is written as it was read: nobody else takes it for another one.
    #[test]
    fn hostile_ids_are_refused_or_read_in_one_way() {
        let examples =
            ["my-box", "a", "a--b", "run-1f2e", "sandbox/base:12", "host", "x-", "0", "xn--a"];
        hostile::text(&examples, |text| {
            if let Ok(id) = text.parse::<SandboxId>() {
                assert_eq!(id.to_string().parse(), Ok(id.clone()));
                assert!(
                    id.as_str().len() <= 63 && id.as_str().bytes().all(|b| b.is_ascii_graphic())
                );
            }
            if let Ok(name) = text.parse::<ImageRef>() {
                assert_eq!(name.to_string().parse(), Ok(name));
            }
            if let Ok(prefix) = text.parse::<IdPrefix>() {
                assert_eq!(prefix.to_string(), text);
            }
            if let Ok(name) = text.parse::<KeyName>() {
                assert_eq!(name.to_string(), text);
            }
        });
    }
}
