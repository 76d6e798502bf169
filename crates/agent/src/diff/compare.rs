//! What differs between two files of one type.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use api::diff::DifferencePart;
use sys::{
    SysError, errno,
    file::{self, Stat},
};

use super::walk::Walk;

/// Bytes that are read of each file at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

/// What differs of what `walk` has found.
pub(super) fn changes(
    walk: &Walk,
    (before, after): (&Stat, &Stat),
) -> Result<Vec<DifferencePart>, SysError> {
    let kind = after.mode & file::S_IFMT;
    let (content, attributes) = match kind {
        file::S_IFREG => {
            let (was, is) = walk.open(file::O_RDONLY)?;
            let attributes = have_other_attributes(&was, &is)?;
            let content = before.size != after.size || have_other_content(was, is)?;
            (content, attributes)
        }
        file::S_IFDIR => {
            let (was, is) = walk.open(file::O_RDONLY | file::O_DIRECTORY)?;
            (false, have_other_attributes(&was, &is)?)
        }
        file::S_IFLNK => {
            let (was, is) = walk.read_links()?;
            (was != is, false)
        }
        _ => (false, false),
    };
    let time = kind != file::S_IFDIR && before.modified_ns != after.modified_ns;
    let mode = before.mode & PERMISSIONS != after.mode & PERMISSIONS;
    let owner = (before.uid, before.gid) != (after.uid, after.gid);
    let all = [
        (content, DifferencePart::Content),
        (mode, DifferencePart::Mode),
        (owner, DifferencePart::Owner),
        (time, DifferencePart::Time),
        (attributes, DifferencePart::Attributes),
    ];
    Ok(all.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect())
}

fn have_other_content(was: OwnedFd, is: OwnedFd) -> Result<bool, SysError> {
    let compared = || -> io::Result<bool> {
        let (mut was, mut is) = (File::from(was), File::from(is));
        let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        loop {
            let (read, other) = (fill(&mut was, &mut a)?, fill(&mut is, &mut b)?);
            if a.get(..read) != b.get(..other) {
                return Ok(true);
            }
            if read < PIECE_BYTES {
                return Ok(false);
            }
        }
    };
    compared().map_err(|error| SysError {
        call: "read",
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    })
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn have_other_attributes(was: &OwnedFd, is: &OwnedFd) -> Result<bool, SysError> {
    Ok(attributes(was.as_fd())? != attributes(is.as_fd())?)
}

fn attributes(file: BorrowedFd<'_>) -> Result<BTreeMap<CString, Vec<u8>>, SysError> {
    let names = match file::attributes(file) {
        Err(SysError { errno: errno::EOPNOTSUPP, .. }) => return Ok(BTreeMap::new()),
        names => names?,
    };
    let names = names.split_inclusive(|byte| *byte == 0);
    let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let mut all = BTreeMap::new();
    for name in names {
        match file::attribute(file, name) {
            // Seen, but not for us.
            Err(SysError { errno: errno::ENODATA | errno::EPERM | errno::EACCES, .. }) => {}
            value => drop(all.insert(name.to_owned(), value?)),
        }
    }
    Ok(all)
}
