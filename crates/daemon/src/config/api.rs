//! Where the API listens, whom it answers, and its key.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use engine::Secret;

use super::{reader::Reader, source::Raw, value};
use crate::app::{KEPT, REQUESTS_AT_ONCE};

/// Only this machine can reach it; the port is free of well-known uses.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);

/// Further names: enough for every name of one machine.
const ALLOWED_HOSTS: usize = 64;

/// Further origins: a page for each name there may be.
const ALLOWED_ORIGINS: usize = ALLOWED_HOSTS;

/// Where the API listens, whom it answers, and its key.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names the API answers to beside the loopback names, in lower case, without ports.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages whose scripts may call the API, as browsers write them. Their scripts need
    /// a key as anybody does.
    pub allowed_origins: Vec<String>,
    /// The secret of the key `local` that the operator set; none means one is generated on the first
    /// start.
    pub key: Option<Secret>,
    /// Requests at once with one key that has a prefix.
    pub max_requests_per_key: usize,
}

/// A quarter of what the node works on: one tenant's streams cannot be all there are.
const DEFAULT_REQUESTS_PER_KEY: usize = 1024;

impl ApiConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let listen = reader.read("listen", DEFAULT_LISTEN, listen, SocketAddr::to_string);
        let allowed_hosts =
            reader.read("allowed_hosts", Vec::new(), hosts, |hosts| hosts.join(", "));
        let allowed_origins =
            reader.read("allowed_origins", Vec::new(), origins, |origins| origins.join(", "));
        let written = reader.read(
            "key",
            None,
            |raw| secret(raw).map(Some),
            |secret| if secret.is_some() { "(set)" } else { "(generated)" }.to_owned(),
        );
        let file = reader.read(
            "key_file",
            None,
            |raw| key_file(raw).map(Some),
            |file: &Option<(PathBuf, Secret)>| {
                file.as_ref().map_or_else(String::new, |(path, _)| path.display().to_string())
            },
        );
        if written.is_some() && file.is_some() {
            reader.fault("key_file", "key and key_file are both set; keep one of them");
        }
        let key = written.or(file.map(|(_, key)| key));
        // R31: a reachable address is a decision, and so is who may use it.
        if !listen.ip().is_loopback() && key.is_none() {
            reader.fault(
                "listen",
                format!(
                    "{listen} can be reached from other machines: set key or key_file as well, \
                     or listen on 127.0.0.1:{}",
                    listen.port()
                ),
            );
        }
        let max_requests_per_key = reader.read(
            "max_requests_per_key",
            DEFAULT_REQUESTS_PER_KEY,
            |raw| value::number(raw, &(1..=REQUESTS_AT_ONCE - REQUESTS_AT_ONCE / KEPT)),
            usize::to_string,
        );
        Self { listen, allowed_hosts, allowed_origins, key, max_requests_per_key }
    }
}

fn listen(raw: &Raw) -> Result<SocketAddr, String> {
    let text = value::text(raw)?;
    text.parse().or_else(|error| {
        // The one name everybody writes.
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        port.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).ok_or_else(|| {
            format!("is {text:?} ({error}); write an address and a port, such as 127.0.0.1:8787")
        })
    })
}

fn hosts(raw: &Raw) -> Result<Vec<String>, String> {
    let hosts = value::list(raw)?;
    if hosts.len() > ALLOWED_HOSTS {
        return Err(format!("has {} names; write at most {ALLOWED_HOSTS}", hosts.len()));
    }
    hosts.iter().map(|host| host_name(host)).collect()
}

fn host_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && text.split('.').all(|label| !label.is_empty());
    let is_address = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    if is_name || is_address {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "has {text:?}; write host names without scheme, port or wildcard, such as \
             sandbar.example.com"
        ))
    }
}

fn origins(raw: &Raw) -> Result<Vec<String>, String> {
    let origins = value::list(raw)?;
    if origins.len() > ALLOWED_ORIGINS {
        return Err(format!("has {} origins; write at most {ALLOWED_ORIGINS}", origins.len()));
    }
    origins.iter().map(|origin| web_origin(origin)).collect()
}

/// An origin as a browser sends it (RFC 6454, section 6.2): in lower case, and without the port that
/// the scheme has by itself. `*` and `null` are none: every page on the machine could send them.
fn web_origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let parts = lower.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let is_origin = parts.is_some_and(|(scheme, rest)| {
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let usual = if scheme == "http" { "80" } else { "443" };
        let is_port = |port: &str| {
            port != usual
                && !port.starts_with('0')
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        host_name(host).is_ok() && port.is_none_or(is_port)
    });
    if is_origin {
        Ok(lower)
    } else {
        Err(format!(
            "has {text:?}; write origins as browsers send them, such as https://app.example.com or \
             http://localhost:5173"
        ))
    }
}

/// Never repeats the value: an error message ends in logs.
fn secret(raw: &Raw) -> Result<Secret, String> {
    let text = value::text(raw).map_err(|_shows_it| "is not a text".to_owned())?;
    Secret::new(text).map_err(|error| error.to_string())
}

fn key_file(raw: &Raw) -> Result<(PathBuf, Secret), String> {
    let path = Path::new(value::text(raw)?);
    let text = fs::read_to_string(path)
        .map_err(|error| format!("is {}, which cannot be read: {error}", path.display()))?;
    let key = Secret::new(text.trim())
        .map_err(|error| format!("is {}, whose text {error}", path.display()))?;
    Ok((path.to_owned(), key))
}
