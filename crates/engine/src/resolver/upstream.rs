//! The name servers that are asked, and one question to them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::net::{TcpStream, UdpSocket};

use super::{PORT, message, read_message, write_message};

/// Where the host says which name servers it uses, resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How long what was read there holds: a laptop that changes networks has names again after it.
const RELOAD_AFTER: Duration = Duration::from_secs(10);

/// Name servers used, as many as the C library uses.
const SERVERS: usize = 3;

/// How long one name server may take over UDP before the next is asked: together less than the
/// 5 s that a client waits before it asks again.
const UDP_TIMEOUT: Duration = Duration::from_millis(1500);

/// The same over TCP, which needs two more round trips.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Datagrams of a name server that may be something else than the answer. More is an attempt to
/// guess one.
const STRAY_DATAGRAMS: usize = 8;

/// How a question travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The name servers of the host, or those that the operator names.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// Our own address, which must not be asked.
    own: IpAddr,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    servers: Vec<SocketAddr>,
    /// None: these do not change.
    reload_at: Option<Instant>,
}

impl Upstreams {
    /// Those that the host's resolv.conf names.
    pub(super) fn of_host(own: IpAddr) -> Self {
        // Read before the first query: while it is read again, queries use what is known.
        let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let reload_at = Some(Instant::now() + RELOAD_AFTER);
        Self { own, known: Mutex::new(Known { servers: parse(&text, own), reload_at }) }
    }

    /// These.
    pub(super) fn fixed(servers: Vec<SocketAddr>) -> Self {
        let known = Known { servers, reload_at: None };
        Self { own: IpAddr::V4(Ipv4Addr::UNSPECIFIED), known: Mutex::new(known) }
    }

    /// The answer of the first server that gives one, under the query's id.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let own_id: [u8; 2] = query.get(..2)?.try_into().ok()?;
        for server in self.servers().await {
            let mut id = [0; 2];
            getrandom::fill(&mut id).ok()?;
            let question = message::with_id(query.to_vec(), id);
            let answer = match transport {
                Transport::Udp => {
                    tokio::time::timeout(UDP_TIMEOUT, ask_by_udp(server, &question)).await
                }
                Transport::Tcp => {
                    tokio::time::timeout(TCP_TIMEOUT, ask_by_tcp(server, &question)).await
                }
            };
            if let Ok(Ok(answer)) = answer {
                return Some(message::with_id(answer, own_id));
            }
        }
        None
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if known.reload_at.is_none_or(|time| now < time) {
                return known.servers.clone();
            }
            // Those who ask while one reads go on with what is known.
            known.reload_at = Some(now + RELOAD_AFTER);
        }
        let text = tokio::fs::read_to_string(Path::new(RESOLV_CONF)).await.unwrap_or_default();
        let servers = parse(&text, self.own);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).servers.clone_from(&servers);
        servers
    }
}

/// The servers of a resolv.conf; the machine's own when it names none, as the C library does.
fn parse(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_ascii_whitespace().next())
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .filter(|address| *address != own)
        .map(|address| SocketAddr::from((address, PORT)))
        .take(SERVERS)
        .collect();
    if servers.is_empty() {
        return vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))];
    }
    servers
}

async fn ask_by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket per question: the kernel picks its port at random and, once connected, takes only
    // datagrams from the server.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut datagram = vec![0; message::UDP_BYTES];
    for _ in 0..STRAY_DATAGRAMS {
        let length = socket.recv(&mut datagram).await?;
        let received = datagram.get(..length).unwrap_or_default();
        if message::is_answer(question, received) {
            datagram.truncate(length);
            return Ok(datagram);
        }
    }
    Err(io::Error::other("only datagrams that answer something else"))
}

async fn ask_by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    let answer = read_message(&mut stream).await?;
    if message::is_answer(question, &answer) {
        return Ok(answer);
    }
    Err(io::Error::other("an answer to something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_of_resolv_conf() {
        let own = IpAddr::from([10, 0, 0, 1]);
        let text = "# x\nsearch a.b\nnameserver 10.0.0.1\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1\nnameserver fe80::1%eth0\nnameserver x\n\
                    nameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let servers: Vec<_> = parse(text, own).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(parse("", own)[0].to_string(), "127.0.0.1:53");
    }
}
