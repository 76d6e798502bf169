//! Numbers of headers: octal text, binary where that has no room, decimal in pax records.

use std::fmt::Write as _;

/// Reads a field: octal digits between spaces and zero bytes, nothing at all for 0, or, after a first
/// byte of 0x80 or 0xff, a number in binary. None when it is neither, or larger than 64 bits.
pub(super) fn read(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 || *first == 0xff {
        let start = if *first == 0xff { -1_i128 } else { 0 };
        let value = rest.iter().try_fold(start, |value, byte| {
            let value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
            (-(1 << 64)..1 << 64).contains(&value).then_some(value)
        });
        return value;
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let digits = field.get(..end)?.trim_ascii();
    digits.iter().try_fold(0_i128, |value, byte| match byte {
        // At most twelve digits.
        b'0'..=b'7' => Some(value * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

/// True when `value` fits into a field of `length` bytes in octal, with a byte for its end.
pub(super) fn fits(value: u64, length: usize) -> bool {
    value.checked_shr(3 * u32::try_from(length - 1).unwrap_or(u32::MAX)).unwrap_or(0) == 0
}

/// Writes `value` in octal, with a zero byte at its end; 0 when it does not fit.
pub(super) fn write(field: &mut [u8], value: u64) {
    let mut rest = if fits(value, field.len()) { value } else { 0 };
    let Some((end, digits)) = field.split_last_mut() else { return };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"01234567"[usize::try_from(rest & 7).unwrap_or_default()];
        rest >>= 3;
    }
}

/// A number in decimal digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    let is_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_digits)?.parse().ok()
}

/// A time in decimal seconds, with a fraction perhaps, as seconds and nanoseconds after them.
pub(crate) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"0");
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.copied().collect::<Vec<u8>>();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = u32::try_from(decimal(&nanoseconds)?).ok()?;
    match (is_negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// The same the other way.
pub(super) fn time_text((seconds, nanoseconds): (i64, u32)) -> String {
    let is_between = seconds < 0 && nanoseconds > 0;
    let (whole, fraction) = if is_between {
        (seconds + 1, 1_000_000_000 - nanoseconds)
    } else {
        (seconds, nanoseconds)
    };
    let sign = if seconds < 0 { "-" } else { "" };
    let mut text = format!("{sign}{}", whole.unsigned_abs());
    if fraction > 0 {
        write!(text, ".{fraction:09}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_exactly_or_not_at_all() {
        let binary = |bytes: &[u8]| {
            let mut field = vec![bytes[0]];
            field.resize(12 - (bytes.len() - 1), if bytes[0] == 0xff { 0xff } else { 0 });
            field.extend_from_slice(&bytes[1..]);
            read(&field)
        };
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000644\0", Some(0o644)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"+000644\0", None),
            (b"0x00644\0", None),
            (b"6 4     ", None),
        ] {
            assert_eq!(read(field), value, "{}", String::from_utf8_lossy(field));
        }
        assert_eq!(binary(&[0x80, 1, 0]), Some(256));
        assert_eq!(binary(&[0xff, 0xff, 0xfe]), Some(-2));
        let largest = [[0x80].as_slice(), &[0xff; 8]].concat();
        assert_eq!(binary(&largest), Some(i128::from(u64::MAX)));
        // One more than 64 bits: no program may take it for a small number.
        assert_eq!(binary(&[[0x80, 1].as_slice(), &[0; 8]].concat()), None);
        assert_eq!(read(&[0x81, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn fields_are_written_as_they_are_read() {
        for value in [0, 7, 0o644, 0o777_7777] {
            let mut field = [0; 8];
            write(&mut field, value);
            assert!(fits(value, 8));
            assert_eq!(read(&field), Some(i128::from(value)));
        }
        assert!(!fits(0o1000_0000, 8));
        assert!(!fits(u64::MAX, 12));
        assert!(fits((1 << 33) - 1, 12) && !fits(1 << 33, 12));
    }

    #[test]
    fn times_come_back() {
        for (time, text) in [
            ((0, 0), "0"),
            ((5, 0), "5"),
            ((5, 20), "5.000000020"),
            ((-5, 0), "-5"),
            ((-1, 999_999_999), "-0.000000001"),
            ((-2, 500_000_000), "-1.500000000"),
        ] {
            assert_eq!(time_text(time), text);
            assert_eq!(super::time(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(super::time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(super::time(b"1.1234567899999"), Some((1, 123_456_789)));
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1e3", b"9223372036854775808", b"--1"] {
            assert_eq!(super::time(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
