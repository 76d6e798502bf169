//! Our own terminal: every key goes to the program, until it is given back.

use std::io::{self, IsTerminal as _, Write as _};

use api::limit::TERMINAL_SIDE;
use rustix::{
    process::Signal,
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::signal::unix::{self, SignalKind};

/// What a program may have left behind that hides what follows: the other screen, no cursor, colours,
/// reports of the mouse and of pastes. xterm's control sequences; to a terminal where none of it is on
/// they mean nothing.
const AS_FOUND: &[u8] =
    b"\x1b[?1047l\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[0m";

/// Our terminal while it is the program's. Dropping it gives it back, whatever happens: an end, an
/// error, a signal, a panic.
#[derive(Debug)]
pub(super) struct Screen {
    /// As it was found; none when stdin is no terminal, so nothing was changed.
    found: Option<Termios>,
    has_new_size: unix::Signal,
    /// This program goes on after a stop.
    goes_on: unix::Signal,
}

impl Screen {
    /// Takes the terminal of stdin, if it is one.
    pub(super) fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let found = if stdin.is_terminal() { Some(tcgetattr(&stdin)?) } else { None };
        let has_new_size = unix::signal(SignalKind::window_change())?;
        let goes_on = unix::signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        let screen = Self { found, has_new_size, goes_on };
        screen.enter()?;
        Ok(screen)
    }

    /// Its new size, when it gets one.
    ///
    /// # Cancel safety
    /// Safe: a change is kept until it is taken.
    pub(super) async fn resized(&mut self) -> io::Result<(u16, u16)> {
        loop {
            tokio::select! {
                _ = self.has_new_size.recv() => {}
                // Whoever stopped this program has put the terminal back for the time.
                _ = self.goes_on.recv() => self.enter()?,
            }
            if let Some(size) = size() {
                return Ok(size);
            }
        }
    }

    /// Has the terminal pass every key on.
    fn enter(&self) -> io::Result<()> {
        if let Some(found) = &self.found {
            let mut raw = found.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        }
        Ok(())
    }

    /// True when a person is there to press keys.
    pub(super) fn is_interactive(&self) -> bool {
        self.found.is_some()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let Some(found) = &self.found else { return };
        let mut stdout = io::stdout();
        if stdout.is_terminal() {
            // A terminal that is gone needs nothing.
            stdout.write_all(AS_FOUND).and_then(|()| stdout.flush()).unwrap_or(());
        }
        // Drain, so that the sequences are not treated by the rules that follow them.
        tcsetattr(io::stdin(), OptionalActions::Drain, found).unwrap_or(());
    }
}

/// Columns and rows of our terminal, in the bounds of one in a sandbox; none without one.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let is_known = size.ws_col > 0 && size.ws_row > 0;
    is_known.then(|| (size.ws_col.min(TERMINAL_SIDE), size.ws_row.min(TERMINAL_SIDE)))
}
