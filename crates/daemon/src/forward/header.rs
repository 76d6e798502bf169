//! Which headers cross the boundary. Both ways a list of what passes: what is not on it (keys,
//! cookies, hop-by-hop headers, what a proxy added) needs no rule to stay behind.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use link::REQUEST_ID;

/// Ours, whatever they come to mean.
const OURS: &str = "x-sandbar-";

/// What an agent may learn of a request. Never Authorization or Cookie: user code in the sandbox can
/// take the agent's place.
const TO_AGENT: [HeaderName; 11] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static(REQUEST_ID),
];

/// What a caller may learn from an agent. Never Set-Cookie, Location, CORS or policy headers: they
/// would speak in the name of the API's origin.
const TO_CALLER: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
];

/// What passes beside these, both ways, when a caller changes to the one protocol that may pass
/// (RFC 6455, section 4).
const WEBSOCKET: [HeaderName; 5] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_ACCEPT,
];

/// Whether the caller would change to WebSocket and nothing else (RFC 9110, section 7.8).
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return false };
    let is_option = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"upgrade");
    let mut options = headers.get_all(header::CONNECTION).iter();
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
        && options.any(|options| options.as_bytes().split(|byte| *byte == b',').any(is_option))
}

/// A request's headers for the agent. The length follows from the body.
pub(super) fn to_agent(headers: &HeaderMap) -> HeaderMap {
    pass(headers, &TO_AGENT)
}

/// The same of a request or an answer, from `headers`, that changes to WebSocket.
pub(super) fn add_switch(passed: &mut HeaderMap, headers: &HeaderMap) {
    passed.extend(pass(headers, &WEBSOCKET));
    passed.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    passed.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// An answer's headers for the caller. Should a browser ever show one, it is shown as what it is
/// declared to be, and nothing in it runs or loads.
pub(super) fn to_caller(headers: &HeaderMap) -> HeaderMap {
    let mut passed = pass(headers, &TO_CALLER);
    passed.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    passed.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    passed
}

/// Answers an agent of ours can give to a request that stays HTTP: no interim ones, no redirects (the caller would follow them
/// with its key), and no 401 or 407 (they speak of the API's own key).
pub(super) fn is_passable(status: StatusCode) -> bool {
    match status.as_u16() {
        401 | 407 => false,
        200..=299 | 304 | 400..=599 => true,
        _ => false,
    }
}

fn pass(headers: &HeaderMap, list: &[HeaderName]) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| list.contains(name) || name.as_str().starts_with(OURS))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_statuses_pass() {
        for (status, passes) in [
            (200, true),
            (204, true),
            (206, true),
            (299, true),
            (304, true),
            (400, true),
            (404, true),
            (416, true),
            (500, true),
            (599, true),
            (100, false),
            (101, false),
            (199, false),
            (300, false),
            (301, false),
            (307, false),
            (401, false),
            (407, false),
            (600, false),
            (999, false),
        ] {
            assert_eq!(is_passable(StatusCode::from_u16(status).unwrap()), passes, "{status}");
        }
    }
}
