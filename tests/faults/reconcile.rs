//! What is left behind, whoever left it, is found while sandboxes run, removed and told of; nothing else is
//! touched.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{Server, reqwest::Method};

use crate::{failpoints::story::expect_agreement, reboot::node_groups};

/// How long it may take until all is told: two looks, some seconds apart, and what they have to remove.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers that no sandbox of this test has had by then, but that have been given out.
const LEFT: [u64; 5] = [5, 6, 7, 8, 9];

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
}

/// The mount namespace that the volumes are seen in.
fn volumes(server: &Server) -> PathBuf {
    let state = server.state_dir();
    let inside = state.strip_prefix("/").expect("it is absolute");
    PathBuf::from(format!("/proc/{}/root", server.pid())).join(inside).join("volumes")
}

/// Leaves one thing of each kind.
fn leave_something(server: &Server) {
    let [group, link, socket, files, volume] = LEFT.map(|number| number.to_string());
    let name = server.slot().name();
    for dir in node_groups(server) {
        fs::create_dir_all(dir.join(&group)).expect("a cgroup can be made");
    }
    // With a process in it, as of a jail whose daemon knows nothing of it.
    let mut stray = Command::new("sleep").arg("1000").spawn().expect("sleep starts");
    for dir in node_groups(server) {
        fs::write(dir.join(&group).join("cgroup.procs"), stray.id().to_string())
            .unwrap_or_default();
    }
    std::thread::spawn(move || stray.wait());
    let (ours, theirs) = (format!("{name}-{link}"), format!("{name}x"));
    run("ip", &["link", "add", &ours, "type", "veth", "peer", "name", &theirs]);
    let run_dir = server.state_dir().join("run");
    drop(std::os::unix::net::UnixListener::bind(run_dir.join(format!("{socket}.sock"))));
    let upper = server.state_dir().join("sandboxes").join(files).join("upper");
    fs::create_dir_all(upper.join("some/where")).expect("it can be made");
    let volume = volumes(server).join(volume);
    run("btrfs", &["subvolume", "create", &volume.to_string_lossy()]);
    fs::create_dir_all(volume.join("upper/some")).expect("it can be made");
    // A rule of one jail, whose address is nobody's.
    let address = server.slot().subnet().replace(".0/24", ".250");
    let table = format!("sandbar_{name}");
    let element = format!("{{ \"{name}-{group}\" : {address} }}");
    run("nft", &["add", "element", "inet", &table, "addresses", &element]);
}

/// Uses a sandbox, makes others and lets them go, until it is told to stop.
async fn use_it(server: &Server, id: &str, is_over: &AtomicBool) -> u64 {
    let mut rounds = 0;
    while !is_over.load(Relaxed) {
        rounds += 1;
        server.shell(id, &format!("echo {rounds} >> rounds")).await;
        let fork = format!("{id}-fork");
        let (path, forked) = (format!("/v1/sandboxes/{id}"), format!("/v1/sandboxes/{fork}"));
        let (ids, checkpoint) = (json!({"ids": [fork]}), json!({"checkpoint": "c"}));
        let asked = [
            (format!("{path}/checkpoints"), json!({"id": "c"}), 201),
            (format!("{path}/fork"), ids, 201),
            (format!("{forked}/checkpoints"), json!({"id": "c"}), 201),
            (format!("{forked}/restore"), checkpoint, 200),
        ];
        for (path, body, status) in asked {
            let answer = server.post(&path, &body).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
        }
        for gone in [forked, format!("{path}/checkpoints/c")] {
            assert_eq!(server.delete(&gone).await.status, 204, "{gone}");
        }
        let lines = server.shell(id, "wc -l < rounds").await;
        assert_eq!(lines.trim(), rounds.to_string());
    }
    rounds
}

#[tokio::test]
async fn what_is_left_behind_is_removed_and_told_beside_sandboxes_that_are_used() {
    // Longer than the kernel takes for the links of sandboxes that end, also with those of other tests.
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("RECONCILE_SECONDS", "10")]);
    for number in 0..12 {
        let id = format!("early-{number}");
        server.shell(&id, "true").await;
        assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
    }
    for id in ["a", "b"] {
        server.shell(id, "sleep 1000 &").await;
    }
    server.shell("stopped", "echo kept > file").await;
    assert_eq!(server.post("/v1/sandboxes/stopped/stop", &json!({})).await.status, 200);
    server.shell("idle", "sleep 1000 & echo $! > pid").await;
    expect_agreement(&server, "before").await;
    let before = server.look();
    leave_something(&server);
    assert_ne!(server.look(), before);

    let is_over = AtomicBool::new(false);
    let (first, second, ()) =
        tokio::join!(use_it(&server, "a", &is_over), use_it(&server, "b", &is_over), async {
            let begun = Instant::now();
            loop {
                let told = server.get("/v1/events?kind=remainsFound").await;
                let told = told.json["events"].as_array().map_or(0, Vec::len);
                if told >= LEFT.len() {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "only {told} are told: {}", server.log());
                // There is no event before that of what is found.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            is_over.store(true, Relaxed);
        });

    assert!(first > 0 && second > 0);
    expect_agreement(&server, "after").await;
    server.expect_again(&before);
    let told = server.get("/v1/events?kind=remainsFound").await;
    let events = told.json["events"].as_array().expect("a list").clone();
    assert_eq!(events.len(), LEFT.len(), "{}", told.text);
    for number in LEFT {
        let number = format!("number {number}: ");
        let about = |event: &serde_json::Value| {
            event["message"].as_str().is_some_and(|message| message.starts_with(&number))
        };
        assert_eq!(events.iter().filter(|event| about(event)).count(), 1, "{}", told.text);
    }
    assert!(events.iter().all(|event| event["cause"] == "reconcile"), "{}", told.text);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("sandbar_remains_found_total 5\n"), "{metrics}");
    assert_eq!(server.shell("idle", "kill -0 $(cat pid) && echo runs").await, "runs\n");
    assert_eq!(server.shell("stopped", "cat file").await, "kept\n");
    // Nobody but who may see everything is told.
    let key = server.new_key("one", Some("a-")).await;
    let request = server.request_with(&key, Method::GET, "/v1/events?kind=remainsFound");
    let seen = testkit::answer(request.send().await.expect("a response comes")).await;
    assert_eq!(seen.json["events"].as_array().map(Vec::len), Some(0), "{}", seen.text);
}

/// The node's firewall rules, and what of the maps is of the jails up to number 4; others come and go.
fn rules(server: &Server) -> Vec<String> {
    let name = server.slot().name();
    let table = format!("sandbar_{name}");
    let list = |args: &[&str]| {
        let output = Command::new("nft").args(args).output().expect("nft starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let rules = list(&["-s", "list", "table", "inet", &table]);
    let is_rule = |line: &&str| !line.contains(&format!("\"{name}-")) && !line.contains("elements");
    let mut all: Vec<String> = rules.lines().filter(is_rule).map(str::to_owned).collect();
    for map in ["policies", "addresses"] {
        let elements = list(&["list", "map", "inet", &table, map]);
        let elements = elements.split(['{', '}', ',']).map(|element| element.trim().to_owned());
        let first =
            (1..=4).flat_map(|jail| ["-", "-+"].map(|dash| format!("\"{name}{dash}{jail}\" ")));
        let first: Vec<String> = first.collect();
        all.extend(elements.filter(|one| first.iter().any(|link| one.starts_with(link))));
    }
    // A map has no order.
    all.sort();
    all
}

/// Tries to connect to the host, and to its name server.
const REACH: &str = r"
import socket
def reach(host, port):
    try: socket.create_connection((host, port), 60).close(); return 'open'
    except ConnectionRefusedError: return 'refused'
    except OSError as error: return type(error).__name__
print(reach(GATEWAY, PORT), reach(GATEWAY, 53))
";

#[tokio::test]
async fn firewall_rules_that_somebody_took_away_come_back_and_with_them_every_policy() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("RECONCILE_SECONDS", "1")]);
    let none = json!({"id": "none", "network": "none"});
    let listed = json!({"id": "listed", "network": {"allow": ["192.0.2.0/24"]}});
    for body in [json!({"id": "open"}), json!({"id": "frozen"}), none, listed] {
        let made = server.post("/v1/sandboxes", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    assert_eq!(server.post("/v1/sandboxes/frozen/freeze", &json!({})).await.status, 200);
    let table = format!("sandbar_{}", server.slot().name());
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port is free");
    let reach = reach(&server, &listener);
    let tried = async |id: &str| server.shell(id, &reach).await;
    let before = rules(&server);
    // Three with a network, under two names each, and their addresses.
    assert_eq!(before.iter().filter(|rule| rule.starts_with('"')).count(), 9, "{before:#?}");
    let seen = (tried("open").await, tried("none").await, tried("listed").await);
    assert_eq!(seen.0, "refused open\n");

    let mut told = 0;
    for damage in [
        &["delete", "table", "inet", &table][..],
        &["flush", "table", "inet", &table],
        &["flush", "chain", "inet", &table, "input"],
    ] {
        run("nft", damage);
        told += 1;
        let begun = Instant::now();
        loop {
            let events = server.get("/v1/events?kind=networkRestored").await;
            if events.json["events"].as_array().map_or(0, Vec::len) == told
                && rules(&server) == before
            {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{damage:?}: {}\n{before:#?}\ninstead of\n{:#?}",
                server.log(),
                rules(&server)
            );
            // There is no event for the last policy that is in force again.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!((tried("open").await, tried("none").await, tried("listed").await), seen);
    }
    assert_eq!(tried("frozen").await, seen.0);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("sandbar_network_restored_total 3\n"), "{metrics}");
}

/// Those made ahead had rules, which are gone; and while there are none, none can be made.
#[tokio::test]
async fn sandboxes_made_ahead_are_made_anew_when_firewall_rules_were_gone() {
    let settings = [("RECONCILE_SECONDS", "1"), ("POOL", "1")];
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &settings);
    let create = async |id: &str| server.post("/v1/sandboxes", &json!({"id": id})).await;
    for id in ["first", "second"] {
        assert_eq!(create(id).await.status, 201);
    }
    let ahead = || {
        let jail = |line: &str| Some(line.split("jail=").nth(1)?.split(' ').next()?.to_owned());
        let log = server.log();
        let made = log.lines().filter(|line| line.contains("sandbox made ahead"));
        made.filter_map(jail).collect::<Vec<_>>()
    };
    let until = async |count: usize| {
        let begun = Instant::now();
        while ahead().len() < count {
            assert!(begun.elapsed() < PATIENCE, "{}", server.log());
            // What a server logs is no event for a task.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(1).await;
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port is free");
    let reach = reach(&server, &listener);
    let table = format!("sandbar_{}", server.slot().name());
    let before = server.shell("first", &reach).await;

    run("nft", &["delete", "table", "inet", &table]);
    let _log = server.log_until("network restored");
    until(2).await;
    assert_eq!(create("third").await.status, 201);

    let log = server.log_until("sandbox_id=third ");
    let started = log.lines().find(|line| line.contains("sandbox_id=third ")).expect("it is there");
    assert!(started.contains("was_ahead=true"), "{started}");
    assert!(started.contains(&format!("jail={} ", ahead()[1])), "{started} {:?}", ahead());
    assert_eq!(server.shell("third", &reach).await, before);
}

/// A command that tells whether the host's `listener` and the outside can be reached.
fn reach(server: &Server, listener: &std::net::TcpListener) -> String {
    let gateway = server.slot().subnet().replace(".0/24", ".1");
    let port = listener.local_addr().expect("it has an address").port();
    let reach =
        REACH.replace("GATEWAY", &format!("'{gateway}'")).replace("PORT", &port.to_string());
    format!("python3 -c \"{reach}\"")
}
