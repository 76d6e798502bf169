//! Texts as parts of a URL: paths of files, values of queries.
//!
//! Only the unreserved characters of RFC 3986 section 2.3 stay as they are, so no text can be
//! taken for a delimiter.

use std::fmt::Write;

/// Percent-encodes `text`.
fn encode(text: &[u8], out: &mut String) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// An absolute path as it follows `/files/`: each segment encoded, slashes kept.
///
/// URL parsers resolve the segments `.` and `..`, also when they are written `%2e`, which would
/// change the meaning of a path through a symbolic link and could even leave `/files/`. Such a
/// path is sent as one segment with encoded slashes, which a parser leaves alone and the server
/// decodes to the same path. So is a path with empty segments.
pub(crate) fn file_path(path: &[u8]) -> String {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut out = String::with_capacity(path.len() + 8);
    let mut segments = path.split(|byte| *byte == b'/');
    if segments.any(|segment| matches!(segment, b"" | b"." | b"..")) {
        // The slash in front keeps a lone `..` from being a dot segment.
        encode(b"/", &mut out);
        encode(path, &mut out);
        return out;
    }
    for (index, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        encode(segment, &mut out);
    }
    out
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text.as_bytes(), &mut out);
    out
}

/// The bytes that a percent-encoded text stands for; none when it is malformed.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &tail[2..];
    }
    Some(bytes)
}

/// A query in the making.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds `name=value`.
    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        encode(value.as_bytes(), &mut self.0);
        self
    }

    /// Adds `name=value` when there is a value.
    pub(crate) fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds `name=true` when it is.
    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        if value { self.text(name, "true") } else { self }
    }

    /// The query with its question mark; empty without any part.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_and_slashes_kept() {
        for (path, encoded) in [
            ("/workspace/a.txt", "workspace/a.txt"),
            ("/a b/c%d/e?f#g", "a%20b/c%25d/e%3Ff%23g"),
            ("/ä/日本", "%C3%A4/%E6%97%A5%E6%9C%AC"),
            ("/a\\b:c;d=e&f+g", "a%5Cb%3Ac%3Bd%3De%26f%2Bg"),
            ("/a\n\0", "a%0A%00"),
            ("/...", "..."),
            ("/~/.-_", "~/.-_"),
        ] {
            assert_eq!(file_path(path.as_bytes()), encoded, "{path:?}");
        }
    }

    #[test]
    fn a_url_parser_leaves_every_path_alone() {
        for path in [
            "/",
            "/..",
            "/../../sandboxes",
            "/a/../b",
            "/a/./b",
            "/.",
            "//a",
            "/a//b",
            "/a/",
            "/%2e%2e/x",
        ] {
            let url = format!("http://h/v1/files/{}", file_path(path.as_bytes()));
            let parsed = reqwest::Url::parse(&url).unwrap();
            let sent = parsed.path().strip_prefix("/v1/files/").expect(path);
            let decoded = String::from_utf8(decode(sent).unwrap()).unwrap();
            // More slashes than written mean the same path.
            let meant = format!("/{decoded}");
            assert_eq!(meant.trim_start_matches('/'), path.trim_start_matches('/'), "{path}");
        }
    }

    #[test]
    fn bytes_of_any_kind_survive() {
        let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'/').collect();
        assert_eq!(decode(&file_path(&bytes)), Some(bytes));
        for bad in ["%", "%f", "%fg", "%+1", "a%"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_query_begins_with_a_question_mark_once() {
        let query = Query::default()
            .text("path", "/a&b=c d")
            .flag("recursive", true)
            .flag("hidden", false)
            .optional("cursor", None)
            .optional("limit", Some("5"));
        assert_eq!(query.as_str(), "?path=%2Fa%26b%3Dc%20d&recursive=true&limit=5");
        assert_eq!(Query::default().as_str(), "");
    }
}
