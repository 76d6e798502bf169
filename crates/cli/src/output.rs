//! What goes to stdout: results, as text or as JSON, and nothing else.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use serde::Serialize;

use crate::failure::Stop;

/// Where and how results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON in place of text.
    pub(crate) json: bool,
}

impl Output {
    /// True when progress is wanted: a person looks at stderr, and no program reads stdout as JSON.
    pub(crate) fn shows_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }
}

/// Writes one line of a result.
pub(crate) fn print_line(text: impl Display) -> anyhow::Result<()> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a result that brings its own line ends.
pub(crate) fn print_text(text: impl Display) -> anyhow::Result<()> {
    written(write!(io::stdout().lock(), "{text}"))
}

/// Writes a result as JSON, on one line.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(serde_json::to_string(value)?)
}

/// Says something beside the result, on stderr; in JSON mode nothing is said there but errors.
pub(crate) fn note(out: Output, text: impl Display) {
    if !out.json {
        let text = escape_control(&text.to_string());
        // With stderr gone there is nobody left to tell.
        drop(writeln!(io::stderr().lock(), "sandbar: {text}"));
    }
}

/// What a failure to write to stdout means.
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    result.map_err(|fault| match fault.kind() {
        io::ErrorKind::BrokenPipe => Stop::StdoutClosed.into(),
        _ => anyhow::Error::new(fault).context("could not write to stdout"),
    })
}

/// Text from a sandbox or a server, safe to show: control characters could move the cursor or
/// change the title of the reader's terminal. Line ends and tabs stay.
pub(crate) fn escape_control(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stdout_is_told_from_a_full_disk() {
        let closed = written(Err(io::ErrorKind::BrokenPipe.into())).unwrap_err();
        assert!(matches!(closed.downcast_ref(), Some(Stop::StdoutClosed)));
        let full = written(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(full.downcast_ref::<Stop>().is_none());
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escape_control("a\tb\nc"), "a\tb\nc");
        assert_eq!(escape_control("\u{1b}]0;x\u{7}\r\u{9b}"), "\\u{1b}]0;x\\u{7}\\r\\u{9b}");
    }
}
