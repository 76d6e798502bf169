use api::network::NetworkPolicy;

use super::{
    asker::tests::{listed, settings},
    message::tests::{answer, query},
    *,
};

/// One sandbox, and what was asked of the firewall for it.
#[derive(Debug)]
struct OneSandbox {
    asker: Arc<Asker>,
    learned: Mutex<Vec<(u64, Vec<Learned>)>>,
}

impl OneSandbox {
    fn with(network: NetworkPolicy) -> Arc<Self> {
        let asker = Arc::new(Asker::new(JailId(1), &settings(network, 1)));
        Arc::new(Self { asker, learned: Mutex::default() })
    }
}

impl Gate for OneSandbox {
    fn asker(&self, _: IpAddr) -> Option<Arc<Asker>> {
        Some(Arc::clone(&self.asker))
    }

    async fn learn(
        &self,
        _: JailId,
        revision: u64,
        learned: Vec<Learned>,
    ) -> Result<bool, LaunchError> {
        self.learned.lock().unwrap().push((revision, learned));
        // Revision 1 is no longer in force: the policy is about to change.
        if revision == 1 {
            self.asker.set_policy(&settings(listed(&["good.test:80/tcp"]), 2));
        }
        Ok(revision > 1)
    }
}

/// A resolver that asks `servers`, and its address.
fn resolver(servers: Vec<SocketAddr>) -> SocketAddr {
    resolver_for(OneSandbox::with(NetworkPolicy::Internet), servers)
}

fn resolver_for(gate: Arc<OneSandbox>, servers: Vec<SocketAddr>) -> SocketAddr {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = NameSockets::bind_at(any).unwrap();
    let resolver = Resolver::on(sockets, Upstreams::fixed(servers), gate).unwrap();
    let address = resolver.udp.local_addr().unwrap();
    tokio::spawn(async move { resolver.serve(&TaskTracker::new()).await });
    address
}

async fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut datagram = vec![0; 5000];
    let length = tokio::time::timeout(Duration::from_secs(60), socket.recv(&mut datagram)).await;
    datagram.truncate(length.unwrap().unwrap());
    datagram
}

#[tokio::test]
async fn a_datagram_is_answered_under_its_own_id_and_asked_under_another() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = client(resolver(vec![upstream.local_addr().unwrap()])).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        client.send(&query(7, "example.org")).await.unwrap();
        let mut asked = vec![0; 512];
        let (length, from) = upstream.recv_from(&mut asked).await.unwrap();
        asked.truncate(length);
        ids.push([asked[0], asked[1]]);
        assert_eq!(asked[2..], query(7, "example.org")[2..]);
        // Guesses of somebody who knows the question but not the id, and of one who knows the id.
        let wrong = [asked[0], asked[1] ^ 1];
        upstream.send_to(&message::with_id(answer(&asked, b"bad"), wrong), from).await.unwrap();
        let id = u16::from_be_bytes([asked[0], asked[1]]);
        upstream.send_to(&answer(&query(id, "example.com"), b"bad"), from).await.unwrap();
        upstream.send_to(&answer(&asked, b"good"), from).await.unwrap();
        assert_eq!(receive(&client).await, answer(&query(7, "example.org"), b"good"));
    }
    ids.dedup();
    assert!(ids.len() > 1, "three random ids are not all the same");
}

#[tokio::test]
async fn what_no_rule_allows_is_answered_here_and_passed_on_to_nobody() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gate = OneSandbox::with(listed(&["good.test"]));
    let resolver = resolver_for(Arc::clone(&gate), vec![upstream.local_addr().unwrap()]);
    let client = client(resolver).await;
    client.send(&query(7, "secret.evil.test")).await.unwrap();
    assert_eq!(receive(&client).await, message::no_such_name(&query(7, "secret.evil.test")));

    client.send(&query(8, "good.test")).await.unwrap();
    let mut asked = vec![0; 512];
    let (length, _) = upstream.recv_from(&mut asked).await.unwrap();
    assert_eq!(asked[2..length], query(8, "good.test")[2..], "the first thing that is passed on");
    assert_eq!(gate.asker.refused_names(), (1, vec!["secret.evil.test".to_owned()]));
}

#[tokio::test]
async fn addresses_are_let_through_before_the_answer_and_under_the_policy_in_force() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gate = OneSandbox::with(listed(&["good.test"]));
    let resolver = resolver_for(Arc::clone(&gate), vec![upstream.local_addr().unwrap()]);
    let client = client(resolver).await;
    client.send(&query(7, "good.test")).await.unwrap();
    // Asked twice: the first time, the policy changes under the question.
    for _ in 0..2 {
        let mut asked = vec![0; 512];
        let (length, from) = upstream.recv_from(&mut asked).await.unwrap();
        asked.truncate(length);
        let mut answer = answer(&asked, b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xcb\0\x71\x0a");
        answer[7] = 1;
        upstream.send_to(&answer, from).await.unwrap();
    }
    assert_eq!(receive(&client).await[3] & 0x0f, 0);
    let address = Ipv4Addr::new(203, 0, 113, 10);
    let any = Learned { address, service: None, seconds: 300 };
    let web = Learned { service: Some((jail::Protocol::Tcp, 80)), ..any };
    assert_eq!(*gate.learned.lock().unwrap(), [(1, vec![any]), (2, vec![web])]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_lets_nothing_through() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gate = OneSandbox::with(listed(&["good.test"]));
    let resolver = resolver_for(Arc::clone(&gate), vec![upstream.local_addr().unwrap()]);
    let client = client(resolver).await;
    client.send(&query(7, "good.test")).await.unwrap();
    let mut asked = vec![0; 512];
    let (length, from) = upstream.recv_from(&mut asked).await.unwrap();
    let mut answer = answer(&asked[..length], b"nonsense");
    answer[7] = 1;
    upstream.send_to(&answer, from).await.unwrap();
    assert_eq!(receive(&client).await, message::failure(&query(7, "good.test")));
    assert!(gate.learned.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_gone_and_a_failure_told_when_all_are() {
    // Bound and dropped: nobody is there.
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let one_left = client(resolver(vec![gone, upstream.local_addr().unwrap()])).await;
    one_left.send(&query(7, "a.b")).await.unwrap();
    let mut asked = vec![0; 512];
    let (length, from) = upstream.recv_from(&mut asked).await.unwrap();
    upstream.send_to(&answer(&asked[..length], b"x"), from).await.unwrap();
    assert_eq!(receive(&one_left).await, answer(&query(7, "a.b"), b"x"));

    let none_left = client(resolver(vec![gone])).await;
    none_left.send(&query(7, "a.b")).await.unwrap();
    assert_eq!(receive(&none_left).await, message::failure(&query(7, "a.b")));
}

#[tokio::test]
async fn nonsense_is_ignored_and_does_not_end_the_server() {
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = resolver(vec![upstream.local_addr().unwrap()]);
    let client = client(address).await;
    for nonsense in [&b""[..], b"x", &[0xff; 2000], &answer(&query(1, "a"), b"")] {
        client.send(nonsense).await.unwrap();
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0, 1, 9]).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

    client.send(&query(7, "a")).await.unwrap();
    let mut asked = vec![0; 512];
    let (length, _) = upstream.recv_from(&mut asked).await.unwrap();
    assert_eq!(asked[2..length], query(7, "a")[2..], "the first thing that is passed on");
}

#[tokio::test]
async fn streams_carry_answers_of_any_length_one_after_the_other() {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = upstream.local_addr().unwrap();
    let long = vec![b'x'; 60_000];
    let records = long.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = upstream.accept().await.unwrap();
            let asked = read_message(&mut stream).await.unwrap();
            write_message(&mut stream, &answer(&asked, &records)).await.unwrap();
        }
    });
    let mut stream = TcpStream::connect(resolver(vec![address])).await.unwrap();
    for name in ["a.b", "c.d"] {
        write_message(&mut stream, &query(7, name)).await.unwrap();
        assert_eq!(read_message(&mut stream).await.unwrap(), answer(&query(7, name), &long));
    }
}

#[test]
fn one_client_cannot_take_every_place() {
    let load = Load::new();
    let [greedy, other] = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])];
    let places: Vec<_> = std::iter::from_fn(|| load.admit(greedy)).collect();
    assert_eq!(places.len(), IN_FLIGHT_PER_SANDBOX);
    assert!(load.admit(other).is_some());
    drop(places);
    assert!(load.admit(greedy).is_some());
    assert!(load.by_client.lock().unwrap().is_empty(), "nothing is kept of clients that are done");
}

#[test]
fn however_many_clients_are_greedy_another_may_ask() {
    let load = Load::new();
    let clients = (0..=255).map(|last| IpAddr::from([10, 0, 1, last]));
    let places: Vec<_> = clients
        .flat_map(|greedy| std::iter::from_fn(|| load.admit(greedy)).collect::<Vec<_>>())
        .collect();
    assert_eq!(places.len(), IN_FLIGHT + 256 * KEPT_PER_SANDBOX);

    let other = IpAddr::from([10, 0, 0, 2]);
    let own: Vec<_> = std::iter::from_fn(|| load.admit(other)).collect();
    assert_eq!(own.len(), KEPT_PER_SANDBOX);
    drop((places, own));
    assert!(load.by_client.lock().unwrap().is_empty(), "nothing is kept of clients that are done");
}
