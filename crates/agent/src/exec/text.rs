//! Bytes of a program as JSON text.

use api::exec::Encoding;
use base64::{Engine, prelude::BASE64_STANDARD};

/// Turns the pieces of one stream into text, a piece at a time, in the encoding of its request.
///
/// A UTF-8 sequence that is cut by the end of a piece is kept for the next one. In base64 each
/// piece is padded by itself.
#[derive(Debug)]
pub(super) struct Encoder {
    encoding: Encoding,
    /// The beginning of a sequence that is not complete yet: at most 3 bytes.
    cut: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, cut: Vec::new() }
    }

    /// The text of the next piece; empty when all of it is kept for the next one.
    pub(super) fn encode(&mut self, piece: &[u8]) -> String {
        match self.encoding {
            Encoding::Base64 => BASE64_STANDARD.encode(piece),
            Encoding::Utf8 if self.cut.is_empty() => self.decode(piece),
            Encoding::Utf8 => {
                let mut whole = std::mem::take(&mut self.cut);
                whole.extend_from_slice(piece);
                self.decode(&whole)
            }
        }
    }

    /// The text of what is still kept, at the end of the stream.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned()
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            if chunks.peek().is_none() && is_cut(chunk.invalid()) {
                self.cut = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// True for the beginning of a sequence that more bytes could complete.
fn is_cut(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes `bytes` cut at every place into two pieces, and compares with the whole.
    fn check(bytes: &[u8]) {
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut encoder = Encoder::new(Encoding::Utf8);
            let text = encoder.encode(first) + &encoder.encode(second) + &encoder.finish();
            assert_eq!(text, String::from_utf8_lossy(bytes), "cut at {cut}");
        }
    }

    #[test]
    fn text_cut_anywhere_is_the_same_text() {
        check("aé€😀z".as_bytes());
        check(b"\xff\xc3(\xe2\x82\xf0\x9f\x98\x80\xf0\x9f");
        check(b"");
    }

    #[test]
    fn single_bytes_make_the_same_text() {
        let mut encoder = Encoder::new(Encoding::Utf8);
        let text: String = "a😀€"
            .as_bytes()
            .iter()
            .map(|byte| encoder.encode(std::slice::from_ref(byte)))
            .collect();
        assert_eq!(text, "a😀€");
    }

    #[test]
    fn base64_is_padded_in_each_piece() {
        let mut encoder = Encoder::new(Encoding::Base64);
        assert_eq!(encoder.encode(b"\xff"), "/w==");
        assert_eq!(encoder.finish(), "");
    }
}
