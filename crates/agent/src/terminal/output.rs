//! The output of one terminal, and how far each viewer has come in it. Pure: no I/O, no clock.
//!
//! Viewers have no queues of their own. All read from the newest [`TERMINAL_OUTPUT_BYTES`], each
//! from its cursor, and the terminal is read only while nobody is too far behind. So a slow viewer
//! slows the program down, as a slow line does, but not for ever: it has a time in which to take
//! something and, beside other viewers, to catch up.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use api::limit::TERMINAL_OUTPUT_BYTES;
use bytes::Bytes;

/// Bytes that a viewer may be behind before the terminal waits for it. The rest of what is kept is
/// room for the piece being read, and for what is in the terminal when its program ends.
const BEHIND_BYTES: u64 = TERMINAL_OUTPUT_BYTES as u64 / 2;

/// How long the terminal waits for a viewer in all, until it has caught up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes sent to a viewer at once.
const PIECE_BYTES: u64 = 32 * 1024;

/// The newest output, and who reads it.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: VecDeque<u8>,
    /// Cursor after the last byte.
    end: u64,
    viewers: BTreeMap<u64, Position>,
    /// Number of the next viewer.
    next: u64,
}

#[derive(Debug)]
struct Position {
    /// Everything before it has been sent.
    cursor: u64,
    /// What is left of [`PATIENCE`].
    patience: Duration,
}

impl Output {
    /// Cursor of the oldest byte kept.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Cursor after the newest byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// Adds output; the oldest makes way.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(TERMINAL_OUTPUT_BYTES)..);
        let kept = kept.unwrap_or_default();
        let over = (self.bytes.len() + kept.len()).saturating_sub(TERMINAL_OUTPUT_BYTES);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
        self.end += bytes.len() as u64;
    }

    /// Gives back memory that nothing is in; nothing will be pushed any more.
    pub(super) fn finish(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// A new viewer: its number, the cursor at which its replay begins, and the replay.
    pub(super) fn join(&mut self, from: Option<u64>) -> (u64, u64, Bytes) {
        let from = from.unwrap_or(0).clamp(self.start(), self.end);
        let replay = self.copy(from, self.end);
        let number = self.next;
        self.next += 1;
        self.viewers.insert(number, Position { cursor: self.end, patience: PATIENCE });
        (number, from, replay)
    }

    pub(super) fn leave(&mut self, viewer: u64) {
        self.viewers.remove(&viewer);
    }

    /// What a viewer is to be sent next, none of it when it is up to date; none when it was given up.
    pub(super) fn next(&self, viewer: u64) -> Option<Bytes> {
        let cursor = self.viewers.get(&viewer)?.cursor;
        Some(self.copy(cursor, self.end.min(cursor + PIECE_BYTES)))
    }

    /// A viewer has been sent `bytes` more.
    pub(super) fn advance(&mut self, viewer: u64, bytes: usize) {
        let (end, is_alone) = (self.end, self.viewers.len() == 1);
        if let Some(position) = self.viewers.get_mut(&viewer) {
            position.cursor += bytes as u64;
            if is_alone || position.cursor == end {
                position.patience = PATIENCE;
            }
        }
    }

    /// None when the terminal may be read; else how long it may wait before somebody is given up.
    pub(super) fn wait(&self) -> Option<Duration> {
        let behind = self.viewers.values().filter(|position| is_behind(position, self.end));
        behind.map(|position| position.patience).min()
    }

    /// The terminal has waited for `waited`; gives up the viewers that had no more time than that.
    /// True if there were any.
    pub(super) fn charge(&mut self, waited: Duration) -> bool {
        let (end, before) = (self.end, self.viewers.len());
        self.viewers.retain(|_, position| {
            if is_behind(position, end) {
                position.patience = position.patience.saturating_sub(waited);
            }
            !position.patience.is_zero()
        });
        self.viewers.len() < before
    }

    /// What is kept between two cursors.
    fn copy(&self, from: u64, to: u64) -> Bytes {
        let index = |cursor: u64| usize::try_from(cursor.saturating_sub(self.start()));
        let (from, to) = (index(from).unwrap_or(usize::MAX), index(to).unwrap_or(usize::MAX));
        let to = to.min(self.bytes.len());
        self.bytes.range(from.min(to)..to).copied().collect()
    }
}

fn is_behind(position: &Position, end: u64) -> bool {
    end - position.cursor > BEHIND_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn push_behind(output: &mut Output) {
        output.push(&vec![b'x'; usize::try_from(BEHIND_BYTES).unwrap() + 1]);
    }

    #[test]
    fn the_newest_output_is_kept_and_replayed_from_a_cursor() {
        let mut output = Output::default();
        output.push(b"hello ");
        output.push(b"world");
        for (from, cursor, replay) in [
            (None, 0, "hello world"),
            (Some(6), 6, "world"),
            (Some(11), 11, ""),
            (Some(99), 11, ""),
        ] {
            let (_, begun, bytes) = output.join(from);
            assert_eq!((begun, bytes.as_ref()), (cursor, replay.as_bytes()), "{from:?}");
        }
        output.push(&vec![b'x'; TERMINAL_OUTPUT_BYTES - 2]);
        assert_eq!((output.start(), output.end()), (9, 9 + TERMINAL_OUTPUT_BYTES as u64));
        let (_, begun, bytes) = output.join(Some(3));
        assert_eq!((begun, &bytes[..3]), (9, &b"ldx"[..]));
        output.push(&vec![b'y'; 3 * TERMINAL_OUTPUT_BYTES]);
        assert!(output.join(None).2.iter().all(|byte| *byte == b'y'));
        assert_eq!(output.end() - output.start(), TERMINAL_OUTPUT_BYTES as u64);
    }

    #[test]
    fn a_viewer_gets_every_byte_once_in_pieces() {
        let mut output = Output::default();
        let (viewer, ..) = output.join(None);
        let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        output.push(&sent);
        let mut heard = Vec::new();
        while let Some(piece) = output.next(viewer).filter(|piece| !piece.is_empty()) {
            assert!(piece.len() as u64 <= PIECE_BYTES);
            output.advance(viewer, piece.len());
            heard.extend_from_slice(&piece);
        }
        assert_eq!(heard, sent);
    }

    #[test]
    fn alone_a_slow_viewer_holds_the_program_back_as_long_as_it_takes_something() {
        let mut output = Output::default();
        let (slow, ..) = output.join(None);
        assert_eq!(output.wait(), None);
        for _ in 0..100 {
            push_behind(&mut output);
            assert_eq!(output.wait(), Some(PATIENCE));
            assert!(!output.charge(PATIENCE - SECOND));
            output.advance(slow, usize::try_from(BEHIND_BYTES).unwrap() + 1);
            assert_eq!(output.wait(), None);
        }
        push_behind(&mut output);
        assert!(output.charge(PATIENCE));
        assert_eq!((output.wait(), output.next(slow), output.viewers()), (None, None, 0));
    }

    #[test]
    fn beside_others_a_slow_viewer_costs_them_its_patience_and_no_more() {
        let mut output = Output::default();
        let (slow, ..) = output.join(None);
        let (fast, ..) = output.join(None);
        let mut waited = Duration::ZERO;
        push_behind(&mut output);
        while output.next(slow).is_some() {
            let behind = output.end() - output.viewers[&fast].cursor;
            output.advance(fast, usize::try_from(behind).unwrap());
            output.charge(SECOND);
            waited += SECOND;
            output.advance(slow, 1);
            output.push(b"x");
        }
        assert_eq!(waited, PATIENCE);
        assert!(output.next(fast).is_some());
    }
}
