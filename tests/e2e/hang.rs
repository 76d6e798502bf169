//! There is no way to make a command hang: what tries ends in its time, whole.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{Raw, Server, reqwest::Method};
use tokio::time::timeout;

use crate::{
    disk::Disk,
    process::{PROCESSES, exit, of, start, wait},
    server,
};

const EXEC: &str = "/v1/sandboxes/s/exec";

/// Far more than anything here takes, far less than for ever.
const PATIENCE: Duration = Duration::from_secs(60);

async fn exec(server: &Server, body: Value) -> Value {
    let begun = Instant::now();
    let ended = server.post(EXEC, &body).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    ended.json
}

async fn kill(server: &Server, id: &str, body: Value) -> Value {
    let killed = server.post(&of(id, "/kill"), &body).await;
    assert_eq!(killed.status, 200, "{}", killed.text);
    killed.json
}

/// How many processes of this name the sandbox has.
async fn count(server: &Server, name: &str) -> String {
    server.shell("s", &format!("cat /proc/[0-9]*/comm | grep -c '^{name}$' || true")).await
}

/// Waits until the sandbox has one process that sleeps: who starts one goes on before it is what it is.
async fn until_one_sleeps(server: &Server) {
    let one = "for i in $(seq 6000); do [ $(cat /proc/[0-9]*/comm | grep -c '^sleep$') = 1 ] && exit 0; sleep 0.01; done; exit 1";
    server.shell("s", one).await;
}

/// The v2 cgroup of the commands of the only sandbox.
fn user_cgroup(server: &Server) -> PathBuf {
    let hybrid = PathBuf::from("/sys/fs/cgroup/unified");
    let tree = if hybrid.exists() { hybrid } else { PathBuf::from("/sys/fs/cgroup") };
    let node = tree.join(format!("sandbar-{}", server.slot().name()));
    let jails = fs::read_dir(node).expect("there is a v2 tree").flatten();
    let mut jails = jails.map(|entry| entry.path()).filter(|path| path.join("user").exists());
    jails.next().expect("there is a jail").join("user")
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_outputs_open() {
    let server = server();

    let ended = exec(&server, json!({"command": "(setsid sleep 1000) & echo done"})).await;

    assert_eq!((&ended["stdout"], &ended["exitCode"]), (&json!("done\n"), &json!(0)));
    // It was left alone.
    until_one_sleeps(&server).await;
}

/// Begins a stream of what `command` writes, and returns when nothing of it is taken any more.
async fn unread(server: &Server, body: Value) -> Raw {
    let mut raw = Raw::open(server).await;
    let body = body.to_string();
    let length = format!("content-length: {}", body.len());
    let kind = ["content-type: application/json", "accept: text/event-stream", &length];
    assert!(raw.send(&format!("POST {EXEC} HTTP/1.1"), &server.key(), &kind).await);
    assert!(raw.write(&body).await);
    let mut before = 0;
    loop {
        let all = server.get(PROCESSES).await.json;
        let running =
            all["processes"].as_array().expect("a list").iter().find(|it| it["running"] == true);
        let now = running.map_or(0, |it| it["log"]["nextCursor"].as_u64().unwrap_or(0));
        if now > 0 && now == before {
            return raw;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads() {
    let server = server();
    server.shell("s", "true").await;
    let stalled = unread(&server, json!({"command": "yes"})).await;
    let all = server.get(PROCESSES).await.json;
    let id = all["processes"].as_array().expect("a list").iter().find(|it| it["running"] == true);
    let id = id.expect("it runs")["id"].as_str().expect("it has an id").to_owned();

    let killed = timeout(PATIENCE, kill(&server, &id, json!({}))).await.expect("it ends");

    assert_eq!(killed["running"], false, "{killed}");
    drop(stalled);

    let body = json!({"command": "yes", "session": "a", "timeoutMs": 3000});
    let stalled = unread(&server, body).await;
    let next = exec(&server, json!({"command": "echo free", "session": "a"}));
    assert_eq!(timeout(PATIENCE, next).await.expect("its turn comes")["stdout"], "free\n");
    drop(stalled);
}

#[tokio::test]
async fn a_command_that_stops_itself() {
    let server = server();

    // Time enough to write it on a machine that is away for a while.
    let body = json!({"command": "echo before; kill -STOP $$; echo after", "timeoutMs": 3000});
    let ended = exec(&server, body).await;
    assert_eq!(
        (&ended["ending"], &ended["stdout"]),
        (&json!({"type": "timeout"}), &json!("before\n"))
    );

    start(&server, json!({"command": "echo on; kill -STOP $$; sleep 1000", "id": "p"})).await;
    wait(&server, "p", json!({"type": "log", "text": "on"})).await;
    let killed = kill(&server, "p", json!({"graceMs": 60_000})).await;
    assert_eq!(
        killed["ending"],
        json!({"type": "killed", "signal": 15}),
        "it was made to go on first"
    );
}

#[tokio::test]
async fn a_command_without_any_descriptor() {
    let server = server();

    let body =
        json!({"command": "exec 0<&- 1>&- 2>&-; sleep 0.1; exit 3", "stdin": "x".repeat(1 << 20)});

    assert_eq!(exec(&server, body).await["exitCode"], 3);
}

#[tokio::test]
async fn a_fork_bomb() {
    let server = server();
    let body = json!({"id": "s", "resources": {"pids": 64}});
    assert_eq!(server.post("/v1/sandboxes", &body).await.status, 201);
    // Not by a process of its own, for which there may be no room left.
    let bomb = "f() { f | f & }; f; exec sleep 1000";

    let ended = exec(&server, json!({"command": bomb, "timeoutMs": 1500})).await;
    assert_eq!(ended["ending"]["type"], "timeout", "{ended}");
    assert_eq!(server.shell("s", "echo works").await, "works\n");

    start(&server, json!({"command": bomb, "id": "bomb"})).await;
    let begun = Instant::now();
    kill(&server, "bomb", json!({"graceMs": 100})).await;
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(server.shell("s", "echo works").await, "works\n");
}

#[tokio::test]
async fn a_full_disk() {
    let disk = Disk::small(64);
    let settings = [("NETWORK_SUBNET", "none")];
    let server = Server::start_in(env!("CARGO_BIN_EXE_sandbar"), &disk.path(), &settings);
    server.shell("s", "true").await;
    disk.fill();

    let ended =
        exec(&server, json!({"command": "echo on; head -c 10000000 /dev/zero > file"})).await;
    assert_eq!(
        (&ended["ending"], &ended["stdout"]),
        (&json!({"type": "diskFull"}), &json!("on\n"))
    );

    // What is kept of outputs is kept in memory.
    start(&server, json!({"command": "seq 100000; echo end", "id": "p"})).await;
    wait(&server, "p", json!({"type": "log", "pattern": "^end$"})).await;
    assert_eq!(exit(&server, "p").await["exitCode"], 0);
    disk.empty();
}

#[tokio::test]
async fn a_frozen_sandbox() {
    let server = server();
    let script = "trap '' TERM; echo on; while :; do sleep 1000; done";
    start(&server, json!({"command": script, "id": "before"})).await;
    wait(&server, "before", json!({"type": "log", "text": "on"})).await;
    let freeze = user_cgroup(&server).join("cgroup.freeze");
    fs::write(&freeze, "1").expect("the commands can be frozen");

    let ended = exec(&server, json!({"command": "echo hi", "timeoutMs": 500})).await;
    assert_eq!((&ended["ending"], &ended["stdout"]), (&json!({"type": "timeout"}), &json!("")));
    let killed = kill(&server, "before", json!({"graceMs": 200})).await;
    assert_eq!(killed["ending"], json!({"type": "killed", "signal": 9}));

    // One that has no limit waits, and ends with its caller.
    let request = server.request(Method::POST, EXEC).json(&json!({"command": "echo hi"}));
    let waiting = tokio::time::timeout(Duration::from_millis(300), request.send()).await;
    assert!(waiting.is_err(), "it is frozen");
    fs::write(&freeze, "0").expect("the commands can be thawed");
    assert_eq!(server.shell("s", "echo works").await, "works\n");
    let all_have_ended = async {
        let running = format!("{PROCESSES}?running=true");
        while server.get(&running).await.json != json!({"processes": []}) {
            // That a caller has gone is known a moment later.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_have_ended).await.expect("they end with their callers");
}

#[tokio::test]
async fn a_process_that_ignores_every_request_to_end() {
    let server = server();
    let script = "trap '' HUP INT QUIT TERM; echo on; while :; do sleep 1000; done";
    start(&server, json!({"command": script, "id": "p"})).await;
    wait(&server, "p", json!({"type": "log", "text": "on"})).await;

    let killed = kill(&server, "p", json!({"graceMs": 300})).await;

    assert_eq!(
        (&killed["ending"], &killed["exitCode"]),
        (&json!({"type": "killed", "signal": 9}), &json!(137))
    );
    assert_eq!(count(&server, "sleep").await, "0\n");

    // The grace is none beyond its own limit.
    for (id, more) in [("free", json!({})), ("bound", json!({"session": "a"}))] {
        let mut body = json!({"command": script, "id": id, "timeoutMs": 3000});
        body.as_object_mut()
            .expect("it is one")
            .extend(more.as_object().expect("it is one").clone());
        start(&server, body).await;
        wait(&server, id, json!({"type": "log", "text": "on"})).await;
        let killed = timeout(PATIENCE / 2, kill(&server, id, json!({"graceMs": 60_000}))).await;
        assert_eq!(killed.expect("it ends with its limit")["running"], false, "{id}");
    }
    assert_eq!(count(&server, "sleep").await, "0\n");
}

#[tokio::test]
async fn a_tree_of_five_hundred_generations() {
    let server = server();
    // Each generation waits for the next; the last says that it is there.
    let script = "printf '%s\\n' '[ $1 = 0 ] && { echo bottom; sleep 1000; }' 'sh ./down $(($1-1)); exit' > down
        sh ./down 500";
    start(&server, json!({"command": script, "id": "deep"})).await;
    wait(&server, "deep", json!({"type": "log", "text": "bottom"})).await;

    let killed = kill(&server, "deep", json!({})).await;

    assert_eq!(killed["ending"], json!({"type": "killed", "signal": 15}));
    assert_eq!(count(&server, "sleep").await, "0\n");
    let left = fs::read_to_string(user_cgroup(&server).join("cgroup.events")).unwrap();
    assert!(left.contains("populated 0"), "{left}");
}

#[tokio::test]
async fn daemons_that_hide() {
    let server = server();
    // Twice forked, in a session of its own, its parent gone, its outputs elsewhere.
    let daemon = "(setsid sh -c '(setsid sleep 1000 </dev/null >/dev/null 2>&1 &)' &)";

    let body = json!({"command": format!("{daemon}; sleep 500"), "timeoutMs": 500});
    assert_eq!(exec(&server, body).await["ending"]["type"], "timeout");
    assert_eq!(count(&server, "sleep").await, "0\n");

    start(&server, json!({"command": format!("{daemon}; exit 0"), "id": "p"})).await;
    assert_eq!(exit(&server, "p").await["exitCode"], 0);
    // What a process leaves is left alone.
    until_one_sleeps(&server).await;
    kill(&server, "p", json!({})).await;
    assert_eq!(count(&server, "sleep").await, "0\n");
}

#[tokio::test]
async fn zombies_and_orphans() {
    let server = server();

    let orphans = "for i in $(seq 200); do (sleep 0.0$((i % 10)) &) ; done; exit 0";
    exec(&server, json!({"command": orphans})).await;
    // Children that nobody waits for end with their parent.
    let zombies = "import os\nfor _ in range(100):\n  if os.fork() == 0: os._exit(0)\nos._exit(0)";
    exec(&server, json!({"command": ["python3", "-c", zombies]})).await;

    let none = "for i in $(seq 6000); do grep -qs '^State:.*zombie' /proc/[0-9]*/status || exit 0; sleep 0.01; done; exit 1";
    server.shell("s", none).await;
    let gone = "for i in $(seq 6000); do [ $(cat /proc/[0-9]*/comm | grep -c '^sleep$') = 0 ] && exit 0; sleep 0.01; done; exit 1";
    server.shell("s", gone).await;
}

#[tokio::test]
async fn a_line_of_200_megabytes() {
    const BYTES: u64 = 200_000_000;
    let server = server();
    let line = format!("head -c {BYTES} /dev/zero | tr '\\0' x");

    let ended = exec(&server, json!({"command": &line})).await;
    let kept = ended["stdout"].as_str().map_or(0, str::len) as u64;
    assert_eq!(kept + ended["droppedBytes"].as_u64().unwrap_or(0), BYTES);

    start(&server, json!({"command": format!("{line}; echo; echo after it"), "id": "p"})).await;
    let ready = wait(&server, "p", json!({"type": "log", "pattern": "^after it$"})).await;
    assert_eq!(ready["line"]["text"], "after it");
}

#[tokio::test]
async fn a_gigabyte_of_output_in_the_background() {
    const BYTES: u64 = 1 << 30;
    let server = server();
    start(&server, json!({"command": format!("yes | head -c {BYTES}"), "id": "p"})).await;

    let ended = exit(&server, "p").await;

    let log = &ended["log"];
    let (first, next) = (log["firstCursor"].as_u64().unwrap(), log["nextCursor"].as_u64().unwrap());
    assert_eq!((&ended["exitCode"], next), (&json!(0), BYTES));
    assert_eq!(log["droppedBytes"].as_u64(), Some(first));
    assert!((1..=testkit::api::limit::LOG_BYTES as u64).contains(&(next - first)), "{log}");
    let logs = server.get(&of("p", "/logs?cursor=0")).await.json;
    let records = logs["records"].as_array().unwrap();
    let kept: usize =
        records.iter().filter_map(|record| record["data"].as_str()).map(str::len).sum();
    assert_eq!(logs["droppedBytes"].as_u64().unwrap() + kept as u64, BYTES);
}

#[tokio::test]
async fn binary_output() {
    let server = server();
    let script = "import os\nos.write(1, bytes(range(256)) * 400)\nos.write(2, b'\\xff\\x00')";
    start(&server, json!({"command": ["python3", "-c", script], "id": "p"})).await;
    exit(&server, "p").await;

    let logs = server.get(&of("p", "/logs?encoding=base64")).await.json;

    let bytes = |stream: &str| -> Vec<u8> {
        let records = logs["records"].as_array().unwrap().iter();
        let texts = records.filter(|r| r["stream"] == stream).filter_map(|r| r["data"].as_str());
        texts
            .flat_map(|text| {
                testkit::client::decode_output(text, testkit::api::exec::Encoding::Base64).unwrap()
            })
            .collect()
    };
    let expected: Vec<u8> = (0..=255).cycle().take(102_400).collect();
    assert_eq!((bytes("stdout"), bytes("stderr")), (expected, vec![0xff, 0]));
}

/// The kernel gives a process id again; the process that had it before is another.
#[tokio::test]
async fn a_process_id_that_is_given_again() {
    let server = server();
    let first = start(&server, json!({"command": ["true"], "id": "first"})).await;
    exit(&server, "first").await;
    let pid = first["pid"].as_i64().unwrap();
    let procs =
        fs::read_to_string(user_cgroup(&server).parent().unwrap().join("agent/cgroup.procs"))
            .unwrap();
    let set = format!("echo {} > /proc/sys/kernel/ns_last_pid", pid - 1);
    let status = std::process::Command::new("nsenter")
        .args(["-t", procs.trim(), "-p", "sh", "-c", &set])
        .status()
        .unwrap();
    assert!(status.success());

    let second = start(&server, json!({"command": "echo on; sleep 1000", "id": "second"})).await;

    assert_eq!(second["pid"].as_i64(), Some(pid), "the id is given again");
    assert_eq!(server.get(&of(&pid.to_string(), "")).await.json["id"], "second");
    let signalled = server.post(&of("first", "/signal"), &json!({"signal": "KILL"})).await;
    assert_eq!(signalled.code(), "PROCESS_ENDED");
    kill(&server, "first", json!({})).await;
    assert_eq!(server.get(&of("second", "")).await.json["running"], true);
}
