//! Keys: who may call, and for what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{IdPrefix, KeyName, SandboxId};

/// What the holder of a key may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum KeyScope {
    /// Everything the API offers.
    // With braces, because serde ignores unknown fields of a variant without: a prefix that was
    // given to the wrong type would be lost, and with it all limits.
    Admin {},
    /// Create, list, use and destroy the sandboxes whose id begins with a prefix, and list the
    /// images. No other sandbox exists for its holder.
    Sandboxes {
        /// What their ids begin with.
        prefix: IdPrefix,
        /// How many of them there may be at once, whoever made them; absent: as many as the node
        /// takes. One more is refused with `QUOTA_EXCEEDED`.
        #[serde(default, rename = "maxSandboxes", skip_serializing_if = "Option::is_none")]
        max_sandboxes: Option<u32>,
    },
}

impl KeyScope {
    /// What ids begin with that the holder may name; none means any id.
    #[must_use]
    pub fn prefix(&self) -> Option<&IdPrefix> {
        match self {
            Self::Admin {} => None,
            Self::Sandboxes { prefix, .. } => Some(prefix),
        }
    }

    /// Whether the holder may name this sandbox, be there one or not.
    #[must_use]
    pub fn covers(&self, id: &SandboxId) -> bool {
        self.prefix().is_none_or(|prefix| prefix.covers(id))
    }
}

/// A key, as its owner knows it. The secret is told once, in [`NewKey`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its name. `local` is the key in the file `key` of the node's state directory.
    pub name: KeyName,
    /// What its holder may do.
    pub scope: KeyScope,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// From when on it is refused, in milliseconds since 1970-01-01 UTC; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// The beginning of the hour in which it was last used, in milliseconds since 1970-01-01 UTC;
    /// absent: not yet. Of `local`, since the server's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at_ms: Option<i64>,
}

/// Body of `POST /v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "scope": {"type": "sandboxes", "prefix": "ci-"}}))]
pub struct CreateKey {
    /// Its name, which no other key has.
    pub name: KeyName,
    /// What its holder may do.
    pub scope: KeyScope,
    /// Seconds until it is refused, 1 to 315,360,000 (ten years); without it, it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub expires_in_secs: Option<u64>,
}

/// A key that was just made, with its secret. The server keeps a digest alone, so this is the only
/// time it can be read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewKey {
    /// The key.
    pub key: Key,
    /// What goes after `Authorization: Bearer`. Begins with `sbk_`.
    pub secret: String,
}

impl std::fmt::Debug for NewKey {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Answer of `GET /v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// Sorted by name.
    pub keys: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_written_out() {
        for (text, scope) in [
            (r#"{"type":"admin"}"#, KeyScope::Admin {}),
            (
                r#"{"type":"sandboxes","prefix":"ci-"}"#,
                KeyScope::Sandboxes { prefix: "ci-".parse().unwrap(), max_sandboxes: None },
            ),
            (
                r#"{"type":"sandboxes","prefix":"ci-","maxSandboxes":0}"#,
                KeyScope::Sandboxes { prefix: "ci-".parse().unwrap(), max_sandboxes: Some(0) },
            ),
        ] {
            assert_eq!(serde_json::from_str::<KeyScope>(text).unwrap(), scope);
            assert_eq!(serde_json::to_string(&scope).unwrap(), text);
        }
        // A slip must not make an admin: nothing is assumed and nothing ignored.
        for bad in [
            "{}",
            r#""admin""#,
            r#"{"type":"sandboxes"}"#,
            r#"{"type":"sandboxes","prefix":""}"#,
            r#"{"type":"sandboxes","prefix":null}"#,
            r#"{"type":"admin","prefix":"ci-"}"#,
            r#"{"type":"admin","maxSandboxes":1}"#,
            r#"{"type":"sandboxes","prefix":"ci-","maxSandboxes":-1}"#,
            r#"{"type":"Admin"}"#,
            r#"{"prefix":"ci-"}"#,
        ] {
            assert!(serde_json::from_str::<KeyScope>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<CreateKey>(r#"{"name":"ci"}"#).is_err());
    }

    #[test]
    fn a_scope_covers_what_begins_with_its_prefix() {
        let scope = KeyScope::Sandboxes { prefix: "ci-".parse().unwrap(), max_sandboxes: None };
        for (id, covered) in
            [("ci-1", true), ("ci-.a", true), ("ci", false), ("CI-1", false), ("x-ci-1", false)]
        {
            assert_eq!(scope.covers(&id.parse().unwrap()), covered, "{id}");
            assert!((KeyScope::Admin {}).covers(&id.parse().unwrap()));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let key = Key {
            name: "ci".parse().unwrap(),
            scope: KeyScope::Admin {},
            created_at_ms: 0,
            expires_at_ms: None,
            last_used_at_ms: None,
        };
        let new = NewKey { key, secret: "sbk_secret".to_owned() };
        assert!(!format!("{new:?}").contains("secret"), "{new:?}");
    }
}
