//! From an agent's event stream to lines of text. The agent has run a recipe's commands: what it
//! sends is hostile, and bounded here.

use api::exec::ExecEvent;

/// Bytes of one event. An agent of ours sends output in pieces of some 64 KiB, which JSON can make
/// six times as long.
const EVENT_BYTES: usize = 1024 * 1024;

/// Bytes of a line of output; what is longer is passed on in pieces.
const LINE_BYTES: usize = 4096;

/// The stream is not one of exec events, or an event is over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotEvents;

/// Finds events in the bytes of a `text/event-stream`.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// A line without its end so far.
    partial: Vec<u8>,
}

impl Events {
    /// The events that `bytes` completes. Each has its JSON on one `data:` line; other lines
    /// (names, comments) say nothing more.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<ExecEvent>, NotEvents> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.len() > EVENT_BYTES {
                return Err(NotEvents);
            }
            if self.partial.last() == Some(&b'\n') {
                if let Some(data) = self.partial.strip_prefix(b"data:") {
                    events.push(serde_json::from_slice(data).map_err(|_not_json| NotEvents)?);
                }
                self.partial.clear();
            }
        }
        Ok(events)
    }
}

/// Collects output into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: String,
}

impl Lines {
    /// Passes on the lines that `text` completes.
    pub(super) fn push(&mut self, text: &str, line: &mut dyn FnMut(&str)) {
        for piece in text.split_inclusive('\n') {
            self.partial.push_str(piece);
            let is_complete = self.partial.ends_with('\n');
            if is_complete || self.partial.len() >= LINE_BYTES {
                self.pass_on(line);
            }
        }
    }

    /// Passes on what is left.
    pub(super) fn finish(&mut self, line: &mut dyn FnMut(&str)) {
        if !self.partial.is_empty() {
            self.pass_on(line);
        }
    }

    fn pass_on(&mut self, line: &mut dyn FnMut(&str)) {
        let mut rest = self.partial.trim_end_matches(['\n', '\r']);
        while rest.len() > LINE_BYTES {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(LINE_BYTES));
            line(piece);
            rest = after;
        }
        line(rest);
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = b"event: start\ndata: {\"type\":\"start\",\"pid\":7,\"processId\":\"p\"}\n\n: heartbeat\n\n\
                       event: stdout\ndata: {\"type\":\"stdout\",\"data\":\"a\\nb\",\"timeMs\":1}\n\n";
        let expected = [
            ExecEvent::Start { pid: 7, process_id: "p".parse().unwrap() },
            ExecEvent::Stdout { data: "a\nb".to_owned(), time_ms: 1 },
        ];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let found: Vec<_> =
                stream.chunks(size).flat_map(|bytes| events.push(bytes).unwrap()).collect();
            assert_eq!(found, expected, "{size} bytes at a time");
        }
    }

    #[test]
    fn nonsense_and_endless_events_are_refused() {
        assert_eq!(Events::default().push(b"data: {}\n"), Err(NotEvents));
        let mut events = Events::default();
        let piece = vec![b'x'; EVENT_BYTES];
        assert_eq!(events.push(&piece), Ok(vec![]));
        assert_eq!(events.push(b"x"), Err(NotEvents));
    }

    #[test]
    fn output_becomes_lines_of_bounded_length() {
        let mut lines = Vec::new();
        let mut collect = |line: &str| lines.push(line.to_owned());
        let mut output = Lines::default();
        output.push("a\nb", &mut collect);
        output.push("c\r\n\n", &mut collect);
        output.push(&"ä".repeat(LINE_BYTES), &mut collect);
        output.push("end", &mut collect);
        output.finish(&mut collect);
        output.finish(&mut collect);
        let half = "ä".repeat(LINE_BYTES / 2);
        assert_eq!(lines, ["a", "bc", "", &half, &half, "end"]);
    }
}
