//! What a visitor's browser learns of a program's answer.
//!
//! It passes as it is, but for what would speak of other names than the preview's own.

use api::port::PreviewLabel;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Domain, request::end_to_end};

/// What an answer could say about the whole domain, or about who answers next (R54).
const LEFT_OUT: [&str; 6] = [
    "alt-svc",
    // Its cookies are those of the whole registered domain.
    "clear-site-data",
    "nel",
    "report-to",
    "strict-transport-security",
    "public-key-pins",
];

/// What is added where the program says nothing of it. The host name holds the token: it is not told
/// to other sites, nor to search engines; and no page gives its origin up by `document.domain`.
const DEFAULTS: [(&str, &str); 3] = [
    ("referrer-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
    ("origin-agent-cluster", "?1"),
];

/// An answer's headers for the visitor.
pub(super) fn headers(said: &HeaderMap, domain: &Domain, label: &PreviewLabel) -> HeaderMap {
    let mut headers = end_to_end(said);
    for name in LEFT_OUT {
        headers.remove(name);
    }
    for (name, value) in DEFAULTS {
        let name = HeaderName::from_static(name);
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let http::header::Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) {
        cookies.iter_mut().for_each(confine);
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(value) = headers.get(&name).and_then(|value| published(value, domain, label)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A cookie is its preview's own: without `Domain`, it is sent nowhere else (RFC 6265, section 5.3).
fn confine(cookie: &mut HeaderValue) {
    let is_domain = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"domain")
    };
    let parts = || cookie.as_bytes().split(|byte| *byte == b';');
    if !parts().skip(1).any(is_domain) {
        return;
    }
    let kept = parts().enumerate().filter(|(at, part)| *at == 0 || !is_domain(part));
    let kept: Vec<&[u8]> = kept.map(|(_, part)| part).collect();
    if let Ok(confined) = HeaderValue::from_bytes(&kept.join(&b';')) {
        *cookie = confined;
    }
}

/// A URL that leads to the program under the name by which it knows itself, as visitors know it. Any
/// other stays as it is.
fn published(url: &HeaderValue, domain: &Domain, label: &PreviewLabel) -> Option<HeaderValue> {
    let text = url.to_str().ok()?;
    let rest = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"].iter().find_map(|host| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        rest.strip_prefix(host)?.strip_prefix(':')?.strip_prefix(&label.port().to_string())
    })?;
    if !(rest.is_empty() || rest.starts_with(['/', '?', '#'])) {
        return None;
    }
    HeaderValue::try_from(format!("{}{rest}", domain.origin(label))).ok()
}
