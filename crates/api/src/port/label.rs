//! The host label of a preview: which port of which sandbox, and the right to use it.
//!
//! ```text
//! {port}-{sandbox}-{token}      8080-my-box-kq3v5tz7ahw2m4xp
//! {sandbox}-{port}              my-box-8080, for a public port
//! ```
//!
//! Invariant: what parses prints as the same bytes, and every label prints as a text that parses to
//! it: no two spellings, and no text with two meanings. A token is never a port number, so the part
//! after the last dash tells the two forms apart; a port and a token hold no dash, so the rest is
//! the id.

use std::{fmt, str::FromStr};

use super::{PortNumber, PortToken};
use crate::id::SandboxId;

/// Bytes of a label (RFC 1035, section 2.3.4).
const LABEL_BYTES: usize = 63;

/// The first label of a preview's host name. The token, if any, is as good as a password: it is
/// printed, but not by `Debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLabel {
    id: SandboxId,
    port: PortNumber,
    token: Option<PortToken>,
}

/// Why there is no such label. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// The text has neither of the forms, or not their one spelling.
    #[error("a preview is called PORT-SANDBOX-TOKEN, or SANDBOX-PORT if it is public")]
    Form,
    /// Host names know no upper case, and a label no dot.
    #[error(
        "a sandbox whose id has upper-case letters or dots, or two dashes after its first two \
         characters, can have no URL; use another id"
    )]
    Id,
    /// The id leaves no room for the port and the token.
    #[error("the id is too long for a URL: with port and token it has at most {LABEL_BYTES} bytes")]
    Length,
}

impl PreviewLabel {
    /// The label of a port of a sandbox; without a token it is public.
    ///
    /// # Errors
    /// [`InvalidLabel::Id`] or [`InvalidLabel::Length`] for an id that no host name can hold.
    pub fn new(
        id: SandboxId,
        port: PortNumber,
        token: Option<PortToken>,
    ) -> Result<Self, InvalidLabel> {
        let is_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let bytes = id.as_str().as_bytes();
        // Where the encoding of international names is announced (RFC 5890, section 2.3.1).
        let is_encoded = bytes.get(2..4) == Some(b"--");
        if !bytes.iter().copied().all(is_host) || is_encoded {
            return Err(InvalidLabel::Id);
        }
        let label = Self { id, port, token };
        if label.to_string().len() > LABEL_BYTES { Err(InvalidLabel::Length) } else { Ok(label) }
    }

    /// The sandbox.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// The port inside it.
    #[must_use]
    pub fn port(&self) -> PortNumber {
        self.port
    }

    /// What shows the right to use it; none for a public port.
    #[must_use]
    pub fn token(&self) -> Option<&PortToken> {
        self.token.as_ref()
    }
}

impl fmt::Display for PreviewLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, port, token } = self;
        match token {
            Some(token) => write!(f, "{port}-{id}-{}", token.as_str()),
            None => write!(f, "{id}-{port}"),
        }
    }
}

impl FromStr for PreviewLabel {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LABEL_BYTES {
            return Err(InvalidLabel::Form);
        }
        let (rest, last) = text.rsplit_once('-').ok_or(InvalidLabel::Form)?;
        let (id, port, token) = match PortNumber::parse(last) {
            Some(port) => (rest, port, None),
            None => {
                let (port, id) = rest.split_once('-').ok_or(InvalidLabel::Form)?;
                let port = PortNumber::parse(port).ok_or(InvalidLabel::Form)?;
                let token = last.parse().map_err(|_invalid| InvalidLabel::Form)?;
                (id, port, Some(token))
            }
        };
        let id = id.parse().map_err(|_invalid| InvalidLabel::Form)?;
        let label = Self::new(id, port, token)?;
        // Nothing is known that would get here otherwise; whatever is found later ends here (R50).
        if label.to_string() == text { Ok(label) } else { Err(InvalidLabel::Form) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, u16, Option<String>)> {
        let PreviewLabel { id, port, token } = text.parse().ok()?;
        Some((id.to_string(), port.get(), token.map(|token| token.as_str().to_owned())))
    }

    #[test]
    fn labels_have_one_meaning() {
        let with =
            |id: &str, port, token: &str| Some((id.to_owned(), port, Some(token.to_owned())));
        let public = |id: &str, port| Some((id.to_owned(), port, None));
        for (text, expected) in [
            ("8080-box-tok", with("box", 8080, "tok")),
            ("8080-my-box-tok", with("my-box", 8080, "tok")),
            ("8080-8081-a-tok", with("8081-a", 8080, "tok")),
            ("8080-a-8081-80", with("a-8081", 8080, "80")),
            ("65535-b_x-a_b", with("b_x", 65535, "a_b")),
            ("box-8080", public("box", 8080)),
            ("8080-box-3000", public("8080-box", 3000)),
            ("8080-box", None),
            ("8080", None),
            ("8080-", None),
            ("8080--tok", None),
            ("8080-box-", None),
            ("-8080", None),
            ("08080-box-tok", None),
            ("+8080-box-tok", None),
            ("80-box-tok", None),
            ("65536-box-tok", None),
            ("0x1f90-box-tok", None),
            ("8080-Box-tok", None),
            ("8080-box-TOK", None),
            ("8080-box-tok ", None),
            ("8080-b.x-tok", None),
            ("8080--box-tok", None),
            ("8080-box--tok", None),
            ("8080-123-tok", None),
            ("xn--a-8080", None),
            ("", None),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn a_label_is_as_long_as_dns_allows_and_no_longer() {
        let (port, token) = (PortNumber::new(65535).unwrap(), "a".repeat(16));
        let label = |chars: usize| {
            PreviewLabel::new("a".repeat(chars).parse().unwrap(), port, token.parse().ok())
        };
        assert_eq!(label(40).unwrap().to_string().len(), 63);
        assert_eq!(label(41).unwrap_err(), InvalidLabel::Length);
    }

    /// A small generator (`SplitMix64`), so that a failure can be had again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % limit
        }

        fn text(&mut self, alphabet: &[u8], most: usize) -> String {
            let length = 1 + self.below(most);
            (0..length).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
        }
    }

    /// From few characters, so that ids look like ports and tokens, and tokens like ids.
    #[test]
    fn what_prints_parses_to_the_same_and_what_parses_prints_the_same() {
        let mut random = Random(7);
        let mut printed = 0;
        for _ in 0..200_000 {
            let port = u16::try_from(1024 + random.below(64512)).unwrap();
            let port = PortNumber::new(port).unwrap();
            let token = random.text(b"08a_", 6).parse().ok();
            if let Ok(id) = random.text(b"18-a_", 9).parse()
                && let Ok(label) = PreviewLabel::new(id, port, token)
            {
                assert_eq!(label.to_string().parse(), Ok(label));
                printed += 1;
            }
            let text = random.text(b"1080-a_", 20);
            if let Ok(label) = text.parse::<PreviewLabel>() {
                assert_eq!(label.to_string(), text);
            }
        }
        assert!(printed > 50_000, "{printed}");
    }

    /// A label that is taken is written the same: port, sandbox and token cannot be read in two ways.
    #[test]
    fn hostile_labels_are_refused_or_read_in_one_way() {
        let examples =
            ["8080-my-box-k3j4h5g6f7d8s9a0", "1024-a-b", "65535-a-8081-b-token", "3000-a-b"];
        hostile::text(&examples, |text| {
            if let Ok(label) = text.parse::<PreviewLabel>() {
                assert_eq!(label.to_string(), text);
            }
        });
    }
}
