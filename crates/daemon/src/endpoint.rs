//! `STATE/endpoint`: the base URL of the running server, for clients on this machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The published URL. Dropping it takes the file away again.
#[derive(Debug)]
pub(crate) struct Endpoint {
    path: PathBuf,
    url: String,
}

impl Endpoint {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the endpoint file could not be removed");
        }
    }
}

/// Writes the URL of a server that listens on `address`.
pub(crate) fn publish(state_dir: &Path, address: SocketAddr) -> io::Result<Endpoint> {
    let path = state_dir.join("endpoint");
    let beside = state_dir.join("endpoint.new");
    let url = url(address);
    fs::write(&beside, format!("{url}\n"))?;
    fs::rename(&beside, &path)?;
    Ok(Endpoint { path, url })
}

/// A URL that reaches `address` from this machine: a wildcard address is reached by loopback.
pub(crate) fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_there_while_the_server_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoint");

        let endpoint = publish(dir.path(), "127.0.0.1:8787".parse().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "http://127.0.0.1:8787\n");
        drop(endpoint);

        assert!(!path.exists());
    }

    #[test]
    fn wildcard_addresses_are_reached_by_loopback() {
        for (address, expected) in [
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("192.168.1.4:80", "http://192.168.1.4:80"),
        ] {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }
}
