//! Sandboxes that may reach what is listed, and nothing else.

use serde_json::json;

use super::world::{PUBLIC, World, connect, ping, python, refused, set_policy};

/// N11
#[test]
fn only_listed_names_resolve_and_only_their_addresses_are_reached() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test:80", "alias.test", "*.wild.test"]}));

    // Whatever it is called, no name has been asked for yet.
    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
    for name in
        ["good.test", "GOOD.Test", "good.test.", "alias.test", "a.wild.test", "a.b.wild.test"]
    {
        assert_eq!(connect(&server, "s", name, 80), "hello", "{name}");
    }
    let others = [
        "other.test",
        "good.test.evil.test",
        "evilgood.test",
        "xgood.test",
        "www.good.test",
        "wild.test",
        "evilwild.test",
        "cdn.elsewhere.test",
        "xn--god-1na.test",
        "c2VjcmV0.attacker.test",
    ];
    for name in others {
        assert_eq!(connect(&server, "s", name, 80), "no such name", "{name}");
    }
    // The literal address of another host, whatever a header would say; and another port.
    assert_eq!(connect(&server, "s", "203.0.113.11", 80), "ECONNREFUSED");
    assert_eq!(connect(&server, "s", "good.test", 443), "ECONNREFUSED");
    // A server of names, or of anything, that is not listed.
    assert_eq!(connect(&server, "s", "203.0.113.53", 53), "ECONNREFUSED");
    // The address is allowed by now, but not what else it has.
    assert!(!ping(&server, "s", PUBLIC));

    let (packets, names) = refused(&server, "s");
    assert!(packets >= 4 && names >= 10, "{packets} packets, {names} names");
    set_policy(&server, "s", &["other.test"]);
    assert_eq!(connect(&server, "s", "other.test", 80), "hello");
    let asked = world.told_until("query other.test");
    let leaked: Vec<_> = asked
        .iter()
        .filter(|line| others[1..].iter().any(|name| **line == format!("query {name}")))
        .collect();
    assert!(leaked.is_empty(), "passed on: {leaked:?}");
}

/// N09, N11
#[test]
fn names_do_not_lead_to_private_addresses() {
    let world = World::new();
    let server = world.server();
    let names = [
        "private.test",
        "metadata.test",
        "to-private.test",
        "rebind.test",
        "mixed.test",
        "loopback.test",
    ];
    world.create(&server, "listed", &json!({ "allow": names }));

    for (id, other) in [("listed", "rebind.test"), ("open", "metadata.test")] {
        for name in ["private.test", "metadata.test", "to-private.test", other] {
            // Public until it is turned.
            let outcome = connect(&server, id, name, 80);
            let is_rebinding = name == "rebind.test";
            assert_eq!(
                outcome,
                if is_rebinding { "hello" } else { "ECONNREFUSED" },
                "{id}: {name}"
            );
        }
    }
    world.turn_names();
    assert_eq!(connect(&server, "listed", "rebind.test", 80), "ECONNREFUSED");
    // Its own loopback, where nothing listens.
    assert_eq!(connect(&server, "listed", "loopback.test", 80), "ECONNREFUSED");
    // The public one of two addresses is reached.
    assert_eq!(connect(&server, "listed", "mixed.test", 80), "hello");
    assert_eq!(connect(&server, "listed", "192.168.77.1", 80), "ECONNREFUSED");
}

#[test]
fn ranges_are_reached_with_their_ports_and_protocols_only() {
    let world = World::new();
    let server = world.server();
    let allow =
        ["203.0.113.10:5000/udp", "203.0.113.10:80/tcp", "203.0.113.12/30:443", "203.0.113.16"];
    world.create(&server, "s", &json!({ "allow": allow }));

    for (address, port, outcome) in [
        ("203.0.113.10", 80, "hello"),
        ("203.0.113.10", 443, "ECONNREFUSED"),
        ("203.0.113.11", 443, "ECONNREFUSED"),
        ("203.0.113.12", 443, "hello"),
        ("203.0.113.15", 443, "hello"),
        ("203.0.113.15", 80, "ECONNREFUSED"),
        ("203.0.113.16", 80, "hello"),
        ("203.0.113.16", 443, "hello"),
        // Always out of reach.
        ("203.0.113.16", 25, "ECONNREFUSED"),
        ("192.168.77.1", 80, "ECONNREFUSED"),
    ] {
        assert_eq!(connect(&server, "s", address, port), outcome, "{address}:{port}");
    }
    let ask = |to: &str| {
        let program = format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)\n\
             s.connect(('{to}', 5000))\n\
             try: s.send(b'x'); print(s.recv(9))\n\
             except OSError as e: print('refused')"
        );
        python(&server, "s", &program)
    };
    assert_eq!(ask("203.0.113.10"), "b'hello'");
    assert_eq!(ask("203.0.113.12"), "refused");
    // No name is listed, so none resolves.
    assert_eq!(connect(&server, "s", "good.test", 80), "no such name");
    // One whole address is listed, with what has no ports.
    assert!(ping(&server, "s", "203.0.113.16"));
    assert!(!ping(&server, "s", "203.0.113.10"));
}

#[test]
fn an_empty_list_allows_nothing() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": []}));

    assert_eq!(connect(&server, "s", PUBLIC, 80), "ECONNREFUSED");
    assert_eq!(connect(&server, "s", "good.test", 80), "no such name");
}

/// Addresses of names last as long as the answers, at least a minute and at most an hour; who goes by
/// the answer asks again in time.
#[test]
fn an_address_lasts_as_long_as_its_answer() {
    let world = World::new();
    let server = world.server();
    world.create(&server, "s", &json!({"allow": ["good.test", "brief.test", "long.test"]}));

    for name in ["good.test", "brief.test", "long.test"] {
        assert_eq!(connect(&server, "s", name, 80), "hello", "{name}");
    }
    let rules = world.rules();
    for lasting in ["203.0.113.10 timeout 5m", "203.0.113.12 timeout 1m", "203.0.113.13 timeout 1h"]
    {
        assert!(rules.contains(lasting), "{lasting} in {rules}");
    }
    let told = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)\n\
        s.sendto(bytes.fromhex('abcd01000001000000000000') + b'\\x04long\\x04test\\0\\0\\x01\\0\\x01', \
        (open('/etc/resolv.conf').read().split()[1], 53))\n\
        print(int.from_bytes(s.recv(512)[-10:-6], 'big'))";
    assert_eq!(python(&server, "s", told), "3600");
}
