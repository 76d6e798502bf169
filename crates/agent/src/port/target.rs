//! A port of the sandbox's loopback: reached, and waited for.
//!
//! It is reached from inside, so a server that listens on loopback only is reached too. The kernel
//! tells nobody that a port was opened, so a port that is waited for is tried again and again.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    pin::pin,
    time::Duration,
};

use api::{
    error::{ApiError, ErrorCode},
    limit::WAIT_PATTERN_BYTES,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Pause after the first try; a server that is nearly there is seen at once.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Pause between tries after a while: what takes long may be seen half a second late.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// How long a connection on loopback may take: the kernel makes it, unless the server's queue is
/// full.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// How long an HTTP server may take for its first line: some build the page first. Then another try
/// is made.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Bytes of an answer that are looked at: its first line.
const ANSWER_BYTES: usize = 1024;

/// Bounds a text that a wait looks for.
pub(crate) fn check_length(field: &str, text: &str) -> Result<(), ApiError> {
    if (1..=WAIT_PATTERN_BYTES).contains(&text.len()) {
        return Ok(());
    }
    let fault = format!("{field} has 1 to {WAIT_PATTERN_BYTES} bytes");
    Err(invalid(field, fault).with("limit", WAIT_PATTERN_BYTES))
}

pub(crate) fn invalid(field: &str, text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", field)
}

/// Statuses of HTTP, RFC 9110 section 15.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// A port, and what is asked of it.
#[derive(Debug)]
pub(crate) struct Target {
    port: u16,
    /// Else it is enough that something listens.
    page: Option<Page>,
}

/// A page of an HTTP server, and the statuses that count.
#[derive(Debug)]
struct Page {
    path: String,
    statuses: RangeInclusive<u16>,
}

/// A target that answered: with this status, when it was asked for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) status: Option<u16>,
}

/// Tries until it works; gives up after the first try that began after `end`.
pub(crate) async fn poll(target: &Target, end: impl Future<Output = ()>) -> Option<Reached> {
    let mut end = pin!(end);
    let mut has_ended = false;
    let mut pause = FIRST_PAUSE;
    loop {
        let reached = target.probe().await;
        if has_ended || reached.is_some() {
            return reached;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 3 / 2).min(LAST_PAUSE),
            () = &mut end => has_ended = true,
        }
    }
}

/// Connects to whatever listens on `port` of loopback, IPv4 before IPv6.
pub(super) async fn connect(port: u16) -> io::Result<TcpStream> {
    let [v4, v6] = addresses(port);
    match connect_to(v4).await {
        Ok(stream) => Ok(stream),
        // What is said of IPv4 is what most people can do something with.
        Err(error) => connect_to(v6).await.map_err(|_also| error),
    }
}

fn addresses(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .map(|ip| SocketAddr::new(ip, port))
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT_WAIT, TcpStream::connect(address)).await?
}

impl Target {
    pub(crate) fn port(port: u16) -> Result<Self, ApiError> {
        if port == 0 {
            return Err(invalid("port", "a port is from 1 to 65535"));
        }
        Ok(Self { port, page: None })
    }

    pub(crate) fn page(
        port: u16,
        path: String,
        statuses: RangeInclusive<u16>,
    ) -> Result<Self, ApiError> {
        check_length("until.path", &path)?;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = "a path begins with a slash and is written in visible ASCII, the rest \
                percent-encoded";
            return Err(invalid("until.path", text));
        }
        let is_status = |status| STATUSES.contains(status);
        if statuses.is_empty() || !is_status(statuses.start()) || !is_status(statuses.end()) {
            let text = "statusMin and statusMax are statuses of HTTP, 100 to 599, in this order";
            return Err(invalid("until.statusMin", text));
        }
        Ok(Self { page: Some(Page { path, statuses }), ..Self::port(port)? })
    }

    async fn probe(&self) -> Option<Reached> {
        for address in addresses(self.port) {
            let Some(page) = &self.page else {
                if connect_to(address).await.is_ok() {
                    return Some(Reached { status: None });
                }
                continue;
            };
            let answer = timeout(ANSWER_WAIT, page.ask(address)).await;
            if let Ok(Ok(Some(status))) = answer
                && page.statuses.contains(&status)
            {
                return Some(Reached { status: Some(status) });
            }
        }
        None
    }
}

impl Page {
    async fn ask(&self, address: SocketAddr) -> io::Result<Option<u16>> {
        let (path, port) = (&self.path, address.port());
        let mut stream = connect_to(address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        let mut stream = stream.take(ANSWER_BYTES as u64);
        while !answer.contains(&b'\n') && stream.read_buf(&mut answer).await? > 0 {}
        Ok(status(&answer))
    }
}

/// The status on the first line of an answer, RFC 9112 section 4.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.page {
            None => write!(f, "port {port}"),
            Some(Page { path, statuses }) => {
                let (low, high) = (statuses.start(), statuses.end());
                write!(f, "a status from {low} to {high} of http://localhost:{port}{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_on_the_first_line() {
        for (answer, expected) in [
            (&b"HTTP/1.1 204 No Content\r\nX: 1\r\n"[..], Some(204)),
            (b"HTTP/1.0 500\n", Some(500)),
            (b"HTTP/1.1 2", None),
            (b"SSH-2.0-OpenSSH", None),
            (b"", None),
            (b"\nHTTP/1.1 200 OK", None),
        ] {
            assert_eq!(status(answer), expected);
        }
    }

    #[test]
    fn what_is_no_path_or_no_status_is_refused() {
        let check = |path: &str, statuses| Target::page(1, path.to_owned(), statuses).is_ok();
        assert!(check("/a?b=%20c", 200..=200));
        for path in ["", "a", "/a b", "/a\r\nX: y", "/ä"] {
            assert!(!check(path, 200..=299), "{path:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "what must be refused")]
        let reversed = 300..=200;
        for statuses in [0..=200, 200..=600, reversed] {
            assert!(!check("/", statuses));
        }
    }
}
