//! What std's pipes cannot say.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::SysError;

/// Bytes that can be read from the pipe `fd` now.
///
/// # Errors
/// `ENOTTY` when `fd` is not a pipe, a socket or a terminal.
///
/// Source: `FIONREAD`, `pipe(7)`.
pub fn pending(fd: BorrowedFd<'_>) -> Result<usize, SysError> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, to an int that lives across the call; `fd` is open while
    // borrowed.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } {
        -1 => Err(SysError::last("ioctl(FIONREAD)")),
        _ => Ok(usize::try_from(bytes).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_pipe_says_how_much_is_in_it() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(pending(reader.as_fd()), Ok(0));
        writer.write_all(b"abc").unwrap();
        assert_eq!(pending(reader.as_fd()), Ok(3));

        let null = File::open("/dev/null").unwrap();
        assert_eq!(pending(null.as_fd()).unwrap_err().errno, libc::ENOTTY);
    }
}
