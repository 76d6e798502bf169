//! Bytes both ways between a caller and a service, until one of them is done.
//!
//! Invariants:
//! - A quiet pair holds no buffer: one is borrowed from the thread while bytes are at hand, and kept
//!   only as long as the other side does not take them.
//! - What was heard of a side before its end is passed on, and then the end.
//! - A service that takes nothing more may still have something to say: what is sent to it is
//!   forgotten, and the caller hears it out.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read from one side at a time: as much as a socket's buffer usually has.
const PIECE_BYTES: usize = 128 * 1024;

/// Pieces carried in one go, so that one busy pair does not keep its thread to itself.
const PIECES_IN_A_ROW: usize = 8;

thread_local! {
    /// A buffer that nobody on this thread has bytes in.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// Carries bytes both ways until either side has ended, or the caller is gone. `first` was heard
/// from the caller before.
///
/// # Cancel safety
/// Dropping the future leaves both streams with what was carried so far.
pub async fn relay<A, B>(caller: &mut A, service: &mut B, first: Bytes)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Bytes without bytes may still hold the buffer they were cut from.
    let first = if first.is_empty() { Bytes::new() } else { first };
    let mut there = Direction { first, ..Direction::default() };
    let mut back = Direction::default();
    poll_fn(|context| {
        let is_over = |carried: Poll<io::Result<()>>| carried.is_ready();
        let (mut caller, mut service) = (Pin::new(&mut *caller), Pin::new(&mut *service));
        let mut heard = there.poll_carry(context, caller.as_mut(), service.as_mut());
        if matches!(heard, Poll::Ready(Err(_))) && !there.is_deaf {
            there.be_deaf();
            heard = there.poll_carry(context, caller.as_mut(), service.as_mut());
        }
        let said = back.poll_carry(context, service, caller);
        if is_over(heard) || is_over(said) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// Heard before, not passed on yet.
    first: Bytes,
    /// Bytes that were read and not taken yet: from `start` to `end` of the buffer.
    held: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    has_ended: bool,
    /// Whoever it leads to takes nothing more.
    is_deaf: bool,
}

impl Direction {
    fn poll_carry(
        &mut self,
        context: &mut Context<'_>,
        mut from: Pin<&mut impl AsyncRead>,
        mut to: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while !self.first.is_empty() && !self.is_deaf {
            let written = ready!(to.as_mut().poll_write(context, &self.first))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(self.first.split_to(written));
        }
        self.first = Bytes::new();
        for _ in 0..PIECES_IN_A_ROW {
            ready!(self.poll_pass(context, to.as_mut()))?;
            if self.has_ended {
                return if self.is_deaf { Poll::Ready(Ok(())) } else { to.poll_shutdown(context) };
            }
            ready!(self.poll_hear(context, from.as_mut()))?;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held.
    fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        mut to: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        let Some(buffer) = &self.held else { return Poll::Ready(Ok(())) };
        while self.start < self.end && !self.is_deaf {
            let bytes = buffer.get(self.start..self.end).unwrap_or_default();
            let written = ready!(to.as_mut().poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += written;
        }
        give_back(self.held.take());
        to.poll_flush(context)
    }

    /// Reads the next bytes, or the end.
    fn poll_hear(
        &mut self,
        context: &mut Context<'_>,
        from: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = borrow();
        let mut read = ReadBuf::new(&mut buffer);
        let heard = from.poll_read(context, &mut read);
        let length = read.filled().len();
        match heard {
            Poll::Ready(Ok(())) if length > 0 => {
                (self.held, self.start, self.end) = (Some(buffer), 0, length);
            }
            Poll::Ready(Ok(())) => {
                self.has_ended = true;
                give_back(Some(buffer));
            }
            Poll::Pending | Poll::Ready(Err(_)) => give_back(Some(buffer)),
        }
        heard
    }

    fn be_deaf(&mut self) {
        self.is_deaf = true;
        give_back(self.held.take());
    }
}

fn borrow() -> Box<[u8]> {
    let spare = SPARE.with(|spare| spare.borrow_mut().take());
    spare.unwrap_or_else(|| vec![0; PIECE_BYTES].into_boxed_slice())
}

/// Keeps the buffer for the next piece on this thread, whoever has it.
fn give_back(buffer: Option<Box<[u8]>>) {
    SPARE.with(|spare| *spare.borrow_mut() = buffer);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order_and_each_end_at_its_own_time() {
        let (mut caller, mut a) = duplex(1000);
        let (mut b, mut service) = duplex(777);
        let relayed = tokio::spawn(async move {
            relay(&mut a, &mut b, Bytes::from_static(b"first,")).await;
        });
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let expected = [b"first,", sent.as_slice()].concat();
        let (_, heard) = tokio::join!(
            async {
                caller.write_all(&sent).await.unwrap();
                caller.shutdown().await.unwrap();
            },
            async {
                let mut heard = Vec::new();
                service.read_to_end(&mut heard).await.unwrap();
                heard
            }
        );
        assert!(heard == expected);

        relayed.await.unwrap();
    }

    #[tokio::test]
    async fn a_service_that_hears_nothing_more_is_heard_out() {
        let (mut caller, mut a) = duplex(1000);
        let (mut b, service) = duplex(1000);
        let (service_reads, mut service) = tokio::io::split(service);
        drop(service_reads);
        let relayed = tokio::spawn(async move { relay(&mut a, &mut b, Bytes::new()).await });
        service.write_all(b"too large").await.unwrap();
        let mut answer = [0; 9];
        caller.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"too large");
        drop(service);
        caller.write_all(&[0; 500]).await.unwrap();
        assert_eq!(caller.read(&mut answer).await.unwrap(), 0);
        relayed.await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_side_ends_it() {
        let (caller, mut a) = duplex(10);
        let (mut b, service) = duplex(10);
        drop(service);
        drop(caller);
        relay(&mut a, &mut b, Bytes::from_static(b"x")).await;
    }
}
