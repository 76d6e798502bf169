//! What a webhook's deliveries are signed with, as the Standard Webhooks specification has it.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{EngineError, error};

/// What the text of a secret begins with.
const PREFIX: &str = "whsec_";

/// What a signature begins with: its kind.
const KIND: &str = "v1,";

/// Bytes of a secret: as many as the hash has.
const BYTES: usize = 32;

/// The secret of one webhook. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookSecret([u8; BYTES]);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

impl WebhookSecret {
    pub(super) fn generate() -> Result<Self, EngineError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|_errno| error::internal("generating a secret"))?;
        Ok(Self(bytes))
    }

    /// The one on record.
    pub(crate) fn of_record(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// For the record.
    pub(crate) fn to_record(&self) -> [u8; BYTES] {
        self.0
    }

    /// The text, for the one time that it is told.
    pub(super) fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(self.0))
    }

    /// The signature of a body that is sent with this id at this time.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("{KIND}{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as `openssl dgst -sha256 -hmac` of the same bytes.
    #[test]
    fn a_signature_is_over_id_time_and_body() {
        let secret = WebhookSecret::of_record([b'k'; 32]);
        let signature = secret.sign("event-7", 1_764_000_000, b"{}");
        assert_eq!(signature, "v1,2ma1p6fRHMYyJxd3bDW7nKAUcBPip5FubFKc2jro1J4=");
        assert_ne!(signature, secret.sign("event-8", 1_764_000_000, b"{}"));
        assert_ne!(signature, secret.sign("event-7", 1_764_000_001, b"{}"));
        assert_ne!(signature, secret.sign("event-7", 1_764_000_000, b"{} "));
        assert!(secret.reveal().starts_with("whsec_a2tra"));
        assert_eq!(format!("{secret:?}"), "WebhookSecret(..)");
    }
}
