//! Policies that change while a sandbox runs.

use serde_json::json;
use testkit::Server;

use super::world::{PUBLIC, World, connect, set_policy, shell};

/// Opens a connection in the background that sends something every 20 ms and reads what comes; how
/// it ended is then in `/tmp/ID`.
fn open(server: &Server, id: &str, host: &str) {
    let flow = format!(
        "import errno, socket, time\n\
         s = socket.create_connection((\"{host}\", 7000)); s.settimeout(60)\n\
         open(\"/tmp/{host}-port\", \"w\").write(str(s.getsockname()[1]))\n\
         try:\n \
          while s.recv(100): s.send(b\"x\"); open(\"/tmp/{host}-alive\", \"w\").close(); time.sleep(0.02)\n\
         except OSError as e: open(\"/tmp/{host}-ended\", \"w\").write(errno.errorcode[e.errno] if e.errno else \"silence\")"
    );
    shell(server, id, &format!("python3 -c '{flow}' > /tmp/out 2>&1 & {}", exists(host, "alive")));
}

/// Waits until the connection has done something more.
fn goes_on(server: &Server, id: &str, host: &str) {
    shell(server, id, &format!("rm -f /tmp/{host}-alive; {}", exists(host, "alive")));
}

/// How the connection ended.
fn ending(server: &Server, id: &str, host: &str) -> String {
    shell(server, id, &format!("{}; cat /tmp/{host}-ended", exists(host, "ended")))
}

/// There is no event for a file that another process writes: looks for it for a minute.
fn exists(host: &str, what: &str) -> String {
    format!(
        "for i in $(seq 6000); do [ -s /tmp/{host}-{what} -o {what} = alive -a -e /tmp/{host}-{what} ] && break; sleep 0.01; done; [ -e /tmp/{host}-{what} ]"
    )
}

/// N14
#[test]
fn connections_that_a_new_policy_forbids_end_and_others_go_on() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test", "other.test", "203.0.113.16"]}));
    for host in ["good.test", "other.test", "203.0.113.16"] {
        open(&server, "s", host);
    }

    set_policy(&server, "s", &["good.test:7000/tcp", "long.test"]);
    assert_eq!(ending(&server, "s", "other.test"), "ECONNRESET");
    assert_eq!(ending(&server, "s", "203.0.113.16"), "ECONNRESET");
    goes_on(&server, "s", "good.test");
    assert_eq!(connect(&server, "s", "203.0.113.11", 80), "ECONNREFUSED");
    assert_eq!(connect(&server, "s", "other.test", 80), "no such name");
    // Known since before the change, and allowed on one port now.
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
    assert_eq!(connect(&server, "s", "long.test", 80), "hello");

    set_policy(&server, "s", &["none"]);
    assert_eq!(ending(&server, "s", "good.test"), "ECONNRESET");
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");

    set_policy(&server, "s", &["internet"]);
    assert_eq!(connect(&server, "s", "other.test", 80), "hello");
}

/// N14
#[test]
fn a_silent_connection_gets_nothing_more_either() {
    let world = World::new();
    let server = world.server();
    // Reads what the server sends, and says nothing.
    let listen = format!(
        "import socket\n\
         s = socket.create_connection((\"{PUBLIC}\", 7000))\n\
         open(\"/tmp/port\", \"w\").write(str(s.getsockname()[1]))\n\
         while s.recv(100): pass"
    );
    let wait =
        "for i in $(seq 6000); do [ -s /tmp/port ] && break; sleep 0.01; done; cat /tmp/port";
    let port = shell(&server, "s", &format!("python3 -c '{listen}' > /dev/null 2>&1 & {wait}"));

    set_policy(&server, "s", &["none"]);

    // The server is told, by the host: nobody is there any more.
    world.told_until(&format!("ended {port}"));
}

/// N14
#[test]
fn a_policy_survives_restarts_of_server_and_sandbox() {
    let world = World::new();
    let mut server = world.server();
    shell(&server, "listed", "true");
    set_policy(&server, "listed", &["good.test:80", "good.test:7000"]);
    shell(&server, "nothing", "true");
    set_policy(&server, "nothing", &["none"]);
    open(&server, "listed", "good.test");

    server.stop();
    server.restart();
    // Learned before, and still known: no name is asked for.
    assert_eq!(connect(&server, "listed", PUBLIC, 80), "hello");
    goes_on(&server, "listed", "good.test");
    assert_eq!(connect(&server, "listed", "203.0.113.11", 80), "ECONNREFUSED");
    assert_eq!(connect(&server, "listed", "other.test", 80), "no such name");
    assert_eq!(connect(&server, "nothing", PUBLIC, 80), "ECONNREFUSED");

    // Their agents are killed, so the next request starts them again.
    let agents = format!(
        "kill -9 $(cat /sys/fs/cgroup/*/sandbar-{}/*/agent/cgroup.procs | sort -u)",
        server.slot().name()
    );
    world.on_node(&agents);
    for id in ["listed", "nothing"] {
        drop(server.log_until(&format!("sandbox stopped sandbox_id={id}")));
    }
    assert_eq!(connect(&server, "listed", "other.test", 80), "no such name");
    assert_eq!(
        connect(&server, "listed", PUBLIC, 80),
        "ECONNREFUSED",
        "it starts with nothing known"
    );
    assert_eq!(connect(&server, "listed", "good.test", 80), "hello");
    assert_ne!(connect(&server, "nothing", PUBLIC, 80), "hello");
}

/// N15
#[test]
fn the_firewall_stays_closed_without_a_server() {
    let world = World::new();
    let mut server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test"]}));
    let mark = format!("watch-{}", server.slot().name());
    let watch = format!(
        "import errno, socket, time\n\
         socket.create_connection((\"good.test\", 80))\n\
         open(\"/tmp/{mark}\", \"w\").write(\"x\")\n\
         while True:\n \
          for host in [\"203.0.113.10\", \"203.0.113.11\"]:\n  \
           try: socket.create_connection((host, 80), 60).close(); outcome = \"reached\"\n  \
           except OSError as e: outcome = errno.errorcode.get(e.errno, \"silent\")\n  \
           print(host, outcome, flush=True)\n \
          time.sleep(0.01)"
    );
    let wait = format!(
        "for i in $(seq 6000); do [ -s /tmp/{mark} ] && break; sleep 0.01; done; cat /tmp/{mark}"
    );
    assert_eq!(
        shell(&server, "s", &format!("python3 -c '{watch}' > /tmp/watch 2>&1 & {wait}")),
        "x"
    );

    server.kill();
    // The sandbox goes on by itself for a while. The pattern does not match who looks for it.
    let (first, rest) = mark.split_at(1);
    let seen = format!(
        "from=$(wc -l < /proc/$(pgrep -n -f '[{first}]{rest}')/root/tmp/watch); for i in $(seq 6000); do \
         [ $(wc -l < /proc/$(pgrep -n -f '[{first}]{rest}')/root/tmp/watch) -gt $((from + 50)) ] && exit 0; \
         sleep 0.01; done; exit 1"
    );
    assert!(world.on_node(&seen).is_some(), "the sandbox does not run");
    server.restart();

    let lines = shell(&server, "s", "sort /tmp/watch | uniq -c | awk '{print $2, $3}'");
    assert_eq!(lines, "203.0.113.10 reached\n203.0.113.11 ECONNREFUSED");
}

#[test]
fn a_sandbox_made_without_a_network_can_be_given_one() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!("none"));
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ENETUNREACH");

    set_policy(&server, "s", &["good.test"]);
    assert_eq!(connect(&server, "s", "good.test", 80), "hello");
    assert_eq!(connect(&server, "s", "203.0.113.11", 80), "ECONNREFUSED");
    set_policy(&server, "s", &["none"]);
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
}

/// A connection outlasts the lifetime of the answer that allowed it; another one needs another answer.
#[test]
fn what_is_connected_stays_so_when_its_name_is_forgotten() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test"]}));
    open(&server, "s", "good.test");
    let name = server.slot().name();
    // What time does after five minutes.
    let forget = format!(
        "set=$(nft list sets | grep -o 'any_[0-9_]*'); nft flush set inet sandbar_{name} $set"
    );
    assert!(world.on_node(&forget).is_some());

    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
    goes_on(&server, "s", "good.test");
    assert_eq!(connect(&server, "s", "good.test", 80), "hello");
}
