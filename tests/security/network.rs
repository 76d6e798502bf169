//! What a sandbox may reach, tried in a network of the test's own:
//!
//! ```text
//! sandbox ── node (a network namespace in the place of the host) ── router, which has all the forbidden addresses
//! ```

use std::process::{Child, Command, Stdio};

use testkit::{Server, Slot};

/// Addresses that must not answer, with what they stand for.
const FORBIDDEN: [(&str, &str); 9] = [
    ("169.254.169.254", "cloud metadata"),
    ("168.63.129.16", "a cloud's host agent"),
    ("192.168.77.1", "private"),
    ("172.16.5.5", "private"),
    ("10.99.0.1", "private"),
    ("100.64.3.3", "carrier NAT"),
    ("198.18.0.9", "benchmarks"),
    ("192.0.0.8", "protocol assignments"),
    ("240.1.1.1", "reserved"),
];

/// An address that stands for the internet (RFC 5737).
const PUBLIC: &str = "203.0.113.10";

/// Two network namespaces that end with the test: `node`, and `router` behind it.
struct Network {
    node: String,
    router: String,
    service: Option<Child>,
    // Its number names the namespaces.
    _slot: Slot,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {complaint}");
}

impl Network {
    fn new() -> Self {
        let slot = Slot::take();
        let node = format!("test-{}-node", slot.name());
        let router = format!("test-{}-router", slot.name());
        let mut network = Self { node, router, service: None, _slot: slot };
        network.build();
        network
    }

    fn build(&mut self) {
        let Self { node, router, .. } = &*self;
        for namespace in [node, router] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {node} link add uplink type veth peer name downlink netns {router}"));
        ip(&format!("-n {node} address add 203.0.113.1/31 dev uplink"));
        ip(&format!("-n {router} address add 203.0.113.0/31 dev downlink"));
        ip(&format!("-n {node} link set uplink up"));
        ip(&format!("-n {router} link set downlink up"));
        ip(&format!("-n {node} route add default via 203.0.113.0"));
        for address in FORBIDDEN.iter().map(|(address, _)| *address).chain([PUBLIC]) {
            ip(&format!("-n {router} address add {address}/32 dev lo"));
        }
        let service = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{router}"))
            .args(["python3", "-u", "-m", "http.server", "80", "--directory", "/proc/self/fdinfo"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 runs");
        self.service = Some(service);
        let listens = || self.reaches("203.0.113.0").then_some(());
        assert!((0..1000).find_map(|_| listens()).is_some(), "the service does not start");
    }

    /// True when the node itself, without a sandbox, gets a connection.
    fn reaches(&self, address: &str) -> bool {
        let connect = format!(
            "timeout 2 bash -c 'true < /dev/tcp/{address}/80' 2>/dev/null || (sleep 0.01; exit 1)"
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.node)).args(["sh", "-c", &connect]);
        command.status().expect("nsenter runs").success()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.kill().expect("the service can be killed");
            service.wait().expect("the service can be waited for");
        }
        for namespace in [&self.node, &self.router] {
            Command::new("ip").args(["netns", "delete", namespace]).status().expect("ip runs");
        }
    }
}

fn sandbox_reaches(server: &Server, address: &str) -> bool {
    let connect = format!("timeout 1 bash -c 'true < /dev/tcp/{address}/80'");
    server.command(["exec", "s", &connect]).output().expect("the binary starts").status.success()
}

/// N: default egress
#[test]
fn forbidden_ranges_are_out_of_reach_and_the_internet_is_not() {
    let network = Network::new();
    let server = Server::start_in_namespace(env!("CARGO_BIN_EXE_sandbar"), &network.node);

    assert!(sandbox_reaches(&server, PUBLIC), "the public address must answer");
    for (address, what) in FORBIDDEN {
        assert!(network.reaches(address), "control: the node reaches {address}");
        assert!(!sandbox_reaches(&server, address), "{address} ({what}) answered");
    }
    // The node's own address on its public link is the host, not the internet.
    assert!(!sandbox_reaches(&server, "203.0.113.1"));
}

#[test]
fn a_sandbox_without_a_network_reaches_nothing() {
    let network = Network::new();
    let server = Server::start_in_namespace(env!("CARGO_BIN_EXE_sandbar"), &network.node);

    let connect = format!("timeout 1 bash -c 'true < /dev/tcp/{PUBLIC}/80'");
    let run = server.command(["run", "--network", "none", "--", &connect]).output().expect("runs");

    assert!(!run.status.success());
}
