//! What git says on stderr while it works.

use api::git::GitEvent;

/// Bytes of a line that are kept; the rest of a longer one is dropped.
const LINE_BYTES: usize = 1024;

/// Bytes of the name of a phase: `Checking out LFS objects` is long.
const PHASE_BYTES: usize = 40;

/// A line, and whether the rest of it was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) is_cut: bool,
}

/// Lines, from bytes that are cut anywhere. Git overwrites a line of progress with a carriage
/// return.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
}

impl Lines {
    /// The lines that end in `bytes`; empty ones are left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                lines.extend(self.finish());
            } else if self.line.len() < LINE_BYTES {
                self.line.push(*byte);
            }
        }
        lines
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        (!text.is_empty()).then_some(Line { text, is_cut: line.len() == LINE_BYTES })
    }
}

/// One line as an event: `Receiving objects:  42% (21/50), 1.00 MiB | 2.00 MiB/s`.
pub(super) fn event(line: String) -> GitEvent {
    let text = line.strip_prefix("remote: ").unwrap_or(&line);
    let (phase, percent) = match text.split_once(':') {
        Some((phase, rest)) if is_phase(phase, rest) => {
            let percent = rest.split_once('%').and_then(|(number, _)| number.trim().parse().ok());
            (Some(phase.to_owned()), percent.filter(|percent| *percent <= 100))
        }
        _ => (None, None),
    };
    GitEvent::Progress { phase, percent, line }
}

fn is_phase(phase: &str, rest: &str) -> bool {
    let is_name = phase.len() <= PHASE_BYTES
        && phase.starts_with(|c: char| c.is_ascii_uppercase())
        && phase.chars().all(|c| c.is_ascii_alphabetic() || c == ' ');
    is_name && rest.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_either_sign_wherever_they_are_cut() {
        let text = b"Cloning into 'x'...\nA:  1% (1/9)\rA: 100% (9/9), done.\n\r\nlast".as_slice();
        let expected = ["Cloning into 'x'...", "A:  1% (1/9)", "A: 100% (9/9), done.", "last"];
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let (first, second) = text.split_at(cut);
            let mut seen = lines.feed(first);
            seen.extend(lines.feed(second));
            seen.extend(lines.finish());
            let seen: Vec<_> = seen.iter().map(|line| &*line.text).collect();
            assert_eq!(seen, expected, "{cut}");
        }
    }

    #[test]
    fn a_line_is_bounded() {
        let mut lines = Lines::default();
        let seen = lines.feed(&[vec![b'x'; 10 * LINE_BYTES], b"\ny\n".to_vec()].concat());
        let seen: Vec<_> = seen.iter().map(|line| (line.text.len(), line.is_cut)).collect();
        assert_eq!(seen, [(LINE_BYTES, true), (1, false)]);
    }

    #[test]
    fn progress_is_told_from_other_lines() {
        for (line, phase, percent) in [
            ("Receiving objects:  42% (21/50), 1.00 MiB", Some("Receiving objects"), Some(42)),
            ("remote: Counting objects: 100% (9/9), done.", Some("Counting objects"), Some(100)),
            ("remote: Enumerating objects: 5, done.", Some("Enumerating objects"), None),
            ("Updating files: 999% (1/1)", Some("Updating files"), None),
            ("Cloning into '/workspace/x'...", None, None),
            ("fatal: repository 'x' not found", None, None),
            ("remote: HTTP Basic: Access denied", None, None),
        ] {
            let line = line.to_owned();
            let expected =
                GitEvent::Progress { phase: phase.map(str::to_owned), percent, line: line.clone() };
            assert_eq!(event(line), expected);
        }
    }
}
