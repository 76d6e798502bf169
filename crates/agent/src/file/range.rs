//! The `Range` header, RFC 9110 section 14.

use axum::http::{HeaderMap, header};

/// A range as asked for, before the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// From the first to the last byte, both included; to the end without a last.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

/// The header's range; none when there is none, or one that a server may ignore: another unit,
/// several ranges, bad syntax.
pub(super) fn of(headers: &HeaderMap) -> Option<Range> {
    let value = headers.get(header::RANGE)?.to_str().ok()?;
    let (unit, range) = value.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let range = match (first.trim(), last.trim()) {
        ("", last) => Range::Last(number(last)?),
        (first, "") => Range::From(number(first)?, None),
        (first, last) => Range::From(number(first)?, Some(number(last)?)),
    };
    match range {
        Range::From(first, Some(last)) if last < first => None,
        range => Some(range),
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Range {
    /// Start and length in a file of `size` bytes; none when no byte of it is asked for.
    pub(super) fn within(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Self::From(first, last) => {
                (first, last.map_or(size, |last| size.min(last.saturating_add(1))))
            }
            Self::Last(length) => (size.saturating_sub(length), size),
        };
        (start < end).then(|| (start, end - start))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn ranges_are_read_and_cut_to_the_file() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Some(Some((0, 1)))),
            ("bytes=2-5", 10, Some(Some((2, 4)))),
            ("bytes=2-", 10, Some(Some((2, 8)))),
            ("bytes=-3", 10, Some(Some((7, 3)))),
            ("bytes=-30", 10, Some(Some((0, 10)))),
            ("bytes=5-50", 10, Some(Some((5, 5)))),
            ("bytes=9-18446744073709551615", 10, Some(Some((9, 1)))),
            ("bytes=10-", 10, Some(None)),
            ("bytes=-0", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=5-2", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=+1-2", 10, None),
            ("bytes=-", 10, None),
            ("lines=0-1", 10, None),
            ("bytes", 10, None),
        ] {
            let headers =
                HeaderMap::from_iter([(header::RANGE, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(of(&headers).map(|range| range.within(size)), expected, "{text}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
