//! One terminal: its program's pseudoterminal and output, shared by whoever follows and views it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    error::ApiError,
    exec::{Command, Ending},
    id::{SessionId, TerminalId},
    terminal::TerminalEvent,
};
use bytes::Bytes;
use sys::spawn::Failure;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{output::Output, pty::Pty};
use crate::process;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

/// How a terminal's program ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) ending: Ending,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
    pub(super) at_ms: i64,
}

/// Where a terminal is in its life.
#[derive(Debug)]
enum Phase {
    /// The child is on its way to its program.
    Starting(Arc<Pty>),
    /// The program runs.
    Running(Arc<Pty>),
    /// The child could not become the program.
    Failed(Failure),
    /// The program has ended; the pseudoterminal is closed.
    Ended(End),
}

/// One terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(super) id: TerminalId,
    /// Counts up with the terminals made.
    pub(super) number: u64,
    command: String,
    session: Option<SessionId>,
    pid: i32,
    created_at_ms: i64,
    inside: Mutex<Inside>,
    /// Something was shown, or the phase changed, or a viewer was given up.
    changed: watch::Sender<()>,
    /// A viewer took output or left, so that the terminal may be read on.
    taken: Notify,
    /// Its end is wanted, or that it is forgotten.
    leave: Notify,
}

#[derive(Debug)]
struct Inside {
    phase: Phase,
    size: Size,
    output: Output,
}

impl Terminal {
    /// A terminal whose child is on its way, by its id and number, what it was made for and in which
    /// session.
    pub(super) fn new(
        (id, number): (TerminalId, u64),
        (command, session): (String, Option<SessionId>),
        pid: i32,
        size: Size,
        pty: Pty,
    ) -> Self {
        let phase = Phase::Starting(Arc::new(pty));
        Self {
            id,
            number,
            command,
            session,
            pid,
            created_at_ms: process::log::now_ms(),
            inside: Mutex::new(Inside { phase, size, output: Output::default() }),
            changed: watch::Sender::default(),
            taken: Notify::new(),
            leave: Notify::new(),
        }
    }

    pub(super) fn describe(&self) -> api::terminal::Terminal {
        let inside = self.inside();
        let end = match &inside.phase {
            Phase::Ended(end) => Some(*end),
            Phase::Starting(_) | Phase::Running(_) | Phase::Failed(_) => None,
        };
        api::terminal::Terminal {
            id: self.id.clone(),
            pid: self.pid,
            command: self.command.clone(),
            session: self.session.clone(),
            cols: inside.size.cols,
            rows: inside.size.rows,
            viewers: inside.output.viewers(),
            running: end.is_none(),
            ending: end.map(|end| end.ending),
            exit_code: end.map(|end| end.ending.exit_code()),
            created_at_ms: self.created_at_ms,
            ended_at_ms: end.map(|end| end.at_ms),
            first_cursor: inside.output.start(),
            next_cursor: inside.output.end(),
        }
    }

    /// Waits until it is known whether the program runs; `command` is what was asked for.
    pub(super) async fn started(
        self: Arc<Self>,
        command: Option<Command>,
    ) -> Result<Arc<Self>, ApiError> {
        let command = command.unwrap_or(Command::Shell(String::new()));
        let mut changed = self.changes();
        loop {
            match &self.inside().phase {
                Phase::Running(_) | Phase::Ended(_) => break,
                Phase::Failed(failure) => return Err(process::refused(Some(*failure), &command)),
                Phase::Starting(_) => {}
            }
            changed.changed().await.unwrap_or_default();
        }
        Ok(self)
    }

    /// Waits for the end of its program.
    pub(super) async fn ended(&self) {
        let mut changed = self.changes();
        while !self.is_over() && changed.changed().await.is_ok() {}
    }

    /// True when no program runs on it, nor is about to.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.inside().phase, Phase::Failed(_) | Phase::Ended(_))
    }

    pub(super) fn pty(&self) -> Option<Arc<Pty>> {
        match &self.inside().phase {
            Phase::Starting(pty) | Phase::Running(pty) => Some(Arc::clone(pty)),
            Phase::Failed(_) | Phase::Ended(_) => None,
        }
    }

    /// The last message to a viewer, once the program has ended.
    pub(super) fn exit(&self) -> Option<TerminalEvent> {
        match &self.inside().phase {
            Phase::Ended(End { ending, signal, .. }) => Some(TerminalEvent::Exit {
                code: ending.exit_code(),
                signal: signal.map(signal_name),
            }),
            Phase::Starting(_) | Phase::Running(_) | Phase::Failed(_) => None,
        }
    }

    // What happens to its program.

    pub(super) fn run(&self) {
        let mut inside = self.inside();
        if let Phase::Starting(pty) = &inside.phase {
            inside.phase = Phase::Running(Arc::clone(pty));
        }
        drop(inside);
        self.changed.send_replace(());
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.inside().phase = Phase::Failed(failure);
        self.changed.send_replace(());
    }

    pub(super) fn end(&self, end: End) {
        let mut inside = self.inside();
        inside.phase = Phase::Ended(end);
        inside.output.finish();
        drop(inside);
        self.changed.send_replace(());
    }

    /// Has whoever follows it end its program, if it runs, and forget it.
    pub(super) fn forget(&self) {
        self.leave.notify_one();
    }

    /// Ends after [`Terminal::forget`], once for each.
    pub(super) async fn asked_to_go(&self) {
        self.leave.notified().await;
    }

    // What it shows.

    pub(super) fn show(&self, bytes: &[u8]) {
        self.inside().output.push(bytes);
        self.changed.send_replace(());
    }

    /// None when the pseudoterminal may be read, else how long that may wait for its viewers.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.inside().output.wait()
    }

    /// Waits until a viewer has taken something or left, for `limit` at most; viewers whose time is
    /// over are given up.
    ///
    /// Cancel safety: time waited in vain is not charged; a caller who is cancelled often waits for
    /// other events, of which there are few.
    pub(super) async fn wait_for_viewers(&self, limit: Duration) {
        let begun = Instant::now();
        timeout(limit, self.taken.notified()).await.unwrap_or_default();
        if self.inside().output.charge(begun.elapsed()) {
            self.changed.send_replace(());
        }
    }

    // What viewers do.

    pub(super) fn viewers(&self) -> usize {
        self.inside().output.viewers()
    }

    /// See [`Output::join`].
    pub(super) fn join(&self, from: Option<u64>) -> (u64, u64, Bytes) {
        self.inside().output.join(from)
    }

    pub(super) fn leave(&self, viewer: u64) {
        self.inside().output.leave(viewer);
        self.taken.notify_one();
    }

    /// See [`Output::next`].
    pub(super) fn next_output(&self, viewer: u64) -> Option<Bytes> {
        self.inside().output.next(viewer)
    }

    /// `viewer` was sent `bytes` more.
    pub(super) fn sent(&self, viewer: u64, bytes: usize) {
        self.inside().output.advance(viewer, bytes);
        self.taken.notify_one();
    }

    /// Tells when something may have changed.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Types; waits while the program takes nothing, and forgets the rest when it ends.
    pub(super) async fn type_in(&self, bytes: Bytes) {
        let Some(pty) = self.pty() else { return };
        tokio::select! {
            // A terminal that takes nothing any more is about to end.
            written = pty.write(bytes) => written.unwrap_or_default(),
            () = self.ended() => {}
        }
    }

    pub(super) fn resize(&self, size: Size) {
        let Some(pty) = self.pty() else { return };
        if pty.resize(size.cols, size.rows).is_ok() {
            self.inside().size = size;
        }
    }

    /// Nothing that can panic leaves half a change behind, so a poisoned lock holds whole data.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of the signals, signal(7), on every architecture this runs on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

fn signal_name(signal: i32) -> String {
    let index = usize::try_from(signal - 1).ok();
    match index.and_then(|index| SIGNALS.get(index)) {
        Some(name) => format!("SIG{name}"),
        // The real-time ones have numbers in place of names.
        None => format!("SIG{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        for (signal, name) in
            [(1, "SIGHUP"), (9, "SIGKILL"), (15, "SIGTERM"), (31, "SIGSYS"), (34, "SIG34")]
        {
            assert_eq!(signal_name(signal), name);
        }
    }
}
