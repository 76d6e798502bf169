//! What makes an exec or a run safe to repeat: the key of its request.

use std::hash::{DefaultHasher, Hasher};

use api::{
    error::{ApiError, ErrorCode},
    limit::IDEMPOTENCY_KEY_CHARS,
};
use axum::http::HeaderMap;

const HEADER: &str = "idempotency-key";

/// An `Idempotency-Key`.
#[derive(Debug)]
pub(crate) struct Key(String);

impl Key {
    /// The request's key, if it has one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let is_one = headers.get_all(HEADER).iter().count() == 1;
        match value.to_str() {
            Ok(text)
                if is_one
                    && (1..=IDEMPOTENCY_KEY_CHARS).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Ok(Some(Self(text.to_owned())))
            }
            _ => {
                let text = format!(
                    "an Idempotency-Key is one value of 1 to {IDEMPOTENCY_KEY_CHARS} visible ASCII \
                     characters"
                );
                let error = ApiError::new(ErrorCode::ValidationFailed, text);
                Err(error.with("limit", IDEMPOTENCY_KEY_CHARS))
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells requests apart. Who finds two of one hash fools only the sandbox that is theirs.
    pub(crate) fn hash(request: &impl serde::Serialize) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Not the bytes of the body: a client may write the same request in another order.
        hasher.write(&serde_json::to_vec(request).expect("a request came from JSON"));
        hasher.finish()
    }

    pub(crate) fn conflict(&self) -> ApiError {
        let text =
            "the Idempotency-Key was used for another request; use a new one for a new request";
        ApiError::new(ErrorCode::IdempotencyConflict, text).with("key", self.as_str())
    }

    pub(crate) fn forgotten(&self) -> ApiError {
        let text = "nothing is known of a command with this Idempotency-Key, so its stream cannot go \
            on; it ran in an earlier life of the sandbox, or ended too long ago";
        ApiError::new(ErrorCode::ProcessNotFound, text).with("key", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use api::exec::{Command, Encoding, ExecRequest};
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn keys_are_visible_and_bounded() {
        let key = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            Key::of(&headers).map(|key| key.map(|key| key.0)).map_err(|error| error.code)
        };
        let long = [b'k'; IDEMPOTENCY_KEY_CHARS + 1];
        assert_eq!(key(b"a-B_9{}"), Ok(Some("a-B_9{}".to_owned())));
        assert!(key(&long[1..]).is_ok());
        for bad in [&b""[..], b"a b", b"\xff", &long] {
            assert_eq!(key(bad), Err(ErrorCode::ValidationFailed), "{bad:?}");
        }
        assert!(Key::of(&HeaderMap::new()).unwrap().is_none());
        let mut two = HeaderMap::new();
        two.append(HEADER, HeaderValue::from_static("a"));
        two.append(HEADER, HeaderValue::from_static("a"));
        assert!(Key::of(&two).is_err());
    }

    #[test]
    fn a_hash_is_of_the_request_and_not_of_its_spelling() {
        let request = |text: &str| serde_json::from_str::<ExecRequest>(text).unwrap();
        let plain = ExecRequest::new(Command::Shell("ls".to_owned()));
        let spelled = request(r#"{"env": {}, "encoding": "utf8", "command": "ls"}"#);
        assert_eq!(Key::hash(&plain), Key::hash(&spelled));
        let other = ExecRequest { encoding: Encoding::Base64, ..plain.clone() };
        assert_ne!(Key::hash(&plain), Key::hash(&other));
    }
}
