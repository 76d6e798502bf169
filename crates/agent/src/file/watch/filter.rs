//! What of a tree is watched and reported: patterns, and which of two lists decides.

use api::{
    error::{ApiError, ErrorCode},
    pattern::Pattern,
    watch::DEFAULT_EXCLUDE,
};

use crate::file::pattern::patterns;

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

    /// True for a directory that is left out with everything below it.
    pub(super) fn leaves_out(&self, directory: &[u8]) -> bool {
        is_among(&self.exclude, directory, true)
    }

    /// True for what is reported.
    pub(super) fn reports(&self, path: &[u8], is_directory: bool) -> bool {
        let is_included = self.include.is_empty() || is_among(&self.include, path, is_directory);
        is_included && !is_among(&self.exclude, path, is_directory)
    }

    /// The same for what has moved: a directory whatever is to be included, because what is to be
    /// included may be in it.
    pub(super) fn reports_move(&self, path: &[u8], is_directory: bool) -> bool {
        if is_directory { !self.leaves_out(path) } else { self.reports(path, false) }
    }
}

fn is_among(patterns: &[Pattern], path: &[u8], is_directory: bool) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path, is_directory))
}

fn invalid(field: &str, text: String) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

#[cfg(test)]
mod tests {
    use api::limit::PATTERNS;

    use super::*;

    #[test]
    fn one_list_decides() {
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let plain = Filter::new(&[], None).unwrap();
        assert!(plain.leaves_out(b"a/.git/HEAD") && plain.reports(b"a/x", false));
        let include = Filter::new(&list(&["*.ts"]), None).unwrap();
        assert!(include.reports(b"a/x.ts", false) && !include.reports(b"a", false));
        assert!(include.reports_move(b"a", true) && !include.reports_move(b"a", false));
        let nested = Filter::new(&list(&["a/"]), None).unwrap();
        assert!(nested.reports(b"a", true) && !nested.reports(b"a", false));
        let nothing = Filter::new(&[], Some(&[])).unwrap();
        assert!(nothing.reports(b".git", false));
        assert!(Filter::new(&list(&["a"]), Some(&list(&["b"]))).is_err());
        let many = list(&["x"; PATTERNS + 1]);
        assert!(Filter::new(&many, None).is_err());
        assert!(Filter::new(&many[1..], None).is_ok());
    }
}
