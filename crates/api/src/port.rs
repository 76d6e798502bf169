//! Ports: what listens in a sandbox, and the URLs under which others reach it.
//!
//! An exposed port has a URL, `http(s)://{port}-{sandbox}-{token}.{domain}/`, that stays the same for
//! the sandbox and the port, whether the sandbox runs or not, until it is rotated or given a token
//! of the caller's own. Who knows the URL may use it. A public port has the URL
//! `{sandbox}-{port}.{domain}` without anything secret in it, for deployments that trust who can
//! reach them.

mod label;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limit::PORT_TOKEN_CHARS;

pub use label::{InvalidLabel, PreviewLabel};

/// Body of `POST /v1/sandboxes/{id}/ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"port": 8080, "name": "web"}))]
pub struct ExposePort {
    /// The TCP port inside the sandbox.
    #[schema(minimum = 1024, maximum = 65535)]
    pub port: u32,
    /// A name for people, at most [`crate::limit::PORT_NAME_CHARS`] characters without control
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The URL's token, instead of the generated one: see [`PortToken`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<PortToken>,
    /// The URL has no token: whoever can reach the server and guess the sandbox's id may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
}

/// A port's part of its URL that nobody else knows.
///
/// 1 to 16 of `a-z`, `0-9` and `_`, and not a port number, by which a URL without a token is known.
/// A short one can be guessed: leave it out to get one of 80 random bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "my_token")]
pub struct PortToken(String);

impl PortToken {
    /// The token as it stands in a URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PortToken {
    /// Without the token: it is as good as a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PortToken(hidden)")
    }
}

/// Why a text is not a [`PortToken`]. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token has 1 to {PORT_TOKEN_CHARS} of the characters a-z, 0-9 and '_', and is not a port number"
)]
pub struct InvalidPortToken;

impl std::str::FromStr for PortToken {
    type Err = InvalidPortToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let is_token = (1..=PORT_TOKEN_CHARS).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_token && PortNumber::parse(text).is_none() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPortToken)
        }
    }
}

impl TryFrom<String> for PortToken {
    type Error = InvalidPortToken;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PortToken> for String {
    fn from(token: PortToken) -> Self {
        token.0
    }
}

/// A port that can be exposed: 1024 to 65535.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u16, example = 8080)]
pub struct PortNumber(u16);

impl PortNumber {
    /// The port with this number; none below 1024, which belong to the system.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number >= 1024 { Some(Self(number)) } else { None }
    }

    /// The port with this decimal spelling, of which there is one: no sign, no zeros before it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_canonical = text.starts_with(|first: char| first.is_ascii_digit() && first != '0')
            && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_canonical { text.parse().ok().and_then(Self::new) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for PortNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An exposed port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// The TCP port inside the sandbox.
    pub port: u16,
    /// Where it is reached, with a slash at its end.
    pub url: String,
    /// The name it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its URL has no token.
    pub public: bool,
    /// Milliseconds since 1970-01-01 UTC.
    pub exposed_at_ms: i64,
    /// Whether something listens there now.
    pub status: PortStatus,
}

/// Whether something listens on an exposed port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PortStatus {
    /// A program in the sandbox listens on it.
    Active,
    /// Nothing listens on it, or the sandbox does not run.
    Inactive,
}

/// Answer of `GET /v1/sandboxes/{id}/ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortList {
    /// The exposed ports, sorted; at most [`crate::limit::EXPOSED_PORTS`].
    pub ports: Vec<ExposedPort>,
    /// What listens inside, exposed or not, sorted by port; nothing while the sandbox does not run.
    pub listening: Vec<ListeningPort>,
}

/// A TCP port on which a program in the sandbox listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListeningPort {
    /// The port.
    pub port: u16,
    /// The address it is bound to: `127.0.0.1`, `0.0.0.0`, `::`, ...
    pub address: String,
}

/// What the agent answers about listening ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListeningPorts {
    /// Sorted by port, then address; at most [`crate::limit::LISTENING_PORTS`].
    pub listening: Vec<ListeningPort>,
}

/// Body of `POST /v1/sandboxes/{id}/ports/{port}/rotate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotatePort {
    /// The new token; a generated one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<PortToken>,
}

/// Body of `POST /v1/sandboxes/{id}/ports/{port}/validate-token`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidatePortToken {
    /// What may be the port's token; any text.
    pub token: String,
}

impl std::fmt::Debug for ValidatePortToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ValidatePortToken(hidden)")
    }
}

/// Answer of `POST /v1/sandboxes/{id}/ports/{port}/validate-token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortTokenValidity {
    /// The port is exposed and this is its token.
    pub valid: bool,
}

/// Body of `POST /v1/sandboxes/{id}/ports/{port}/wait`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"http": {"path": "/health"}, "timeoutMs": 10_000}))]
pub struct WaitPort {
    /// What an HTTP server there has to answer; else it is enough that connections are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Milliseconds to wait; a day unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
}

/// A GET, and the statuses by which a server counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The path and query to ask for.
    #[serde(default = "root_path")]
    pub path: String,
    /// Lowest status that counts.
    #[serde(default = "status_min")]
    #[schema(minimum = 100, maximum = 599)]
    pub status_min: u16,
    /// Highest status that counts.
    #[serde(default = "status_max")]
    #[schema(minimum = 100, maximum = 599)]
    pub status_max: u16,
}

fn root_path() -> String {
    "/".to_owned()
}

fn status_min() -> u16 {
    200
}

fn status_max() -> u16 {
    399
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self { path: root_path(), status_min: status_min(), status_max: status_max() }
    }
}

/// Answer of `POST /v1/sandboxes/{id}/ports/{port}/wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortReady {
    /// The port.
    pub port: u16,
    /// The status of the HTTP answer, when that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_one_spelling() {
        for (text, number) in [
            ("1024", Some(1024)),
            ("8080", Some(8080)),
            ("65535", Some(65535)),
            ("65536", None),
            ("1023", None),
            ("80", None),
            ("0", None),
            ("08080", None),
            ("+8080", None),
            ("-8080", None),
            ("8080 ", None),
            ("0x1f90", None),
            ("8080.0", None),
            ("٨٠٨٠", None),
            ("", None),
        ] {
            assert_eq!(PortNumber::parse(text).map(PortNumber::get), number, "{text:?}");
        }
    }

    #[test]
    fn tokens_follow_the_rule_and_are_not_shown() {
        for good in ["a", "my_token", "0", "80", "08080", "abcdefgh01234567"] {
            assert_eq!(good.parse::<PortToken>().unwrap().as_str(), good);
        }
        for bad in ["", "A", "a-b", "a.b", "8080", "65535", "ä", "abcdefgh012345678"] {
            assert!(bad.parse::<PortToken>().is_err(), "{bad:?}");
        }
        let token: PortToken = "secret".parse().unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn requests_read_as_documented() {
        let expose: ExposePort = serde_json::from_str(r#"{"port": 8080}"#).unwrap();
        assert_eq!(expose, ExposePort { port: 8080, ..ExposePort::default() });
        let wait: WaitPort = serde_json::from_str(r#"{"http": {}}"#).unwrap();
        assert_eq!(wait.http, Some(HttpCheck::default()));
        for bad in [
            r"{}",
            r#"{"port": "8080"}"#,
            r#"{"port": -1}"#,
            r#"{"port": 8080, "token": "A"}"#,
            r#"{"port": 8080, "hostname": "x"}"#,
        ] {
            assert!(serde_json::from_str::<ExposePort>(bad).is_err(), "{bad}");
        }
    }
}
