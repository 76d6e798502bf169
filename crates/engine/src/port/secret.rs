//! What tokens are made from: one secret per node, in the file `secret` of the state directory.
//!
//! The database holds no generated token, so whoever reads a copy of it can open no preview.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use api::port::{PortNumber, PortToken};
use hmac::{Hmac, Mac};
use jail::JailId;
use sha2::Sha256;

/// Bytes of the secret: as many as the hash has.
const SECRET_BYTES: usize = 32;

/// The digits of RFC 4648's base 32 in lower case: host names know no other.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bytes of the code that become a token: 80 bits in 16 characters of 5 (R51).
const TOKEN_BYTES: usize = 10;

/// The node's secret.
#[derive(Clone)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// Reads the node's secret, or makes it on the first start. The directory is the node's alone.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds no secret: URLs that were handed out would
    /// change without anybody knowing.
    pub(crate) fn establish(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("secret");
        match File::open(&path) {
            Ok(file) => Self::read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(&path),
            Err(error) => Err(error),
        }
    }

    fn read(file: File) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(SECRET_BYTES);
        file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let wrong = || {
            let text = "the file `secret` holds no secret; delete it to get a new one, with which \
                        the URLs of all exposed ports change";
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        bytes.try_into().map(Self).map_err(|_wrong_length| wrong())
    }

    /// Written beside and renamed, so that a crash leaves a whole secret or none.
    fn make(path: &Path) -> io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        Ok(Self(bytes))
    }

    /// The token of a port of a jail in its `generation`, which counts rotations.
    pub(crate) fn token(&self, jail: JailId, port: PortNumber, generation: u64) -> PortToken {
        let mut code =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        code.update(b"port token");
        code.update(&jail.0.to_be_bytes());
        code.update(&port.get().to_be_bytes());
        code.update(&generation.to_be_bytes());
        let code = code.finalize().into_bytes();
        let bits =
            |bytes: &[u8]| bytes.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        // Five bytes are eight digits.
        let digits = code[..TOKEN_BYTES].chunks(5).flat_map(|bytes| {
            let bits = bits(bytes);
            (0..8).map(move |place| char::from(DIGITS[bits >> (5 * place) & 31]))
        });
        let text: String = digits.collect();
        text.parse().expect("sixteen digits of base 32 are a token")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_token_is_the_same_for_the_same_and_another_for_anything_else() {
        let port = |number| PortNumber::new(number).unwrap();
        let (one, two) = (Secret([1; SECRET_BYTES]), Secret([2; SECRET_BYTES]));
        let all = [
            one.token(JailId(1), port(8080), 0),
            one.token(JailId(1), port(8080), 1),
            one.token(JailId(1), port(8081), 0),
            one.token(JailId(2), port(8080), 0),
            two.token(JailId(1), port(8080), 0),
        ];
        let different: BTreeSet<_> = all.iter().map(PortToken::as_str).collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(all[0], one.token(JailId(1), port(8080), 0));
        assert!(all.iter().all(|token| token.as_str().len() == 16));
    }

    #[test]
    fn the_first_start_makes_a_secret_that_nobody_else_can_read_and_the_next_keeps_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let first = Secret::establish(dir.path()).unwrap();
        assert_eq!(Secret::establish(dir.path()).unwrap().0, first.0);
        let path = dir.path().join("secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(Secret::establish(dir.path()).is_err());
    }
}
