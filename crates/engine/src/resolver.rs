//! The name server of sandboxes that have a network: forwards their queries to the servers that
//! the host itself uses.
//!
//! It listens on the gateway's address, which is the only thing of the host that a sandbox can
//! reach. Queries are hostile input, answers nearly so: of each, only the header and the question
//! are understood, and an answer is passed on only to the question it repeats.
//!
//! Does not: keep answers, or decide which names may be asked for.

mod message;
mod upstream;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

use crate::node::Node;
use upstream::{Transport, Upstreams};

/// Port of DNS, RFC 1035.
const PORT: u16 = 53;

/// Queries under way for all sandboxes together; each holds a socket. Past it, UDP queries are
/// dropped (their senders ask again) and TCP connections wait.
const IN_FLIGHT: usize = 512;

/// Queries under way for one sandbox, so that one cannot keep the others from their answers.
const IN_FLIGHT_PER_SANDBOX: usize = 32;

/// How long a TCP connection may take for one query: the time a resolver library waits (5 s,
/// resolv.conf(5)) and the same again.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Queries on one TCP connection.
const TCP_QUERIES: usize = 64;

/// Starts the name server on `gateway`. Without it names do not resolve, but everything else
/// works: a failure is a warning.
pub(crate) async fn spawn(node: &Arc<Node>, gateway: Ipv4Addr) {
    let upstreams = Upstreams::of_host(IpAddr::V4(gateway));
    match Resolver::bind(SocketAddr::from((gateway, PORT)), upstreams).await {
        Ok(resolver) => {
            let (owner, queries) = (Arc::clone(node), node.watchers.clone());
            node.watchers.spawn(async move {
                tokio::select! {
                    () = owner.ending.cancelled() => {}
                    () = resolver.serve(&queries) => {}
                }
            });
        }
        Err(error) => tracing::warn!(
            %gateway, %error,
            "the name server for sandboxes cannot listen on port 53; names will not resolve in them"
        ),
    }
}

#[derive(Debug)]
struct Resolver {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    upstreams: Arc<Upstreams>,
    load: Load,
}

impl Resolver {
    async fn bind(address: SocketAddr, upstreams: Upstreams) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        // The same port where `address` leaves it open.
        let udp = Arc::new(UdpSocket::bind(tcp.local_addr()?).await?);
        Ok(Self { udp, tcp, upstreams: Arc::new(upstreams), load: Load::new() })
    }

    /// Serves for ever. Each query is a task of `queries` that ends within its timeouts.
    async fn serve(self, queries: &TaskTracker) {
        let mut datagram = [0; message::UDP_BYTES];
        loop {
            tokio::select! {
                received = self.udp.recv_from(&mut datagram) => match received {
                    Ok((length, client)) => {
                        let query = datagram.get(..length).unwrap_or_default().to_vec();
                        self.answer_datagram(queries, query, client);
                    }
                    Err(error) => pause(&error).await,
                },
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, client)) => self.answer_stream(queries, stream, client),
                    Err(error) => pause(&error).await,
                },
            }
        }
    }

    fn answer_datagram(&self, queries: &TaskTracker, query: Vec<u8>, client: SocketAddr) {
        if !message::is_query(&query) {
            return;
        }
        let Some(place) = self.load.admit(client.ip()) else { return };
        let (udp, upstreams) = (Arc::clone(&self.udp), Arc::clone(&self.upstreams));
        queries.spawn(async move {
            let answer = upstreams.ask(&query, Transport::Udp).await;
            let answer = answer.unwrap_or_else(|| message::failure(&query));
            // Who no longer listens does not need it.
            drop(udp.send_to(&answer, client).await);
            drop(place);
        });
    }

    fn answer_stream(&self, queries: &TaskTracker, stream: TcpStream, client: SocketAddr) {
        let Some(place) = self.load.admit(client.ip()) else { return };
        let upstreams = Arc::clone(&self.upstreams);
        queries.spawn(async move {
            // Hung up, late or malformed: the connection closes, which is all there is to say.
            drop(serve_stream(stream, &upstreams).await);
            drop(place);
        });
    }
}

/// Answers the queries of one connection in turn; each comes after its length in two bytes.
async fn serve_stream(mut stream: TcpStream, upstreams: &Upstreams) -> io::Result<()> {
    for _ in 0..TCP_QUERIES {
        let query = tokio::time::timeout(TCP_TIMEOUT, read_message(&mut stream)).await??;
        if !message::is_query(&query) {
            return Ok(());
        }
        let answer = upstreams.ask(&query, Transport::Tcp).await;
        let answer = answer.unwrap_or_else(|| message::failure(&query));
        tokio::time::timeout(TCP_TIMEOUT, write_message(&mut stream, &answer)).await??;
    }
    Ok(())
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// After an error of a listening socket (out of descriptors, or a client that is gone) the next
/// call may fail at once as well: without a pause the loop would take a processor.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the name server for sandboxes");
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Who has how many queries under way.
#[derive(Debug)]
struct Load {
    all: Arc<Semaphore>,
    by_client: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One query's place; given back when it is dropped.
#[derive(Debug)]
struct Place {
    client: IpAddr,
    by_client: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _one_of_all: OwnedSemaphorePermit,
}

impl Load {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(IN_FLIGHT)), by_client: Arc::default() }
    }

    /// None: there are enough.
    fn admit(&self, client: IpAddr) -> Option<Place> {
        let one_of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_client.entry(client).or_default();
        if *count == IN_FLIGHT_PER_SANDBOX {
            return None;
        }
        *count += 1;
        Some(Place { client, by_client: Arc::clone(&self.by_client), _one_of_all: one_of_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests;
