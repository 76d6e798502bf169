//! The patterns of a request.

use api::{
    error::{ApiError, ErrorCode},
    limit::PATTERNS,
    pattern::Pattern,
};

/// Reads the patterns that `field` of a request has.
pub(super) fn patterns(field: &str, texts: &[String]) -> Result<Vec<Pattern>, ApiError> {
    let invalid =
        |text: String| ApiError::new(ErrorCode::ValidationFailed, text).with("field", field);
    if texts.len() > PATTERNS {
        let text = format!("{field} has at most {PATTERNS} patterns");
        return Err(invalid(text).with("limit", PATTERNS));
    }
    let parse = |text: &String| {
        Pattern::parse(text).map_err(|fault| invalid(format!("pattern {text:?}: {fault}")))
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_counted_and_must_mean_something() {
        let many = vec!["*".to_owned(); PATTERNS + 1];
        assert_eq!(patterns("exclude", &many[1..]).map(|patterns| patterns.len()), Ok(PATTERNS));
        for bad in [&many[..], &[String::new()]] {
            let error = patterns("exclude", bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed);
            assert_eq!(error.details["field"], "exclude");
        }
    }
}
