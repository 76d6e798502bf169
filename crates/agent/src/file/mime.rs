//! What kind of content a file has: by its name, else by how it begins.

use std::path::Path;

/// Of what nothing is known.
pub(super) const UNKNOWN: &str = "application/octet-stream";

/// How contents of well-known kinds begin; those that programs meet without an extension.
const BEGINNINGS: [(&[u8], &str); 14] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\x7fELF", "application/x-executable"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"\0asm", "application/wasm"),
];

/// Types that are text without saying so.
const TEXTS: [&str; 13] = [
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/json5",
    "application/sql",
    "application/toml",
    "application/typescript",
    "application/x-httpd-php",
    "application/x-javascript",
    "application/x-sh",
    "application/xml",
    "application/yaml",
];

/// Extensions that the table of MIME types lacks or gives another meaning, as programmers use them.
const EXTENSIONS: [(&str, &str); 9] = [
    ("py", "text/x-python"),
    ("ts", "text/x-typescript"),
    ("mts", "text/x-typescript"),
    ("cts", "text/x-typescript"),
    ("tsx", "text/x-typescript"),
    ("ipynb", "application/json"),
    ("jsonl", "application/jsonl+json"),
    ("lock", "text/plain"),
    ("env", "text/plain"),
];

/// The MIME type of the file at `path` that begins with `first`.
pub(super) fn of(path: &Path, first: &[u8]) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let known = |(name, kind): &(&str, &'static str)| {
        extension.is_some_and(|extension| extension.eq_ignore_ascii_case(name)).then_some(*kind)
    };
    let by_name = EXTENSIONS
        .iter()
        .find_map(known)
        .or_else(|| mime_guess::from_ext(extension.unwrap_or_default()).first_raw());
    by_name.unwrap_or_else(|| by_content(first))
}

fn by_content(first: &[u8]) -> &'static str {
    let begins = |(start, kind): &(&[u8], &'static str)| first.starts_with(start).then_some(*kind);
    if let Some(kind) = BEGINNINGS.iter().find_map(begins) {
        return kind;
    }
    let is_text = std::str::from_utf8(whole(first)).is_ok() && !first.contains(&0);
    match is_text {
        true if first.starts_with(b"#!") => "text/x-script",
        true => "text/plain",
        false => UNKNOWN,
    }
}

/// True for types whose contents are text.
pub(super) fn is_text(mime_type: &str) -> bool {
    mime_type.starts_with("text/")
        || mime_type.ends_with("+json")
        || mime_type.ends_with("+xml")
        || TEXTS.contains(&mime_type)
        || mime_type == "application/x-yaml"
}

/// Without the beginning of a UTF-8 sequence that the end cut off.
pub(super) fn whole(bytes: &[u8]) -> &[u8] {
    for cut in 1..=bytes.len().min(3) {
        let (whole, tail) = bytes.split_at(bytes.len() - cut);
        let is_cut =
            |error: std::str::Utf8Error| error.valid_up_to() == 0 && error.error_len().is_none();
        if std::str::from_utf8(tail).is_err_and(is_cut) {
            return whole;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_before_contents() {
        for (path, first, kind, text) in [
            ("/a/x.json", &b"\0"[..], "application/json", true),
            ("x.PNG", b"text", "image/png", false),
            ("x.svg", b"", "image/svg+xml", true),
            ("x.ts", b"let a", "text/x-typescript", true),
            ("x.py", b"", "text/x-python", true),
            ("x.yml", b"", "text/x-yaml", true),
            ("x.toml", b"", "text/x-toml", true),
            ("x.sh", b"", "application/x-sh", true),
            ("x.mjs", b"", "application/javascript", true),
            ("x.rs", b"", "text/x-rust", true),
            ("x.md", b"", "text/markdown", true),
            ("Makefile", b"all:\n", "text/plain", true),
            ("run", b"#!/bin/sh\n", "text/x-script", true),
            ("empty", b"", "text/plain", true),
            ("x.weird", b"\x89PNG\r\n\x1a\n...", "image/png", false),
            ("program", b"\x7fELF\x02", "application/x-executable", false),
            ("zeros", b"a\0b", UNKNOWN, false),
            ("latin1", b"caf\xe9 au lait", UNKNOWN, false),
            ("cut", b"caf\xc3", "text/plain", true),
        ] {
            let found = of(Path::new(path), first);
            assert_eq!((found, is_text(found)), (kind, text), "{path}");
        }
    }

    #[test]
    fn only_a_cut_sequence_is_left_out() {
        for (bytes, length) in [
            (&b"abc"[..], 3),
            (b"ab\xc3", 2),
            (b"ab\xc3\xa4", 4),
            (b"a\xf0\x9f\x98", 1),
            (b"a\xf0\x9f\x98\x80", 5),
            (b"\xff", 1),
            (b"\x80\x80\x80", 3),
            (b"", 0),
        ] {
            assert_eq!(whole(bytes).len(), length, "{bytes:?}");
        }
    }
}
