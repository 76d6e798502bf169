//! The network of sandboxes, against hosts in a network namespace of the test's own.

use serde_json::json;
use testkit::Server;

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
                  for i in $(seq 500); do cat < /dev/null > /dev/tcp/127.0.0.1/8000 && exit 0; sleep 0.01; done 2>/dev/null; exit 1";
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
               s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)\n\
               s.sendto(bytes.fromhex('abcd01000001000000000000') + b'\\x07invalid\\x00\\x00\\x01\\x00\\x01', \
               (open('/etc/resolv.conf').read().split()[1], 53))\n\
               print(s.recv(512)[:2].hex())";
    let body = json!({"command": ["python3", "-c", ask]});
    let answer = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(answer.json["stdout"], "abcd\n", "{}", answer.text);
}
