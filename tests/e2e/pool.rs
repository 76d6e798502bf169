//! Sandboxes that are made ahead: like any other when somebody gets one, and nobody's before.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{PATIENCE, Server};

/// A server that makes up to two ahead, with two of its own default sandboxes made ahead.
async fn server() -> Server {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("POOL", "2")]);
    for id in ["first", "second"] {
        assert_eq!(server.post("/v1/sandboxes", &json!({"id": id})).await.status, 201);
    }
    let _log = server.log_until("ahead=2");
    server
}

fn was_ahead(server: &Server, id: &str) -> bool {
    let started = format!("sandbox started sandbox_id={id} ");
    let log = server.log_until(&started);
    let line = log.lines().find(|line| line.contains(&started)).expect("its start is logged");
    line.contains("was_ahead=true")
}

const WHAT_IT_IS: &str = "hostname; echo $A; pwd; id -u; ls -A /workspace /tmp /root /run; \
    grep -c : /proc/net/dev; cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f2,4; \
    cat /sys/fs/cgroup/* 2>/dev/null; ulimit -n; nproc";

#[tokio::test]
async fn a_sandbox_that_was_made_ahead_is_like_any_other() {
    let server = server().await;
    let create = |id: &'static str, pids: u32| {
        let body = json!({"id": id, "env": {"A": "mine"}, "resources": {"pids": pids}});
        let server = &server;
        async move {
            let created = server.post("/v1/sandboxes", &body).await;
            assert_eq!(created.status, 201, "{}", created.text);
            server.shell(id, WHAT_IT_IS).await
        }
    };
    let default = server.get("/v1/sandboxes/first").await.json["resources"]["pids"].clone();
    let default = u32::try_from(default.as_u64().unwrap()).unwrap();

    // Limits are of the jail: one with others is another kind.
    let (ahead, anew) = (create("ahead", default).await, create("anew", default - 1).await);

    assert!(was_ahead(&server, "ahead") && !was_ahead(&server, "anew"), "{}", server.log());
    assert_eq!(ahead.replace("ahead\n", "anew\n"), anew);
    assert!(ahead.starts_with("ahead\nmine\n/workspace\n0\n"), "{ahead}");
    let of = |id: &'static str| {
        let server = &server;
        async move {
            let mut json = server.get(&format!("/v1/sandboxes/{id}")).await.json;
            let own = json.as_object_mut().unwrap();
            for field in ["usage", "activity", "createdAtMs", "id"] {
                own.remove(field);
            }
            own["resources"]["pids"] = json!(0);
            json
        }
    };
    assert_eq!(of("ahead").await, of("anew").await);
}

#[tokio::test]
async fn one_that_was_used_is_nobodys_again() {
    let server = server().await;
    for round in 0..4 {
        let id = format!("used-{round}");
        let found =
            server.shell(&id, "cat /workspace/secret /run/secret 2>/dev/null; hostname").await;
        assert_eq!(found, format!("{id}\n"));
        server.shell(&id, "echo s | tee /workspace/secret /run/secret").await;
        assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
    }
    let log = server.log_until("sandbox started sandbox_id=used-3 ");
    let jails = log.lines().filter(|line| line.contains("sandbox started"));
    let mut jails: Vec<&str> =
        jails.filter_map(|line| line.split("jail=").nth(1)?.split(' ').next()).collect();
    let count = jails.len();
    jails.sort_unstable();
    jails.dedup();
    assert_eq!(jails.len(), count, "{log}");
}

#[tokio::test]
async fn what_was_made_ahead_goes_with_the_server() {
    let mut server = server().await;
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "sandbar_sandboxes_ahead 2"), "{metrics}");

    server.stop();
    server.restart();

    // The two that are somebody's; what the end left for later is removed after the start.
    let deadline = Instant::now() + PATIENCE;
    while server.look().volume_count() != 2 {
        assert!(Instant::now() < deadline, "{} volumes are left", server.look().volume_count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.shell("first", "hostname").await, "first\n");
}

/// Nothing but the ladder of idle sandboxes acts by time alone, and what is nobody's is not on it: an
/// hour is to a blank what this second is.
#[tokio::test]
async fn those_made_ahead_are_ready_after_everything_else_has_come_to_rest() {
    let server = server().await;
    let soon = json!({"idle": {"sleepAfterMs": 200, "stopAfterMs": 200}});
    for id in ["first", "second"] {
        let path = format!("/v1/sandboxes/{id}");
        assert_eq!(server.patch(&path, &soon).await.status, 200);
    }
    let begin = Instant::now();
    for id in ["first", "second"] {
        while server.get(&format!("/v1/sandboxes/{id}")).await.json["state"] != "stopped" {
            assert!(begin.elapsed() < PATIENCE, "{}", server.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    let metrics = server.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "sandbar_sandboxes_ahead 2"), "{metrics}");
    for id in ["third", "fourth"] {
        assert_eq!(server.shell(id, "hostname").await, format!("{id}\n"));
    }
    assert!(was_ahead(&server, "third"), "{}", server.log());
}
