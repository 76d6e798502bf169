//! Where previews are: from a host name to a label, and from a label to a URL.

use std::fmt;

use api::port::PreviewLabel;
use http::{HeaderMap, Uri, header, uri::Authority};

use super::Addressed;

/// The names of all previews: `{label}.{domain}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    is_https: bool,
    /// Lower case, without a dot at either end.
    name: String,
    /// None: the scheme's own.
    port: Option<u16>,
}

impl Domain {
    /// The domain `name`, seen from outside on `port`.
    pub(crate) fn new(is_https: bool, name: &str, port: u16) -> Self {
        let default = if is_https { 443 } else { 80 };
        let port = (port != default).then_some(port);
        Self { is_https, name: name.to_ascii_lowercase(), port }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The host name and port of a preview, as its visitors write it.
    pub(crate) fn host(&self, label: &PreviewLabel) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{label}.{}{port}", self.name)
    }

    /// The origin of a preview (RFC 6454, section 6.2).
    pub(crate) fn origin(&self, label: &PreviewLabel) -> String {
        format!("{}://{}", self.scheme(), self.host(label))
    }

    /// The URL of a preview, with a slash at its end.
    pub(crate) fn url(&self, label: &PreviewLabel) -> String {
        format!("{}/", self.origin(label))
    }

    /// Which preview a request is for; none when it is for no name of this domain. One Host, and the
    /// target's authority where it has one, have to agree.
    pub(super) fn addressee(&self, target: &Uri, headers: &HeaderMap) -> Option<Addressed> {
        let mut names = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
        let first = names.next();
        let of_target = target.authority().map(Authority::as_str);
        let name = match (first.flatten(), of_target) {
            (Some(host), _) => host,
            // HTTP/2 has the authority instead.
            (None, Some(authority)) if first.is_none() => authority,
            (None, _) => return None,
        };
        let label = self.label(name)?;
        let is_one = names.next().is_none() && of_target.is_none_or(|other| other == name);
        if !is_one {
            return Some(Addressed::Ambiguously);
        }
        Some(label.parse().map_or(Addressed::ToNobody, Addressed::To))
    }

    /// The preview whose origin this is, if it is one.
    pub(super) fn of_origin(&self, origin: &str) -> Option<PreviewLabel> {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
        self.label(host)?.parse().ok()
    }

    /// What stands before the domain. Upper case in the domain is the same domain; in the label it is
    /// no label. The port is left to whoever is in front of us.
    fn label<'a>(&self, host: &'a str) -> Option<&'a str> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let dot = name.len().checked_sub(self.name.len() + 1)?;
        let (label, domain) = (name.get(..dot)?, name.get(dot + 1..)?);
        let is_ours =
            name.as_bytes().get(dot) == Some(&b'.') && domain.eq_ignore_ascii_case(&self.name);
        is_ours.then_some(label)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{}://{}{port}", self.scheme(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn addressed(hosts: &[&str], target: &str) -> Option<Result<String, &'static str>> {
        let domain = Domain::new(false, "localhost", 8787);
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        domain.addressee(&target.parse().unwrap(), &headers).map(|addressed| match addressed {
            Addressed::To(label) => Ok(label.to_string()),
            Addressed::ToNobody => Err("nobody"),
            Addressed::Ambiguously => Err("ambiguous"),
        })
    }

    #[test]
    fn one_host_names_one_preview() {
        let tok = || Some(Ok("8080-box-tok".to_owned()));
        let (nobody, ambiguous) = (Some(Err("nobody")), Some(Err("ambiguous")));
        for (hosts, target, expected) in [
            (&["8080-box-tok.localhost:8787"][..], "/", tok()),
            (&["8080-box-tok.localhost"], "/", tok()),
            (&["8080-box-tok.LOCALHOST:1"], "/", tok()),
            (&[], "http://8080-box-tok.localhost:8787/", tok()),
            (&["8080-box-tok.localhost"], "http://8080-box-tok.localhost/", tok()),
            (&["8080-box-TOK.localhost"], "/", nobody.clone()),
            (&["user@8080-box-tok.localhost"], "/", nobody.clone()),
            (&["a.8080-box-tok.localhost"], "/", nobody.clone()),
            (&["8080-box-tok%2elocalhost"], "/", None),
            (&["8080-box-tok..localhost"], "/", nobody.clone()),
            (&[".localhost"], "/", nobody.clone()),
            (&["8080-box-tok.localhost."], "/", None),
            (&["localhost:8787"], "/", None),
            (&["8080-box-tok.evil.example"], "/", None),
            (&["8080-box-toklocalhost"], "/", None),
            (&[], "/", None),
            (&["8080-box-tok.localhost", "8080-box-tok.localhost"], "/", ambiguous.clone()),
            (&["8080-box-tok.localhost"], "http://8080-a-tok.localhost/", ambiguous.clone()),
            (&["8080-box-tok.localhost, other"], "/", None),
        ] {
            assert_eq!(addressed(hosts, target), expected, "{hosts:?} {target}");
        }
    }

    #[test]
    fn what_is_printed_is_recognised() {
        let label: PreviewLabel = "8080-my-box-tok".parse().unwrap();
        for (domain, url) in [
            (Domain::new(false, "localhost", 8787), "http://8080-my-box-tok.localhost:8787/"),
            (Domain::new(true, "Preview.example", 443), "https://8080-my-box-tok.preview.example/"),
        ] {
            assert_eq!(domain.url(&label), url);
            let host = domain.host(&label);
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            let found = domain.addressee(&Uri::from_static("/"), &headers);
            assert!(matches!(found, Some(Addressed::To(found)) if found == label));
            assert_eq!(domain.of_origin(&domain.origin(&label)), Some(label.clone()));
        }
    }

    /// A host that leads to a preview is that preview's name, and no other text with the same meaning.
    #[test]
    fn hostile_hosts_lead_nowhere_or_to_what_they_name() {
        let domain = Domain::new(false, "localhost", 8787);
        let examples = [
            "8080-box-tok.localhost:8787",
            "8080-box-tok.localhost",
            "localhost:8787",
            "user@8080-box-tok.localhost",
            "[::1]:8787",
            "8080-box-tok.LOCALHOST:",
        ];
        hostile::text(&examples, |host| {
            let Ok(value) = HeaderValue::from_str(host) else { return };
            let headers = HeaderMap::from_iter([(header::HOST, value)]);
            if let Some(Addressed::To(label)) = domain.addressee(&Uri::from_static("/"), &headers) {
                assert!(host.starts_with(&format!("{label}.")), "{host} is not {label}");
            }
        });
    }
}
