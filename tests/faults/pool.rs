//! Sandboxes that were made ahead, and ends that nobody announced.

use std::fs;

use serde_json::json;
use testkit::Server;

use crate::{crash::kill, failpoints::Points};

/// A server with two sandboxes, and two more made ahead.
async fn server() -> Server {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("POOL", "2")]);
    for id in ["first", "second"] {
        assert_eq!(server.post("/v1/sandboxes", &json!({"id": id})).await.status, 201);
    }
    let _log = server.log_until("ahead=2");
    server
}

/// The agents of those that were made ahead, as the host numbers them.
fn agents_ahead(server: &Server) -> Vec<i32> {
    let tree = "/sys/fs/cgroup/unified";
    let tree = if fs::metadata(tree).is_ok() { tree } else { "/sys/fs/cgroup" };
    let log = server.log();
    let ahead = log.lines().filter(|line| line.contains("sandbox made ahead"));
    let jails = ahead.filter_map(|line| line.split("jail=").nth(1)?.split(' ').next());
    let agent = |jail: &str| {
        let node = format!("{tree}/sandbar-{}", server.slot().name());
        let procs = format!("{node}/{jail}/agent/cgroup.procs");
        let text = fs::read_to_string(procs).expect("the agent's group can be read");
        text.trim().parse().expect("one process is in it")
    };
    jails.map(agent).collect()
}

#[tokio::test]
async fn what_was_made_ahead_is_gone_after_a_crash() {
    let mut server = server().await;
    let agents = agents_ahead(&server);
    assert_eq!(agents.len(), 2);

    server.kill();
    // Nobody can claim them any more: they end, whether or not there is a next start.
    for pid in agents {
        if let Ok(pidfd) = sys::pidfd::open(pid) {
            let fd = std::os::fd::AsFd::as_fd(&pidfd);
            assert!(sys::poll::wait_readable(fd, 60_000).unwrap(), "agent {pid} goes on");
        }
    }
    server.restart();

    assert_eq!(server.shell("first", "hostname").await, "first\n");
    for id in ["first", "second"] {
        assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
    }
    // The files go behind the reply; the leak check at the end of the test sees to the rest.
    while server.look().volume_count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_whose_agent_has_ended_costs_no_creation() {
    let server = server().await;
    agents_ahead(&server).into_iter().for_each(kill);

    for id in ["third", "fourth"] {
        let created = server.post("/v1/sandboxes", &json!({"id": id})).await;
        assert_eq!(created.status, 201, "{}", created.text);
        assert_eq!(server.shell(id, "hostname").await, format!("{id}\n"));
    }
    // Told of before the last of them is.
    let log = server.log_until("sandbox_id=fourth ");
    assert_eq!(log.matches("is of no use").count(), 2, "{log}");
}

#[tokio::test]
async fn one_that_cannot_get_its_name_costs_no_creation() {
    let cases = [
        ("ask.name", "error"),
        ("launcher.name", "error"),
        ("launcher.name", "kill"),
        ("launcher.name.done", "kill"),
        ("heard.name", "error"),
    ];
    for (point, word) in cases {
        let server = server().await;
        Points::of(&server).arm(point, word);

        let created = server.post("/v1/sandboxes", &json!({"id": "third"})).await;

        assert_eq!(created.status, 201, "{word} at {point}: {}", created.text);
        assert_eq!(server.shell("third", "hostname").await, "third\n", "{word} at {point}");
        let log = server.log_until("sandbox_id=third ");
        assert_eq!(log.matches("is of no use").count(), 1, "{word} at {point}: {log}");
    }
}
