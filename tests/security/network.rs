//! What a sandbox may reach, tried in a network of the test's own.

mod allow_list;
mod change;
mod told;
mod world;

use serde_json::json;

use world::{FORBIDDEN, PUBLIC, World, connect, python, refused, set_policy, shell};

/// N01, N02, N06
#[test]
fn forbidden_ranges_are_out_of_reach_and_the_internet_is_not() {
    let world = World::new();
    let server = world.server();

    assert_eq!(connect(&server, "s", PUBLIC, 80), "hello");
    for (address, what) in FORBIDDEN {
        assert!(world.reaches(address), "control: the node reaches {address}");
        assert_eq!(connect(&server, "s", address, 80), "ECONNREFUSED", "{address} ({what})");
    }
    // The node's own address on its public link is the host, not the internet.
    assert_eq!(connect(&server, "s", "203.0.113.1", 80), "ECONNREFUSED");
    // Each was refused at once, or there would be more packets than attempts.
    let attempts = u64::try_from(FORBIDDEN.len()).unwrap() + 1;
    assert_eq!(refused(&server, "s"), (attempts, 0));
}

/// N01, N02, N07
#[test]
fn addresses_of_other_kinds_lead_nowhere() {
    let world = World::new();
    let server = world.server();

    for address in ["fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2606:4700::1"] {
        let outcome = connect(&server, "s", address, 80);
        assert!(
            ["ENETUNREACH", "EADDRNOTAVAIL"].contains(&outcome.as_str()),
            "{address}: {outcome}"
        );
    }
    assert_eq!(connect(&server, "s", "::ffff:169.254.169.254", 80), "ECONNREFUSED");
    // To many at once: nobody is told that these are refused.
    let to_all = "import socket\n\
        for to in ['224.0.0.1', '239.255.255.250', '255.255.255.255', '0.0.0.1']:\n \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n \
         try: s.sendto(b'x', (to, 5000)); print(to, s.recv(9))\n \
         except OSError: pass";
    assert_eq!(python(&server, "s", to_all), "");
}

/// N03
#[test]
fn nothing_of_the_host_answers_but_its_resolver() {
    let world = World::new();
    let server = world.server();
    let gateway = server.slot().subnet().replace(".0/24", ".1");

    let open = python(
        &server,
        "s",
        &format!(
            "import socket\n\
             for port in range(1, 65536):\n \
              s = socket.socket(); s.settimeout(5)\n \
              if s.connect_ex(('{gateway}', port)) == 0: print(port)\n \
              s.close()"
        ),
    );

    assert_eq!(open, "53");
    assert_eq!(refused(&server, "s").0, 65_534);
}

/// Errors come back from an address, and the host has more than one.
#[test]
fn a_refusal_tells_no_address_of_the_host_that_was_not_asked_for() {
    let world = World::new();
    let server = world.server();
    // Refused by a rule; refused at the host; too far for one hop.
    let offenders = "import select, socket\n\
        for to, hops in [('192.168.77.1', 64), ('203.0.113.1', 64), ('203.0.113.10', 1)]:\n \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n \
         s.setsockopt(socket.IPPROTO_IP, 11, 1); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)\n \
         s.sendto(b'x', (to, 5000)); poll = select.poll(); poll.register(s, 0); poll.poll(60000)\n \
         error = s.recvmsg(512, 512, socket.MSG_ERRQUEUE)[1][0][2]\n \
         print(socket.inet_ntoa(error[20:24]))";
    let gateway = server.slot().subnet().replace(".0/24", ".1");

    let told = python(&server, "s", offenders);
    assert_eq!(told, [gateway.as_str(), "203.0.113.1", gateway.as_str()].join("\n"));
}

/// N08
#[test]
fn an_address_of_another_cannot_be_taken() {
    let world = World::new();
    let server = world.server();
    let neighbour = shell(&server, "neighbour", "hostname -I");

    let bind = format!("import socket; socket.socket().bind(('{neighbour}', 0))");
    let attempts = [
        format!("python3 -c \"{bind}\""),
        format!("ip address add {neighbour}/32 dev eth0"),
        "ip link set eth0 address 02:00:00:00:00:01".to_owned(),
        format!("ip route add {neighbour}/32 dev eth0"),
    ];
    for attempt in attempts {
        let tried = format!("{attempt} 2>/dev/null && echo done || echo refused");
        assert_eq!(shell(&server, "s", &tried), "refused", "{attempt}");
    }
}

/// N10
#[test]
fn a_sandbox_without_a_network_asks_nobody() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "never", &json!("none"));
    shell(&server, "not-now", "true");
    set_policy(&server, "not-now", &["none"]);

    for id in ["never", "not-now"] {
        let outcome = connect(&server, id, "data.attacker.test", 80);
        assert!(outcome.contains("name resolution"), "{outcome}");
        assert_ne!(connect(&server, id, PUBLIC, 80), "hello");
        // A server of names that is not the node's.
        assert_ne!(connect(&server, id, "203.0.113.53", 53), "hello");
    }

    assert_eq!(connect(&server, "s", "good.test", 80), "hello");
    let asked = world.told_until("query good.test");
    assert!(!asked.iter().any(|line| line.contains("attacker")), "{asked:?}");
}

/// N13
#[test]
fn mail_is_not_sent() {
    let world = World::new();
    let server = world.server();
    let mail = format!("timeout 60 bash -c 'true < /dev/tcp/{PUBLIC}/25'");
    assert!(world.on_node(&mail).is_some(), "control: a mail server is there");

    assert_eq!(connect(&server, "s", PUBLIC, 25), "ECONNREFUSED");
}

/// N16
#[test]
fn a_link_without_a_policy_reaches_nothing() {
    let world = World::new();
    let server = world.server();
    let subnet = server.slot().subnet();
    let [gateway, address] = [".1", ".77"].map(|last| subnet.replace(".0/24", last));
    let name = server.slot().name();
    // As a launcher makes one, and no rules before it.
    let attach = format!(
        "ip netns add test-{name}-half && \
         ip link add {name}-zzz type veth peer name eth0 netns test-{name}-half && \
         ip link set {name}-zzz up && ip route add {address}/32 dev {name}-zzz && \
         ip -n test-{name}-half link set eth0 up && \
         ip -n test-{name}-half address add {address}/32 dev eth0 && \
         ip -n test-{name}-half route add default via {gateway} dev eth0 onlink"
    );
    assert!(world.on_node(&attach).is_some(), "the link can be made");
    let reach = |seconds: u64| {
        let connect = format!("timeout {seconds} bash -c 'true < /dev/tcp/{PUBLIC}/80'");
        world.on_node(&format!("ip netns exec test-{name}-half {connect}"))
    };

    let without = reach(2);
    let admit =
        format!("nft add element inet sandbar_{name} policies '{{ \"{name}-zzz\" : accept }}'");
    let with = world.on_node(&admit).and_then(|_| reach(60));

    // Before anything can fail: it is nobody else's to remove.
    let remove = format!(
        "ip netns delete test-{name}-half; ip link delete {name}-zzz; \
         nft delete element inet sandbar_{name} policies '{{ \"{name}-zzz\" }}'"
    );
    world.on_node(&remove);
    assert!(without.is_none(), "a link reached the internet before its policy was there");
    assert!(with.is_some(), "control: with a policy, it does");
}

/// N18
#[test]
fn fragments_do_not_slip_through() {
    let world = World::new();
    let server = world.server();
    let send = |to: &str| {
        let program = format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)\n\
             s.connect(('{to}', 5000))\n\
             try: s.send(b'x' * 6000); print(s.recv(9))\n\
             except OSError as e: print('refused')"
        );
        python(&server, "s", &program)
    };

    assert_eq!(send("192.168.77.1"), "refused");
    assert_eq!(send(PUBLIC), "b'hello'");

    assert_eq!(world.told_until("udp"), [format!("udp {PUBLIC} 6000")]);
}

/// N20
#[test]
fn a_server_in_a_sandbox_is_not_reached_from_outside() {
    let world = World::new();
    let server = world.server();
    let listen = "python3 -m http.server 8000 --bind 0.0.0.0 >/dev/null 2>&1 & \
                  for i in $(seq 6000); do true < /dev/tcp/127.0.0.1/8000 && exit 0; sleep 0.01; done 2>/dev/null; exit 1";
    shell(&server, "s", listen);
    let address = shell(&server, "s", "hostname -I");
    world.on_router(&format!("ip route add {} via 203.0.113.1", server.slot().subnet()));

    let reach = format!("timeout 1 bash -c 'true < /dev/tcp/{address}/8000'");
    assert!(world.on_router(&reach).is_none(), "reached from another machine");
    assert!(world.on_node(&reach).is_none(), "reached from the host");
}

/// The host tracks connections for all sandboxes in one table.
#[test]
fn one_sandbox_cannot_fill_the_table_of_connections() {
    const AT_ONCE: usize = 8192;
    let world = World::new();
    let server = world.server();
    assert_eq!(connect(&server, "neighbour", PUBLIC, 80), "hello");
    // One connection per port, as far as the kernel goes; and so many to the resolver.
    let flood = "import socket\n\
        name_server = open('/etc/resolv.conf').read().split()[1]\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for port in range(10000, 20000): s.sendto(b'x', ('203.0.113.10', port))\n\
        for n in range(2000):\n \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n \
         try: s.sendto(b'x', (name_server, 53))\n \
         except PermissionError: pass # more than the name server is sent\n \
         s.close()\n\
        print('done')";
    assert_eq!(python(&server, "s", flood), "done");

    let tracked = world.connections_of(&shell(&server, "s", "hostname -I"));
    assert!((AT_ONCE - 1000..=AT_ONCE).contains(&tracked), "{tracked} connections");
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
    assert!(refused(&server, "s").0 >= 2500);
    assert_eq!(connect(&server, "neighbour", PUBLIC, 80), "hello");
}

#[test]
fn questions_for_names_are_bounded_in_time() {
    let world = World::new();
    let server = world.server();
    let flood = "import socket, time\n\
        begun = time.monotonic()\n\
        to = (open('/etc/resolv.conf').read().split()[1], 53)\n\
        ask = lambda name: bytes.fromhex('abcd01000001000000000000') + bytes([len(name)]) + name + b'\\x04test\\0\\0\\x01\\0\\x01'\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.1)\n\
        refused = 0\n\
        for n in range(3000):\n \
         try: s.sendto(ask(b'flood'), to)\n \
         except PermissionError: refused += 1\n\
        took = time.monotonic() - begun\n\
        assert 3000 - refused <= 1001 + 500 * took, (refused, took)\n\
        last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); last.settimeout(0.1)\n\
        for n in range(100):\n \
         try: last.sendto(ask(b'last'), to); print(len(last.recv(512)) > 0, int(time.monotonic() - begun)); break\n \
         except TimeoutError: pass\n \
         except PermissionError: time.sleep(0.1)";
    let told = python(&server, "s", flood);
    let seconds = told.strip_prefix("True ").and_then(|seconds| seconds.parse::<usize>().ok());
    let seconds = seconds.unwrap_or_else(|| panic!("it may ask again after a while: {told}"));

    let asked = world.told_until("query last.test").len();
    // A burst, and then so many a second.
    let most = 1000 + 200 * seconds;
    assert!((2..most).contains(&asked), "{asked} of 3000 questions were passed on in {seconds} s");
}

#[test]
fn connections_of_a_sandbox_that_is_gone_do_not_help_its_successor() {
    let world = World::new();
    let slot = testkit::Slot::take();
    let subnet = slot.subnet().replace("/24", "/28");
    let server = world.server_with(&[("NETWORK_SUBNET", &subnet), ("MAX_SANDBOXES", "13")]);
    // A server that goes on talking to whoever has this address and port.
    let talk = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 4000)); s.settimeout(60)\n\
        s.sendto(b'x', ('203.0.113.10', 5000)); print(s.recv(9))";
    assert_eq!(python(&server, "first", talk), "b'hello'");
    let address = shell(&server, "first", "hostname -I");
    assert!(world.connections_of(&address) > 0, "control: the node tracks its connections");
    let remove = |id: &str| server.command(["rm", id]).status().expect("the binary starts");
    assert!(remove("first").success());

    assert_eq!(world.connections_of(&address), 0);

    // Addresses are given out in turn: after the others it is this one's again.
    let successor = (0..13).map(|n| format!("s{n}")).find(|id| {
        let is_it = shell(&server, id, "hostname -I") == address;
        assert!(is_it || remove(id).success());
        is_it
    });
    assert_eq!(connect(&server, &successor.expect("the address comes again"), PUBLIC, 80), "hello");
    let name = server.slot().name();
    let rules = world.rules();
    // The kernel forgets the number of connections when all are closed, at a time of its own.
    let numbers = rules.matches("\" ct count over").count();
    assert!(numbers <= 1, "{rules}");
    assert_eq!(
        rules.matches(&format!("\"{name}-")).count() - rules.matches("-*\"").count() - numbers,
        4,
        "policy (of both names), address and connected of one sandbox, and nothing of those before: {rules}"
    );
}

/// Else the network of its sandboxes ends with that of another node.
#[test]
fn a_node_that_goes_leaves_forwarding_to_the_others() {
    let world = World::new();
    let forwards = || world.on_node("cat /proc/sys/net/ipv4/ip_forward");
    for before in ["0", "1"] {
        world.on_node(&format!("echo {before} > /proc/sys/net/ipv4/ip_forward")).unwrap();
        let (first, second) = (world.server(), world.server());
        assert_eq!(forwards().as_deref(), Some("1\n"));
        drop(first);
        assert_eq!(forwards().as_deref(), Some("1\n"), "the other one is there");
        assert_eq!(connect(&second, "s", PUBLIC, 80), "hello");
        drop(second);
        assert_eq!(forwards(), Some(format!("{before}\n")), "it is as it was");
    }
}
