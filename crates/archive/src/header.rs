//! A header: 512 bytes with a name, numbers in text, and a checksum. Written as ustar with pax records
//! before it where it is too small; read as ustar, GNU's and the oldest form.

pub(crate) mod number;

use crate::{Fault, pax};

/// Bytes of a header, and what content is filled up to a multiple of.
pub(crate) const BLOCK: usize = 512;

/// The end of an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Bytes after content of `size` up to the next block.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - over) % BLOCK
}

/// What an entry is, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    Symlink,
    Directory,
    /// A directory with a list of its names for content, as in GNU's incremental archives.
    ListedDirectory,
    Pipe,
    /// A device.
    Special,
    /// The archive's own name, GNU's way: nothing to unpack.
    Label,
    /// pax records about the next entry.
    Records,
    /// pax records about all entries that follow.
    GlobalRecords,
    /// The next entry's name, GNU's way.
    LongName,
    /// The next entry's link target, GNU's way.
    LongLink,
}

impl Type {
    fn of(flag: u8) -> Result<Self, Fault> {
        Ok(match flag {
            b'0' | 0 | b'7' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'5' => Self::Directory,
            b'D' => Self::ListedDirectory,
            b'V' => Self::Label,
            b'6' => Self::Pipe,
            b'3' | b'4' => Self::Special,
            b'x' => Self::Records,
            b'g' => Self::GlobalRecords,
            b'L' => Self::LongName,
            b'K' => Self::LongLink,
            other => return Err(Fault::Type(char::from(other))),
        })
    }

    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::Pipe => b'6',
            Self::Special => b'3',
            Self::Directory => b'5',
            Self::ListedDirectory => b'D',
            Self::Label => b'V',
            Self::Records => b'x',
            Self::GlobalRecords => b'g',
            Self::LongName => b'L',
            Self::LongLink => b'K',
        }
    }
}

/// A record that no field of a header is for: key and value.
pub(crate) type Said = (Vec<u8>, Vec<u8>);

/// Appends records that hold for all entries.
pub(crate) fn write_global(said: &[Said], out: &mut Vec<u8>) {
    let mut records = Vec::new();
    said.iter().for_each(|(key, value)| pax::push(&mut records, key, value));
    write_records(Type::GlobalRecords, &records, out);
}

/// Appends an entry of records, unless there are none.
fn write_records(kind: Type, records: &[u8], out: &mut Vec<u8>) {
    if records.is_empty() {
        return;
    }
    let size = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let header = Header {
        kind,
        path: b"././@PaxHeader".to_vec(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        modified: (0, 0),
    };
    header.write_block(out);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(size), 0);
}

/// What the header of an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Type,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    /// Seconds since 1970-01-01 UTC and nanoseconds of the last change.
    pub(crate) modified: (i64, u32),
}

// Where the fields of a header are.
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Magic and version of ustar and pax; GNU's form, which has no prefix there, has another.
const USTAR: &[u8] = b"ustar\x0000";

impl Header {
    /// Reads a header; none for a block of zeros.
    pub(crate) fn read(block: &[u8; BLOCK]) -> Result<Option<Self>, Fault> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let unsigned = checksum(block);
        // Some old programs summed up signed bytes.
        let high = u64::try_from(block.iter().filter(|byte| **byte >= 128).count());
        let high = high.unwrap_or_default()
            - u64::try_from(block[CHECKSUM].iter().filter(|byte| **byte >= 128).count())
                .unwrap_or_default();
        let signed = i128::from(unsigned) - 256 * i128::from(high);
        let stored = number::read(&block[CHECKSUM]).ok_or(Fault::Header)?;
        if stored != i128::from(unsigned) && stored != signed {
            return Err(Fault::Header);
        }
        let unsigned = |field: std::ops::Range<usize>, name| {
            let value = number::read(&block[field]).and_then(|value| u64::try_from(value).ok());
            value.ok_or(Fault::Number(name))
        };
        let mut path = text(&block[NAME]).to_vec();
        if block[MAGIC].starts_with(&USTAR[..6]) && block[PREFIX.start] != 0 {
            path = [text(&block[PREFIX]), &*path].join(&b'/');
        }
        let mode = unsigned(MODE, "mode")? & 0o7777;
        let mtime = number::read(&block[MTIME]).and_then(|value| i64::try_from(value).ok());
        Ok(Some(Self {
            kind: Type::of(block[TYPE])?,
            path,
            link: text(&block[LINK]).to_vec(),
            mode: u32::try_from(mode).unwrap_or_default(),
            uid: unsigned(UID, "uid")?,
            gid: unsigned(GID, "gid")?,
            size: unsigned(SIZE, "size")?,
            modified: (mtime.ok_or(Fault::Number("mtime"))?, 0),
        }))
    }

    /// Appends the header, and before it what it has no room for. A directory's path ends in a slash
    /// here. What is said `besides` goes into records of its own.
    pub(crate) fn write(&self, besides: &[Said], out: &mut Vec<u8>) {
        write_records(Type::Records, &self.records(besides), out);
        self.write_block(out);
    }

    fn records(&self, besides: &[Said]) -> Vec<u8> {
        let mut records = Vec::new();
        let mut push = |key: &str, value: &[u8]| pax::push(&mut records, key.as_bytes(), value);
        let long_path = split(&self.path).is_none();
        let long_link = self.link.len() > LINK.len();
        if (long_path && std::str::from_utf8(&self.path).is_err())
            || (long_link && std::str::from_utf8(&self.link).is_err())
        {
            // Values are UTF-8 otherwise.
            push("hdrcharset", b"BINARY");
        }
        if long_path {
            push("path", &self.path);
        }
        if long_link {
            push("linkpath", &self.link);
        }
        for (key, value, field) in
            [("size", self.size, SIZE), ("uid", self.uid, UID), ("gid", self.gid, GID)]
        {
            if !number::fits(value, field.len()) {
                push(key, value.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = self.modified;
        let fits = u64::try_from(seconds).is_ok_and(|value| number::fits(value, MTIME.len()));
        if nanoseconds != 0 || !fits {
            push("mtime", number::time_text(self.modified).as_bytes());
        }
        for (key, value) in besides {
            pax::push(&mut records, key, value);
        }
        records
    }

    fn write_block(&self, out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        let (prefix, name) = split(&self.path).unwrap_or_else(|| {
            // Programs that know no pax records show this.
            (b"", &self.path[..self.path.len().min(NAME.len())])
        });
        put(&mut block[NAME], name);
        put(&mut block[PREFIX], prefix);
        number::write(&mut block[MODE], u64::from(self.mode));
        number::write(&mut block[UID], self.uid);
        number::write(&mut block[GID], self.gid);
        number::write(&mut block[SIZE], self.size);
        number::write(&mut block[MTIME], u64::try_from(self.modified.0).unwrap_or_default());
        block[TYPE] = self.kind.flag();
        put(&mut block[LINK], &self.link[..self.link.len().min(LINK.len())]);
        block[MAGIC].copy_from_slice(USTAR);
        let sum = checksum(&block);
        number::write(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
        block[CHECKSUM.end - 1] = b' ';
        out.extend_from_slice(&block);
    }
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u64::from(b' ')
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn put(field: &mut [u8], value: &[u8]) {
    for (slot, byte) in field.iter_mut().zip(value) {
        *slot = *byte;
    }
}

/// A path as prefix and name, where they have room for it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME.len() {
        return Some((b"", path));
    }
    // The slash at the end of a directory's path does not separate.
    let inner = path.len().checked_sub(1)?;
    let first = path.len().checked_sub(NAME.len() + 1)?;
    let slash = (first..inner.min(PREFIX.len() + 1)).find(|at| path.get(*at) == Some(&b'/'))?;
    // An empty prefix means none: the name would lose its first slash.
    (slash > 0).then(|| (&path[..slash], &path[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &[u8]) -> Header {
        Header {
            kind: Type::File,
            path: path.to_vec(),
            link: Vec::new(),
            mode: 0o4751,
            uid: 1000,
            gid: 65_534,
            size: 3,
            modified: (1_700_000_000, 0),
        }
    }

    fn first_block(bytes: &[u8]) -> [u8; BLOCK] {
        bytes[..BLOCK].try_into().unwrap()
    }

    #[test]
    fn a_header_that_fits_comes_back() {
        let long = [&[b'd'; 150][..], b"/", &[b'n'; 100]].concat();
        for path in [&b"a"[..], b"d/", b"\xff\n", &[b'x'; 100], &long] {
            let mut bytes = Vec::new();
            header(path).write(&[], &mut bytes);
            assert_eq!(bytes.len(), BLOCK, "{}", path.len());
            assert_eq!(Header::read(&first_block(&bytes)), Ok(Some(header(path))));
        }
    }

    #[test]
    fn what_has_no_room_goes_into_records() {
        let long = header(&[b'x'; 101]);
        for (header, record) in [
            (long.clone(), &b"path=xxxx"[..]),
            (Header { path: vec![0xff; 101], ..long }, b"hdrcharset=BINARY"),
            (Header { link: vec![b'l'; 101], ..header(b"a") }, b"linkpath=lll"),
            (Header { size: 1 << 33, ..header(b"a") }, b"size=8589934592"),
            (Header { uid: 1 << 21, ..header(b"a") }, b"uid=2097152"),
            (Header { gid: 1 << 31, ..header(b"a") }, b"gid=2147483648"),
            (Header { modified: (-1, 0), ..header(b"a") }, b"mtime=-1\n"),
            (Header { modified: (5, 20), ..header(b"a") }, b"mtime=5.000000020\n"),
        ] {
            let mut bytes = Vec::new();
            header.write(&[], &mut bytes);
            assert_eq!(bytes.len() % BLOCK, 0);
            let found = Header::read(&first_block(&bytes)).unwrap().unwrap();
            assert_eq!(found.kind, Type::Records);
            let records = &bytes[BLOCK..][..usize::try_from(found.size).unwrap()];
            assert!(records.windows(record.len()).any(|part| part == record));
        }
    }

    #[test]
    fn zeros_are_no_header_and_a_wrong_sum_is_refused() {
        assert_eq!(Header::read(&[0; BLOCK]), Ok(None));
        let mut bytes = Vec::new();
        header(b"a").write(&[], &mut bytes);
        for (at, byte) in [(0, b'b'), (500, 1), (CHECKSUM.start, b'7'), (CHECKSUM.start, b'x')] {
            let mut block = first_block(&bytes);
            block[at] = byte;
            assert_eq!(Header::read(&block), Err(Fault::Header), "{at}");
        }
    }

    #[test]
    fn the_oldest_and_gnu_s_form_are_read() {
        let mut bytes = Vec::new();
        header(b"a").write(&[], &mut bytes);
        let mut block = first_block(&bytes);
        // GNU's form has times where the prefix is, the oldest has nothing after the link.
        for (magic, prefix) in [(&b"ustar  \0"[..], &b"00000000000"[..]), (&[0; 8], b"")] {
            block[MAGIC].copy_from_slice(magic);
            block[PREFIX].fill(0);
            put(&mut block[PREFIX], prefix);
            block[TYPE] = 0;
            let sum = checksum(&block);
            number::write(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
            assert_eq!(Header::read(&block).unwrap().unwrap().path, b"a");
        }
    }

    #[test]
    fn sums_of_signed_bytes_are_accepted() {
        let mut bytes = Vec::new();
        header(b"\xff\xfe").write(&[], &mut bytes);
        let mut block = first_block(&bytes);
        let sum = checksum(&block) - 2 * 256;
        number::write(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
        assert!(Header::read(&block).is_ok());
    }
}
