//! A line of output that somebody waits for.

use std::fmt;

use api::{
    error::ApiError,
    limit::WAIT_LINE_BYTES,
    process::{LogMatch, OutputStream},
};
use memchr::{memchr, memmem};
use regex_lite::{Regex, RegexBuilder};

use super::{check_length, invalid};
use crate::process::log::{Log, Read};

/// Bytes looked at before others get their turn.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes of a compiled pattern: what fits on a line of a request needs a few KiB.
const REGEX_BYTES: usize = 128 * 1024;

/// Looks through lines as they come.
#[derive(Debug)]
pub(crate) struct Matcher {
    wanted: Wanted,
    stream: Option<OutputStream>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

#[derive(Debug)]
enum Wanted {
    Text(String),
    Pattern(Regex),
}

/// How much of a line there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it, or as much as is looked at.
    Whole,
    /// Its beginning, of which all but the last so many bytes were looked at before.
    Begun { new: usize },
}

impl Matcher {
    pub(super) fn check(
        text: Option<String>,
        pattern: Option<String>,
        stream: Option<OutputStream>,
    ) -> Result<Self, ApiError> {
        let wanted = match (text, pattern) {
            (Some(text), None) => {
                check_length("until.text", &text)?;
                if text.contains('\n') {
                    return Err(invalid("until.text", "a text within a line has no line end"));
                }
                Wanted::Text(text)
            }
            (None, Some(pattern)) => {
                check_length("until.pattern", &pattern)?;
                let regex = RegexBuilder::new(&pattern).size_limit(REGEX_BYTES).build();
                Wanted::Pattern(regex.map_err(|fault| {
                    invalid("until.pattern", format!("the pattern does not work: {fault}"))
                })?)
            }
            _ => return Err(invalid("until", "give either `text` or `pattern`")),
        };
        Ok(Self { wanted, stream, stdout: Vec::new(), stderr: Vec::new() })
    }

    /// Takes the next bytes of `stream`.
    fn feed(&mut self, stream: OutputStream, mut bytes: &[u8]) -> Option<LogMatch> {
        if self.stream.is_some_and(|only| only != stream) {
            return None;
        }
        while !bytes.is_empty() {
            let line = match stream {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            let new = end.min(WAIT_LINE_BYTES - line.len());
            let (piece, rest) = bytes.split_at(new);
            line.extend_from_slice(piece);
            bytes = rest;
            let is_whole = line.ends_with(b"\n") || line.len() == WAIT_LINE_BYTES;
            let extent = if is_whole { Extent::Whole } else { Extent::Begun { new } };
            let groups = self.wanted.find(line, extent);
            if let Some(groups) = groups {
                return Some(LogMatch { stream, text: text(line), groups });
            }
            if line.ends_with(b"\n") {
                line.clear();
            } else if is_whole {
                // What begins at the end of this piece may end in the next.
                line.drain(..line.len() - self.wanted.overlap());
            }
        }
        None
    }

    /// There is a hole in the output.
    fn cut(&mut self) {
        self.stdout.clear();
        self.stderr.clear();
    }

    /// The output has ended: what has begun is whole.
    fn finish(&mut self) -> Option<LogMatch> {
        let Self { wanted, stdout, stderr, .. } = self;
        [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)].into_iter().find_map(
            |(stream, line)| {
                let groups = wanted.find(line, Extent::Whole).filter(|_| !line.is_empty())?;
                Some(LogMatch { stream, text: text(line), groups })
            },
        )
    }
}

impl Wanted {
    /// What of `line` is wanted: the whole match, then its groups. A pattern could match the
    /// beginning of a line and not the line, so it is asked for whole lines only.
    fn find(&self, line: &[u8], extent: Extent) -> Option<Vec<Option<String>>> {
        match (self, extent) {
            (Self::Text(text), _) => {
                let seen = match extent {
                    Extent::Whole => 0,
                    Extent::Begun { new } => line.len().saturating_sub(new + self.overlap()),
                };
                memmem::find(line.get(seen..)?, text.as_bytes()).map(|_| vec![Some(text.clone())])
            }
            (Self::Pattern(_), Extent::Begun { .. }) => None,
            (Self::Pattern(regex), Extent::Whole) => {
                let line = String::from_utf8_lossy(without_end(line));
                let groups = regex.captures(&line)?;
                Some(groups.iter().map(|group| Some(group?.as_str().to_owned())).collect())
            }
        }
    }

    /// Bytes of a match that may be in the piece of a line before.
    fn overlap(&self) -> usize {
        match self {
            Self::Text(text) => text.len() - 1,
            Self::Pattern(_) => 0,
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Text(text) => write!(f, "a line with {text:?}"),
            Wanted::Pattern(regex) => write!(f, "a line that matches /{regex}/"),
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(without_end(line)).into_owned()
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The first line that is wanted, among what the log has and what is written later; none when the
/// process ends without it.
///
/// Cancel safe: each call looks through all that is kept.
pub(super) async fn find(log: &Log, matcher: &mut Matcher) -> Option<LogMatch> {
    enum Next {
        Found(LogMatch),
        More,
        Wait,
        End,
    }
    let mut cursor = 0;
    matcher.cut();
    loop {
        let next = log.read(cursor, PIECE_BYTES, |read| match read {
            Read::Bytes { stream, bytes, .. } => {
                cursor += bytes.len() as u64;
                matcher.feed(stream, bytes).map_or(Next::More, Next::Found)
            }
            Read::Dropped(bytes) => {
                cursor += bytes;
                matcher.cut();
                Next::More
            }
            Read::Event { length, .. } => {
                cursor += length;
                Next::More
            }
            Read::Pending => Next::Wait,
            Read::End => Next::End,
        });
        match next {
            Next::Found(found) => return Some(found),
            Next::More => tokio::task::yield_now().await,
            Next::Wait => log.readable(cursor).await,
            Next::End => return matcher.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use OutputStream::{Stderr, Stdout};

    use super::*;

    fn text_matcher(text: &str) -> Matcher {
        Matcher::check(Some(text.to_owned()), None, None).unwrap()
    }

    fn pattern_matcher(pattern: &str) -> Matcher {
        Matcher::check(None, Some(pattern.to_owned()), None).unwrap()
    }

    /// Feeds `bytes` cut at every place into two pieces.
    fn cut_anywhere(make: impl Fn() -> Matcher, bytes: &[u8]) -> Vec<Option<LogMatch>> {
        (0..=bytes.len())
            .map(|cut| {
                let mut matcher = make();
                let (first, second) = bytes.split_at(cut);
                matcher.feed(Stdout, first).or_else(|| matcher.feed(Stdout, second))
            })
            .collect()
    }

    #[test]
    fn a_text_is_found_however_the_output_is_cut() {
        for found in cut_anywhere(|| text_matcher("ready"), b"not yet\nserver ready.") {
            let found = found.unwrap();
            assert!("server ready.".starts_with(&found.text), "{}", found.text);
            assert!(found.text.contains("ready"));
            assert_eq!(found.groups, [Some("ready".to_owned())]);
        }
        for found in cut_anywhere(|| text_matcher("yet"), b"y\net") {
            assert_eq!(found, None, "a text does not go over the end of a line");
        }
    }

    #[test]
    fn a_pattern_matches_whole_lines_with_its_groups() {
        let make = || pattern_matcher(r"^port=(\d+)(x)?$");
        for found in cut_anywhere(make, b"port=\r\nport=8080\r\n") {
            let found = found.unwrap();
            assert_eq!(found.text, "port=8080");
            let groups = [Some("port=8080".to_owned()), Some("8080".to_owned()), None];
            assert_eq!(found.groups, groups);
        }
        let mut matcher = make();
        assert_eq!(matcher.feed(Stdout, b"port=80"), None);
        assert_eq!(matcher.finish().unwrap().text, "port=80");
    }

    #[test]
    fn lines_of_the_two_outputs_do_not_mix() {
        let mut matcher = text_matcher("ab");
        assert_eq!(matcher.feed(Stdout, b"a"), None);
        assert_eq!(matcher.feed(Stderr, b"b"), None);
        assert_eq!(matcher.feed(Stdout, b"b").unwrap().stream, Stdout);

        let mut only = Matcher::check(Some("x".to_owned()), None, Some(Stderr)).unwrap();
        assert_eq!(only.feed(Stdout, b"x"), None);
        assert_eq!(only.feed(Stderr, b"x").unwrap().stream, Stderr);
    }

    #[test]
    fn a_line_without_end_is_bounded_and_a_text_in_it_is_found() {
        let mut matcher = text_matcher("needle");
        let hay = vec![b'x'; WAIT_LINE_BYTES - 3];
        assert_eq!(matcher.feed(Stdout, &hay), None);
        for _ in 0..100 {
            assert_eq!(matcher.feed(Stdout, b"nee-------------------------------"), None);
            assert!(matcher.stdout.len() <= WAIT_LINE_BYTES);
        }
        let mut matcher = text_matcher("needle");
        assert_eq!(matcher.feed(Stdout, &hay), None);
        assert_eq!(matcher.feed(Stdout, b"needle").unwrap().groups.len(), 1);

        let mut matcher = pattern_matcher("x$");
        assert!(matcher.feed(Stdout, &vec![b'x'; WAIT_LINE_BYTES]).is_some());
    }

    #[test]
    fn what_cannot_match_is_refused() {
        let some = |text: &str| Some(text.to_owned());
        let long = "x".repeat(api::limit::WAIT_PATTERN_BYTES + 1);
        for (text, pattern) in [
            (None, None),
            (some("a"), some("a")),
            (some(""), None),
            (some("a\nb"), None),
            (some(&long), None),
            (None, some("(")),
            (None, some("(?=a)")),
            (None, some("((((a{100}){100}){100}){100})")),
        ] {
            assert!(Matcher::check(text.clone(), pattern.clone(), None).is_err(), "{pattern:?}");
        }
    }
}
