//! How a connection that is not encrypted begins: with a request of HTTP/1.1, or with the preface of
//! HTTP/2, from somebody who knows that we speak it (RFC 9113, sections 3.3 and 3.4).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What HTTP/2 begins with. No request of HTTP/1.1 does: there is no method of this name.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection of which the first bytes were heard; they are read from it as if they were not.
#[derive(Debug)]
pub(super) struct Begun<S> {
    stream: S,
    first: [u8; PREFACE.len()],
    /// Bytes of `first` that were read again, and that there are.
    read: usize,
    heard: usize,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Listens until it is clear what is spoken: true for HTTP/2.
    pub(super) async fn hear(mut stream: S) -> io::Result<(Self, bool)> {
        let (mut first, mut heard) = ([0; PREFACE.len()], 0);
        loop {
            let (so_far, rest) = first.split_at_mut(heard);
            let is_preface = PREFACE.starts_with(so_far);
            if !is_preface || rest.is_empty() {
                return Ok((Self { stream, first, read: 0, heard }, is_preface));
            }
            match stream.read(rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => heard += length,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, first, read, heard } = &mut *self;
        let again = first.get(*read..*heard).unwrap_or_default();
        if again.is_empty() {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let again = again.get(..buffer.remaining()).unwrap_or(again);
        buffer.put_slice(again);
        *read += again.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
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
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// What is found of bytes that come in pieces of every size, and what is read of them then.
    async fn hear(bytes: &[u8]) {
        let is_http2 = bytes.starts_with(&PREFACE);
        for piece in 1..=bytes.len() {
            let (mut caller, stream) = duplex(piece);
            let sent = bytes.to_vec();
            let send = async move {
                caller.write_all(&sent).await.unwrap();
                drop(caller);
            };
            let read = async {
                let (mut begun, found) = Begun::hear(stream).await.unwrap();
                let mut read = Vec::new();
                begun.read_to_end(&mut read).await.unwrap();
                (read, found)
            };
            let ((), (read, found)) = tokio::join!(send, read);
            assert!(read == bytes && found == is_http2, "{piece}: {read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_spoken_is_heard_and_nothing_is_lost() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"G",
            b"PROPFIND / HTTP/1.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and the first frames",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
            b"PRI * HTTP/1.1\r\nHost: something longer than that\r\n\r\n",
        ] {
            hear(bytes).await;
        }
    }

    #[tokio::test]
    async fn who_leaves_before_it_is_clear_has_said_nothing() {
        for bytes in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\n"] {
            let (mut caller, stream) = duplex(64);
            caller.write_all(bytes).await.unwrap();
            drop(caller);
            assert!(Begun::hear(stream).await.is_err());
        }
    }
}
