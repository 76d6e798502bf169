//! Reads `text/event-stream` from chunks cut anywhere.
//!
//! Owns: lines, fields and the blank line that ends an event, as the HTML standard defines them
//! (section 9.2.6, "Interpreting an event stream"). Ids are numbers in this API; another one is
//! ignored, and so is `retry`.
//!
//! Invariant: the events depend only on the bytes, never on how they were cut into chunks.

use std::{collections::VecDeque, mem};

/// Bytes of one line and of one event's data. The server cuts output into far smaller events; past
/// this the peer is broken or hostile, and its bytes are not collected any further.
pub(crate) const EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event` field; empty without one.
    pub(crate) name: String,
    /// The `data` fields, joined by line feeds.
    pub(crate) data: String,
    /// The `id` field: where a stream that breaks after this event goes on.
    pub(crate) id: Option<u64>,
}

/// Why a stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// A line or an event over [`EVENT_BYTES`].
    #[error("an event of the stream is over {EVENT_BYTES} bytes")]
    TooLong,
    /// A line that is not UTF-8.
    #[error("the event stream is not UTF-8")]
    NotText,
}

/// A stream being read.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line under way.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// A line has been read; a byte order mark can stand only before that.
    begun: bool,
    name: String,
    data: String,
    has_data: bool,
    id: Option<u64>,
    /// Of an id without data: where the stream is, before its next event.
    position: Option<u64>,
    events: VecDeque<Event>,
}

impl Parser {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// After an error the stream's position is lost; the parser must not be fed again.
    pub(crate) fn feed(&mut self, mut chunk: &[u8]) -> Result<(), SseError> {
        loop {
            if mem::take(&mut self.after_return) {
                match chunk.first() {
                    Some(b'\n') => chunk = &chunk[1..],
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.extend_line(chunk);
            };
            self.extend_line(&chunk[..end])?;
            self.end_line()?;
            self.after_return = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
        }
    }

    /// Takes out the oldest event read so far.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes out where the stream says that it is, without an event that happened there.
    pub(crate) fn take_position(&mut self) -> Option<u64> {
        self.position.take()
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + bytes.len() > EVENT_BYTES {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), SseError> {
        let line = mem::take(&mut self.line);
        let mut text = std::str::from_utf8(&line).map_err(|_fault| SseError::NotText)?;
        if !mem::replace(&mut self.begun, true) {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" => self.id = value.parse().ok(),
            "data" => {
                if self.data.len() + value.len() > EVENT_BYTES {
                    return Err(SseError::TooLong);
                }
                if mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // A comment has an empty field name; unknown fields are ignored by the standard.
            _ => {}
        }
        Ok(())
    }

    /// An event without data is dropped, as the standard says, but for its id.
    fn dispatch(&mut self) {
        let (name, data) = (mem::take(&mut self.name), mem::take(&mut self.data));
        let id = mem::take(&mut self.id);
        if mem::take(&mut self.has_data) {
            self.events.push_back(Event { name, data, id });
        } else if id.is_some() {
            self.position = id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<Event>, SseError> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk)?;
            events.extend(std::iter::from_fn(|| parser.next_event()));
        }
        Ok(events)
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned(), id: None }
    }

    const STREAM: &str = "\u{feff}: heartbeat\n\nevent: start\ndata: {\"pid\":1}\n\n\
        event:stdout\r\ndata:one\r\ndata: two\r\n\r\n\
        id: 7\rretry: 5\rdata: ä\r\r\
        data\n\nevent: nothing\n\n:\n\ndata:  x\nnonsense\n\ndata: unfinished\n";

    fn expected() -> Vec<Event> {
        vec![
            event("start", "{\"pid\":1}"),
            event("stdout", "one\ntwo"),
            Event { id: Some(7), ..event("", "ä") },
            event("", ""),
            event("", " x"),
        ]
    }

    #[test]
    fn a_stream_is_read_as_the_standard_says() {
        assert_eq!(parse(&[STREAM.as_bytes()]).unwrap(), expected());
    }

    #[test]
    fn cuts_change_nothing() {
        let bytes = STREAM.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(parse(&chunks).unwrap(), expected(), "cut at {first} and {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(&single).unwrap(), expected());
    }

    #[test]
    fn an_id_without_data_is_a_position() {
        let mut parser = Parser::default();
        parser.feed(b"id: 7\n\n").unwrap();
        assert_eq!((parser.next_event(), parser.take_position()), (None, Some(7)));
        parser.feed(b":\n\nid: 8\ndata: x\n\n").unwrap();
        assert_eq!(parser.next_event().unwrap().id, Some(8));
        assert_eq!(parser.take_position(), None);
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let mut parser = Parser::default();
        let half = vec![b'x'; EVENT_BYTES / 2];
        parser.feed(&half).unwrap();
        parser.feed(&half).unwrap();
        assert_eq!(parser.feed(b"x"), Err(SseError::TooLong));

        let mut parser = Parser::default();
        let line = [b"data:", &half[..], b"\n"].concat();
        parser.feed(&line).unwrap();
        parser.feed(&line).unwrap();
        assert_eq!(parser.feed(&line), Err(SseError::TooLong));
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseError::NotText));
    }

    /// Whatever comes, and however it is cut, is the same events or the same error.
    #[test]
    fn hostile_streams_are_read_in_one_way() {
        let examples: [&[u8]; 3] = [
            b"id: 5\nevent: exit\ndata: {\"a\":1}\ndata: x\n\n: comment\n\n",
            b"\xef\xbb\xbfdata:a\r\n\r\ndata:b\r\r",
            b"id: 18446744073709551615\nretry: 1\ndata\n\n",
        ];
        hostile::bytes(&examples, |bytes| {
            let middle = bytes.len() / 2;
            assert_eq!(parse(&[bytes]), parse(&[&bytes[..middle], &bytes[middle..]]));
        });
    }
}
