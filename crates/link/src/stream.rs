//! A unix stream that is told of room to write only where a write has to wait for it.
//!
//! The kernel tells of room whenever the other side has read something. For who watches for it all
//! the time, as a runtime's own stream does, each message costs a wake-up that leads to nothing; that
//! is two of them for each request and its answer.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// Bytes that are asked for at least: a head and a body of a KiB. Room for them has to be filled with
/// zeros first, so more is asked for only where the last read has found as much.
const LEAST_BYTES: usize = 2048;

/// One end of a connection on a unix socket.
#[derive(Debug)]
pub struct Stream {
    socket: Arc<Socket>,
    /// Bytes of the last read.
    heard: usize,
    /// A second descriptor, watched for room while a write waits.
    room: Option<AsyncFd<OwnedFd>>,
}

/// What a [`Stream`] reads from, watched for bytes and the end.
#[derive(Debug)]
pub(crate) struct Socket(AsyncFd<UnixStream>);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has the runtime watch a descriptor.
fn watch<T: Into<OwnedFd> + AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe because a descriptor could close or change; what becomes \
                  an OwnedFd does neither"
    )]
    AsyncFd::with_interest(fd, interest)
}

impl Stream {
    /// Takes over a connection, inside a runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let socket = watch(stream.into_std()?, Interest::READABLE)?;
        Ok(Self::of(Arc::new(Socket(socket))))
    }

    /// Another handle to the same connection. One at a time may be read and written.
    pub(crate) fn of(socket: Arc<Socket>) -> Self {
        Self { socket, heard: 0, room: None }
    }

    pub(crate) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            // Who was told to wait is woken, so nothing is tried before there is room: hyper 1.12 asks
            // twice before it goes to sleep, and believes the first answer.
            let waited = match &self.room {
                Some(room) => Some(ready!(room.poll_write_ready(context))?),
                None => None,
            };
            match (send(self.socket.0.get_ref()), waited) {
                (Err(error), waited) if error.kind() == io::ErrorKind::WouldBlock => match waited {
                    Some(mut waited) => waited.clear_ready(),
                    None => {
                        let second = self.socket.0.as_fd().try_clone_to_owned()?;
                        self.room = Some(watch(second, Interest::WRITABLE)?);
                    }
                },
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (done, _) => {
                    self.room = None;
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, heard, .. } = self.get_mut();
        loop {
            let mut guard = ready!(socket.0.poll_read_ready(context))?;
            let offered = buffer.remaining().min(LEAST_BYTES.max(heard.saturating_mul(2)));
            match socket.0.get_ref().read(buffer.initialize_unfilled_to(offered)) {
                Ok(length) => {
                    *heard = length;
                    // All that there was: the next byte is told of. An end stays known.
                    if 0 < length && length < offered {
                        guard.clear_ready();
                    }
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.0.get_ref().shutdown(Shutdown::Write) {
            // The other side is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::new(a).unwrap(), Stream::new(b).unwrap())
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_slow_reader_and_no_byte_is_lost() {
        let (mut writer, mut reader) = pair();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.write_all(b"x").await.unwrap();
            writer.shutdown().await.unwrap();
            writer
        });
        let mut heard = Vec::new();
        let mut piece = vec![0; 5000];
        loop {
            let length = reader.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            heard.extend_from_slice(&piece[..length]);
            tokio::task::yield_now().await;
        }
        assert!(heard[..expected.len()] == expected && heard[expected.len()..] == *b"x");

        // The other direction is open still.
        let mut writer = writing.await.unwrap();
        reader.write_all(b"bye").await.unwrap();
        drop(reader);
        let mut rest = Vec::new();
        writer.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
        assert!(writer.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn room_is_watched_for_no_longer_than_it_is_needed() {
        let (mut writer, reader) = pair();
        let filled = async {
            loop {
                writer.write_all(&[0; 4096]).await.unwrap();
            }
        };
        drop(tokio::time::timeout(std::time::Duration::from_millis(50), filled).await);
        assert!(writer.room.is_some());

        let mut piece = vec![0; 1 << 20];
        assert!(reader.socket.0.get_ref().read(&mut piece).unwrap() > 0);
        writer.write_all(b"x").await.unwrap();
        assert!(writer.room.is_none());
    }

    #[tokio::test]
    async fn who_was_told_to_wait_is_woken_before_a_write_succeeds() {
        let (mut writer, reader) = pair();
        let mut write = async |bytes: &[u8]| {
            std::future::poll_fn(|context| {
                Poll::Ready(Pin::new(&mut writer).poll_write(context, bytes))
            })
            .await
        };
        while write(&[0; 4096]).await.is_ready() {}

        // Room, of which the runtime has not been told.
        let mut piece = vec![0; 1 << 20];
        assert!(reader.socket.0.get_ref().read(&mut piece).unwrap() > 0);
        assert!(write(b"x").await.is_pending());

        let written = writer.write_all(b"x");
        tokio::time::timeout(std::time::Duration::from_secs(60), written).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_end_that_came_with_the_last_bytes_is_seen() {
        let (mut writer, mut reader) = pair();
        writer.write_all(b"all").await.unwrap();
        drop(writer);
        let mut heard = Vec::new();
        let reading = reader.read_to_end(&mut heard);
        tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.unwrap().unwrap();
        assert_eq!(heard, b"all");
    }
}
