//! What a command that fails is told of what the network refused.

use serde_json::{Value, json};
use testkit::Server;

use super::world::{PUBLIC, World, refused};

/// The result of a Python program in a sandbox, which is created on first use.
fn result(server: &Server, options: &[&str], program: &str) -> Value {
    let start = [&["exec", "--json"], options, &["s", "--", "python3", "-c", program]].concat();
    let output = server.command(start).output().expect("the binary starts");
    serde_json::from_slice(&output.stdout).expect("a result is JSON")
}

/// Fails as its connection does.
fn attempt(host: &str, port: u16) -> String {
    format!("import socket; socket.create_connection(('{host}', {port}), 60)")
}

#[test]
fn a_command_that_fails_is_told_what_the_policy_refused() {
    let world = World::new();
    let server = world.server();

    let told = result(&server, &[], &attempt("192.168.77.1", 80));
    assert_eq!(told["exitCode"], 1);
    let expected = json!({"connections": 1, "destinations": ["192.168.77.1:80/tcp"]});
    assert_eq!(told["refused"], expected);
    // In a session, and of other protocols; the newest comes first.
    let several = "import socket\n\
        def udp(kind, host, data):\n \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, kind); s.settimeout(60)\n \
         s.connect((host, 5000)); s.send(data)\n \
         try: s.recv(9)\n \
         except OSError: pass\n\
        udp(0, '10.99.0.1', b'x'); udp(1, '172.16.5.5', bytes([8, 0, 0, 0, 0, 0, 0, 1]))\n\
        socket.create_connection(('169.254.169.254', 443), 60)";
    let told = result(&server, &["--session", "one"], several);
    let destinations = ["169.254.169.254:443/tcp", "172.16.5.5/icmp", "10.99.0.1:5000/udp"];
    assert_eq!(told["refused"], json!({"connections": 3, "destinations": destinations}));
    // As people see it.
    let program = attempt("10.99.0.1", 22);
    let output = server.command(["exec", "s", "--", "python3", "-c", &program]).output();
    let complaint = String::from_utf8(output.expect("the binary starts").stderr).unwrap();
    let told =
        "the network policy refused 1 connection of the sandbox meanwhile, to 10.99.0.1:22/tcp";
    assert!(complaint.contains(told), "{complaint}");
    assert_eq!(refused(&server, "s").0, 5);
}

#[test]
fn a_command_that_fails_is_told_which_names_the_policy_refused() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test"]}));

    let told = result(&server, &[], &attempt("Secret.Evil.test", 80));
    assert_eq!(told["exitCode"], 1);
    let expected = json!({"connections": 0, "destinations": [], "names": ["secret.evil.test"]});
    assert_eq!(told["refused"], expected);
    // Over TCP, which the router does not answer, among questions that are allowed; of a name that is no
    // host's; and with a connection.
    let several = "import socket, struct\n\
        server = next(l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver'))\n\
        def ask(stream, *labels):\n \
         name = b''.join(bytes([len(label)]) + label for label in labels) + b'\\0'\n \
         query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + name + b'\\0\\1\\0\\1'\n \
         stream.sendall(struct.pack('>H', len(query)) + query)\n \
         length, = struct.unpack('>H', stream.recv(2, socket.MSG_WAITALL))\n \
         return stream.recv(length, socket.MSG_WAITALL)[3] & 15\n\
        stream = socket.create_connection((server, 53))\n\
        codes = [ask(stream, b'good', b'test'), ask(stream, b'a', b'test'), ask(stream, b'GOOD', b'test'),\n \
         ask(stream, b'x.\\x1b[1m', b'b', b'test'), ask(stream, b'good', b'test')]\n\
        assert codes == [2, 3, 2, 3, 2], codes\n\
        socket.create_connection(('203.0.113.11', 443), 60)";
    let told = result(&server, &[], several);
    let names = ["x\\046\\027\\0911m.b.test", "a.test"];
    let destinations = ["203.0.113.11:443/tcp"];
    let expected = json!({"connections": 1, "destinations": destinations, "names": names});
    assert_eq!(told["refused"], expected, "{}", told["stderr"]);
    // As people see it.
    let program = attempt("pypi.test", 443);
    let output = server.command(["exec", "s", "--", "python3", "-c", &program]).output();
    let complaint = String::from_utf8(output.expect("the binary starts").stderr).unwrap();
    let told = "the network policy refused to look up pypi.test";
    assert!(complaint.contains(told), "{complaint}");
    // Who asks for nothing else fails for itself.
    let allowed = result(&server, &[], &attempt("good.test", 81));
    assert_eq!((&allowed["exitCode"], &allowed["refused"]), (&json!(1), &Value::Null));
    let output = server.command(["inspect", "s"]).output().expect("the binary starts");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("\n          pypi.test\n"), "{page}");
}

#[test]
fn who_is_refused_by_others_or_fails_for_itself_is_told_nothing() {
    let world = World::new();
    let server = world.server();
    // Whoever talks to the sandbox begins with all the hops there are.
    let hops = world.on_router("echo 255 > /proc/sys/net/ipv4/ip_default_ttl");
    assert!(hops.is_some(), "the router's packets have all their hops");

    let closed = result(&server, &[], &attempt(PUBLIC, 81));
    assert_eq!((&closed["exitCode"], &closed["refused"]), (&json!(1), &Value::Null));
    // Of its own network, with as many hops.
    let here = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255); s.sendto(b'x', ('127.0.0.1', 9))\n\
        s = socket.socket(); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)\n\
        s.connect(('127.0.0.1', 9))";
    let here = result(&server, &[], here);
    assert_eq!((&here["exitCode"], &here["refused"]), (&json!(1), &Value::Null));
    // It succeeds in spite of a refusal, and what comes after has none of its own.
    let tried = format!("try: {}\nexcept OSError: pass", attempt("192.168.77.1", 80));
    let tried = result(&server, &[], &tried);
    assert_eq!((&tried["exitCode"], &tried["refused"]), (&json!(0), &Value::Null));
    let later = result(&server, &[], "raise SystemExit(7)");
    assert_eq!((&later["exitCode"], &later["refused"]), (&json!(7), &Value::Null));
    assert_eq!(refused(&server, "s").0, 1);
}

#[test]
fn more_refusals_than_there_is_room_for_are_told_as_at_least_so_many() {
    let world = World::new();
    let server = world.server();
    let many = "import socket\n\
        for port in range(1, 2001):\n \
         s = socket.socket(); s.connect_ex(('10.99.0.1', port)); s.close()\n\
        raise SystemExit(1)";

    let told = result(&server, &[], many);
    let connections = told["refused"]["connections"].as_u64().expect("some were refused");
    assert!((20..=2000).contains(&connections), "{connections}");
    assert_eq!(told["refused"]["destinations"].as_array().map(Vec::len), Some(8));
    assert_eq!(refused(&server, "s").0, 2000);
    // None of them is the next one's.
    let next = result(&server, &[], &attempt("10.99.0.1", 80));
    let expected = json!({"connections": 1, "destinations": ["10.99.0.1:80/tcp"]});
    assert_eq!(next["refused"], expected);
}
