//! Signals that ask the program to end.
//!
//! From the first use on they no longer end the process by themselves: whoever holds [`Signals`]
//! must look at them at each wait.

use std::{fmt, io};

use tokio::signal::unix::{self, SignalKind};

use crate::failure::Stop;

/// A signal that asks for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal is gone.
    HangUp,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-\\.
    Quit,
    /// kill(1) without a signal.
    Terminate,
}

impl Signal {
    /// 128 + its number, signal(7).
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 129,
            Self::Interrupt => 130,
            Self::Quit => 131,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The signals of this process, as they arrive.
#[derive(Debug)]
pub(crate) struct Signals {
    hang_up: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// Takes the signals over.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hang_up: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// Safe: a signal is kept until it is taken.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hang_up.recv() => Signal::HangUp,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.quit.recv() => Signal::Quit,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    /// Does `work` unless a signal comes first; then `work` is dropped.
    pub(crate) async fn unless<F: Future>(&mut self, work: F) -> Result<F::Output, Stop> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.next() => Err(Stop::Signaled(signal)),
        }
    }
}
