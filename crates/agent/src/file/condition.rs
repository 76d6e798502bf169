//! `If-Match`, `If-None-Match` and `If-Range`, RFC 9110 section 13.

use api::error::{ApiError, ErrorCode};
use axum::http::{HeaderMap, HeaderName, header};

use super::path::FilePath;

/// Tags that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: whatever there is.
    Any,
    /// These, each with its quotes; weak ones with their `W/`.
    These(Vec<String>),
}

impl Tags {
    /// Those of a header; none when it is not there.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            // What is no text matches nothing.
            let value = value.to_str().unwrap_or_default();
            if value.trim() == "*" {
                return Some(Self::Any);
            }
            // A tag of ours holds no comma.
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()));
        }
        headers.contains_key(name).then_some(Self::These(tags))
    }

    /// One tag, as a field of a request.
    pub(super) fn one(tag: String) -> Self {
        Self::These(vec![tag])
    }

    /// True when the file with this tag, if there is one, is meant.
    fn has(&self, etag: Option<&str>) -> bool {
        match self {
            Self::Any => etag.is_some(),
            Self::These(tags) => etag.is_some_and(|etag| tags.iter().any(|tag| tag == etag)),
        }
    }

    /// Refuses a file that is not meant; `etag` is none when there is no file.
    pub(super) fn require(&self, path: &FilePath, etag: Option<&str>) -> Result<(), ApiError> {
        if self.has(etag) {
            return Ok(());
        }
        let shown = path.shown();
        let text = match etag {
            Some(_) => format!("{shown} has another content than If-Match names; read it again"),
            None => format!("{shown} does not exist, and If-Match names a content of it"),
        };
        let error = ApiError::new(ErrorCode::PreconditionFailed, text).with("path", shown);
        Err(error.with("etag", etag))
    }
}

pub(super) fn if_match(headers: &HeaderMap) -> Option<Tags> {
    Tags::of(headers, &header::IF_MATCH)
}

/// True for `If-None-Match: *`, which on a write means: only if there is nothing.
pub(super) fn is_for_new_only(headers: &HeaderMap) -> bool {
    Tags::of(headers, &header::IF_NONE_MATCH) == Some(Tags::Any)
}

/// True when the reader has this content already.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    // A weak tag of this content was made of ours by somebody on the way; for reading it counts.
    let bare = |tag: &String| tag.strip_prefix("W/").unwrap_or(tag) == etag;
    match Tags::of(headers, &header::IF_NONE_MATCH) {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(tags)) => tags.iter().any(bare),
    }
}

/// True when a range may be given: it is wanted of this content, or of whatever there is.
pub(super) fn range_holds(headers: &HeaderMap, etag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const ETAG: &str = "\"a-1-2\"";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (name.clone(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn if_match_compares_strongly() {
        let path = super::super::path::absolute("/", "f").unwrap();
        for (values, there, missing) in [
            (&["*"][..], true, false),
            (&["\"a-1-2\""], true, false),
            (&["\"x\", \"a-1-2\""], true, false),
            (&["\"x\"", "\"a-1-2\""], true, false),
            (&["W/\"a-1-2\""], false, false),
            (&["a-1-2"], false, false),
            (&[""], false, false),
        ] {
            let tags = if_match(&headers(&header::IF_MATCH, values)).unwrap();
            assert_eq!(tags.require(&path, Some(ETAG)).is_ok(), there, "{values:?}");
            assert_eq!(tags.require(&path, None).is_ok(), missing, "{values:?}");
        }
        assert_eq!(if_match(&HeaderMap::new()), None);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (values, known) in
            [(&["*"][..], true), (&["W/\"a-1-2\""], true), (&["\"b\""], false), (&[], false)]
        {
            let headers = headers(&header::IF_NONE_MATCH, values);
            assert_eq!(is_known(&headers, ETAG), known, "{values:?}");
            assert_eq!(is_for_new_only(&headers), values == ["*"], "{values:?}");
        }
    }

    #[test]
    fn a_range_of_another_content_is_none() {
        assert!(range_holds(&HeaderMap::new(), ETAG));
        assert!(range_holds(&headers(&header::IF_RANGE, &[ETAG]), ETAG));
        assert!(!range_holds(&headers(&header::IF_RANGE, &["\"b\""]), ETAG));
        assert!(!range_holds(
            &headers(&header::IF_RANGE, &["Sat, 29 Oct 1994 19:43:31 GMT"]),
            ETAG
        ));
    }
}
