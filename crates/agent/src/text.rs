//! Bytes of a program as JSON text.

use api::exec::Encoding;
use base64::{Engine, prelude::BASE64_STANDARD};

/// Bytes of a UTF-8 sequence that is not complete, at most.
pub(crate) const CUT_BYTES: usize = 3;

/// Turns the pieces of one stream into text, a piece at a time, in the encoding of its request.
///
/// A UTF-8 sequence that is cut by the end of a piece is kept for the next one. In base64 each
/// piece is padded by itself.
#[derive(Debug)]
pub(crate) struct Encoder {
    encoding: Encoding,
    /// The beginning of a sequence that is not complete yet: at most [`CUT_BYTES`].
    cut: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, cut: Vec::new() }
    }

    /// Goes on after `tail`, the last [`CUT_BYTES`] before it: what an earlier encoder kept of them
    /// comes with the next piece.
    pub(crate) fn resumed(encoding: Encoding, tail: &[u8]) -> Self {
        let mut encoder = Self::new(encoding);
        if encoding == Encoding::Utf8 {
            drop(encoder.decode(tail));
        }
        encoder
    }

    /// The text of the next piece; empty when all of it is kept for the next one.
    pub(crate) fn encode(&mut self, piece: &[u8]) -> String {
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
    pub(crate) fn finish(&mut self) -> String {
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
    fn an_encoder_goes_on_where_another_stopped() {
        let text = "a€😀z".as_bytes();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let said = Encoder::new(Encoding::Utf8).encode(first);
            let tail = &first[first.len().saturating_sub(CUT_BYTES)..];
            let mut resumed = Encoder::resumed(Encoding::Utf8, tail);
            assert_eq!(said + &resumed.encode(second), "a€😀z", "cut at {cut}");
        }
    }

    #[test]
    fn base64_is_padded_in_each_piece() {
        let mut encoder = Encoder::new(Encoding::Base64);
        assert_eq!(encoder.encode(b"\xff"), "/w==");
        assert_eq!(encoder.finish(), "");
    }
}
