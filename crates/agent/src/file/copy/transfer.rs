//! One file into its copy.

use std::{
    ffi::CStr,
    fs::{File, FileTimes, Permissions},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt, fchown},
    },
    time::{Duration, SystemTime},
};

use api::file::FileType;
use sys::{
    SysError, errno,
    file::{self, How, Stat},
};

use super::super::{
    chmod::SETTABLE,
    entry::{PERMISSIONS, file_type},
    path,
};

/// Bytes copied before others get the thread: some 50 ms.
const STEP_BYTES: u64 = 64 * 1024 * 1024;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// The content of one file on its way into its copy.
#[derive(Debug)]
pub(super) struct Transfer {
    from: File,
    to: File,
    stat: Stat,
    keeps_all: bool,
    /// Bytes that are copied.
    at: u64,
}

impl Transfer {
    pub(super) fn new(from: OwnedFd, to: OwnedFd, stat: Stat, keeps_all: bool) -> Self {
        Self { from: from.into(), to: to.into(), stat, keeps_all, at: 0 }
    }

    /// Makes `name` in `to`, empty, for what `name` in `dir` holds; none if that is gone.
    pub(super) fn open(
        dir: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        keeps_all: bool,
    ) -> Result<Option<Self>, SysError> {
        let opened = path::open(dir, name, file::O_RDONLY | file::O_NOFOLLOW);
        let Some(from) = unless_gone(opened)? else { return Ok(None) };
        let stat = file::stat(from.as_fd(), c"")?;
        if file_type(&stat) != FileType::File {
            return Err(SysError { call: "open", errno: errno::ENODEV });
        }
        let how = How {
            flags: file::O_WRONLY | file::O_CREAT | file::O_EXCL | file::O_NOFOLLOW,
            mode: stat.mode & SETTABLE,
            resolve: file::RESOLVE_NO_MAGICLINKS,
        };
        let to = file::open(to, name, how)?;
        Ok(Some(Self::new(from, to, stat, keeps_all)))
    }

    /// Copies some more; true at the end, when the copy has its mode too.
    pub(super) fn step(&mut self) -> Result<bool, SysError> {
        let mut budget = STEP_BYTES;
        while budget > 0 {
            // Before data is looked for: what is added after that is no part of a hole.
            let size = file::stat(self.from.as_fd(), c"")?.size;
            let (start, length) = match file::seek_data(self.from.as_fd(), self.at) {
                Ok(Some(start)) => {
                    let end = file::seek_hole(self.from.as_fd(), start)?.unwrap_or(start);
                    (start, end - start)
                }
                // Files of /proc say that they are empty, and some of them also that they hold no data.
                Ok(None) if size == 0 => (self.at, u64::MAX),
                // A hole up to the end, or the end.
                Ok(None) => return self.finish(size).map(|()| true),
                // No positions, so no holes either.
                Err(SysError { errno: errno::EINVAL, .. }) => (self.at, u64::MAX),
                Err(error) => return Err(error),
            };
            let wanted = length.min(budget);
            let copied = self.copy(start, wanted).map_err(|error| to_sys(&error))?;
            self.at = start + copied;
            // It ends here, whatever it says of its size.
            if copied < wanted {
                return self.finish(self.at).map(|()| true);
            }
            budget -= copied;
        }
        Ok(false)
    }

    /// Copies up to `length` bytes from `start`, in the kernel, which shares what it can.
    fn copy(&self, start: u64, length: u64) -> io::Result<u64> {
        let (mut from, mut to) = (&self.from, &self.to);
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut from.take(length), &mut to)
    }

    /// Makes the copy `size` bytes long, if a hole is what is missing.
    fn finish(&self, size: u64) -> Result<(), SysError> {
        if size > file::stat(self.to.as_fd(), c"")?.size {
            self.to.set_len(size).map_err(|error| to_sys(&error))?;
        }
        dress(&self.to, &self.stat, self.keeps_all)
    }
}

/// What was found of a name of the tree that is copied, where others remove things meanwhile.
pub(super) fn unless_gone<T>(found: Result<T, SysError>) -> Result<Option<T>, SysError> {
    match found {
        Err(SysError { errno: errno::ENOENT, .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// Owner, mode and times of a copy; the owner first, because a change of owner takes bits away.
pub(super) fn dress(copy: &File, stat: &Stat, keeps_all: bool) -> Result<(), SysError> {
    let made = file::stat(copy.as_fd(), c"")?;
    let mut bits = SETTABLE;
    if keeps_all {
        bits = PERMISSIONS;
        if (made.uid, made.gid) != (stat.uid, stat.gid) {
            fchown(copy, Some(stat.uid), Some(stat.gid)).map_err(|error| to_sys(&error))?;
        }
    }
    if made.mode & PERMISSIONS != stat.mode & bits {
        copy.set_permissions(Permissions::from_mode(stat.mode & bits))
            .map_err(|error| to_sys(&error))?;
    }
    if keeps_all {
        let times = FileTimes::new()
            .set_modified(time(stat.modified_ns))
            .set_accessed(time(stat.accessed_ns));
        copy.set_times(times).map_err(|error| to_sys(&error))?;
    }
    Ok(())
}

/// Owner and time of a copied link.
pub(super) fn dress_link(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), SysError> {
    let seconds = stat.modified_ns.div_euclid(NS_PER_SECOND);
    let nanoseconds = u32::try_from(stat.modified_ns.rem_euclid(NS_PER_SECOND)).unwrap_or(0);
    let made = file::stat(dir, name)?;
    if (made.uid, made.gid) != (stat.uid, stat.gid) {
        file::set_link_owner(dir, name, (stat.uid, stat.gid))?;
    }
    file::set_link_modified(dir, name, (seconds, nanoseconds))
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if ns < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }.unwrap_or(epoch)
}

fn to_sys(error: &io::Error) -> SysError {
    SysError { call: "copy", errno: error.raw_os_error().unwrap_or(errno::EIO) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_ends_where_reading_does_whatever_size_the_file_says() {
        // It has a few bytes and says that it has a page.
        let path = "/sys/kernel/fscaps";
        let (from, to) = (File::open(path).unwrap(), tempfile::tempfile().unwrap());
        let stat = file::stat(from.as_fd(), c"").unwrap();
        let content = fs::read(path).unwrap();
        assert!(stat.size > content.len() as u64);
        let copy = to.try_clone().unwrap();

        assert!(Transfer::new(from.into(), to.into(), stat, false).step().unwrap());

        assert_eq!(copy.metadata().unwrap().len(), content.len() as u64);
    }
}
