//! The log of a command: what it wrote, by cursor.
//!
//! A cursor counts the bytes of both outputs that come before it. It does not depend on how the
//! bytes were cut into reads or events, so a reader that comes back with one gets what follows it,
//! no byte lost or repeated.
//!
//! A log may also hold events, whole texts between the bytes of the outputs: what code in a context
//! shows. They count for a cursor with their bytes.
//!
//! Invariant: a log holds at most what its [`Retention`] says, and beyond [`FREE_BYTES`] only what
//! it has taken from the agent's [`Budget`].
//! Invariant: what is not kept is counted.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use api::{
    limit::{EXEC_OUTPUT_BYTES, LOG_BYTES, RUN_RESULTS_BYTES},
    process::{LogState, OutputStream},
};
use tokio::sync::Notify;

/// Bytes that every log may hold whatever others do: enough for any usual command, and with
/// `EXECS_PER_SANDBOX` commands at once a quarter of the budget.
const FREE_BYTES: usize = 64 * 1024;

/// Bytes that all logs together may hold beyond [`FREE_BYTES`] each: four full logs of commands that
/// wait for their callers. The agent's cgroup has 512 MiB.
pub(crate) const BUDGET_BYTES: usize = 128 * 1024 * 1024;

/// Bytes that a command may be ahead of the one reader it waits for. With the pipe's own 64 KiB they
/// keep both sides busy.
const AHEAD_BYTES: u64 = 128 * 1024;

/// Bytes kept behind a reader that may come back: more than the sockets between here and the caller
/// can hold (4 MiB and 6 MiB, the kernel's largest `tcp_wmem` and `tcp_rmem` by default).
pub(crate) const RESUME_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a log whose memory is given back when the log goes: so many would be felt in the size of an
/// idle agent, where one small allocation behind them keeps them in the heap.
const LARGE_BYTES: usize = 1024 * 1024;

/// What a segment costs beside its bytes.
const SEGMENT_OVERHEAD: usize = 96;

/// A segment smaller than this takes in what follows it on the same stream.
const MERGE_BYTES: usize = 4 * 1024;

/// Milliseconds that a segment's time may differ from the time of the bytes it takes in.
const MERGE_MS: i64 = 20;

/// What a log keeps when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retention {
    /// The newest [`LOG_BYTES`]. Nobody is waited for.
    Newest,
    /// The oldest [`EXEC_OUTPUT_BYTES`] of each stream. Nobody is waited for.
    Oldest,
    /// What its reader has not read, and so many bytes of what it has. The command waits for the
    /// reader.
    Unread { behind: usize },
}

/// Bytes that all logs of the agent may still take.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    fn has(&self, bytes: usize) -> bool {
        self.0.load(Ordering::Relaxed) >= bytes
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Where a segment came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Output(OutputStream),
    Event,
}

/// A run of bytes of one stream, or one event.
#[derive(Debug)]
struct Segment {
    /// Cursor of its first byte.
    at: u64,
    source: Source,
    time_ms: i64,
    bytes: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn weight(&self) -> usize {
        self.bytes.capacity() + SEGMENT_OVERHEAD
    }
}

/// What follows a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    /// Bytes of one stream, directly after the cursor.
    Bytes { stream: OutputStream, time_ms: i64, bytes: &'a [u8] },
    /// An event of so many bytes after the cursor; without its text where the cursor is inside it.
    Event { text: Option<&'a [u8]>, length: u64 },
    /// So many bytes after the cursor are not kept.
    Dropped(u64),
    /// Nothing yet.
    Pending,
    /// Nothing any more.
    End,
}

/// What a command wrote.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    /// Told of every append, of the close, and of every step of the awaited reader.
    changed: Notify,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct State {
    segments: VecDeque<Segment>,
    retention: Retention,
    next: u64,
    /// Bytes of stdout, of stderr and of events that were refused, under [`Retention::Oldest`].
    refused: [u64; 3],
    /// Bytes kept of stdout, of stderr and of events.
    kept: [usize; 3],
    weight: usize,
    /// Of `weight`, what the budget gave.
    taken: usize,
    /// How far the awaited reader is.
    read_to: u64,
    is_closed: bool,
}

impl Log {
    pub(crate) fn new(retention: Retention, budget: Arc<Budget>) -> Self {
        let state = State {
            segments: VecDeque::new(),
            retention,
            next: 0,
            refused: [0; 3],
            kept: [0; 3],
            weight: 0,
            taken: 0,
            read_to: 0,
            is_closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), budget }
    }

    /// No code that holds the lock can panic, so a poisoned lock holds a whole value.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when [`Log::append`] may be called: at once, but for a reader that is waited for.
    ///
    /// Cancel safe.
    pub(crate) async fn room(&self) {
        self.until(|state| match state.retention {
            Retention::Unread { .. } => state.next - state.read_to < AHEAD_BYTES,
            Retention::Newest | Retention::Oldest => true,
        })
        .await;
    }

    /// The same, at once if nothing is to be waited for any more.
    ///
    /// Cancel safe.
    pub(crate) async fn room_unless(&self, is_over: bool) {
        if !is_over {
            self.room().await;
        }
    }

    /// Adds what was read from one of the outputs.
    pub(crate) fn append(&self, stream: OutputStream, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.state().append(stream, bytes, now_ms(), &self.budget);
            self.changed.notify_waiters();
        }
    }

    /// Adds an event, whole or, where it is not needed and there is no room, not at all.
    pub(crate) fn append_event(&self, text: Vec<u8>, is_needed: bool) {
        self.state().append_event(text, is_needed, &self.budget);
        self.changed.notify_waiters();
    }

    /// The first event at `cursor` or after it, and the cursor after that.
    pub(crate) fn event(&self, cursor: u64) -> Option<(Vec<u8>, u64)> {
        let state = self.state();
        let start = state.segments.partition_point(|segment| segment.at < cursor);
        let mut events = state.segments.range(start..);
        let event = events.find(|segment| segment.source == Source::Event)?;
        Some((event.bytes.clone(), event.end()))
    }

    /// Nothing will follow.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_waiters();
    }

    /// The reader that was waited for will not come back; from now on the log keeps the newest.
    pub(crate) fn release(&self) {
        let mut state = self.state();
        if matches!(state.retention, Retention::Unread { .. }) {
            state.retention = Retention::Newest;
            state.trim(&self.budget);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nobody will want the whole at once; from now on the log keeps the newest.
    pub(crate) fn keep_newest(&self) {
        let mut state = self.state();
        state.retention = Retention::Newest;
        state.trim(&self.budget);
        drop(state);
        self.changed.notify_waiters();
    }

    /// True while a reader is waited for, who wants what there is as soon as it is there.
    pub(crate) fn has_reader(&self) -> bool {
        matches!(self.state().retention, Retention::Unread { .. })
    }

    /// Whoever was waited for now wants the whole at the end: from now on the log keeps the oldest.
    pub(crate) fn keep_oldest(&self) {
        let mut state = self.state();
        if matches!(state.retention, Retention::Unread { .. }) {
            state.retention = Retention::Oldest;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// What it holds, in bytes of memory.
    pub(crate) fn weight(&self) -> usize {
        self.state().weight
    }

    /// Bytes that were to come after the last one that is kept.
    pub(crate) fn refused(&self) -> u64 {
        self.state().refused.iter().sum()
    }

    /// The awaited reader has read everything before `cursor`.
    pub(crate) fn advance(&self, cursor: u64) {
        let mut state = self.state();
        state.read_to = cursor.clamp(state.read_to, state.next);
        state.trim(&self.budget);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Shows `look` what follows `cursor`, at most `most` bytes of it.
    pub(crate) fn read<R>(&self, cursor: u64, most: usize, look: impl FnOnce(Read<'_>) -> R) -> R {
        look(self.state().read(cursor, most))
    }

    /// Ends when there is something to read at `cursor`: bytes, a gap, or the end.
    ///
    /// Cancel safe.
    pub(crate) async fn readable(&self, cursor: u64) {
        self.until(|state| state.is_closed || cursor < state.next).await;
    }

    async fn until(&self, is_true: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            if is_true(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    /// Adds to `piece` what `stream` has from `cursor` on, until `piece` has about `most` bytes.
    /// Returns where to go on, or none at the end of what is kept.
    pub(crate) fn collect(
        &self,
        cursor: u64,
        stream: OutputStream,
        most: usize,
        piece: &mut Vec<u8>,
    ) -> Option<u64> {
        let state = self.state();
        let start = state.segments.partition_point(|segment| segment.end() <= cursor);
        let of_stream = |segment: &&Segment| segment.source == Source::Output(stream);
        for segment in state.segments.range(start..).filter(of_stream) {
            let rest = segment.after(cursor);
            let (fitting, left) = rest.split_at(rest.len().min(most - piece.len()));
            piece.extend_from_slice(fitting);
            if !left.is_empty() {
                return Some(segment.end() - left.len() as u64);
            }
        }
        None
    }

    /// The last bytes of `stream` before `cursor`, oldest first, as far as they are kept; at most
    /// `most`.
    pub(crate) fn tail(&self, stream: OutputStream, cursor: u64, most: usize) -> Vec<u8> {
        let state = self.state();
        let mut tail: Vec<u8> = state
            .segments
            .iter()
            .rev()
            .filter(|segment| segment.source == Source::Output(stream) && segment.at < cursor)
            .flat_map(|segment| segment.before(cursor).iter().rev().copied())
            .take(most)
            .collect();
        tail.reverse();
        tail
    }

    pub(crate) fn describe(&self) -> LogState {
        let state = self.state();
        let first_cursor = state.first();
        LogState {
            first_cursor,
            next_cursor: state.next,
            dropped_bytes: first_cursor + state.refused.iter().sum::<u64>(),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.give(state.taken);
        if state.weight > LARGE_BYTES {
            drop(mem::take(&mut state.segments));
            sys::malloc::give_back();
        }
    }
}

impl State {
    /// Cursor of the oldest byte that is kept.
    fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.at)
    }

    fn append(&mut self, stream: OutputStream, mut bytes: Vec<u8>, time_ms: i64, budget: &Budget) {
        let source = Source::Output(stream);
        if self.retention == Retention::Oldest {
            let room = self.room_for(source, bytes.len(), budget);
            self.refused[index(source)] += bytes.len().saturating_sub(room) as u64;
            bytes.truncate(room);
            if bytes.is_empty() {
                return;
            }
        }
        match self.segments.back_mut() {
            Some(last)
                if last.source == source
                    && last.bytes.len() < MERGE_BYTES
                    && time_ms - last.time_ms <= MERGE_MS =>
            {
                self.next += bytes.len() as u64;
                self.kept[index(source)] += bytes.len();
                self.weight -= last.weight();
                last.bytes.append(&mut bytes);
                self.weight += last.weight();
            }
            _ => self.push(source, time_ms, bytes),
        }
        self.trim(budget);
    }

    fn append_event(&mut self, text: Vec<u8>, is_needed: bool, budget: &Budget) {
        if self.retention == Retention::Oldest
            && !is_needed
            && self.room_for(Source::Event, text.len(), budget) < text.len()
        {
            self.refused[index(Source::Event)] += text.len() as u64;
            return;
        }
        self.push(Source::Event, now_ms(), text);
        self.trim(budget);
    }

    fn push(&mut self, source: Source, time_ms: i64, mut bytes: Vec<u8>) {
        bytes.shrink_to_fit();
        let at = self.next;
        self.next += bytes.len() as u64;
        self.kept[index(source)] += bytes.len();
        let segment = Segment { at, source, time_ms, bytes };
        self.weight += segment.weight();
        self.segments.push_back(segment);
    }

    /// How many of `length` bytes there is room for, under [`Retention::Oldest`]. What comes after a
    /// refused byte is refused too, so that the text has no hole.
    fn room_for(&self, source: Source, length: usize, budget: &Budget) -> usize {
        let weight = self.weight + length + SEGMENT_OVERHEAD;
        let is_affordable =
            weight <= FREE_BYTES + self.taken || budget.has(weight - FREE_BYTES - self.taken);
        if self.refused[index(source)] > 0 || !is_affordable {
            return 0;
        }
        let most = match source {
            Source::Output(_) => EXEC_OUTPUT_BYTES,
            Source::Event => RUN_RESULTS_BYTES,
        };
        most.saturating_sub(self.kept[index(source)])
    }

    /// Drops what is not to be kept, and settles with the budget.
    fn trim(&mut self, budget: &Budget) {
        match self.retention {
            Retention::Newest => self.drop_oldest_over(LOG_BYTES),
            Retention::Oldest => {}
            Retention::Unread { behind } => {
                let keep_from = self.read_to.saturating_sub(behind as u64);
                while self.segments.front().is_some_and(|oldest| oldest.end() <= keep_from) {
                    self.drop_oldest();
                }
            }
        }
        let wanted = self.weight.saturating_sub(FREE_BYTES);
        if wanted > self.taken && !budget.take(wanted - self.taken) {
            self.live_without(budget);
            return;
        }
        budget.give(self.taken.saturating_sub(wanted));
        self.taken = wanted;
    }

    /// There is nothing left in the budget: the log lives with what it has.
    fn live_without(&mut self, budget: &Budget) {
        match self.retention {
            Retention::Newest => self.drop_oldest_over(self.taken + FREE_BYTES),
            // What is ahead of the reader is bounded by `room`; only what is behind may go.
            Retention::Unread { .. } => {
                while self.weight > self.taken + FREE_BYTES
                    && self.segments.front().is_some_and(|oldest| oldest.end() <= self.read_to)
                {
                    self.drop_oldest();
                }
            }
            // `room_for` looked before; a vector may have grown a little beyond that.
            Retention::Oldest => {}
        }
        let wanted = self.weight.saturating_sub(FREE_BYTES);
        budget.give(self.taken.saturating_sub(wanted));
        self.taken = self.taken.min(wanted);
    }

    fn drop_oldest_over(&mut self, weight: usize) {
        while self.weight > weight && self.segments.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.weight -= oldest.weight();
            self.kept[index(oldest.source)] -= oldest.bytes.len();
        }
    }

    fn read(&self, cursor: u64, most: usize) -> Read<'_> {
        if cursor < self.first() {
            return Read::Dropped(self.first() - cursor);
        }
        let index = self.segments.partition_point(|segment| segment.end() <= cursor);
        match self.segments.get(index) {
            Some(segment) => {
                let rest = segment.after(cursor);
                match segment.source {
                    Source::Event => Read::Event {
                        text: (segment.at == cursor).then_some(rest),
                        length: rest.len() as u64,
                    },
                    Source::Output(stream) => {
                        let bytes = rest.get(..most).unwrap_or(rest);
                        Read::Bytes { stream, time_ms: segment.time_ms, bytes }
                    }
                }
            }
            None if self.is_closed => Read::End,
            None => Read::Pending,
        }
    }
}

impl Segment {
    /// Its bytes from `cursor` on.
    fn after(&self, cursor: u64) -> &[u8] {
        let start = usize::try_from(cursor.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Its bytes before `cursor`.
    fn before(&self, cursor: u64) -> &[u8] {
        let end = usize::try_from(cursor.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.get(..end).unwrap_or(&self.bytes)
    }
}

fn index(source: Source) -> usize {
    match source {
        Source::Output(OutputStream::Stdout) => 0,
        Source::Output(OutputStream::Stderr) => 1,
        Source::Event => 2,
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
