//! A network of a test's own:
//!
//! ```text
//! sandbox ── node (a network namespace in the place of the host) ── router, which has all addresses there are
//! ```

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use serde_json::{Value, json};
use testkit::{Server, Settings, Slot};

/// Addresses that must not answer, with what they stand for.
pub(super) const FORBIDDEN: [(&str, &str); 10] = [
    ("169.254.169.254", "cloud metadata"),
    ("169.254.170.2", "credentials of a container"),
    ("168.63.129.16", "a cloud's host agent"),
    ("192.168.77.1", "private"),
    ("172.16.5.5", "private"),
    ("10.99.0.1", "private"),
    ("100.64.3.3", "carrier NAT"),
    ("198.18.0.9", "benchmarks"),
    ("192.0.0.8", "protocol assignments"),
    ("240.1.1.1", "reserved"),
];

/// An address that stands for the internet (RFC 5737), as do its neighbours up to .17.
pub(super) const PUBLIC: &str = "203.0.113.10";

/// What the router runs.
const ROUTER: &str = include_str!("router.py");

/// Two network namespaces that end with the test: `node`, and `router` behind it.
pub(super) struct World {
    node: String,
    router: String,
    service: Option<Child>,
    /// What the router tells.
    lines: Receiver<String>,
    // Its number names the namespaces.
    _slot: Slot,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {complaint}");
}

impl World {
    pub(super) fn new() -> Self {
        let slot = Slot::take();
        let node = format!("test-{}-node", slot.name());
        let router = format!("test-{}-router", slot.name());
        let (_, lines) = mpsc::channel();
        let mut world = Self { node, router, service: None, lines, _slot: slot };
        world.build();
        world
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
        let forbidden = FORBIDDEN.iter().map(|(address, _)| (*address).to_owned());
        let public = (10..=17).chain([53]).map(|last| format!("203.0.113.{last}"));
        for address in forbidden.chain(public) {
            ip(&format!("-n {router} address add {address}/32 dev lo"));
        }
        let mut service = Self::enter(router)
            .args(["python3", "-c", ROUTER])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let told = BufReader::new(service.stdout.take().expect("stdout is piped"));
        let (sender, lines) = mpsc::channel();
        // Ends with the service.
        std::thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                sender.send(line).unwrap_or_default();
            }
        });
        self.service = Some(service);
        self.lines = lines;
        self.told_until("ready");
    }

    fn enter(namespace: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}"));
        command
    }

    /// A server whose host is the node, and whose sandboxes ask the router for names.
    pub(super) fn server(&self) -> Server {
        self.server_with(&[])
    }

    /// The same with further settings.
    pub(super) fn server_with(&self, settings: Settings<'_>) -> Server {
        let settings = [&[("NETWORK_NAME_SERVERS", "203.0.113.53")], settings].concat();
        Server::start_in_namespace(env!("CARGO_BIN_EXE_sandbar"), &self.node, &settings)
    }

    /// Creates a sandbox with this network.
    pub(super) fn create(&self, server: &Server, id: &str, network: &Value) {
        let body = json!({"id": id, "network": network});
        let create = format!(
            "curl -sS --fail-with-body -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \
             -d '{body}' {}/v1/sandboxes",
            server.key(),
            server.url()
        );
        assert!(self.on_node(&create).is_some(), "{body}");
    }

    /// What the router has told up to a line that begins so.
    pub(super) fn told_until(&self, start: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let line = self.lines.recv().expect("the router runs");
            told.push(line);
            if told.last().is_some_and(|line| line.starts_with(start)) {
                return told;
            }
        }
    }

    /// From here on `rebind.test` leads to a private address.
    pub(super) fn turn_names(&self) {
        let turned = self.on_router("cat < /dev/tcp/127.0.0.1/7001");
        assert_eq!(turned.as_deref(), Some("turned\n"));
    }

    /// Runs a shell text on the node, without a sandbox. What it prints, if it succeeds.
    pub(super) fn on_node(&self, command: &str) -> Option<String> {
        Self::run(&self.node, command)
    }

    /// The same on the router.
    pub(super) fn on_router(&self, command: &str) -> Option<String> {
        Self::run(&self.router, command)
    }

    fn run(namespace: &str, command: &str) -> Option<String> {
        let output = Self::enter(namespace).args(["bash", "-c", command]).output();
        let output = output.expect("nsenter runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// True when the node itself gets a connection.
    pub(super) fn reaches(&self, address: &str) -> bool {
        self.on_node(&format!("timeout 60 bash -c 'true < /dev/tcp/{address}/80'")).is_some()
    }

    /// The rules in force on the node.
    pub(super) fn rules(&self) -> String {
        self.on_node("nft list ruleset").expect("nft runs")
    }

    /// Connections that the node tracks from this address.
    pub(super) fn connections_of(&self, address: &str) -> usize {
        let all = self.on_node("cat /proc/net/nf_conntrack").expect("connections are listed");
        // The first source of a line is who opened it.
        let source = format!("src={address}");
        all.lines()
            .filter(|line| line.split(' ').find(|word| word.starts_with("src=")) == Some(&source))
            .count()
    }
}

impl Drop for World {
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

/// Runs a shell text in a sandbox, which is created on first use, and returns what it prints.
pub(super) fn shell(server: &Server, id: &str, command: &str) -> String {
    let output = server.command(["exec", id, "--", "bash", "-c", command]).output();
    let output = output.expect("the binary starts");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How an attempt of a sandbox to connect ends: `hello`, the name of the error, or `no such name`.
/// `TimeoutError` is a minute of silence.
pub(super) fn connect(server: &Server, id: &str, host: &str, port: u16) -> String {
    let program = format!(
        "import errno, socket\n\
         try: print(socket.create_connection(('{host}', {port}), 60).recv(5).decode())\n\
         except socket.gaierror as e: print('no such name' if e.errno == socket.EAI_NONAME else e)\n\
         except TimeoutError: print('TimeoutError')\n\
         except OSError as e: print(errno.errorcode[e.errno])"
    );
    python(server, id, &program)
}

/// Whether an ICMP echo from a sandbox is answered.
pub(super) fn ping(server: &Server, id: &str, host: &str) -> bool {
    let program = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(60)\n\
         s.connect(('{host}', 0))\n\
         try: s.send(bytes([8, 0, 0, 0, 0, 0, 0, 1])); print(s.recv(99)[0] == 0)\n\
         except OSError: print(False)"
    );
    python(server, id, &program) == "True"
}

/// Runs a Python program in a sandbox and returns what it prints.
pub(super) fn python(server: &Server, id: &str, program: &str) -> String {
    let output = server.command(["exec", id, "--", "python3", "-c", program]).output();
    let output = output.expect("the binary starts");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Gives a sandbox another policy.
pub(super) fn set_policy(server: &Server, id: &str, policy: &[&str]) {
    let output = server.command([&["network", id], policy].concat()).output();
    let output = output.expect("the binary starts");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{policy:?}: {complaint}");
}

/// Packets and names that a sandbox was refused.
pub(super) fn refused(server: &Server, id: &str) -> (u64, u64) {
    let output = server.command(["inspect", "--json", id]).output().expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let sandbox: testkit::api::sandbox::Sandbox =
        serde_json::from_str(&text).expect("the sandbox is described");
    let network = sandbox.usage.expect("it runs").network;
    (network.refused_packets, network.refused_names)
}
