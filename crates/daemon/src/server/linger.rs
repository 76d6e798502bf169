//! A kind close: the caller gets to read the answer to a request that was refused half-sent.
//!
//! Closing a TCP socket with unread bytes in it resets the connection, and a reset throws away what
//! the caller has not read yet: the answer that says why. So the end is announced first, and what
//! still comes is read and forgotten for a moment (RFC 9112, section 9.6).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Time for a caller to hear that the server is done and to stop. A round trip around the world.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes forgotten at a time.
const FORGET_BYTES: usize = 16 * 1024;

/// A caller's connection that is closed kindly.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
    /// Set once the end was announced.
    end: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, end: None }
    }

    /// Reads and forgets until the caller closes; pending while it has nothing to say.
    fn poll_forget(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; FORGET_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.end = Some(Box::pin(sleep(LINGER)));
        }
        let is_over = self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready());
        if is_over {
            return Poll::Ready(Ok(()));
        }
        self.poll_forget(context).map(Ok)
    }
}
