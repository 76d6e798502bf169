//! The machine is started again: of the node there is the state directory, and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{Preview, Server};

use crate::server;

/// How long the kernel may take to end what was killed, and a service to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the database say that everything ran in another boot than this.
const ANOTHER_BOOT: &str = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute(\"UPDATE sandbox SET boot_id = 'before' WHERE boot_id IS NOT NULL\")
database.commit()";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
}

/// The node's directories in the trees of cgroups.
pub(crate) fn node_groups(server: &Server) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("there is /proc");
    let trees = mounts.lines().filter(|line| line.contains(" cgroup"));
    let trees = trees.filter_map(|line| line.split(' ').nth(1));
    let node = format!("sandbar-{}", server.slot().name());
    trees.map(|tree| Path::new(tree).join(&node)).filter(|dir| dir.exists()).collect()
}

/// The groups below this one, those farthest down first, and it.
fn groups(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.flat_map(|entry| groups(&entry.path())).chain([dir.to_owned()]).collect()
}

fn kill(pid: i32) {
    use std::os::fd::AsFd;
    if let Ok(pidfd) = sys::pidfd::open(pid) {
        sys::signal::send(pidfd.as_fd(), sys::signal::SIGKILL).unwrap_or_default();
    }
}

/// Leaves nothing of the node but its state directory.
fn reboot(server: &mut Server) {
    server.kill();
    let begun = Instant::now();
    let trees = node_groups(server);
    while trees.iter().any(|tree| tree.exists()) {
        for group in trees.iter().flat_map(|tree| groups(tree)) {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            processes.lines().filter_map(|pid| pid.parse().ok()).for_each(kill);
            fs::remove_dir(&group).unwrap_or_default();
        }
        assert!(begun.elapsed() < PATIENCE, "groups stay: {:#?}", server.look());
        // There is no event for the end of all processes of a group that works in each tree.
        std::thread::sleep(Duration::from_millis(5));
    }
    run("nft", &["delete", "table", "inet", &format!("sandbar_{}", server.slot().name())]);
    let gateway = server.slot().subnet().replace(".0/24", ".1/32");
    run("ip", &["address", "delete", &gateway, "dev", "lo"]);
    let database = server.state_dir().join("sandbar.db");
    run("python3", &["-c", ANOTHER_BOOT, &database.to_string_lossy()]);
    while server.look().found().links > 0 {
        assert!(begun.elapsed() < PATIENCE, "links stay: {:#?}", server.look());
        std::thread::sleep(Duration::from_millis(5));
    }
    server.restart();
}

#[tokio::test]
async fn after_a_reboot_sandboxes_are_stopped_with_their_files_and_all_that_was_defined() {
    let mut server = server();
    let serve = "exec python3 -m http.server 8080";
    let asked = json!({"id": "s", "labels": {"team": "a"}, "env": {"GIVEN": "1"},
        "services": [{"name": "web", "command": serve, "port": 8080}]});
    assert_eq!(server.post("/v1/sandboxes", &asked).await.status, 201);
    server.shell("s", "echo kept > kept; sleep 1000 &").await;
    let env = json!({"env": {"SET": "2"}});
    assert_eq!(server.patch("/v1/sandboxes/s/env", &env).await.status, 204);
    let session = json!({"id": "build", "cwd": "/tmp", "env": {"OWN": "3"}});
    assert_eq!(server.post("/v1/sandboxes/s/sessions", &session).await.status, 201);
    server.shell("other", "echo other > kept").await;
    let made = server.post("/v1/sandboxes/other/checkpoints", &json!({"id": "c"})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(server.post("/v1/sandboxes/other/freeze", &json!({})).await.status, 200);
    let preview = Preview::of(&server).await.host;
    let token = |host: &str| host.split('.').next().map(str::to_owned);

    reboot(&mut server);

    for id in ["s", "other"] {
        let found = server.get(&format!("/v1/sandboxes/{id}")).await;
        assert_eq!(found.json["state"], "stopped", "{}", found.text);
        let events = server.get(&format!("/v1/events?sandbox={id}&kind=stopped")).await;
        assert_eq!(events.json["events"][0]["cause"], "reboot", "{}", events.text);
    }
    let found = server.look().found();
    assert_eq!((found.jails, found.links, found.sockets, found.volumes), (0, 0, 0, 3));
    assert_eq!(server.get("/v1/sandboxes/s").await.json["labels"]["team"], "a");
    let ports = server.get("/v1/sandboxes/s/ports").await;
    let url = ports.json["ports"][0]["url"].as_str().expect(&ports.text);
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    assert_eq!(token(&host), token(&preview), "{}", ports.text);

    // A visit is a use: it starts the sandbox, and the sandbox its service.
    let begun = Instant::now();
    loop {
        let visit = testkit::reqwest::Client::new().get(format!("{}/kept", server.url()));
        let seen = visit.header("host", &host).send().await.expect("a response comes");
        if seen.status() == 200 {
            assert_eq!(seen.text().await.expect("it is whole"), "kept\n");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let command = json!({"command": "pwd; echo $GIVEN $SET $OWN", "session": "build"});
    let ran = server.post("/v1/sandboxes/s/exec", &command).await;
    assert_eq!(ran.json["stdout"], "/tmp\n1 2 3\n", "{}", ran.text);
    let restored = server.post("/v1/sandboxes/other/restore", &json!({"checkpoint": "c"})).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    assert_eq!(server.shell("other", "cat kept").await, "other\n");
}
