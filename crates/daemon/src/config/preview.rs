//! Where previews are, for those who listen and for those who look.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{ApiConfig, reader::Reader, source::Raw, value};
use crate::preview::TrustedProxies;

/// Where previews are.
#[derive(Debug, Clone)]
pub struct PreviewConfig {
    /// Address and port of previews alone; none: they share the API's.
    pub listen: Option<SocketAddr>,
    /// What stands after a preview's label in its URL; none: `localhost` and the port listened on.
    pub url: Option<PreviewUrl>,
    /// PEM files of the certificate chain and the key; none: previews are not encrypted by us.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: TrustedProxies,
}

/// The domain of previews unless another is set: browsers look for it on their own machine.
pub(crate) const DEFAULT_DOMAIN: &str = "localhost";

/// Blocks of addresses in the list of proxies: content networks publish some dozens.
const PROXIES: usize = 64;

/// A scheme, a host name and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewUrl {
    /// `https`, else `http`.
    pub is_https: bool,
    /// Lower case.
    pub name: String,
    /// The scheme's own unless written.
    pub port: u16,
}

impl PreviewConfig {
    pub(super) fn read(reader: &mut Reader, api: &ApiConfig) -> Self {
        let shown = |value: Option<String>| value.unwrap_or_default();
        let listen = reader.read(
            "preview.listen",
            None,
            |raw| listen(raw).map(Some),
            |address: &Option<SocketAddr>| shown(address.map(|address| address.to_string())),
        );
        let url = reader.read(
            "preview.url",
            None,
            |raw| url(raw).map(Some),
            |url: &Option<PreviewUrl>| shown(url.as_ref().map(PreviewUrl::to_string)),
        );
        let mut file = |setting| {
            reader.read(
                setting,
                None,
                |raw| value::text(raw).map(|text| Some(PathBuf::from(text))),
                |path: &Option<PathBuf>| {
                    shown(path.as_ref().map(|path| path.display().to_string()))
                },
            )
        };
        let (certificate, key) = (file("preview.tls_cert"), file("preview.tls_key"));
        let trusted_proxies = reader.read(
            "preview.trusted_proxies",
            TrustedProxies::default(),
            proxies,
            TrustedProxies::to_string,
        );
        let tls = certificate.clone().zip(key.clone());
        let config = Self { listen, url, tls, trusted_proxies };
        if certificate.is_some() != key.is_some() {
            let text = "preview.tls_cert and preview.tls_key go together; write both or neither";
            reader.fault("preview.tls_cert", text);
        }
        config.check(reader, api);
        config
    }

    /// What does not go together.
    fn check(&self, reader: &mut Reader, api: &ApiConfig) {
        if self.tls.is_some() && self.listen.is_none() {
            let text = "preview.tls_cert needs preview.listen: the API and its previews share a \
                        port otherwise, and the API is not encrypted by it";
            reader.fault("preview.tls_cert", text);
        }
        self.check_origins(reader, api);
        let Some(url) = &self.url else { return };
        if self.tls.is_some() && !url.is_https {
            reader.fault("preview.url", "preview.url begins with http://, but tls_cert is set");
        }
        // R54: pages of sandboxes would be the API's own site.
        let is_within = |host: &String| {
            *host == url.name || host.strip_suffix(&url.name).is_some_and(|it| it.ends_with('.'))
        };
        if let Some(host) = api.allowed_hosts.iter().find(|host| is_within(host)) {
            let text = format!(
                "preview.url has the domain {}, and allowed_hosts the name {host} in it; use \
                 domains of their own for the API and for previews",
                url.name
            );
            reader.fault("preview.url", text);
        }
    }

    /// No page of a sandbox is trusted: what it does is the sandbox's to say.
    fn check_origins(&self, reader: &mut Reader, api: &ApiConfig) {
        let domain = self.url.as_ref().map_or(DEFAULT_DOMAIN, |url| &url.name);
        let is_preview = |origin: &&String| {
            let host = origin.split_once("://").and_then(|(_, rest)| rest.split(':').next());
            host.and_then(|host| host.strip_suffix(domain)).is_some_and(|it| it.ends_with('.'))
        };
        if let Some(origin) = api.allowed_origins.iter().find(is_preview) {
            let text = format!(
                "has {origin}, which is where previews are ({domain}); pages of sandboxes cannot be \
                 trusted with the API"
            );
            reader.fault("allowed_origins", text);
        }
    }
}

impl std::fmt::Display for PreviewUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { is_https, name, port } = self;
        let scheme = if *is_https { "https" } else { "http" };
        write!(f, "{scheme}://{name}:{port}")
    }
}

fn listen(raw: &Raw) -> Result<SocketAddr, String> {
    let text = value::text(raw)?;
    let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = port.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    text.parse()
        .ok()
        .or(local)
        .ok_or_else(|| format!("is {text:?}; write an address and a port, such as 0.0.0.0:443"))
}

fn proxies(raw: &Raw) -> Result<TrustedProxies, String> {
    let items = value::list(raw)?;
    if items.len() > PROXIES {
        return Err(format!("has {} entries; write at most {PROXIES}", items.len()));
    }
    let block = |text: &String| {
        text.parse().map_err(|()| {
            format!("has {text:?}; write addresses and ranges, such as 10.0.0.0/8 or ::1")
        })
    };
    items.iter().map(block).collect::<Result<_, _>>().map(TrustedProxies::new)
}

fn url(raw: &Raw) -> Result<PreviewUrl, String> {
    let text = value::text(raw)?;
    let parse = || {
        let (is_https, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)?),
            None => (rest, if is_https { 443 } else { 80 }),
        };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // An address has no names below it.
        let is_name = name.split('.').all(is_label) && name.parse::<Ipv4Addr>().is_err();
        is_name.then(|| PreviewUrl { is_https, name: name.to_ascii_lowercase(), port })
    };
    parse().ok_or_else(|| {
        format!(
            "is {text:?}; write a scheme and a host name below which every name leads here, such as \
             \"https://preview.example.com\""
        )
    })
}
