//! An executable for one address, made from one for any: elf(5).
//!
//! A static program that runs at any address holds addresses as numbers relative to where it is, and
//! makes them whole as the first thing it does: in each of its processes, in pages that are then that
//! process's own. Here that is done once, for an address that is chosen when the node's server starts.
//!
//! The kernel and the program read its table of segments in different ways: the one as the addresses
//! where they are to be, the other, which finds its parts by them when a panic unwinds, relative to
//! where it is. So the file has two headers: the kernel's is its first page and names the segments at
//! their addresses, and the page that it has mapped in the first one's place is the program's own, as
//! it was. The kernel's is mapped nowhere, so it tells the program of no table, and the C library looks
//! into the header that it finds at the program's beginning.
//!
//! Bytes are in the file where they are in memory, and the address is where a large page begins: so
//! the kernel can map what the file has in large pages as such.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use sys::large_pages::LARGE_PAGE;

/// The first large page behind where the kernel begins to put programs of any address, and of how many
/// it chooses from.
const LOWEST: u64 = 0x5555_5560_0000;
const CHOICES: u32 = 1 << 19;

const PAGE: u64 = 4096;

// elf.h, for x86-64
const MAGIC: [u8; 7] = *b"\x7fELF\x02\x01\x01";
const ANY_ADDRESS: u16 = 3;
const ONE_ADDRESS: u16 = 2;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const STACK: u32 = 0x6474_e551;
const WRITABLE: u32 = 2;
const SEGMENT_BYTES: usize = 56;
const RELOCATIONS: u64 = 7;
const RELOCATIONS_BYTES: u64 = 8;
const RELATIVE_COUNT: u64 = 0x6fff_fff9;
const PACKED_RELOCATIONS: u64 = 36;
const RELOCATION_BYTES: u64 = 24;
const RELATIVE: u64 = 8;

// Offsets in the header.
const KIND: u64 = 16;
const MACHINE: u64 = 18;
const ENTRY: u64 = 24;
const TABLE: u64 = 32;
const SECTIONS: u64 = 40;
const TABLE_ENTRIES: u64 = 56;
const SECTION_ENTRIES: u64 = 60;

/// An address for a program, in the region where the kernel would have put it, too.
pub(super) fn random_base() -> std::io::Result<u64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(LOWEST + u64::from(u32::from_le_bytes(bytes) % CHOICES) * LARGE_PAGE)
}

/// How many bytes of `executable`, from its first on, are ever in a process's memory: what comes behind
/// them is for debuggers. None: it is of another kind.
pub(super) fn loaded_bytes(executable: &File) -> Option<u64> {
    let whole = Image(executable);
    let segments = if whole.read(0)? == MAGIC { whole.segments()? } else { return None };
    let loaded = segments.iter().filter(|segment| segment.kind == LOAD);
    loaded.map(|segment| segment.offset.checked_add(segment.file_bytes)).max()?
}

/// Makes `settled`, which is empty, what `executable` is at address `base`. None: it could not, or the
/// executable is of another kind.
pub(super) fn settle(executable: &File, settled: &File, base: u64) -> Option<()> {
    let whole = Image(executable);
    let fits =
        whole.read(0)? == MAGIC && whole.u16(KIND)? == ANY_ADDRESS && whole.u16(MACHINE)? == X86_64;
    let segments = if fits { whole.segments()? } else { return None };
    let first = segments.iter().find(|segment| segment.kind == LOAD)?;
    let table_end = whole.u64(TABLE)? + u64::try_from(segments.len() * SEGMENT_BYTES).ok()?;
    let is_known = first.offset == 0
        && first.address == 0
        && first.file_bytes > PAGE
        && table_end <= PAGE
        && segments.iter().all(|segment| segment.kind != INTERPRETER);
    if !is_known {
        return None;
    }
    let end = segments.iter().map(Segment::end).max()?.next_multiple_of(PAGE);
    let segments = segments.iter().map(|segment| segment.copied(executable, settled));
    let segments = segments.collect::<Option<Vec<_>>>()?;
    let image = Image(settled);
    image.relocate(&segments, base)?;
    image.write(end, &image.bytes(0, PAGE)?)?;
    image.add_table(&segments, base, end)
}

/// An entry of the table of segments.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

impl Segment {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        let physical = self.address;
        for word in [self.offset, self.address, physical, self.file_bytes, self.memory_bytes] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.alignment.to_le_bytes());
    }

    /// The address behind what the file has of it.
    fn end(&self) -> u64 {
        if self.kind == LOAD { self.address + self.file_bytes } else { 0 }
    }

    /// It in a file in which it is where it is in memory, and there it is put.
    fn copied(self, from: &File, to: &File) -> Option<Self> {
        if self.kind == LOAD {
            let (mut from, mut to) = (from, to);
            from.seek(SeekFrom::Start(self.offset)).ok()?;
            to.seek(SeekFrom::Start(self.address)).ok()?;
            let copied = io::copy(&mut from.take(self.file_bytes), &mut to).ok()?;
            if copied != self.file_bytes {
                return None;
            }
        }
        Some(Self { offset: self.address, ..self })
    }

    /// Where in its bytes in the file an address is, if it is there.
    fn within(&self, address: u64) -> Option<usize> {
        let at = address.checked_sub(self.address)?;
        usize::try_from(at).ok().filter(|_| self.kind == LOAD && at < self.file_bytes)
    }

    /// It at `base`, without its first page if that is the program's header.
    fn placed(self, base: u64) -> Self {
        let cut = if self.offset == 0 { PAGE } else { 0 };
        Self {
            offset: self.offset + cut,
            address: self.address + base + cut,
            file_bytes: self.file_bytes - cut,
            memory_bytes: self.memory_bytes - cut,
            ..self
        }
    }
}

/// An executable, or one in the making. Only what is looked at is in memory.
struct Image<'a>(&'a File);

impl Image<'_> {
    fn read<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    fn bytes(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    fn u16(&self, at: u64) -> Option<u16> {
        self.read(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        self.read(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Option<u64> {
        self.read(at).map(u64::from_le_bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Option<()> {
        self.0.write_all_at(bytes, at).ok()
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, count) = (self.u64(TABLE)?, u64::from(self.u16(TABLE_ENTRIES)?));
        let bytes = u64::try_from(SEGMENT_BYTES).ok()?;
        let segment = |at: u64| {
            Some(Segment {
                kind: self.u32(at)?,
                flags: self.u32(at + 4)?,
                offset: self.u64(at + 8)?,
                address: self.u64(at + 16)?,
                file_bytes: self.u64(at + 32)?,
                memory_bytes: self.u64(at + 40)?,
                alignment: self.u64(at + 48)?,
            })
        };
        (0..count).map(|number| segment(table.checked_add(number * bytes)?)).collect()
    }

    /// Makes the addresses whole, and has the program find none left to be made so. What else it does at
    /// its start, it does as before.
    fn relocate(&self, segments: &[Segment], base: u64) -> Option<()> {
        let dynamic = segments.iter().find(|segment| segment.kind == DYNAMIC)?;
        let tags = (dynamic.offset..dynamic.offset + dynamic.file_bytes).step_by(16);
        let tag = |wanted| tags.clone().find(|at| self.u64(*at) == Some(wanted));
        if tag(PACKED_RELOCATIONS).is_some() {
            return None;
        }
        let place = |wanted| tag(wanted).map(|at| at + 8);
        let (table, bytes) = (place(RELOCATIONS)?, place(RELOCATIONS_BYTES)?);
        let count = place(RELATIVE_COUNT)?;
        let (address, length, relative) = (self.u64(table)?, self.u64(bytes)?, self.u64(count)?);
        let done = relative.checked_mul(RELOCATION_BYTES).filter(|done| *done <= length)?;
        let holds = |segment: &&Segment| segment.within(address).is_some();
        let holder = segments.iter().find(holds)?;
        let all = self.bytes(address - holder.address + holder.offset, length)?;
        // They come first, and are all of them.
        let (first, others) = all.split_at_checked(usize::try_from(done).ok()?)?;
        self.settle_words(segments, first, base)?;
        let entry = usize::try_from(RELOCATION_BYTES).ok()?;
        if others.chunks_exact(entry).any(|entry| word(entry, 8) == Some(RELATIVE)) {
            return None;
        }
        self.write(table, &(address + done).to_le_bytes())?;
        self.write(bytes, &(length - done).to_le_bytes())?;
        self.write(count, &0_u64.to_le_bytes())
    }

    /// Makes the words whole that are listed: where each is, its kind, and what it is relative to the
    /// program.
    fn settle_words(&self, segments: &[Segment], listed: &[u8], base: u64) -> Option<()> {
        let is_written = |segment: &&Segment| segment.kind == LOAD && segment.flags & WRITABLE != 0;
        let contents = segments.iter().filter(is_written);
        let contents = contents.map(|it| Some((it, self.bytes(it.offset, it.file_bytes)?)));
        let mut contents = contents.collect::<Option<Vec<_>>>()?;
        for entry in listed.chunks_exact(usize::try_from(RELOCATION_BYTES).ok()?) {
            let address = word(entry, 0).filter(|_| word(entry, 8) == Some(RELATIVE))?;
            let whole = base.wrapping_add(word(entry, 16)?);
            let place = contents.iter_mut().find_map(|(it, bytes)| {
                let at = it.within(address)?;
                bytes.get_mut(at..at.checked_add(size_of::<u64>())?)
            });
            place?.copy_from_slice(&whole.to_le_bytes());
        }
        contents.iter().try_for_each(|(segment, bytes)| self.write(segment.offset, bytes))
    }

    /// Makes the first page the kernel's header, with a table behind everything else. `programs_header`
    /// is where the page is that takes the first one's place.
    fn add_table(&self, segments: &[Segment], base: u64, programs_header: u64) -> Option<()> {
        let table = programs_header + PAGE;
        let first = segments.iter().find(|segment| segment.kind == LOAD)?;
        let header = Segment {
            offset: programs_header,
            address: base,
            file_bytes: PAGE,
            memory_bytes: PAGE,
            ..*first
        };
        let loaded = segments.iter().filter(|segment| segment.kind == LOAD);
        let stack = segments.iter().filter(|segment| segment.kind == STACK);
        let placed = loaded.map(|segment| segment.placed(base));
        let all: Vec<_> = [header].into_iter().chain(placed).chain(stack.copied()).collect();
        let mut bytes = Vec::new();
        all.iter().for_each(|segment| segment.put(&mut bytes));
        self.write(table, &bytes)?;
        self.write(KIND, &ONE_ADDRESS.to_le_bytes())?;
        let entry = self.u64(ENTRY)?.checked_add(base)?;
        self.write(ENTRY, &entry.to_le_bytes())?;
        self.write(TABLE, &table.to_le_bytes())?;
        self.write(TABLE_ENTRIES, &u16::try_from(all.len()).ok()?.to_le_bytes())?;
        self.write(SECTIONS, &0_u64.to_le_bytes())?;
        self.write(SECTION_ENTRIES, &[0; 4])
    }
}

/// The eight bytes of an entry from `at` on, as a number.
fn word(entry: &[u8], at: usize) -> Option<u64> {
    entry.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        panic,
        process::{self, Command},
    };

    use super::*;

    /// Run by the next test, in a settled copy of this program: a panic finds its way by the program's
    /// own table.
    #[test]
    fn a_panic_is_caught() {
        let caught = panic::catch_unwind(|| {
            let none: Option<u8> = std::hint::black_box(None);
            none.expect("there is one")
        });
        assert!(caught.is_err());
    }

    #[test]
    fn a_settled_program_runs_where_it_was_told_to() {
        let own = File::open("/proc/self/exe").unwrap();
        let base = random_base().unwrap();
        let path = std::env::temp_dir().join(format!("sandbar-settled-{}", process::id()));
        let mut new = File::options();
        let settled = new.read(true).write(true).create_new(true).open(&path).unwrap();
        settle(&own, &settled, base).expect("this program is of the kind that is known");
        settled.set_permissions(fs::Permissions::from_mode(0o700)).unwrap();
        // What is open for writing is not run.
        drop(settled);
        let tests = [
            "program::settled::tests::a_panic_is_caught",
            "program::settled::tests::it_is_at_its_address",
        ];
        for test in tests {
            let ran = Command::new(&path)
                .args(["--exact", test])
                .env("SETTLED_AT", base.to_string())
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && told.contains("1 passed"), "{told}");
        }
        fs::remove_file(path).unwrap();
    }

    /// The same: where something of it is tells where the program is.
    #[test]
    fn it_is_at_its_address() {
        let Ok(base) = std::env::var("SETTLED_AT") else { return };
        let base: u64 = base.parse().unwrap();
        let own = fs::metadata("/proc/self/exe").unwrap().len();
        static SOMETHING: u8 = 1;
        let here = u64::try_from((&raw const SOMETHING).addr()).unwrap();
        assert!((base..base + own).contains(&here), "{base:#x} {here:#x}");
    }

    #[test]
    fn what_is_of_another_kind_is_left_alone() {
        let file = |bytes: &[u8]| {
            let file = File::from(sys::memfd::create(c"test", false).unwrap());
            file.write_all_at(bytes, 0).unwrap();
            file
        };
        let kind = |bytes: &[u8]| settle(&file(bytes), &file(b""), LOWEST);
        let own = fs::read("/proc/self/exe").unwrap();
        let settled = file(b"");
        settle(&file(&own), &settled, LOWEST).unwrap();
        assert_eq!(settle(&settled, &file(b""), LOWEST), None);
        assert_eq!(kind(b"#!/bin/sh\n"), None);
        for length in (0..8192).step_by(61) {
            assert_eq!(kind(&own[..length]), None, "{length}");
        }
    }
}
