//! Pseudoterminals: a pair of descriptors, of which one is a terminal to the programs that have it,
//! and the other what a screen and a keyboard are to that terminal.
//!
//! The other one, the *master*, comes from opening the `ptmx` of a devpts.
//!
//! Source: `pty(7)`, `ioctl_tty(2)`, `termios(3)`.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{SysError, check},
    fd::own,
};

/// Lets the terminal of `master` be opened; a new one is locked.
///
/// # Errors
/// `ENOTTY` when `master` is none.
pub fn unlock(master: BorrowedFd<'_>) -> Result<(), SysError> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, from an int that lives across the call; `master` is open
    // while borrowed.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    check("ioctl(TIOCSPTLCK)", ret).map(drop)
}

/// Opens the terminal of `master` without going by a name, which another mount could answer to. It
/// does not become this process's controlling terminal.
///
/// # Errors
/// `ENOTTY` when `master` is none, `EIO` while it is locked.
///
/// Source: Linux 4.13.
pub fn open_terminal(master: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and makes a new descriptor.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check("ioctl(TIOCGPTPEER)", ret).map(own)
}

/// Sets how many columns and rows the terminal has; its foreground programs get SIGWINCH when that
/// changes. Either descriptor of the pair will do.
///
/// # Errors
/// `ENOTTY` when it is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<(), SysError> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("ioctl(TIOCSWINSZ)", ret).map(drop)
}

/// Makes `terminal` the controlling terminal of this process's session, with this process in the
/// foreground. *After fork.*
///
/// # Errors
/// `EPERM` when this process leads no session, or the terminal controls another one.
pub(crate) fn control(terminal: BorrowedFd<'_>) -> Result<(), SysError> {
    let steal: libc::c_int = 0;
    // SAFETY: TIOCSCTTY takes an int by value.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, steal) };
    check("ioctl(TIOCSCTTY)", ret).map(drop)
}

/// How a terminal treats what passes through it.
#[derive(Debug, Clone, Copy)]
pub struct Discipline(libc::termios);

impl Discipline {
    /// That of `terminal`.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn of(terminal: BorrowedFd<'_>) -> Result<Self, SysError> {
        // SAFETY: a termios is integers, of which zero is a value.
        let mut termios = unsafe { MaybeUninit::<libc::termios>::zeroed().assume_init() };
        // SAFETY: tcgetattr writes one termios, which lives across the call.
        let ret = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut termios) };
        check("tcgetattr", ret).map(|_zero| Self(termios))
    }

    /// The same, with what is typed taken for UTF-8: erasing takes a character, not a byte.
    #[must_use]
    pub fn in_utf8(self) -> Self {
        Self(libc::termios { c_iflag: self.0.c_iflag | libc::IUTF8, ..self.0 })
    }

    /// Gives it to `terminal`.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn apply(&self, terminal: BorrowedFd<'_>) -> Result<(), SysError> {
        // SAFETY: tcsetattr reads one termios, which lives across the call.
        let ret =
            unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const self.0) };
        check("tcsetattr", ret).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::AsFd,
    };

    use super::*;
    use crate::file::{self, How};

    fn pair() -> (File, OwnedFd) {
        let how = How::new(file::O_RDWR | file::O_NOCTTY);
        let master = file::open(file::cwd(), c"/dev/ptmx", how).unwrap();
        assert_eq!(open_terminal(master.as_fd()).unwrap_err().errno, libc::EIO);
        unlock(master.as_fd()).unwrap();
        let terminal = open_terminal(master.as_fd()).unwrap();
        (master.into(), terminal)
    }

    #[test]
    fn what_is_typed_is_echoed_and_read_by_lines_of_characters() {
        let (mut master, terminal) = pair();
        Discipline::of(terminal.as_fd()).unwrap().in_utf8().apply(terminal.as_fd()).unwrap();

        // 0x7f takes the last character back, both bytes of it.
        master.write_all("aé\x7fb\n".as_bytes()).unwrap();

        let mut line = [0; 8];
        let length = File::from(terminal).read(&mut line).unwrap();
        assert_eq!(&line[..length], b"ab\n");
        let mut echo = [0; 64];
        let length = master.read(&mut echo).unwrap();
        assert_eq!(&echo[..length], "aé\x08 \x08b\r\n".as_bytes());
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let null = File::open("/dev/null").unwrap();
        for refused in [
            unlock(null.as_fd()),
            open_terminal(null.as_fd()).map(drop),
            resize(null.as_fd(), 80, 24),
            control(null.as_fd()),
            Discipline::of(null.as_fd()).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().errno, libc::ENOTTY);
        }
    }
}
