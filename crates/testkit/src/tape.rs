//! Archives written header by header, for what no program would write.

use std::fmt::Write as _;

/// Bytes of a header, and what content is filled up to a multiple of.
pub const BLOCK: usize = 512;

/// The end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A ustar header of the type `kind`, with mode 4777 and owner 0. `size` is the text of its field.
#[must_use]
pub fn header(kind: u8, name: &[u8], link: &[u8], size: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0004777\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..124 + size.len()].copy_from_slice(size);
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Sets the checksum of a header.
pub fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A header with its content.
#[must_use]
pub fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}\0", content.len());
    let mut bytes = header(kind, name, link, size.as_bytes()).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A regular file.
#[must_use]
pub fn file(name: &str, content: &str) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"", content.as_bytes())
}

/// A pax header: `x` for the next entry, `g` for all that follow.
#[must_use]
pub fn records(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let is_length = |length: &usize| *length == rest + length.to_string().len();
        let length = (rest..).find(is_length).unwrap_or_default();
        writeln!(text, "{length} {key}={value}").unwrap_or_default();
    }
    entry(kind, b"././@PaxHeader", b"", text.as_bytes())
}

/// The parts as one archive, with its end.
#[must_use]
pub fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), END.to_vec()].concat()
}
