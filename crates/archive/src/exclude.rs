//! Patterns of what to leave out.
//!
//! Time is bounded by the product of the lengths of pattern and path: a `*` that does not fit is given
//! one more byte, and only the last one, which is enough.

/// A pattern, see [`api::archive::ReadArchive::exclude`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude {
    components: Vec<Vec<u8>>,
    /// Matches whole paths, not names.
    is_path: bool,
    is_directory: bool,
}

impl Exclude {
    /// Reads a pattern; none for one that can match nothing, as an empty one.
    #[must_use]
    pub fn new(pattern: &str) -> Option<Self> {
        let bytes = pattern.as_bytes();
        let inner = bytes.strip_suffix(b"/").unwrap_or(bytes);
        let is_path = inner.contains(&b'/');
        let components: Vec<_> = inner
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .map(<[u8]>::to_vec)
            .collect();
        let is_directory = bytes.ends_with(b"/");
        (!components.is_empty()).then_some(Self { components, is_path, is_directory })
    }

    /// True when `path`, below the top of the tree, is to be left out.
    #[must_use]
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        if self.is_directory && !is_directory {
            return false;
        }
        if self.is_path {
            let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            return matches_path(&self.components, &parts);
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        self.components.first().is_some_and(|pattern| matches_name(pattern, name))
    }
}

fn matches_path(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    let (mut at, mut pos) = (0, 0);
    // After the last `**`, and where in the path it was tried.
    let mut retry: Option<(usize, usize)> = None;
    while pos < path.len() {
        match pattern.get(at) {
            Some(part) if part == b"**" => {
                retry = Some((at + 1, pos));
                at += 1;
            }
            Some(part) if matches_name(part, path[pos]) => {
                at += 1;
                pos += 1;
            }
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (at, pos) = (after, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|part| part == b"**")
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while pos < name.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, pos));
            at += 1;
            continue;
        }
        if let Some(length) = one(&pattern[at..], name[pos]) {
            at += length;
            pos += 1;
            continue;
        }
        let Some((after, from)) = retry else { return false };
        retry = Some((after, from + 1));
        (at, pos) = (after, from + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Bytes of the first element of `pattern`, if `byte` fits it.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', set @ ..] => match in_set(set, byte) {
            Some((length, is_in)) => is_in.then_some(length + 1),
            // A bracket that is not closed is one.
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Bytes of the set up to its bracket, and whether `byte` is in it; none when it does not end.
fn in_set(set: &[u8], byte: u8) -> Option<(usize, bool)> {
    let is_negated = matches!(set, [b'!' | b'^', ..]);
    let first = usize::from(is_negated);
    let mut at = first;
    let mut is_in = false;
    loop {
        let low = *set.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, is_in != is_negated));
        }
        match set.get(at + 1..at + 3) {
            Some([b'-', high]) if *high != b']' => {
                is_in |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                is_in |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_they_are_known_to() {
        for (pattern, path, is_directory, expected) in [
            ("*.pyc", "a/b/x.pyc", false, true),
            ("*.pyc", "a/b/x.py", false, false),
            ("node_modules", "a/node_modules", true, true),
            ("node_modules", "a/node_modules2", true, false),
            ("target/", "target", true, true),
            ("target/", "target", false, false),
            ("/target", "target", true, true),
            ("/target", "a/target", true, false),
            ("a/*.o", "a/x.o", false, true),
            ("a/*.o", "a/b/x.o", false, false),
            ("a/**", "a/b/c", false, true),
            ("**/x", "x", false, true),
            ("**/x", "a/b/x", false, true),
            ("a/**/x", "a/x", false, true),
            ("a/**/x", "a/b/c/x", false, true),
            ("a/**/x/**/y", "a/b/x/c/x/d/y", false, true),
            ("a/**/x/y", "a/x/b/x/y", false, true),
            ("a/**/x", "b/x", false, false),
            ("?", "a", false, true),
            ("?", "ab", false, false),
            ("a*b*c", "aXbYbZc", false, true),
            ("a*b*c", "aXbYbZ", false, false),
            ("[a-c]x", "bx", false, true),
            ("[!a-c]x", "bx", false, false),
            ("[]x]", "]", false, true),
            ("[a-]", "-", false, true),
            ("[ab", "[ab", false, true),
            ("\\*", "*", false, true),
            ("\\*", "a", false, false),
            (".*", ".git", true, true),
            ("*", ".git", true, true),
        ] {
            let found = Exclude::new(pattern).unwrap().matches(path.as_bytes(), is_directory);
            assert_eq!(found, expected, "{pattern} {path}");
        }
        assert!(Exclude::new("*").unwrap().matches(b"\xff\n", false));
        for nothing in ["", "/", ".", "//"] {
            assert_eq!(Exclude::new(nothing), None);
        }
    }

    #[test]
    fn a_pattern_made_to_take_long_does_not() {
        let (name, path) = (vec![b'a'; 255], vec!["a"; 2000].join("/"));
        let begun = std::time::Instant::now();
        assert!(!Exclude::new(&"*a".repeat(60)).unwrap().matches(&[&*name, b"b"].concat(), false));
        assert!(
            !Exclude::new(&"**/a/".repeat(60))
                .unwrap()
                .matches(&[path.as_bytes(), b"/b"].concat(), false)
        );
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }
}
