//! The network of sandboxes, against hosts in a network namespace of the test's own.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Answer, Server};

use crate::server;

/// A TCP server on the host that answers `reached`, and its port.
fn host_service(address: &str) -> u16 {
    let listener = std::net::TcpListener::bind((address, 0)).expect("the host can listen");
    let port = listener.local_addr().expect("it has an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::io::Write::write_all(&mut &stream, b"reached").unwrap_or_default();
        }
    });
    port
}

async fn connect(server: &Server, id: &str, host: &str, port: u16) -> String {
    let command =
        format!("timeout 2 bash -c 'cat < /dev/tcp/{host}/{port}' 2>/dev/null || echo no");
    server.shell(id, &command).await
}

#[tokio::test]
async fn the_host_is_out_of_reach_on_all_its_addresses() {
    let server = server();
    let port = host_service("0.0.0.0");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "the service runs");
    let gateway = server.slot().subnet().replace(".0/24", ".1");
    let output = std::process::Command::new("hostname").arg("-I").output().expect("hostname runs");
    let own = String::from_utf8_lossy(&output.stdout).into_owned();

    for address in
        own.split_whitespace().filter(|a| !a.contains(':')).chain([gateway.as_str(), "127.0.0.1"])
    {
        assert_eq!(connect(&server, "s", address, port).await, "no\n", "{address}");
    }
}

#[tokio::test]
async fn sandboxes_cannot_reach_each_other() {
    let server = server();
    let listen = "python3 -m http.server 8000 --bind 0.0.0.0 >/dev/null 2>&1 & \
                  for i in $(seq 6000); do cat < /dev/null > /dev/tcp/127.0.0.1/8000 && exit 0; sleep 0.01; done 2>/dev/null; exit 1";
    server.shell("a", listen).await;
    let address = server.shell("a", "hostname -I").await;

    assert_eq!(connect(&server, "b", address.trim(), 8000).await, "no\n");
}

#[tokio::test]
async fn a_sandbox_without_a_network_has_loopback_only() {
    let server = server();
    server.post("/v1/sandboxes", &json!({"id": "s", "network": "none"})).await;

    assert_eq!(
        server.shell("s", "ls /proc/sys/net/ipv4/conf | grep -v -x -e all -e default").await,
        "lo\n"
    );
}

#[tokio::test]
async fn names_resolve_through_the_node() {
    let server = server();

    let resolver = server.shell("s", "cat /etc/resolv.conf").await;
    let gateway = server.slot().subnet().replace(".0/24", ".1");
    assert_eq!(resolver, format!("nameserver {gateway}\n"));
    // The node's resolver answers, whatever it says of this name.
    let ask = "import socket, struct\n\
               s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)\n\
               s.sendto(bytes.fromhex('abcd01000001000000000000') + b'\\x07invalid\\x00\\x00\\x01\\x00\\x01', \
               (open('/etc/resolv.conf').read().split()[1], 53))\n\
               print(s.recv(512)[:2].hex())";
    let body = json!({"command": ["python3", "-c", ask]});
    let answer = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(answer.json["stdout"], "abcd\n", "{}", answer.text);
}

async fn patch(server: &Server, id: &str, body: &Value) -> Answer {
    let request = server.request(Method::PATCH, &format!("/v1/sandboxes/{id}")).json(body);
    testkit::answer(request.send().await.expect("a response comes")).await
}

#[tokio::test]
async fn a_policy_is_a_word_or_a_list_and_is_shown_as_it_was_given() {
    let server = server();
    let list = json!({"allow": ["pypi.org:443", "*.example.com", "203.0.113.0/24:53/udp"]});

    for (id, network) in [("a", json!("internet")), ("b", json!("none")), ("c", list.clone())] {
        let created = server.post("/v1/sandboxes", &json!({"id": id, "network": network})).await;
        assert_eq!(created.status, 201, "{}", created.text);
        assert_eq!(created.json["network"], network);
        assert_eq!(server.get(&format!("/v1/sandboxes/{id}")).await.json["network"], network);
    }
    let unsaid = server.post("/v1/sandboxes", &json!({"id": "d"})).await;
    assert_eq!(unsaid.json["network"], "internet");

    let same = server.post("/v1/sandboxes", &json!({"id": "c", "network": list})).await;
    assert_eq!(same.status, 200);
    let other = server.post("/v1/sandboxes", &json!({"id": "c", "network": {"allow": []}})).await;
    assert_eq!((other.status, other.code()), (409, "SANDBOX_EXISTS"));
    assert_eq!(other.json["error"]["details"]["fields"], "network");
}

#[tokio::test]
async fn a_policy_changes_while_commands_run_and_is_kept() {
    let mut server = server();
    server.shell("s", "sleep 1000 > /dev/null 2>&1 & echo $! > /tmp/pid").await;
    let list = json!({"allow": ["good.example:443"]});

    let changed = patch(&server, "s", &json!({ "network": list })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!((&changed.json["network"], &changed.json["state"]), (&list, &json!("running")));
    server.shell("s", "kill -0 $(cat /tmp/pid)").await;
    // What is not given stays.
    assert_eq!(patch(&server, "s", &json!({})).await.json["network"], list);

    server.kill();
    server.restart();
    assert_eq!(server.get("/v1/sandboxes/s").await.json["network"], list);
    server.shell("s", "kill -0 $(cat /tmp/pid)").await;
}

#[tokio::test]
async fn changes_at_once_leave_one_of_them() {
    let server = server();
    server.shell("s", "true").await;
    let lists: Vec<Value> =
        (0..8).map(|n| json!({"allow": [format!("n{n}.example"), "203.0.113.0/24"]})).collect();

    let bodies: Vec<Value> = lists.iter().map(|list| json!({ "network": list })).collect();
    let changes = bodies.iter().map(|body| patch(&server, "s", body));
    let commands = (0..8).map(|_| server.shell("s", "echo on"));
    let (changes, outputs) = tokio::join!(
        futures_util::future::join_all(changes),
        futures_util::future::join_all(commands)
    );

    assert!(changes.iter().all(|change| change.status == 200));
    assert!(
        outputs.iter().all(|output| output == "on\n"),
        "a change keeps no command from running"
    );
    let last = server.get("/v1/sandboxes/s").await.json["network"].clone();
    assert!(lists.contains(&last), "{last}");
    let table = format!("sandbar_{}", server.slot().name());
    let rules = std::process::Command::new("nft").args(["list", "table", "inet", &table]).output();
    let rules = String::from_utf8_lossy(&rules.expect("nft runs").stdout).into_owned();
    assert_eq!(rules.matches("chain list_").count(), 1, "{rules}");
}

#[tokio::test]
async fn a_bad_policy_is_told_and_changes_nothing() {
    let server = server();
    server.shell("s", "true").await;
    let many: Vec<String> = (0..257).map(|n| format!("n{n}.example")).collect();
    for (network, told) in [
        (json!("moon"), "internet"),
        (json!(7), "internet"),
        (json!([]), "internet"),
        (json!({}), "allow"),
        (json!({"allow": "a.example"}), "sequence"),
        (json!({"allow": ["a.example"], "deny": []}), "deny"),
        (json!({"allow": ["localhost"]}), "localhost"),
        (json!({"allow": ["a.example:0"]}), "port"),
        (json!({"allow": ["::1"]}), "IPv6"),
        (json!({"allow": ["10.1.0.0/8"]}), "10.0.0.0/8"),
        (json!({"allow": ["192.168.0.0/24:80"]}), "private"),
        (json!({"allow": ["169.254.169.254"]}), "metadata"),
        (json!({"allow": ["mail.example:25"]}), "mail"),
        (json!({ "allow": many }), "256"),
    ] {
        for answer in [
            patch(&server, "s", &json!({ "network": network })).await,
            server.post("/v1/sandboxes", &json!({"id": "new", "network": network})).await,
        ] {
            assert_eq!((answer.status, answer.code()), (400, "VALIDATION_FAILED"), "{network}");
            let message = answer.json["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(told), "{network}: {message}");
        }
    }
    assert_eq!(patch(&server, "s", &json!({"image": "x"})).await.code(), "VALIDATION_FAILED");
    let unknown = patch(&server, "unknown", &json!({"network": "none"})).await;
    assert_eq!((unknown.status, unknown.code()), (404, "SANDBOX_NOT_FOUND"));
    assert_eq!(server.get("/v1/sandboxes/s").await.json["network"], "internet");
    assert_eq!(server.get("/v1/sandboxes/new").await.status, 404);
    assert_eq!(server.get("/v1/sandboxes/unknown").await.status, 404, "a change creates nothing");
}

#[tokio::test]
async fn what_was_refused_is_counted_per_sandbox_since_its_start() {
    let server = server();
    let refused = async |id: &str| {
        server.get(&format!("/v1/sandboxes/{id}")).await.json["usage"]["network"].clone()
    };
    server.shell("quiet", "true").await;
    let denied = "for n in 1 2 3; do timeout 5 bash -c 'true < /dev/tcp/192.168.77.1/80' 2>/dev/null && exit 1; done; true";
    server.shell("s", denied).await;

    assert_eq!(refused("s").await, json!({"refusedPackets": 3, "refusedNames": 0}));
    assert_eq!(refused("quiet").await, json!({"refusedPackets": 0, "refusedNames": 0}));
    patch(&server, "s", &json!({"network": {"allow": ["a.example"]}})).await;
    server.shell("s", "getent hosts b.example || true").await;
    let after = refused("s").await;
    assert_eq!(after["refusedPackets"], 3, "a change forgets nothing");
    assert!(after["refusedNames"].as_u64() >= Some(1), "{after}");
    assert_eq!(after["newestRefusedNames"], json!(["b.example"]));

    server.delete("/v1/sandboxes/s").await;
    server.shell("s", "true").await;
    assert_eq!(refused("s").await, json!({"refusedPackets": 0, "refusedNames": 0}));
}

/// The kernel's table of neighbours is one for all network namespaces of the machine, and small: what it
/// had to ask for is forgotten, or not even asked for, above 1,024 entries. What it was told is not
/// counted.
#[tokio::test]
async fn both_ends_of_a_link_are_known_for_ever() {
    const PERMANENT: &str = "0x6";
    let server = server();
    let inside = server.shell("a", "cat /proc/net/arp").await;
    let outside = std::fs::read_to_string("/proc/net/arp").unwrap();
    let link = format!("{}-", server.slot().name());
    for (table, device) in [(&inside, "eth0"), (&outside, link.as_str())] {
        let entries = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours: Vec<_> = entries.filter(|entry| entry[5].starts_with(device)).collect();
        assert_eq!(ours.len(), 1, "{table}");
        assert_eq!(ours[0][2], PERMANENT, "{table}");
    }
}
