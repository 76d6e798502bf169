//! What a visitor reads when there is no preview to show: a page, or JSON for programs.

use api::error::{ApiError, ErrorBody, ErrorCode};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// Seconds after which a page looks again whether there is something to show now.
const REFRESH_SECS: u32 = 1;

/// Seconds a program should wait after "not now".
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// No script, no foreign content: the page is shown in the preview's own origin.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *");

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Person,
    Program,
}

impl Reader {
    /// A person sits before who asks for HTML, and not rather for JSON.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut types = accept
            .flat_map(|value| value.split(','))
            .map(|item| item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let first = types.find(|kind| kind == "text/html" || kind.ends_with("json"));
        if first.is_some_and(|kind| kind == "text/html") { Self::Person } else { Self::Program }
    }

    pub(super) fn show(self, error: &ApiError) -> Response {
        let (kind, body) = match self {
            Self::Person => ("text/html; charset=utf-8", page(error)),
            Self::Program => ("application/json", json(error)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if is_passing(error.code) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// It may be over soon, without anybody doing anything about it here.
fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ServiceNotResponding
            | ErrorCode::AgentUnreachable
            | ErrorCode::Starting
            | ErrorCode::TooManyRequests
    )
}

fn json(error: &ApiError) -> String {
    serde_json::to_string(&ErrorBody { error: error.clone() })
        .expect("an error body is texts and JSON values")
}

fn page(error: &ApiError) -> String {
    let (title, hint) = match error.code {
        ErrorCode::InvalidToken => (
            "There is no preview here",
            "Check that the whole URL was copied, or ask whoever shared it for a new one.",
        ),
        ErrorCode::StalePreviewUrl => {
            ("This preview is no longer shared", "It works again when its port is exposed again.")
        }
        ErrorCode::ServiceNotResponding => (
            "Nothing answers yet",
            "Start the program in the sandbox. This page looks again by itself.",
        ),
        ErrorCode::Starting | ErrorCode::AgentUnreachable | ErrorCode::TooManyRequests => {
            ("One moment", "This page looks again by itself.")
        }
        _ => ("This preview cannot be shown", "Try again."),
    };
    let refresh = if is_passing(error.code) {
        format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_SECS}\">")
    } else {
        String::new()
    };
    let (message, code) = (escape(&error.message), code(error.code));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\">{refresh}<title>{title}</title><style>\
         :root{{color-scheme:light dark}}\
         body{{font:16px/1.5 system-ui,sans-serif;margin:18vh auto;max-width:34rem;padding:0 1.5rem}}\
         h1{{font-size:1.5rem;margin:0 0 .5rem}}p{{margin:.25rem 0}}small{{opacity:.6}}\
         </style></head><body><h1>{title}</h1><p>{message}.</p><p>{hint}</p>\
         <p><small>{code}</small></p></body></html>"
    )
}

fn code(code: ErrorCode) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_get_json() {
        for (accept, expected) in [
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Reader::Person),
            (Some("TEXT/HTML"), Reader::Person),
            (Some("application/json"), Reader::Program),
            (Some("application/json, text/html"), Reader::Program),
            (Some("*/*"), Reader::Program),
            (Some("image/png"), Reader::Program),
            (None, Reader::Program),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(Reader::of(&headers), expected, "{accept:?}");
        }
    }

    #[tokio::test]
    async fn a_page_looks_again_only_where_that_helps_and_shows_text_as_text() {
        for (code, refreshes) in
            [(ErrorCode::ServiceNotResponding, true), (ErrorCode::InvalidToken, false)]
        {
            let response = Reader::Person.show(&ApiError::new(code, "<b>&\"x\""));
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers().contains_key("retry-after"), refreshes);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let page = String::from_utf8(body.to_vec()).unwrap();
            assert_eq!(page.contains("http-equiv=\"refresh\""), refreshes, "{page}");
            assert!(page.contains("&lt;b&gt;&amp;&quot;x&quot;"), "{page}");
        }
    }
}
