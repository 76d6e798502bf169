//! Patterns: which names of a tree are meant, or left out.
//!
//! `*` stands for any characters of one name, `?` for one character, `[...]` for one of a set
//! (`[a-z]`, `[!a-z]`), `**` for any number of names, and `\` takes the next character as it is. A
//! pattern matches one or more successive names of a path below the top of the tree, wherever they
//! stand in it, or from its beginning if it starts with a slash; one that ends in a slash matches
//! directories only. What is below a match matches too; `dir/**` is what is below `dir` alone.
//!
//! Names are bytes; a character of a name that is not UTF-8 is one byte. The time of a match is
//! bounded by the product of the lengths of pattern and path: what a `*` or `**` does not fit is
//! tried one further on, and only for the last one, which is enough.

use std::fmt;

use crate::limit::PATTERN_BYTES;

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    is_directory: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of names.
    Names,
    /// One name.
    Name(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Any number of characters.
    Characters,
    /// One character.
    Character,
    Literal(char),
    /// One of these, or with `true` none of these, from the first to the last of each.
    Set(bool, Vec<(char, char)>),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// It has more than [`PATTERN_BYTES`] bytes.
    TooLong,
    /// It names nothing, or `..`.
    NoName,
    /// It holds a NUL.
    Nul,
    /// A `[` without its `]`, a set without an order, or a `\` at its end.
    Unfinished,
    /// `{`, `}` or a leading `!`: in other languages of patterns they have a meaning, which would
    /// silently be lost.
    Unknown,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it has at most {PATTERN_BYTES} bytes"),
            Self::NoName => f.write_str("it has at least one name, and no `..`"),
            Self::Nul => f.write_str("it holds no NUL"),
            Self::Unfinished => f.write_str(
                "`[` is closed by `]`, its ranges go upwards, and `\\` is followed by a character; \
                 put `\\` before what is meant as it is",
            ),
            Self::Unknown => f.write_str(
                "{ } and a leading ! have no meaning; give several patterns, or put `\\` before \
                 what is meant as it is",
            ),
        }
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] for a text that is none.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if text.contains('\0') {
            return Err(PatternError::Nul);
        }
        if text.starts_with('!') {
            return Err(PatternError::Unknown);
        }
        let mut names: Vec<&str> =
            text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.is_empty() || names.contains(&"..") {
            return Err(PatternError::NoName);
        }
        // What is in the directory, not the directory.
        if let [.., _, last @ "**"] = &mut names[..] {
            *last = "*";
        }
        let anywhere = (!text.starts_with('/')).then_some(Ok(Part::Names));
        let parts = anywhere.into_iter().chain(names.into_iter().map(part));
        Ok(Self { parts: parts.collect::<Result<_, _>>()?, is_directory: text.ends_with('/') })
    }

    /// True when `path`, relative to the top of the tree, matches or is below what matches.
    /// `is_directory` is about `path` itself.
    #[must_use]
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (mut part, mut name) = (0, 0);
        // Where to go on when what follows the last `**` does not match: one name further.
        let mut again = None;
        loop {
            match (self.parts.get(part), names.get(name)) {
                (Some(Part::Names), _) => {
                    again = Some((part + 1, name + 1));
                    part += 1;
                    continue;
                }
                (Some(Part::Name(pieces)), Some(text)) if is_name(pieces, text) => {
                    (part, name) = (part + 1, name + 1);
                    continue;
                }
                // Whatever something is below is a directory.
                (None, below) if below.is_some() || is_directory || !self.is_directory => {
                    return true;
                }
                _ => {}
            }
            match again {
                Some((next_part, next_name)) if next_name <= names.len() => {
                    again = Some((next_part, next_name + 1));
                    (part, name) = (next_part, next_name);
                }
                _ => return false,
            }
        }
    }
}

fn part(name: &str) -> Result<Part, PatternError> {
    if name == "**" {
        return Ok(Part::Names);
    }
    let mut pieces = Vec::new();
    let mut rest = name.chars();
    while let Some(next) = rest.next() {
        pieces.push(match next {
            '*' => Piece::Characters,
            '?' => Piece::Character,
            '\\' => Piece::Literal(rest.next().ok_or(PatternError::Unfinished)?),
            '[' => set(&mut rest)?,
            '{' | '}' => return Err(PatternError::Unknown),
            literal => Piece::Literal(literal),
        });
    }
    Ok(Part::Name(pieces))
}

/// Reads a set up to its bracket. A `]` in the first place is one of the set.
fn set(rest: &mut std::str::Chars<'_>) -> Result<Piece, PatternError> {
    let mut next = || rest.next().ok_or(PatternError::Unfinished);
    let mut low = next()?;
    let is_negated = matches!(low, '!' | '^');
    if is_negated {
        low = next()?;
    }
    let mut ranges = Vec::new();
    loop {
        let after = next()?;
        match after {
            '-' => match next()? {
                ']' => {
                    ranges.extend([(low, low), ('-', '-')]);
                    break;
                }
                high if high < low => return Err(PatternError::Unfinished),
                high => {
                    ranges.push((low, high));
                    low = next()?;
                    if low == ']' {
                        break;
                    }
                }
            },
            ']' => {
                ranges.push((low, low));
                break;
            }
            _ => {
                ranges.push((low, low));
                low = after;
            }
        }
    }
    Ok(Piece::Set(is_negated, ranges))
}

fn is_name(pieces: &[Piece], name: &[u8]) -> bool {
    let (mut piece, mut at) = (0, 0);
    // After the last `*`, and where in the name it was tried.
    let mut again = None;
    loop {
        match (pieces.get(piece), name.get(at..).filter(|rest| !rest.is_empty())) {
            (Some(Piece::Characters), _) => {
                again = Some((piece + 1, at));
                piece += 1;
                continue;
            }
            (Some(expected), Some(rest)) => {
                let (length, found) = first(rest);
                if is_one(expected, found) {
                    (piece, at) = (piece + 1, at + length);
                    continue;
                }
            }
            (None, None) => return true,
            _ => {}
        }
        match again {
            Some((after, from)) if from < name.len() => {
                let next = from + first(&name[from..]).0;
                again = Some((after, next));
                (piece, at) = (after, next);
            }
            _ => return false,
        }
    }
}

fn is_one(piece: &Piece, found: Option<char>) -> bool {
    match piece {
        Piece::Characters => false,
        Piece::Character => true,
        Piece::Literal(expected) => found == Some(*expected),
        Piece::Set(is_negated, ranges) => {
            let is_in =
                |found: char| ranges.iter().any(|(low, high)| (*low..=*high).contains(&found));
            found.is_some_and(is_in) != *is_negated
        }
    }
}

/// Bytes of the first character, and it; of what is no UTF-8, one and none.
fn first(text: &[u8]) -> (usize, Option<char>) {
    let length = match text.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..) => 4,
        _ => 1,
    };
    let whole = text.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    whole.and_then(|text| text.chars().next()).map_or((1, None), |found| (length, Some(found)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn patterns_match_names_wherever_they_stand_and_what_is_below() {
        for (text, yes, no) in [
            ("node_modules", &["node_modules", "a/node_modules/x/y"][..], &["node_module"][..]),
            ("*.ts", &["a.ts", "x/y.ts", ".ts", "dir.ts/x"], &["a.tsx", "ts"]),
            ("src/*.ts", &["src/a.ts", "x/src/a.ts"], &["src/x/a.ts", "a.ts"]),
            ("/src/*.ts", &["src/a.ts"], &["x/src/a.ts"]),
            ("/src", &["src", "src/a"], &["x/src"]),
            ("src/**", &["src/a", "src/a/b", "x/src/a"], &["src", "srcs/a"]),
            ("src/**/x", &["src/x", "src/a/x", "src/a/b/x/y"], &["src/a", "x"]),
            ("/a/**/x/**/y", &["a/b/x/c/x/d/y", "a/x/y"], &["a/y/x", "b/a/x/y"]),
            ("/**/x", &["x", "a/x", "a/b/x"], &["a/y"]),
            ("**", &["a", "a/b"], &[]),
            ("?", &["a", "é", "€", "x/€"], &["ab", "éé"]),
            ("*??", &["ab", "€€", "a€b"], &["€", "a"]),
            ("a*b*c", &["abc", "axxbxxc", "abbcc"], &["acb", "ab"]),
            ("./a", &["a", "b/a/c"], &["b"]),
            ("target/", &["target", "target/x", "a/target/x"], &["targets"]),
            ("[a-c]x", &["bx", "d/ax"], &["dx", "b"]),
            ("[!a-cz]x", &["dx", "€x"], &["bx", "zx"]),
            ("[]x]", &["]", "x"], &["a"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[ä-ü]", &["ö"], &["o"]),
            ("\\*\\[\\{\\!", &["*[{!"], &["a[{!"]),
            (".*", &[".git", "a/.git"], &["a.git"]),
        ] {
            for path in yes {
                assert!(pattern(text).matches(path.as_bytes(), true), "{text} {path}");
            }
            for path in no {
                assert!(!pattern(text).matches(path.as_bytes(), true), "{text} {path}");
            }
        }
        let bytes = pattern("a?b");
        assert!(bytes.matches(b"a\xffb", false) && !bytes.matches(b"a\xff\xffb", false));
        assert!(pattern("[!a]").matches(b"\xff", false) && !pattern("[a]").matches(b"\xff", false));
    }

    #[test]
    fn a_slash_at_the_end_means_directories() {
        for (path, is_directory, expected) in [
            ("target", true, true),
            ("target", false, false),
            ("target/file", false, true),
            ("target/target", false, true),
            ("a/target", false, false),
        ] {
            let found = pattern("target/").matches(path.as_bytes(), is_directory);
            assert_eq!(found, expected, "{path}");
        }
        assert!(pattern("target").matches(b"target", false));
    }

    #[test]
    fn what_means_something_elsewhere_or_nothing_is_refused() {
        let long = "x".repeat(PATTERN_BYTES + 1);
        for (bad, why) in [
            ("", PatternError::NoName),
            ("/", PatternError::NoName),
            (".//", PatternError::NoName),
            ("../x", PatternError::NoName),
            ("*.{js,ts}", PatternError::Unknown),
            ("a}", PatternError::Unknown),
            ("!x", PatternError::Unknown),
            ("[ab", PatternError::Unfinished),
            ("[]", PatternError::Unfinished),
            ("[b-a]", PatternError::Unfinished),
            ("a\\", PatternError::Unfinished),
            ("a\0", PatternError::Nul),
            (&long, PatternError::TooLong),
        ] {
            assert_eq!(Pattern::parse(bad), Err(why), "{bad:?}");
        }
        assert!(Pattern::parse(&long[1..]).is_ok());
    }

    #[test]
    fn a_pattern_made_to_take_long_does_not() {
        let begun = Instant::now();
        let path = ["a"; 2000].join("/");
        for part in ["**/*a*/", "**/a/"] {
            let none = format!("{}z", part.repeat(120));
            assert!(!pattern(&none).matches(path.as_bytes(), false), "{none}");
        }
        assert!(!pattern(&"*a".repeat(500)).matches(&[&[b'a'; 254][..], b"b"].concat(), false));
        // By going back to what it has tried, it would for ever.
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn hostile_patterns_are_refused_or_tried_in_time() {
        let examples = ["*.rs", "**/target/**", "src/[a-z]*/{a,b}?.txt", "!x", "a\\\\*"];
        hostile::text(&examples, |text| drop(Pattern::parse(text)));
    }
}
