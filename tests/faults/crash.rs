//! Processes of the product are killed with -9.

use std::{
    fs,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::stream;
use serde_json::json;
use testkit::{
    Server,
    reqwest::{Body, Method, RequestBuilder},
    tape,
};
use tokio::sync::watch;

use crate::server;

pub(crate) fn kill(pid: i32) {
    let pidfd = sys::pidfd::open(pid).expect("the process runs");
    sys::signal::send(pidfd.as_fd(), sys::signal::SIGKILL).expect("it can be killed");
    assert!(sys::poll::wait_readable(pidfd.as_fd(), 60_000).expect("it can be waited for"));
}

/// Process ids of the children of process `parent`.
fn children(parent: u32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).expect("the kernel lists children");
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[tokio::test]
async fn a_killed_daemon_leaves_commands_running_and_the_next_one_adopts_them() {
    let mut server = server();
    for id in ["a", "b", "c"] {
        server.shell(id, "(while [ ! -e stop ]; do echo tick >> ticks; sleep 0.02; done; echo ended > end) & echo $! > pid").await;
    }
    let before = server.look();

    server.kill();
    server.restart();

    for id in ["a", "b", "c"] {
        assert_eq!(server.get(&format!("/v1/sandboxes/{id}")).await.json["state"], "running");
        let went_on = "n=$(wc -l < ticks); for i in $(seq 6000); do [ $(wc -l < ticks) -gt $n ] && exit 0; sleep 0.01; done; exit 1";
        server.shell(id, went_on).await;
        let ends =
            "touch stop; for i in $(seq 6000); do [ -e end ] && exit 0; sleep 0.01; done; exit 1";
        server.shell(id, ends).await;
    }
    assert_eq!(server.look(), before);
}

#[tokio::test]
async fn everything_acknowledged_survives_a_killed_daemon() {
    let mut server = server();
    let body =
        json!({"id": "s", "env": {"A": "1"}, "labels": {"l": "v"}, "resources": {"pids": 99}});
    let created = server.post("/v1/sandboxes", &body).await;
    server.put("/v1/sandboxes/s/files/workspace/f", "kept").await;
    assert_eq!(server.delete("/v1/sandboxes/never").await.status, 404);
    server.post("/v1/sandboxes", &json!({"id": "gone"})).await;
    assert_eq!(server.delete("/v1/sandboxes/gone").await.status, 204);

    server.kill();
    server.restart();

    let mut found = server.get("/v1/sandboxes/s").await.json;
    let mut expected = created.json;
    for sandbox in [&mut found, &mut expected] {
        let sandbox = sandbox.as_object_mut().expect("a sandbox is an object");
        // What is so at this moment: figures, and since when nobody uses it, which a restart is.
        sandbox.remove("usage");
        sandbox.remove("activity");
    }
    assert_eq!(found, expected);
    assert_eq!(server.get("/v1/sandboxes/s/files/workspace/f").await.text, "kept");
    assert_eq!(server.get("/v1/sandboxes/gone").await.status, 404);
}

#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_creations_leaves_a_consistent_node() {
    let mut server = server();
    for round in 0..5_u64 {
        let calls: Vec<_> = (0..6)
            .map(|i| {
                let path = format!("/v1/sandboxes/r{round}-{i}/exec");
                let request = server.request(testkit::reqwest::Method::POST, &path);
                tokio::spawn(request.json(&json!({"command": "echo made > file"})).send())
            })
            .collect();
        // A different moment of the creations each round; none of them matters.
        tokio::time::sleep(std::time::Duration::from_millis(round * 7)).await;
        server.kill();
        for call in calls {
            drop(call.await);
        }
        server.restart();
    }

    for sandbox in
        server.get("/v1/sandboxes").await.json["sandboxes"].as_array().into_iter().flatten()
    {
        let id = sandbox["id"].as_str().expect("an id is text");
        assert_eq!(server.shell(id, "echo works").await, "works\n");
    }
}

#[tokio::test]
async fn a_killed_agent_costs_its_sandbox_its_processes_and_nothing_else() {
    let server = server();
    server.shell("s", "echo kept > file; sleep 1000 &").await;

    kill(server.agent_pid());

    assert_eq!(server.shell("s", "cat file").await, "kept\n");
    assert_eq!(server.shell("s", "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true").await, "0\n");
}

#[tokio::test]
async fn a_command_whose_sandbox_dies_ends_with_an_error_at_once() {
    let server = server();
    server.shell("s", "true").await;
    let agent = server.agent_pid();
    let request = server.request(testkit::reqwest::Method::POST, "/v1/sandboxes/s/exec");
    let call = tokio::spawn(request.json(&json!({"command": "touch began; sleep 1000"})).send());
    let began = "for i in $(seq 6000); do [ -e began ] && exit 0; sleep 0.01; done; exit 1";
    server.shell("s", began).await;

    kill(agent);

    let answer = testkit::answer(call.await.unwrap().unwrap()).await;
    assert_eq!(answer.code(), "AGENT_UNREACHABLE", "{}", answer.text);
}

async fn call(request: &RequestBuilder, body: Option<&serde_json::Value>) -> testkit::Answer {
    let request = request.try_clone().expect("it has no stream for a body");
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    testkit::answer(request.send().await.expect("the server answers")).await
}

/// Reads a file and runs a command, again and again. Returns the commands' names, with those that were
/// acknowledged; the others may have been run.
async fn read_and_run(
    caller: usize,
    (read, exec): (RequestBuilder, RequestBuilder),
    (reads, ends): (watch::Sender<usize>, Arc<AtomicBool>),
) -> Vec<(String, bool)> {
    let mut ran = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let answer = call(&read, None).await;
        assert_eq!((answer.status, &*answer.text), (200, "kept\n"), "it changes nothing");
        reads.send_modify(|reads| *reads += 1);
        let name = format!("{caller}-{}", ran.len());
        let command = json!({"command": format!("echo {name} >> log")});
        let answer = call(&exec, Some(&command)).await;
        if answer.status != 200 {
            assert_eq!(answer.code(), "AGENT_UNREACHABLE", "{}", answer.text);
            assert!(answer.text.contains("may have been run"), "{}", answer.text);
        }
        ran.push((name, answer.status == 200));
    }
    ran
}

/// Callers are at work, several at once, each with one request after the other, while the agent is killed
/// again and again. Its socket refuses some time before the engine can know of its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_were_not_sent_to_a_killed_agent_are_answered_by_the_next() {
    const CALLERS: usize = 4;
    const KILLS: usize = 5;
    let server = server();
    server.shell("s", "echo kept > file; : > log").await;
    let ends = Arc::new(AtomicBool::new(false));
    let callers = (0..CALLERS).map(|caller| {
        let read = server.request(Method::GET, "/v1/sandboxes/s/files/workspace/file");
        let exec = server.request(Method::POST, "/v1/sandboxes/s/exec");
        let (reads, seen) = watch::channel(0);
        let ends = (reads, Arc::clone(&ends));
        (tokio::spawn(read_and_run(caller, (read, exec), ends)), seen)
    });
    let (callers, mut seen): (Vec<_>, Vec<_>) = callers.unzip();
    for _ in 0..KILLS {
        // Answered by the agent that is there now, so the one before is gone; and whoever has read once more
        // asks for something else than when that was killed: nobody meets every kill.
        server.shell("s", "true").await;
        for seen in &mut seen {
            seen.changed().await.expect("the caller goes on");
        }
        kill(server.agent_pid());
        seen.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }
    server.shell("s", "true").await;
    ends.store(true, Ordering::Relaxed);

    let mut lost = 0;
    for caller in callers {
        let ran = caller.await.unwrap();
        let log = server.shell("s", "cat log").await;
        for (name, is_acknowledged) in ran {
            let times = log.lines().filter(|line| *line == name).count();
            assert!(times <= 1 && (times == 1 || !is_acknowledged), "{name} ran {times} times");
            lost += usize::from(!is_acknowledged);
        }
    }
    // Only what an agent had been sent when it was killed: what a caller asks next is answered by another.
    assert!(lost <= KILLS * CALLERS, "{lost} commands may or may not have been run");
}

#[tokio::test]
async fn killed_launchers_are_replaced() {
    let server = server();
    server.shell("before", "true").await;

    let launchers = children(server.keeper_pid());
    assert!(launchers.len() > 1, "{launchers:?}");
    launchers.into_iter().for_each(kill);

    assert_eq!(server.shell("after", "echo made").await, "made\n");
    assert_eq!(server.shell("before", "echo kept").await, "kept\n");
}

/// Nothing of root's can be started without it: the server ends, and the next one has another.
#[tokio::test]
async fn a_killed_keeper_ends_the_server_and_no_sandbox() {
    let mut server = server();
    server.shell("s", "(while [ ! -e stop ]; do sleep 0.01; done; echo ended > end) &").await;

    kill(i32::try_from(server.keeper_pid()).unwrap());

    let log = server.expect_failure();
    assert!(log.contains("the keeper has ended"), "{log}");
    server.restart();
    let ended = "touch stop; for i in $(seq 6000); do [ -e end ] && exec cat end; sleep 0.01; done";
    assert_eq!(server.shell("s", ended).await, "ended\n");
}

/// Each file is as it was before or as it is in the archive, whenever the agent dies.
#[tokio::test]
async fn an_agent_killed_while_it_unpacks_leaves_whole_files() {
    const FILES: usize = 300;
    let server = server();
    let (old, new) = ("old\n".repeat(5000), "new\n".repeat(9000));
    let parts = |content: &str| {
        let files = (0..FILES).map(|number| tape::file(&format!("d/{number}"), content));
        tape::archive(&files.collect::<Vec<_>>())
    };
    let path = "/v1/sandboxes/s/archive?path=to";
    assert_eq!(server.put(path, parts(&old)).await.status, 200);
    for round in 0..5_usize {
        let archive = parts(&new);
        // The rest never comes; the agent waits for it when it dies, or is still busy.
        let sent = archive.len() / 6 * (round + 1);
        let (pieces, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
        let body = stream::unfold(body, |mut body| async { body.recv().await.map(|p| (p, body)) });
        let request = server.request(Method::PUT, path).body(Body::wrap_stream(body));
        let upload = tokio::spawn(request.send());
        for piece in archive[..sent].chunks(100_000) {
            pieces.send(Ok(piece.to_vec())).await.expect("the upload runs");
        }
        let some_new =
            "for i in $(seq 6000); do grep -qls new to/d/* && exit 0; sleep 0.01; done; exit 1";
        server.shell("s", some_new).await;

        kill(server.agent_pid());

        let answer = testkit::answer(upload.await.unwrap().unwrap()).await;
        assert_eq!(answer.code(), "AGENT_UNREACHABLE", "{}", answer.text);
        // The death is known when the sandbox answers again.
        let again = json!({"command": "true"});
        while server.post("/v1/sandboxes/s/exec", &again).await.status != 200 {}
        let sums = server.shell("s", "cat to/d/[0-9]* | wc -c; sha256sum to/d/[0-9]* | cut -c1-64 | sort -u | wc -l; ls to/d | wc -l").await;
        let fields: Vec<usize> = sums.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        assert_eq!((fields[1], fields[2]), (2, FILES), "{sums}");
        assert_eq!((fields[0] - FILES * old.len()) % (new.len() - old.len()), 0, "{sums}");
        assert_eq!(server.put(path, parts(&old)).await.status, 200);
    }
}

#[tokio::test]
async fn a_killed_daemon_leaves_no_mount_and_no_loop_device_that_nobody_needs() {
    let mut server = server();
    let before = server.look();
    server.shell("s", "echo kept > file; sync").await;
    let loop_device = |server: &Server| {
        let image = server.state_dir().join("volumes.img");
        let devices = fs::read_dir("/sys/block").expect("there is sysfs").flatten();
        let behind = devices.map(|device| device.path().join("loop/backing_file"));
        behind
            .filter(|file| {
                fs::read_to_string(file).is_ok_and(|file| file.trim() == image.to_string_lossy())
            })
            .count()
    };
    assert_eq!(loop_device(&server), 1);
    // The sandbox runs on, so its disk stays; the next server takes it over.
    server.kill();
    assert_eq!(loop_device(&server), 1);
    server.restart();
    assert_eq!(loop_device(&server), 1);
    assert_eq!(server.shell("s", "cat file").await, "kept\n");

    server.delete("/v1/sandboxes/s").await;
    server.expect_again(&before);
    server.kill();
    for _ in 0..6000 {
        if loop_device(&server) == 0 {
            break;
        }
        // There is no event for "the kernel has let go of a device".
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(loop_device(&server), 0);
    server.restart();
}

/// Its ids would be those of the sandbox in the next place: under them, each could read what the other
/// writes, and use up its limits.
#[tokio::test]
async fn a_sandbox_with_ids_that_another_may_be_given_is_stopped() {
    let mut server = server();
    server.shell("a", "echo kept > file; (sleep 1000 &) ").await;
    let before: u32 = server
        .shell("a", "awk '{ print $2 }' /proc/self/uid_map")
        .await
        .trim()
        .parse()
        .expect("a map has ids");

    server.stop();
    server.restart_with("UID_BASE", &(server.slot().uid_base() + 65_536).to_string());

    assert_eq!(server.get("/v1/sandboxes/a").await.json["state"], "stopped");
    let after = server
        .shell("a", "awk '{ print $2 }' /proc/self/uid_map; cat file; pgrep sleep; true")
        .await;
    assert_eq!(after, format!("{}\nkept\n", before + 65_536));
}
