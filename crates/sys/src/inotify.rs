//! Changes in directories, inotify(7).

use std::{
    ffi::{CStr, OsStr},
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use crate::{
    error::{SysError, check},
    fd::own,
    file::c_name,
};

pub use libc::{
    IN_ATTRIB, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_EXCL_UNLINK, IN_IGNORED, IN_ISDIR,
    IN_MODIFY, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_ONLYDIR, IN_Q_OVERFLOW, IN_UNMOUNT,
};

/// An instance without watches, whose reads do not wait.
///
/// # Errors
/// `EMFILE` when the user of this user namespace, or of one above it, has as many instances as it
/// may (`fs.inotify.max_user_instances`).
///
/// Source: `inotify_init1(2)`.
pub fn create() -> Result<OwnedFd, SysError> {
    // SAFETY: takes flags only.
    let ret = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    check("inotify_init1", ret).map(own)
}

/// Watches the file behind `file`, which may be an `O_PATH` descriptor, for `events`, and returns
/// the watch's number. A file that is watched already keeps its number and gets the new events;
/// a number is not given out again soon. The call takes a path only, so it is made through /proc.
///
/// # Errors
/// `ENOSPC` when the user of this user namespace, or of one above it, has as many watches as it may
/// (`fs.inotify.max_user_watches`); `EACCES` without the right to read the file; `ENOTDIR` with
/// `IN_ONLYDIR`.
///
/// Source: `inotify_add_watch(2)`.
pub fn watch(inotify: BorrowedFd<'_>, file: BorrowedFd<'_>, events: u32) -> Result<i32, SysError> {
    let path = c_name(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: `path` is a valid C string; both descriptors are open while borrowed.
    let ret = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), events) };
    check("inotify_add_watch", ret)
}

/// Removes a watch. Its last event is `IN_IGNORED`; events before that stay to be read.
///
/// # Errors
/// `EINVAL` when there is no such watch, as when its file is gone.
///
/// Source: `inotify_rm_watch(2)`.
pub fn unwatch(inotify: BorrowedFd<'_>, watch: i32) -> Result<(), SysError> {
    // SAFETY: takes a descriptor and a number.
    let ret = unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), watch) };
    check("inotify_rm_watch", ret).map(drop)
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The watch's number; -1 for `IN_Q_OVERFLOW`.
    pub watch: i32,
    /// `IN_*` flags.
    pub mask: u32,
    /// The same, and not 0, for the two halves of one rename.
    pub cookie: u32,
    /// The name in the watched directory; empty when the watched file itself is meant.
    pub name: &'a OsStr,
}

/// Bytes of an event without its name: `struct inotify_event`.
const HEAD_BYTES: usize = 16;

/// The events in `bytes`, which one read(2) of an instance has filled.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<HEAD_BYTES>()?;
        let field = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let (name, tail) = tail.split_at_checked(usize::try_from(field(12)).ok()?)?;
        rest = tail;
        // The name is padded with zeros to the alignment of the next event.
        let name = CStr::from_bytes_until_nul(name).map_or(&b""[..], CStr::to_bytes);
        let name = OsStr::from_bytes(name);
        Some(Event { watch: field(0).cast_signed(), mask: field(4), cookie: field(8), name })
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Read,
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn a_directory_tells_what_happens_in_it() {
        let path = std::env::temp_dir().join(format!("sys-inotify-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let dir = File::open(&path).unwrap();
        let mut inotify = File::from(create().unwrap());
        let wanted = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR;
        let number = watch(inotify.as_fd(), dir.as_fd(), wanted).unwrap();
        assert_eq!(watch(inotify.as_fd(), dir.as_fd(), wanted), Ok(number));

        fs::write(path.join("a"), "").unwrap();
        fs::create_dir(path.join("a longer name")).unwrap();
        fs::rename(path.join("a"), path.join("b")).unwrap();
        unwatch(inotify.as_fd(), number).unwrap();
        fs::remove_file(path.join("b")).unwrap();

        let mut buffer = [0; 4096];
        let length = inotify.read(&mut buffer).unwrap();
        let seen: Vec<_> = events(&buffer[..length]).collect();
        assert!(seen.iter().all(|event| event.watch == number));
        let parts: Vec<_> =
            seen.iter().map(|event| (event.mask, event.name.to_str().unwrap())).collect();
        assert_eq!(
            parts,
            [
                (IN_CREATE, "a"),
                (IN_CREATE | IN_ISDIR, "a longer name"),
                (IN_MOVED_FROM, "a"),
                (IN_MOVED_TO, "b"),
                (IN_IGNORED, ""),
            ]
        );
        assert!(seen[2].cookie != 0 && seen[2].cookie == seen[3].cookie);
        let end = inotify.read(&mut buffer).unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn only_directories_and_known_watches_are_taken() {
        let file = File::open("/proc/self/exe").unwrap();
        let inotify = create().unwrap();
        let refused = watch(inotify.as_fd(), file.as_fd(), IN_CREATE | IN_ONLYDIR).unwrap_err();
        assert_eq!(refused.errno, libc::ENOTDIR);
        assert_eq!(unwatch(inotify.as_fd(), 7).unwrap_err().errno, libc::EINVAL);
    }

    #[test]
    fn a_cut_event_is_none() {
        assert_eq!(events(&[0; 15]).count(), 0);
        let mut head = [0; 16];
        head[12] = 4;
        assert_eq!(events(&head).count(), 0);
    }
}
