//! Records of extended headers, `LENGTH KEY=VALUE\n`: what a header's own fields cannot hold.

use std::io::Write as _;

use crate::{Fault, header::number};

/// What the extended headers before an entry say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) modified: Option<(i64, u32)>,
    pub(crate) comment: Option<Vec<u8>>,
    /// Extended attributes, by name.
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// What a layer says about itself.
    pub(crate) about: Option<Vec<u8>>,
}

/// What the key of an extended attribute's record begins with.
pub(crate) const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// The key of what a layer says about itself.
pub(crate) const ABOUT: &[u8] = b"SANDBAR.about";

impl Records {
    /// Takes the records of one extended header. What is not about the fields above is read over.
    pub(crate) fn read(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        while !data.is_empty() {
            let space = data.iter().position(|byte| *byte == b' ').ok_or(Fault::Record)?;
            let (digits, _) = data.split_at(space);
            let length = number::decimal(digits).and_then(|length| usize::try_from(length).ok());
            let record = length.filter(|length| *length > space + 1);
            let record = record.and_then(|length| data.split_at_checked(length));
            let Some((record, rest)) = record else { return Err(Fault::Record) };
            data = rest;
            let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n"));
            let body = body.ok_or(Fault::Record)?;
            let equals = body.iter().position(|byte| *byte == b'=').ok_or(Fault::Record)?;
            let (key, value) = (&body[..equals], &body[equals + 1..]);
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = |name| {
            let number = || number::decimal(value).ok_or(Fault::Number(name));
            (!value.is_empty()).then(number).transpose()
        };
        // An empty value takes back what an earlier header said.
        let text = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = number("size")?,
            b"uid" => self.uid = number("uid")?,
            b"gid" => self.gid = number("gid")?,
            b"mtime" if text.is_none() => self.modified = None,
            b"mtime" => self.modified = Some(number::time(value).ok_or(Fault::Number("mtime"))?),
            b"comment" => self.comment = text,
            ABOUT => self.about = text,
            key if key.starts_with(ATTRIBUTE) => {
                let name = key.get(ATTRIBUTE.len()..).unwrap_or_default();
                self.attributes.push((name.to_vec(), value.to_vec()));
            }
            // A sparse file's content is a map and its pieces, under another name.
            key if key.starts_with(b"GNU.sparse.") => return Err(Fault::Type('S')),
            _ => {}
        }
        Ok(())
    }

    /// These records over `global` ones, which hold for every entry.
    pub(crate) fn over(self, global: &Self) -> Self {
        Self {
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            modified: self.modified.or(global.modified),
            ..self
        }
    }

    /// True for global records that make no sense for more than one entry.
    pub(crate) fn names_one_entry(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some()
    }
}

/// Appends a record.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) > digits(rest) {
        length = rest + digits(length);
    }
    write!(records, "{length} ").expect("writing to a Vec cannot fail");
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        records.read(data).map(|()| records)
    }

    #[test]
    fn records_are_as_long_as_they_say() {
        for length in (0..120).chain(980..1005).chain(9980..10_005) {
            let mut data = Vec::new();
            push(&mut data, b"path", &vec![b'\n'; length]);
            push(&mut data, b"comment", b"5 a=\n");
            let records = read(&data).unwrap();
            assert_eq!(records.path.map_or(0, |path| path.len()), length);
            assert_eq!(records.comment.unwrap(), b"5 a=\n");
        }
    }

    #[test]
    fn values_are_read_and_taken_back() {
        let records = read(b"11 size=12\n8 uid=7\n8 gid=8\n22 mtime=-1.500000000\n12 other=ab\n");
        let records = records.unwrap();
        assert_eq!((records.size, records.uid, records.gid), (Some(12), Some(7), Some(8)));
        assert_eq!(records.modified, Some((-2, 500_000_000)));
        let mut records = records;
        records.read(b"8 size=\n9 mtime=\n").unwrap();
        assert_eq!((records.size, records.modified), (None, None));
    }

    #[test]
    fn what_does_not_follow_the_form_is_refused() {
        for (data, fault) in [
            (&b"x"[..], Fault::Record),
            (b"10 path=ab", Fault::Record),
            (b"11 path=abc", Fault::Record),
            (b"99 path=abc\n", Fault::Record),
            (b"0 path=a\n", Fault::Record),
            (b"2 path=a\n", Fault::Record),
            (b"-9 path=a\n", Fault::Record),
            (b"99999999999999999999999 a=b\n", Fault::Record),
            (b"7 path\n", Fault::Record),
            (b"11 size=-1\n", Fault::Number("size")),
            (b"29 size=18446744073709551616\n", Fault::Number("size")),
            (b"11 mtime=x\n", Fault::Number("mtime")),
            (b"22 GNU.sparse.major=1\n", Fault::Type('S')),
        ] {
            assert_eq!(read(data), Err(fault), "{}", String::from_utf8_lossy(data));
        }
    }
}
