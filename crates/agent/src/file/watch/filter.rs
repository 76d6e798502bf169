//! What of a tree is watched and reported: patterns, and which of two lists decides.

use api::{
    error::{ApiError, ErrorCode},
    limit::{WATCH_PATTERN_BYTES, WATCH_PATTERNS},
    watch::DEFAULT_EXCLUDE,
};

/// The checked patterns of a request; by default none, so that everything passes. Paths are relative
/// to the watched directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Filter {
    pub(super) fn new(include: &[String], exclude: Option<&[String]>) -> Result<Self, ApiError> {
        if !include.is_empty() && exclude.is_some() {
            let text = "give `include` or `exclude`, not both";
            return Err(invalid("include", text.to_owned()));
        }
        let defaults = DEFAULT_EXCLUDE.map(str::to_owned);
        Ok(Self {
            include: patterns("include", include)?,
            exclude: patterns("exclude", exclude.unwrap_or(&defaults))?,
        })
    }

    /// True for what is left out with everything below it.
    pub(super) fn leaves_out(&self, path: &[u8]) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(path))
    }

    /// True for what is reported. The move of a directory is, whatever is to be included, because
    /// what is to be included may be in it.
    pub(super) fn reports(&self, path: &[u8], is_moved_directory: bool) -> bool {
        let is_included = is_moved_directory
            || self.include.is_empty()
            || self.include.iter().any(|pattern| pattern.matches(path));
        is_included && !self.leaves_out(path)
    }
}

fn invalid(field: &str, text: String) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

fn patterns(field: &str, texts: &[String]) -> Result<Vec<Pattern>, ApiError> {
    if texts.len() > WATCH_PATTERNS {
        let text = format!("{field} has at most {WATCH_PATTERNS} patterns");
        return Err(invalid(field, text).with("limit", WATCH_PATTERNS));
    }
    let parse = |text: &String| {
        Pattern::parse(text).map_err(|fault| invalid(field, format!("pattern {text:?}: {fault}")))
    };
    texts.iter().map(parse).collect()
}

/// A pattern, name by name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of names.
    Names,
    /// One name, with `*` and `?`.
    Name(Vec<u8>),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > WATCH_PATTERN_BYTES {
            return Err(format!("it has at most {WATCH_PATTERN_BYTES} bytes"));
        }
        if text.contains('\0') {
            return Err("it holds no NUL".to_owned());
        }
        // In other languages of patterns these have a meaning that would silently be lost.
        if text.contains(['[', ']', '{', '}', '\\']) || text.starts_with('!') {
            return Err(
                "only *, ** and ? are special; [ ] { } \\ and a leading ! are not taken".to_owned()
            );
        }
        let mut names: Vec<&str> =
            text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.is_empty() || names.contains(&"..") {
            return Err("it has at least one name, and no `..`".to_owned());
        }
        // `dir/**` is what is in the directory, not the directory.
        if let [.., _, last @ "**"] = &mut names[..] {
            *last = "*";
        }
        let part = |name: &str| match name {
            "**" => Part::Names,
            name => Part::Name(name.as_bytes().to_vec()),
        };
        let anywhere = (!text.starts_with('/')).then_some(Part::Names);
        let parts = anywhere.into_iter().chain(names.into_iter().map(part)).chain([Part::Names]);
        Ok(Self { parts: parts.collect() })
    }

    fn matches(&self, path: &[u8]) -> bool {
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
                (Some(Part::Name(glob)), Some(text)) if name_matches(glob, text) => {
                    (part, name) = (part + 1, name + 1);
                    continue;
                }
                (None, None) => return true,
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

/// Matches one name. Linear in both but for `*`, of which only the last is tried again.
fn name_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star = None;
    loop {
        match (glob.get(g), text.get(t)) {
            (Some(b'*'), _) => {
                star = Some((g + 1, t));
                g += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => {
                (g, t) = (g + 1, t + character(text, t));
                continue;
            }
            (Some(expected), Some(found)) if expected == found => {
                (g, t) = (g + 1, t + 1);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match star {
            Some((after, from)) if from < text.len() => {
                let next = from + character(text, from);
                star = Some((after, next));
                (g, t) = (after, next);
            }
            _ => return false,
        }
    }
}

/// Bytes of the character at `at`; of what is no UTF-8, one.
fn character(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let length = match rest.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..) => 4,
        _ => 1,
    };
    let is_whole = rest.get(..length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    if is_whole { length } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern)
            .unwrap_or_else(|fault| panic!("{pattern}: {fault}"))
            .matches(path.as_bytes())
    }

    #[test]
    fn patterns_match_names_wherever_they_stand_and_what_is_below() {
        for (pattern, yes, no) in [
            ("node_modules", &["node_modules", "a/node_modules/x/y"][..], &["node_module"][..]),
            ("*.ts", &["a.ts", "x/y.ts", ".ts", "dir.ts/x"], &["a.tsx", "ts"]),
            ("src/*.ts", &["src/a.ts", "x/src/a.ts"], &["src/x/a.ts", "a.ts"]),
            ("/src/*.ts", &["src/a.ts"], &["x/src/a.ts"]),
            ("/src", &["src", "src/a"], &["x/src"]),
            ("src/**", &["src/a", "src/a/b", "x/src/a"], &["src", "srcs/a"]),
            ("src/**/x", &["src/x", "src/a/x", "src/a/b/x/y"], &["src/a", "x"]),
            ("/**/x", &["x", "a/x", "a/b/x"], &["a/y"]),
            ("**", &["a", "a/b"], &[]),
            ("?", &["a", "é", "€", "x/€"], &["ab", "éé"]),
            ("*??", &["ab", "€€", "a€b"], &["€", "a"]),
            ("a*b*c", &["abc", "axxbxxc", "abbcc"], &["acb", "ab"]),
            ("./a/", &["a", "b/a/c"], &["b"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} {path}");
            }
        }
        let bytes = Pattern::parse("a?b").unwrap();
        assert!(bytes.matches(b"a\xffb") && !bytes.matches(b"a\xff\xffb"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = Pattern::parse(&"**/*a*/".repeat(128)).unwrap();
        let path = [b"a".repeat(250), b"/".to_vec()].concat().repeat(16);
        assert!(!pattern.matches(&path));
        let pattern = Pattern::parse(&"*a".repeat(500)).unwrap();
        assert!(!pattern.matches(&b"a".repeat(255)));
    }

    #[test]
    fn patterns_that_mean_something_elsewhere_are_refused() {
        let long = "x".repeat(WATCH_PATTERN_BYTES + 1);
        for bad in ["", "/", "[ab]", "*.{js,ts}", "!x", "a\\b", "a\0", "../x", &long] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse(&long[1..]).is_ok());
    }

    #[test]
    fn one_list_decides() {
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let plain = Filter::new(&[], None).unwrap();
        assert!(plain.leaves_out(b"a/.git/HEAD") && plain.reports(b"a/x", false));
        let include = Filter::new(&list(&["*.ts"]), None).unwrap();
        assert!(include.reports(b"a/x.ts", false) && !include.reports(b"a", false));
        assert!(include.reports(b"a", true) && !include.reports(b"node_modules/x.ts", true));
        let nothing = Filter::new(&[], Some(&[])).unwrap();
        assert!(nothing.reports(b".git", false));
        assert!(Filter::new(&list(&["a"]), Some(&list(&["b"]))).is_err());
        let many = list(&["x"; WATCH_PATTERNS + 1]);
        assert!(Filter::new(&many, None).is_err());
        assert!(Filter::new(&many[1..], None).is_ok());
    }
}
