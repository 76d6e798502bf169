//! Our end of one pseudoterminal: what is typed goes in, what is shown comes out.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use bytes::{Buf, Bytes};
use sys::{
    SysError,
    file::{self, How},
    pty::{self, Discipline},
};
use tokio::net::unix::pipe;

/// Bytes read from a terminal at once. It gives 4 KiB at a time; a few of those make a message.
const CHUNK_BYTES: usize = 32 * 1024;

/// An open pseudoterminal. Our end is two descriptors because tokio has a type for each direction of
/// a file that is not one of its own; the types are named after pipes.
#[derive(Debug)]
pub(super) struct Pty {
    screen: pipe::Receiver,
    keyboard: pipe::Sender,
    /// The program's end, kept open so that ours does not report its end each time when nobody in
    /// the sandbox has it open: programs may open it again by its name.
    terminal: OwnedFd,
}

impl Pty {
    /// Makes one of this size. By its name in devpts, a mount that no tenant can put anything in
    /// the place of.
    pub(super) fn open(columns: u16, rows: u16) -> Result<Self, io::Error> {
        let how = How::new(file::O_RDWR | file::O_NOCTTY | file::O_NONBLOCK);
        let master = file::open(file::cwd(), c"/dev/pts/ptmx", how)?;
        pty::unlock(master.as_fd())?;
        pty::resize(master.as_fd(), columns, rows)?;
        let terminal = pty::open_terminal(master.as_fd())?;
        // The environment says UTF-8, see `exec::default_env`.
        Discipline::of(terminal.as_fd())?.in_utf8().apply(terminal.as_fd())?;
        Ok(Self {
            screen: pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?,
            keyboard: pipe::Sender::from_owned_fd_unchecked(master)?,
            terminal,
        })
    }

    /// The program's end.
    pub(super) fn terminal(&self) -> &OwnedFd {
        &self.terminal
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) -> Result<(), SysError> {
        pty::resize(self.terminal.as_fd(), columns, rows)
    }

    /// The next output, of at least one byte.
    ///
    /// Cancel safety: nothing is read before the last await.
    pub(super) async fn read(&self) -> io::Result<Bytes> {
        loop {
            self.screen.readable().await?;
            match self.read_chunk() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Reads until nothing is there or a chunk is full.
    fn read_chunk(&self) -> io::Result<Bytes> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut length = 0;
        while let Some(rest) = chunk.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.screen.try_read(rest) {
                Ok(read @ 1..) => length += read,
                Err(error) if length == 0 => return Err(error),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(Bytes::copy_from_slice(chunk.get(..length).unwrap_or_default()))
    }

    /// What is there once nobody writes any more, at most `most` bytes. Asks the kernel, which moves
    /// what was written behind a program's back; tokio learns of it later.
    pub(super) fn rest(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let screen = File::from(self.screen.as_fd().try_clone_to_owned()?);
        // It ends with an error, because it never ends otherwise.
        screen.take(most).read_to_end(&mut rest).unwrap_or_default();
        Ok(rest)
    }

    /// Types `bytes`; waits while the program takes nothing.
    ///
    /// Cancel safety: what was typed stays typed.
    pub(super) async fn write(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            self.keyboard.writable().await?;
            match self.keyboard.try_write(&bytes) {
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
