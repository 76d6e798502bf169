//! Whose names the API answers to.
//!
//! Previews and any web page the operator opens run in a browser on the same machine. A page may
//! point a name of its own at 127.0.0.1 (DNS rebinding) and would then be "same origin" with the
//! API; the names below are the ones no page can own (R33).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Uri, header, uri::Authority};

/// The names and addresses in whose name a request may come.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    listen: SocketAddr,
    /// Lower case, without port.
    configured: Vec<String>,
    /// Of web pages that the operator trusts, as browsers send them.
    origins: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(listen: SocketAddr, configured: Vec<String>, origins: Vec<String>) -> Self {
        Self { listen, configured, origins }
    }

    /// The pages of other sites whose scripts may call and read the answers.
    pub(crate) fn origins(&self) -> &[String] {
        &self.origins
    }

    /// Whether a request with this target and these headers may be answered: exactly one Host, ours,
    /// or none where the target has an authority; that, if there is one, ours as well; and no Origin
    /// but ours and those that the operator trusts.
    pub(crate) fn allow(&self, target: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let is_named = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().is_ok_and(|host| self.is_ours(host)),
            // HTTP/2 has the authority instead (RFC 9113, section 8.3.1), which is looked at below.
            (None, _) if target.authority().is_some() => true,
            _ => return Err("exactly one Host header is needed"),
        };
        if !is_named {
            return Err("the Host header names a site this API does not answer to");
        }
        if target.authority().is_some_and(|authority| !self.is_ours(authority.as_str())) {
            return Err("the request's target names a site this API does not answer to");
        }
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let asked = asked.or_else(|| target.authority().map(Authority::as_str)).unwrap_or_default();
        let is_ours = |origin: &str| self.is_our_origin(origin, asked);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if !origins.all(|origin| origin.to_str().is_ok_and(is_ours)) {
            return Err("the Origin header names a site that may not call this API");
        }
        Ok(())
    }

    /// On a wildcard address that is the address asked for: there are others' pages on other addresses.
    fn is_our_origin(&self, origin: &str, asked: &str) -> bool {
        if self.origins.iter().any(|trusted| trusted == origin) {
            return true;
        }
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let is_one = !self.listen.ip().is_unspecified();
        rest.is_some_and(|host| self.is_ours(host) && (is_one || host == asked))
    }

    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        // Configured names stand before a proxy, whose port is its own affair.
        if self.configured.contains(&name) {
            return true;
        }
        let port = authority.port_u16().unwrap_or(80);
        port == self.listen.port() && self.is_local(&name)
    }

    /// Loopback names, and the address listened on. On a wildcard address any address will do: an
    /// address, unlike a name, cannot be pointed at us by somebody else.
    fn is_local(&self, name: &str) -> bool {
        if name == "localhost" {
            return true;
        }
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        bare.parse::<IpAddr>().is_ok_and(|address| {
            address.is_loopback()
                || address == self.listen.ip()
                || self.listen.ip().is_unspecified()
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn allows(listen: &str, host: &str, origin: Option<&str>) -> bool {
        let configured = vec!["sandbar.example.com".to_owned()];
        let origins = vec!["https://app.example.org".to_owned()];
        let hosts = Hosts::new(listen.parse().unwrap(), configured, origins);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        hosts.allow(&Uri::from_static("/v1/sandboxes"), &headers).is_ok()
    }

    #[test]
    fn only_names_no_web_page_can_own_are_answered() {
        for (listen, host, expected) in [
            ("127.0.0.1:8787", "127.0.0.1:8787", true),
            ("127.0.0.1:8787", "localhost:8787", true),
            ("127.0.0.1:8787", "LocalHost:8787", true),
            ("127.0.0.1:8787", "[::1]:8787", true),
            ("127.0.0.1:8787", "localhost", false),
            ("127.0.0.1:80", "localhost", true),
            ("127.0.0.1:8787", "localhost:8788", false),
            ("127.0.0.1:8787", "evil.example:8787", false),
            ("127.0.0.1:8787", "localhost.evil.example:8787", false),
            ("127.0.0.1:8787", "3000-box-token.localhost:8787", false),
            ("127.0.0.1:8787", "user@localhost:8787", false),
            ("127.0.0.1:8787", "192.168.1.4:8787", false),
            ("127.0.0.1:8787", "sandbar.example.com", true),
            ("127.0.0.1:8787", "sandbar.example.com:443", true),
            ("127.0.0.1:8787", "sandbar.example.com.", false),
            ("127.0.0.1:8787", "", false),
            ("127.0.0.1:8787", "localhost:8787/", false),
            ("0.0.0.0:8787", "192.168.1.4:8787", true),
            ("0.0.0.0:8787", "evil.example:8787", false),
            ("192.168.1.4:8787", "192.168.1.4:8787", true),
            ("192.168.1.4:8787", "192.168.1.5:8787", false),
        ] {
            assert_eq!(allows(listen, host, None), expected, "{host} on {listen}");
        }
    }

    #[test]
    fn a_page_of_another_site_may_not_call() {
        for (origin, expected) in [
            ("http://localhost:8787", true),
            ("http://127.0.0.1:8787", true),
            ("https://sandbar.example.com", true),
            ("https://app.example.org", true),
            ("http://app.example.org", false),
            ("https://app.example.org:444", false),
            ("https://app.example.org.evil.example", false),
            ("https://x.app.example.org", false),
            ("http://localhost:3000", false),
            ("http://3000-box-token.localhost:8787", false),
            ("https://evil.example", false),
            ("null", false),
            ("file://", false),
            ("", false),
        ] {
            assert_eq!(
                allows("127.0.0.1:8787", "localhost:8787", Some(origin)),
                expected,
                "{origin}"
            );
        }
    }

    #[test]
    fn on_all_addresses_a_page_of_another_address_may_not_call() {
        for (origin, expected) in [
            ("http://192.168.1.4:8787", true),
            ("http://192.168.1.5:8787", false),
            ("http://localhost:8787", false),
            ("https://app.example.org", true),
        ] {
            let allowed = allows("0.0.0.0:8787", "192.168.1.4:8787", Some(origin));
            assert_eq!(allowed, expected, "{origin}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let hosts = Hosts::new("127.0.0.1:8787".parse().unwrap(), Vec::new(), Vec::new());
        let ours = HeaderValue::from_static("localhost:8787");
        let mut headers = HeaderMap::new();
        assert!(hosts.allow(&Uri::from_static("/"), &headers).is_err(), "no Host");
        let named = Uri::from_static("http://localhost:8787/v1/sandboxes");
        assert!(hosts.allow(&named, &headers).is_ok(), "as HTTP/2 says it");
        let foreign = Uri::from_static("http://evil.example/v1/sandboxes");
        assert!(hosts.allow(&foreign, &headers).is_err(), "a foreign name, so said");
        headers.append(header::HOST, ours.clone());
        let absolute = Uri::from_static("http://evil.example/v1/sandboxes");
        assert!(hosts.allow(&absolute, &headers).is_err(), "a foreign target");
        headers.append(header::HOST, ours);
        assert!(hosts.allow(&Uri::from_static("/"), &headers).is_err(), "two Hosts");
    }
}
