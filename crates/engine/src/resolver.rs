//! The name server of sandboxes that have a network: forwards their queries to the servers that
//! the host itself uses, or that the operator names.
//!
//! It listens on the gateway's address, which is the only thing of the host that a sandbox can
//! reach. Who asks is known by the source address, which the firewall checks. Names are part of the
//! network policy: under an allow-list, what no rule allows is answered here and passed on to
//! nobody, and the addresses in an answer can be reached before the answer is sent.
//!
//! Queries are hostile input, answers nearly so: of each, only the header and the question are
//! understood, and under an allow-list the addresses; an answer is passed on only to the question
//! it repeats.
//!
//! Does not: keep answers.

mod answer;
mod asker;
mod message;
mod upstream;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jail::{JailId, Learned, refusal::ALL_HOPS};

use sys::socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

pub(crate) use asker::Asker;

use crate::{launch::LaunchError, node::Node};
use asker::{Judgement, MOST_SECONDS};
use upstream::{Transport, Upstreams};

/// Port of DNS, RFC 1035.
const PORT: u16 = 53;

/// Queries under way for all sandboxes together, beside those of [`KEPT_PER_SANDBOX`]; each holds a
/// socket. Past it, queries are dropped (their senders ask again) and TCP connections are closed.
const IN_FLIGHT: usize = 512;

/// Queries under way that each sandbox may always have: without them, sixteen sandboxes that ask for
/// names of a slow server, or hold connections and say nothing, would keep all others from asking. A
/// library asks for one name at a time, in both kinds of addresses.
const KEPT_PER_SANDBOX: usize = 2;

/// Queries under way for one sandbox, so that one cannot keep the others from their answers.
const IN_FLIGHT_PER_SANDBOX: usize = 32;

/// How long a TCP connection may take for one query: the time a resolver library waits (5 s,
/// resolv.conf(5)) and the same again.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Queries on one TCP connection.
const TCP_QUERIES: usize = 64;

/// Times a question is judged anew because its sandbox's policy has changed meanwhile.
const ATTEMPTS: usize = 3;

/// What the resolver needs of the node.
trait Gate: Send + Sync + 'static {
    /// The sandbox with this address.
    fn asker(&self, address: IpAddr) -> Option<Arc<Asker>>;

    /// See [`jail::Launcher::learn`].
    fn learn(
        &self,
        jail: JailId,
        revision: u64,
        learned: Vec<Learned>,
    ) -> impl Future<Output = Result<bool, LaunchError>> + Send;
}

impl Gate for Node {
    fn asker(&self, address: IpAddr) -> Option<Arc<Asker>> {
        self.asker_at(address)
    }

    async fn learn(
        &self,
        jail: JailId,
        revision: u64,
        learned: Vec<Learned>,
    ) -> Result<bool, LaunchError> {
        let learn = move |launcher: &mut jail::Launcher| launcher.learn(jail, revision, learned);
        self.network.call(learn, |_, _| {}).await
    }
}

/// Sockets on which names are asked for: to be taken by root, whose the port is, once the gateway has its
/// address.
#[derive(Debug)]
pub struct NameSockets {
    tcp: std::net::TcpListener,
    udp: std::net::UdpSocket,
}

impl NameSockets {
    /// Those of the name server on `gateway`.
    ///
    /// # Errors
    /// When another program has the port.
    pub fn bind(gateway: Ipv4Addr) -> io::Result<Self> {
        Self::bind_at(SocketAddr::from((gateway, PORT)))
    }

    fn bind_at(address: SocketAddr) -> io::Result<Self> {
        let tcp = std::net::TcpListener::bind(address)?;
        // The same port where `address` leaves it open.
        let udp = std::net::UdpSocket::bind(tcp.local_addr()?)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Self { tcp, udp })
    }
}

/// Starts the name server on the sockets of `gateway`. Without it names do not resolve, but everything
/// else works: a failure is a warning.
pub(crate) fn spawn(node: &Arc<Node>, gateway: Ipv4Addr, sockets: io::Result<NameSockets>) {
    let upstreams = match &node.config.name_servers[..] {
        [] => Upstreams::of_host(IpAddr::V4(gateway)),
        servers => Upstreams::fixed(servers.iter().map(|it| SocketAddr::new(*it, PORT)).collect()),
    };
    let gate = Arc::clone(node);
    match sockets.and_then(|sockets| Resolver::on(sockets, upstreams, gate)) {
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
struct Resolver<G> {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    office: Arc<Office<G>>,
    load: Load,
}

/// Whom to ask, and what may be asked.
#[derive(Debug)]
struct Office<G> {
    upstreams: Upstreams,
    gate: Arc<G>,
}

impl<G: Gate> Resolver<G> {
    fn on(sockets: NameSockets, upstreams: Upstreams, gate: Arc<G>) -> io::Result<Self> {
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
        let office = Arc::new(Office { upstreams, gate });
        Ok(Self { udp, tcp, office, load: Load::new() })
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
        let Some(asker) = self.office.gate.asker(client.ip()) else { return };
        if !asker.may_ask(Instant::now()) {
            return;
        }
        let Some(place) = self.load.admit(client.ip()) else { return };
        let (udp, office) = (Arc::clone(&self.udp), Arc::clone(&self.office));
        queries.spawn(async move {
            // Who no longer listens does not need it.
            match (office.answer(&asker, &query, Transport::Udp).await, client) {
                (Some(Answer::Refusal(answer)), SocketAddr::V4(client)) => {
                    let send = || {
                        let sent = socket::send_with_hops(udp.as_fd(), &answer, client, ALL_HOPS);
                        sent.map_err(io::Error::from)
                    };
                    drop(udp.async_io(Interest::WRITABLE, send).await);
                }
                (Some(Answer::Refusal(answer) | Answer::Other(answer)), client) => {
                    drop(udp.send_to(&answer, client).await);
                }
                (None, _) => {}
            }
            drop(place);
        });
    }

    fn answer_stream(&self, queries: &TaskTracker, stream: TcpStream, client: SocketAddr) {
        let Some(asker) = self.office.gate.asker(client.ip()) else { return };
        let Some(place) = self.load.admit(client.ip()) else { return };
        let office = Arc::clone(&self.office);
        queries.spawn(async move {
            // Hung up, late or malformed: the connection closes, which is all there is to say.
            drop(office.serve_stream(&asker, stream).await);
            drop(place);
        });
    }
}

/// What is sent back.
#[derive(Debug)]
enum Answer {
    /// The policy does not allow the name. It goes with [`ALL_HOPS`], so that who looks for refusals
    /// in the sandbox knows it.
    Refusal(Vec<u8>),
    /// Anything else.
    Other(Vec<u8>),
}

impl<G: Gate> Office<G> {
    /// Answers the queries of one connection in turn; each comes after its length in two bytes.
    async fn serve_stream(&self, asker: &Asker, mut stream: TcpStream) -> io::Result<()> {
        // An answer leaves as it is written, with the hops of that moment.
        stream.set_nodelay(true)?;
        for _ in 0..TCP_QUERIES {
            let query = tokio::time::timeout(TCP_TIMEOUT, read_message(&mut stream)).await??;
            if !message::is_query(&query) || !asker.may_ask(Instant::now()) {
                return Ok(());
            }
            let Some(answer) = self.answer(asker, &query, Transport::Tcp).await else {
                return Ok(());
            };
            let (Answer::Refusal(message) | Answer::Other(message)) = &answer;
            let hops = stream.ttl()?;
            if matches!(answer, Answer::Refusal(_)) {
                stream.set_ttl(ALL_HOPS.into())?;
            }
            tokio::time::timeout(TCP_TIMEOUT, write_message(&mut stream, message)).await??;
            stream.set_ttl(hops)?;
        }
        Ok(())
    }

    /// The answer to a query; none where silence is the answer.
    async fn answer(&self, asker: &Asker, query: &[u8], transport: Transport) -> Option<Answer> {
        let failure = || Some(Answer::Other(message::failure(query)));
        for _ in 0..ATTEMPTS {
            let (name, revision) = match asker.judge(query) {
                Judgement::Ignore => return None,
                Judgement::Refuse => return Some(Answer::Refusal(message::no_such_name(query))),
                Judgement::Pass => {
                    let answer = self.upstreams.ask(query, transport).await;
                    return answer.map_or_else(failure, |answer| Some(Answer::Other(answer)));
                }
                Judgement::Learn(name, revision) => (name, revision),
            };
            let Some(mut answer) = self.upstreams.ask(query, transport).await else { break };
            let Some(addresses) = answer::addresses(&mut answer, MOST_SECONDS) else { break };
            let Some(learned) = asker.learned(&name, revision, &addresses) else { continue };
            let is_in_force = learned.is_empty()
                || match self.gate.learn(asker.jail(), revision, learned).await {
                    Ok(is_in_force) => is_in_force,
                    Err(error) => {
                        tracing::debug!(jail = %asker.jail(),
                            error = &error as &dyn std::error::Error,
                            "the addresses of a name cannot be let through");
                        break;
                    }
                };
            if is_in_force && asker.remember(&name, revision, &addresses) {
                return Some(Answer::Other(answer));
            }
        }
        failure()
    }
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
    /// None: it is one of those that its client may always have.
    _one_of_all: Option<OwnedSemaphorePermit>,
}

impl Load {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(IN_FLIGHT)), by_client: Arc::default() }
    }

    /// None: there are enough.
    fn admit(&self, client: IpAddr) -> Option<Place> {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_client.get(&client).copied().unwrap_or(0);
        let one_of_all = match count {
            0..KEPT_PER_SANDBOX => None,
            IN_FLIGHT_PER_SANDBOX.. => return None,
            _ => Some(Arc::clone(&self.all).try_acquire_owned().ok()?),
        };
        by_client.insert(client, count + 1);
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
