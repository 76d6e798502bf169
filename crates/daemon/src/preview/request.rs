//! What a program in a sandbox learns of a visitor's request.
//!
//! It is told what it would be told by a browser on its own machine: Host and Origin name
//! `localhost` and its port, which is what development servers expect and some insist on. Under
//! which name the visitor knows it is in `X-Forwarded-Host` and `Forwarded`.

use api::port::PreviewLabel;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use std::net::IpAddr;

use super::{Arrival, Domain};
use engine::Keys;

/// Headers between two neighbours, which end with each of them (RFC 9110, section 7.6.1), and those
/// of proxies.
pub(super) const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Ours, whatever they come to mean.
pub(super) const OURS: &str = "x-sandbar-";

/// What only a neighbour we trust may say of a visitor. Of that, `X-Forwarded-For` was read before,
/// and all of it is said anew.
const FORWARDED: [&str; 4] = ["forwarded", "x-real-ip", "x-original-url", "x-client-ip"];

/// Our name in `Via` (RFC 9110, section 7.6.3), by which a circle is seen.
const PSEUDONYM: &str = "sandbar";

/// How often a request may come through this server: an application may call another, and that a
/// third.
const MOST_PASSES: usize = 5;

/// What is asked for in `Upgrade` that must not pass: other ways to speak HTTP, in which what is
/// checked here would not be seen.
const NO_UPGRADES: [&str; 2] = ["h2c", "tls"];

/// One visit: who, to what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor<'a> {
    pub(super) domain: &'a Domain,
    pub(super) label: &'a PreviewLabel,
    pub(super) arrival: Option<&'a Arrival>,
    pub(super) keys: &'a Keys,
}

impl Visitor<'_> {
    /// A request's headers for the program. The length follows from the body.
    pub(super) fn headers(&self, method: &Method, version: Version, sent: &HeaderMap) -> HeaderMap {
        let mut headers = end_to_end(sent);
        for name in FORWARDED {
            headers.remove(name);
        }
        // A 100 was or will be sent by us, when the program begins to read.
        headers.remove(header::EXPECT);
        if sent.get_all(header::TE).iter().any(|te| has_item(te, "trailers")) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        join_cookies(&mut headers);
        if self.is_siblings(method, &headers) {
            headers.remove(header::COOKIE);
        }
        self.drop_our_key(&mut headers);
        self.localise(&mut headers);
        self.introduce(&mut headers, version);
        headers
    }

    /// Whether another sandbox's page made its visitor's browser send this. Names below one domain
    /// may count as one site, and then the browser adds what belongs to the visitor alone.
    fn is_siblings(&self, method: &Method, headers: &HeaderMap) -> bool {
        let says = |name: &str, value: &str| {
            headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes())
        };
        // A form's is null wherever the page's address is not to be told, as by default.
        if let Some(origin) = headers.get(header::ORIGIN).filter(|origin| *origin != "null") {
            let origin = origin.to_str().ok().and_then(|origin| self.domain.of_origin(origin));
            return origin.is_some_and(|label| label.id() != self.label.id());
        }
        if says("origin", "null") && !headers.contains_key("sec-fetch-site") {
            // Nobody can tell; only browsers that are told of no secure connection leave it open.
            return true;
        }
        // Following a link to a page is the visitor's own doing.
        let is_link = says("sec-fetch-mode", "navigate")
            && says("sec-fetch-dest", "document")
            && matches!(*method, Method::GET | Method::HEAD);
        says("sec-fetch-site", "same-site") && !is_link
    }

    /// A key of the API is for nobody else, even if somebody sends it here.
    fn drop_our_key(&self, headers: &mut HeaderMap) {
        let is_ours = headers.get_all(header::AUTHORIZATION).iter().any(|value| {
            let bytes = value.as_bytes();
            let token = bytes.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            self.keys.is_secret(token)
        });
        if is_ours {
            headers.remove(header::AUTHORIZATION);
        }
    }

    /// Has the program see itself under the name that it knows of itself.
    fn localise(&self, headers: &mut HeaderMap) {
        let local = format!("localhost:{}", self.label.port());
        let ours = self.domain.origin(self.label);
        for name in [header::ORIGIN, header::REFERER] {
            let Some(rest) = headers
                .get(&name)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix(&ours))
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            else {
                continue;
            };
            if let Ok(value) = HeaderValue::try_from(format!("http://{local}{rest}")) {
                headers.insert(name, value);
            }
        }
        if let Ok(host) = HeaderValue::try_from(local) {
            headers.insert(header::HOST, host);
        }
    }

    /// Says for whom the request is made, in all three ways in which programs look for it.
    fn introduce(&self, headers: &mut HeaderMap, version: Version) {
        let (scheme, host) = (self.domain.scheme(), self.domain.host(self.label));
        let visitor = self.arrival.map(|arrival| arrival.visitor);
        let node = match visitor {
            Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
            Some(IpAddr::V4(address)) => address.to_string(),
            None => "unknown".to_owned(),
        };
        let forwarded = format!("for={node};host=\"{host}\";proto={scheme}");
        let port = host.rsplit_once(':').map_or_else(
            || if scheme == "https" { "443" } else { "80" }.to_owned(),
            |(_, port)| port.to_owned(),
        );
        let passed = match version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        for (name, value) in [
            ("x-forwarded-for", visitor.map(|visitor| visitor.to_string())),
            ("x-forwarded-host", Some(host)),
            ("x-forwarded-port", Some(port)),
            ("x-forwarded-proto", Some(scheme.to_owned())),
            ("x-sandbox-name", Some(self.label.id().to_string())),
            ("forwarded", Some(forwarded)),
        ] {
            if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Ok(via) = HeaderValue::try_from(format!("{passed} {PSEUDONYM}")) {
            headers.append(header::VIA, via);
        }
    }
}

/// Whether the request goes round in a circle.
pub(super) fn is_loop(headers: &HeaderMap) -> bool {
    let passes = headers.get_all(header::VIA).iter().map(|via| {
        let items = via.as_bytes().split(|byte| *byte == b',');
        items.filter(|item| item.trim_ascii().ends_with(PSEUDONYM.as_bytes())).count()
    });
    passes.sum::<usize>() >= MOST_PASSES
}

/// The one protocol that the visitor would change to, if it may.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return None };
    let name = protocol.to_str().ok()?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-./_+".contains(&byte);
    let base = name.split('/').next().unwrap_or_default();
    let is_meant = headers.get_all(header::CONNECTION).iter().any(|item| has_item(item, "upgrade"));
    let may_be = name.bytes().all(is_token)
        && !NO_UPGRADES.iter().any(|other| base.eq_ignore_ascii_case(other))
        && !base.eq_ignore_ascii_case("http");
    (is_meant && may_be).then(|| protocol.clone())
}

/// Headers without those between neighbours, those that `Connection` names, and ours.
pub(super) fn end_to_end(sent: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = sent
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let passes = |name: &str| {
        !HOP_BY_HOP.contains(&name)
            && !name.starts_with(OURS)
            && !name.starts_with("x-forwarded-")
            && !named.iter().any(|other| other == name)
    };
    // What is sent in chunks has no other length (RFC 9112, section 6.3), whatever was said of it.
    let is_chunked = sent.contains_key(header::TRANSFER_ENCODING);
    sent.iter()
        .filter(|(name, _)| {
            passes(name.as_str()) && !(is_chunked && header::CONTENT_LENGTH == *name)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// HTTP/2 may send each cookie by itself; HTTP/1 has one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether `item` is in a list separated by commas.
fn has_item(list: &HeaderValue, item: &str) -> bool {
    let mut items = list.as_bytes().split(|byte| *byte == b',');
    items.any(|found| found.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}
