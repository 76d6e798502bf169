//! Sizes, times and CPUs as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads a size: `1024`, `512KiB`, `512k`, `1.5GiB`, `2g`. Units are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fault = || format!("{text:?} is not a size; write it as 512MiB or 2GiB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(fault()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().map_err(|_not_a_number| fault())?;
    // Thousandths are fine enough for a limit and cannot overflow below.
    let thousandths: u64 = format!("{fraction:0<3}")
        .get(..3)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(fault)?;
    let unit_bytes = 1_u64 << shift;
    let rest = u128::from(thousandths) * u128::from(unit_bytes) / 1000;
    let bytes = u128::from(whole) * u128::from(unit_bytes) + rest;
    u64::try_from(bytes).map_err(|_too_large| fault())
}

/// Writes a size with one decimal: `512 B`, `1.5 MiB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    // In tenths of the unit, rounded, so that no float is needed.
    let mut tenths = (bytes.saturating_mul(10) + 512) / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Reads a time: `30s`, `5m`, `1h 30m`; a number alone is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|fault| format!("{fault}; write a time as 30s, 5m or 1h"))
}

/// Reads a number of CPUs, `1`, `0.5`, as thousandths of one.
pub(crate) fn parse_cpus(text: &str) -> Result<u32, String> {
    let fault = || format!("{text:?} is not a number of CPUs; write it as 2 or 0.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 3 {
        return Err(fault());
    }
    let whole: u32 = whole.parse().map_err(|_not_a_number| fault())?;
    let fraction: u32 = format!("{fraction:0<3}").parse().map_err(|_not_a_number| fault())?;
    whole.checked_mul(1000).and_then(|millis| millis.checked_add(fraction)).ok_or_else(fault)
}

/// How long ago `since_ms` (milliseconds since 1970) was, in its largest unit: `5s`, `3m`, `2d`.
/// A time in the future, from a clock that differs, is `0s`.
pub(crate) fn format_age(since_ms: i64, now: SystemTime) -> String {
    let now_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let since_ms = u128::try_from(since_ms).unwrap_or(0);
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1024),
            ("512MiB", 512 << 20),
            ("512 MB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2g", 2 << 30),
            ("0.25m", 256 << 10),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1..5m", "99999999999999999999", "20000000t", ".5g"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_with_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (512 << 20, "512.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    #[test]
    fn times_and_cpus_are_read() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(parse_cpus("2"), Ok(2000));
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("1.25"), Ok(1250));
        for bad in ["", "1.", "x", "-1", "0.0001", "9999999999", "1.-5"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (ago, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (200_000, "2d")] {
            assert_eq!(format_age((1_000_000 - ago) * 1000, now), text);
        }
        assert_eq!(format_age(2_000_000_000, now), "0s");
    }
}
