//! The node: health, metrics, configuration, start and stop.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;
use testkit::Server;

use crate::server;

#[tokio::test]
async fn health_and_metrics_tell_what_happens() {
    let server = server();
    server.shell("s", "true").await;

    assert_eq!(server.get("/healthz").await.json["status"], "ok");

    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("sandbar_"), "{}", metrics.text);
    assert!(metrics.text.ends_with("# EOF\n"), "not OpenMetrics");
}

#[tokio::test]
async fn the_log_has_one_structured_line_per_request() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("LOG_FORMAT", "json")]);

    let answer = server.get("/v1/sandboxes/none").await;

    let id = answer.json["error"]["requestId"].as_str().expect("errors name their request");
    let log = server.log_until(id);
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_request: Vec<_> = lines.filter(|line| line["request_id"] == id).collect();
    assert_eq!(of_request.len(), 1, "{log}");
    assert_eq!(of_request[0]["status"], 404);
}

#[test]
fn a_start_where_isolation_cannot_work_is_refused() {
    let server = server();
    let free = testkit::Slot::take();
    // The files of sandboxes cannot be an overlay on an overlay.
    let overlay = crate::disk::Disk::overlay();

    let mut command = server.command(["serve"]);
    let complaint = Server::refusal(
        command
            .env("SANDBAR_STATE_DIR", overlay.path().join("state"))
            .env("SANDBAR_NETWORK_SUBNET", free.subnet())
            .env("SANDBAR_NAME", free.name()),
    );

    assert!(complaint.contains("overlay") && complaint.contains("doctor"), "{complaint}");
}

#[test]
fn every_fault_of_the_configuration_is_reported_at_once_with_its_place() {
    let server = server();
    let file = server.state_dir().join("bad.toml");
    fs::write(&file, "listen = 7\ncolour = \"red\"\n\n[limits.default]\nmemory = \"much\"\n")
        .unwrap();

    let mut command = server.command(["serve", "--config"]);
    let complaint = Server::refusal(command.arg(&file).env("SANDBAR_UID_BASE", "5"));

    for fault in ["bad.toml:1", "bad.toml:2", "bad.toml:5", "SANDBAR_UID_BASE"] {
        assert!(complaint.contains(fault), "{fault} is missing in:\n{complaint}");
    }
}

#[test]
fn an_occupied_port_is_told_and_nothing_is_touched() {
    let server = server();
    let other = Server::start(env!("CARGO_BIN_EXE_sandbar"));
    let address = other.url().trim_start_matches("http://").to_owned();
    let before = server.look();

    let free = testkit::Slot::take();

    let mut command = server.command(["serve"]);
    let complaint = Server::refusal(
        command
            .env("SANDBAR_STATE_DIR", server.state_dir().join("second"))
            .env("SANDBAR_NAME", free.name())
            .env("SANDBAR_NETWORK_SUBNET", free.subnet())
            .env("SANDBAR_LISTEN", &address),
    );

    assert!(complaint.contains(&address), "{complaint}");
    assert_eq!(server.look(), before);
}

#[test]
fn one_state_directory_admits_one_server() {
    let server = server();

    let complaint = Server::refusal(&mut server.command(["serve"]));

    assert!(complaint.contains("in use") || complaint.contains("lock"), "{complaint}");
}

#[tokio::test]
async fn a_node_whose_sandboxes_go_on_keeps_its_name_and_its_network() {
    let mut server = server();
    server.shell("s", "echo kept > file").await;
    server.kill();
    let before = server.look();
    let free = testkit::Slot::take();

    for (setting, another) in [("name", free.name()), ("network.subnet", free.subnet())] {
        let variable = format!("SANDBAR_{}", setting.replace('.', "_").to_uppercase());
        for command in ["serve", "down"] {
            let complaint = Server::refusal(server.command([command]).env(&variable, &another));
            assert!(complaint.contains(&format!("set {setting} as it was")), "{complaint}");
        }
    }

    assert_eq!(server.look(), before);
    server.restart();
    assert_eq!(server.shell("s", "cat file").await, "kept\n");
}

#[test]
fn a_start_without_root_says_what_is_needed() {
    use std::os::unix::process::CommandExt;

    let server = server();
    // The build directory may be closed to other users.
    let dir = tempfile::Builder::new().prefix("sandbar-test-").tempdir_in("/var/tmp").unwrap();
    let binary = dir.path().join("sandbar");
    fs::copy(env!("CARGO_BIN_EXE_sandbar"), &binary).unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let nobody = 65_534;

    let mut command = std::process::Command::new(&binary);
    let complaint = Server::refusal(
        command
            .args(["serve"])
            .current_dir("/")
            .env("SANDBAR_STATE_DIR", dir.path().join("state"))
            .env("SANDBAR_LISTEN", "127.0.0.1:0")
            .uid(nobody)
            .gid(nobody),
    );

    assert!(complaint.contains("root") && complaint.contains("sudo"), "{complaint}");
    drop(server);
}

#[test]
fn a_public_address_needs_a_key_on_purpose() {
    let server = server();

    let mut command = server.command(["serve"]);
    let complaint = Server::refusal(
        command
            .env("SANDBAR_STATE_DIR", server.state_dir().join("second"))
            .env("SANDBAR_LISTEN", "0.0.0.0:0"),
    );

    assert!(complaint.contains("key"), "{complaint}");
}

#[tokio::test]
async fn a_graceful_stop_leaves_sandboxes_running_and_a_start_finds_them() {
    let mut server = server();
    server.shell("s", "echo kept > file; sleep 1000 & echo $! > pid").await;

    server.stop();
    server.restart();

    assert_eq!(server.get("/v1/sandboxes/s").await.json["state"], "running");
    assert_eq!(server.shell("s", "cat file; cat /proc/$(cat pid)/comm").await, "kept\nsleep\n");
}

#[tokio::test]
async fn down_ends_processes_and_keeps_files() {
    let mut server = server();
    server.shell("s", "echo kept > file; sleep 1000 &").await;

    let down = server.command(["down"]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let claim = format!("/run/sandbar-{}.lock", server.slot().name());
    assert!(!Path::new(&claim).exists(), "the node was there when `down` had said that it is not");
    server.wait_for_end();
    server.restart();

    assert_eq!(server.get("/v1/sandboxes/s").await.json["state"], "stopped");
    assert_eq!(
        server.shell("s", "cat file; cat /proc/[0-9]*/comm | grep -c '^sleep$' || true").await,
        "kept\n0\n"
    );
}

#[tokio::test]
async fn a_sandbox_for_which_a_smaller_network_has_no_address_is_told_kept_and_can_be_destroyed() {
    let mut server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &[("MAX_SANDBOXES", "13")]);
    let large = server.slot().subnet();
    let small = large.replace("/24", "/28");
    let restart_in = |server: &mut Server, subnet: &str, how: &[&str]| {
        let down = server.command(["down"]).args(how).output().unwrap();
        assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
        server.wait_for_end();
        server.restart_with("NETWORK_SUBNET", subnet);
    };
    server.shell("near", "echo near > file").await;
    // Addresses are given out in turn, and the smaller network has 13.
    for _ in 1..13 {
        server.shell("between", "true").await;
        assert_eq!(server.delete("/v1/sandboxes/between").await.status, 204);
    }
    for id in ["far", "farther"] {
        server.shell(id, "echo far > file").await;
    }

    restart_in(&mut server, &small, &[]);

    assert_eq!(server.shell("near", "cat file").await, "near\n");
    let far = server.get("/v1/sandboxes/far").await;
    assert_eq!(far.json["state"], "failed", "{}", far.text);
    let why = far.json["failure"].as_str().unwrap();
    assert!(why.contains("addresses"), "{why}");
    let log = server.log();
    assert!(log.contains("it is not started sandbox_id=far "), "{log}");
    let again = server.post("/v1/sandboxes", &json!({"id": "far"})).await;
    assert_eq!(again.code(), "SANDBOX_FAILED", "{}", again.text);
    assert_eq!(again.json["error"]["message"], why);
    let forked = server.post("/v1/sandboxes/far/fork", &json!({"ids": ["saved"]})).await;
    assert_eq!(forked.status, 201, "{}", forked.text);
    assert_eq!(server.shell("saved", "cat file").await, "far\n");

    restart_in(&mut server, &large, &[]);

    assert_eq!(server.get("/v1/sandboxes/far").await.json["state"], "stopped");
    assert_eq!(server.shell("far", "cat file").await, "far\n");

    restart_in(&mut server, &small, &[]);

    assert_eq!(server.delete("/v1/sandboxes/far").await.status, 204);
    assert_eq!(server.shell("far", "ls").await, "");

    restart_in(&mut server, &large, &["--destroy"]);

    let left = server.get("/v1/sandboxes").await;
    assert_eq!(left.json["sandboxes"], json!([]), "{}", left.text);
}

#[test]
fn the_key_is_made_once_and_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let mut server = server();
    let key = server.key();
    let mode = fs::metadata(server.state_dir().join("key")).unwrap().permissions().mode();

    server.stop();
    server.restart();

    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.key(), key);
    let log = server.log();
    assert!(!log.contains(&key), "the key is in the log");
}

#[tokio::test]
async fn a_full_state_disk_is_told_and_loses_nothing() {
    let disk = crate::disk::Disk::small(64);
    let server = Server::start_in(
        env!("CARGO_BIN_EXE_sandbar"),
        &disk.path(),
        &[("NETWORK_SUBNET", "none")],
    );
    server.shell("kept", "echo kept > file").await;

    disk.fill();
    let refused = server.post("/v1/sandboxes", &json!({"id": "refused"})).await;
    assert_eq!(refused.code(), "NO_SPACE", "{}", refused.text);
    assert_eq!(server.shell("kept", "cat file").await, "kept\n");
    let written = server.put("/v1/sandboxes/kept/files/workspace/more", vec![0; 1 << 20]).await;
    assert_eq!(written.code(), "NO_SPACE", "{}", written.text);

    disk.empty();
    assert_eq!(server.shell("refused", "echo made").await, "made\n");
}

/// A state directory of a server that was root, all of which is root's.
#[tokio::test]
async fn a_state_directory_of_roots_is_taken_over_with_its_sandboxes() {
    let mut server = server();
    server.shell("runs", "echo kept > file; (while [ ! -e stop ]; do sleep 0.01; done) &").await;
    server.shell("stops", "echo kept > file").await;
    assert_eq!(server.post("/v1/sandboxes/stops/stop", &json!({})).await.status, 200);
    let key = server.key();
    server.stop();
    let state = server.state_dir().to_owned();
    let chown = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(0), Some(0)).expect("it is there");
    };
    for dir in [state.clone(), state.join("run")] {
        for entry in fs::read_dir(&dir).unwrap() {
            chown(&entry.unwrap().path());
        }
        chown(&dir);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    }

    server.restart();

    assert_eq!(server.key(), key);
    for id in ["runs", "stops"] {
        assert_eq!(server.shell(id, "cat file").await, "kept\n");
    }
    // Its sockets are the server's again: it was adopted, not started.
    let told = server.get("/v1/events?sandbox=runs").await;
    assert!(!told.text.contains("stopped"), "{}", told.text);
    let rotated = server.post("/v1/keys/local/rotate", &json!({})).await;
    assert!(rotated.status < 500, "{}", rotated.text);
}

#[tokio::test]
async fn an_account_can_be_named_for_the_server() {
    let binary = env!("CARGO_BIN_EXE_sandbar");
    let server = Server::start_with(binary, &[("USER", "nobody")]);
    assert_eq!(server.shell("s", "echo ready").await, "ready\n");
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
}
