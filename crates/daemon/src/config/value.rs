//! Parsers of values. Each error completes the sentence "SETTING ..." and says what would be right.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use super::source::Raw;

/// The text of a value that is not a list.
pub(super) fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::List(_) => Err("is a list; write one value".to_owned()),
        Raw::Other(kind) => Err(format!("is {kind}; write a text or a number")),
    }
}

/// Items of a list; from the environment and flags, texts with commas between them.
pub(super) fn list(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()),
        Raw::Other(kind) => Err(format!("is {kind}; write a list of texts")),
    }
}

/// A whole number within `range`.
pub(super) fn number<T>(raw: &Raw, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let text = text(raw)?;
    text.parse::<T>().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("is {text:?}; write a whole number from {} to {}", range.start(), range.end())
    })
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes: `2GiB`, `512MiB`, `1.5GiB`, or a bare number.
pub(super) fn size(raw: &Raw, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let text = text(raw)?;
    parse_size(text).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        format!(
            "is {text:?}; write a size from {} to {}, such as \"512MiB\" or \"2GiB\"",
            show_size(range.start()),
            show_size(range.end())
        )
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((text, 1));
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, fraction)) => {
            // Three decimals are enough for any size a person writes, and stay exact.
            let thousandths = thousandths(whole, fraction)?;
            thousandths.checked_mul(factor).map(|product| product / 1000)
        }
    }
}

/// `1`, `5` for `1.5` as 1500. None for anything but digits, or more than three decimals.
fn thousandths(whole: &str, fraction: &str) -> Option<u64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1000)?;
    whole.checked_add(format!("{fraction:0<3}").parse().ok()?)
}

/// The largest unit that divides the number: `2GiB`, `1536MiB`, `1000B`.
pub(super) fn show_size(bytes: &u64) -> String {
    let (unit, factor) =
        UNITS.iter().find(|(_, n)| *bytes > 0 && bytes.is_multiple_of(*n)).unwrap_or(&UNITS[4]);
    format!("{}{unit}", bytes / factor)
}

/// CPUs, as thousandths of one: `2`, `0.5`, `1.25`.
pub(super) fn cpus(raw: &Raw, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let text = text(raw)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    thousandths(whole, fraction)
        .and_then(|millis| u32::try_from(millis).ok())
        .filter(|millis| range.contains(millis))
        .ok_or_else(|| {
            format!(
                "is {text:?}; write a number of CPUs from {} to {}, such as 0.5 or 2",
                show_cpus(range.start()),
                show_cpus(range.end())
            )
        })
}

/// `2`, `0.5`: the inverse of [`cpus`].
pub(super) fn show_cpus(millis: &u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("1000B", Some(1000)),
            ("512MiB", Some(512 << 20)),
            ("2 GiB", Some(2 << 30)),
            ("1.5GiB", Some(1536 << 20)),
            ("0.125KiB", Some(128)),
            ("", None),
            ("GiB", None),
            ("2gigs", None),
            ("2GB", None),
            ("-1", None),
            ("+1", Some(1)),
            ("1.GiB", None),
            (".5GiB", None),
            ("1.0001GiB", None),
            ("1e3", None),
            ("16777216TiB", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(size(&raw(text), &(0..=u64::MAX)).ok(), bytes, "{text:?}");
        }
        for bytes in [0, 1, 1000, 1 << 10, 3 << 20, 2 << 30, u64::MAX] {
            assert_eq!(size(&raw(&show_size(&bytes)), &(0..=u64::MAX)), Ok(bytes));
        }
        assert!(size(&raw("1GiB"), &(0..=1 << 20)).unwrap_err().contains("0B to 1MiB"));
    }

    #[test]
    fn cpus_are_read_in_thousandths() {
        for (text, millis) in [
            ("2", Some(2000)),
            ("2.0", Some(2000)),
            ("0.5", Some(500)),
            ("1.125", Some(1125)),
            ("0", None),
            ("0.001", None),
            ("1.0005", None),
            ("two", None),
            ("-1", None),
            ("1e2", None),
            ("inf", None),
        ] {
            assert_eq!(cpus(&raw(text), &(10..=64_000)).ok(), millis, "{text:?}");
        }
        assert_eq!(show_cpus(&2000), "2");
        assert_eq!(show_cpus(&500), "0.5");
        assert_eq!(show_cpus(&10_000), "10");
    }
}
