//! Names of things in the making: beside the place they are for, until they are whole.

use std::{
    ffi::CString,
    hash::{BuildHasher, RandomState},
    os::fd::{AsFd, OwnedFd},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use sys::{
    SysError, errno,
    file::{self, How},
};

use super::path::Target;

/// Names to try: a taken one is the rest of something that died with its agent.
const NAMES: usize = 100;

/// How they begin.
const PREFIX: &str = ".sandbar-";

/// Numbers them, from a number that an earlier agent of the sandbox hardly had.
static NUMBER: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0_u8)));

/// Gives free names in the target's directory to `make`, until one is not taken.
pub(super) fn make<T>(
    target: &Target,
    mut make: impl FnMut(&Target, &CString) -> Result<T, SysError>,
) -> Result<(CString, T), SysError> {
    let mut taken = SysError { call: "openat2", errno: errno::EEXIST };
    for _ in 0..NAMES {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = file::c_name(format!("{PREFIX}{number:016x}"))?;
        match make(target, &name) {
            Ok(made) => return Ok((name, made)),
            Err(error) if error.errno == errno::EEXIST => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// Makes an empty file with such a name. `mode` loses the bits of the umask.
pub(super) fn make_file(target: &Target, mode: u32) -> Result<(CString, OwnedFd), SysError> {
    make(target, |target, name| {
        let how = How {
            flags: file::O_RDWR | file::O_CREAT | file::O_EXCL | file::O_NOFOLLOW,
            mode,
            resolve: file::RESOLVE_NO_MAGICLINKS,
        };
        file::open(target.parent.as_fd(), name, how)
    })
}
