//! Many commands in sessions leave nothing behind in the agent and in the daemon.

use std::{fs, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::Server;

use crate::server;

/// Commands; each hundredth leaves something running or is cut off.
const COMMANDS: usize = 100_000;

/// Sessions at the same time.
const SESSIONS: usize = 8;

/// What allocators may keep, whatever the number of commands.
const MEMORY_KIB: u64 = 3 * 1024;

/// How long what goes away by itself (idle connections, threads of the blocking pool) may take.
const SETTLE: Duration = Duration::from_secs(90);

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Holds {
    descriptors: usize,
    threads: u64,
    memory_kib: u64,
}

impl Holds {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            threads: field("Threads:").unwrap_or(0),
            memory_kib: field("RssAnon:").unwrap_or(0),
        }
    }

    fn is_no_more_than(self, before: Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.memory_kib <= before.memory_kib + MEMORY_KIB
    }
}

/// The process of the server's one agent.
fn agent(server: &Server) -> u32 {
    let group = format!("/sandbar-{}/", server.slot().name());
    let is_agent = |pid: u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&read("cmdline")).contains("__agent")
            && String::from_utf8_lossy(&read("cgroup")).contains(&group)
    };
    let pids = fs::read_dir("/proc").expect("there is /proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| is_agent(*pid)).expect("the sandbox runs")
}

async fn run(server: &Server, number: usize) {
    let session = format!("n{}", number % SESSIONS);
    let told = format!("{session}\n");
    let (command, more, stdout) = match number % 100 {
        // Both cost the shell a new cgroup.
        0 if number.is_multiple_of(200) => ("echo $N; sleep 0.01 & echo $N >&2", json!({}), &*told),
        // It has time for nothing that counts.
        0 => ("sleep 1000", json!({"timeoutMs": 20}), ""),
        1 => ("echo $N; (exit 3)", json!({}), &*told),
        2 => {
            let more = json!({"stdin": "", "cwd": "/usr", "env": {"M": "m", "HOME": null}});
            ("cat; echo $N", more, &*told)
        }
        _ => ("echo $N", json!({}), &*told),
    };
    let mut body = json!({"command": command, "session": session});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let ended = server.post("/v1/sandboxes/s/exec", &body).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    assert_eq!(ended.json["stdout"], stdout, "{command}: {}", ended.text);
    assert_eq!(ended.json["sessionReset"], Value::Null, "{command}: {}", ended.text);
}

async fn run_all(server: &Server, commands: usize) {
    stream::iter(0..commands)
        .map(|number| run(server, number))
        .buffer_unordered(SESSIONS)
        .collect::<()>()
        .await;
}

#[tokio::test]
async fn thousands_of_commands_in_sessions_leave_nothing_behind() {
    let server = server();
    for number in 0..SESSIONS {
        let session = format!("n{number}");
        let body = json!({"command": format!("N={session}"), "session": session});
        assert_eq!(server.post("/v1/sandboxes/s/exec", &body).await.status, 200);
    }
    let pids = [server.pid(), agent(&server)];
    run_all(&server, COMMANDS / 10).await;
    // What the first commands have warmed up is there, and what they needed for a time has gone.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = pids.map(Holds::of);

    run_all(&server, COMMANDS).await;

    let settled = async {
        loop {
            let after = pids.map(Holds::of);
            if std::iter::zip(after, before).all(|(after, before)| after.is_no_more_than(before)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let settled = tokio::time::timeout(SETTLE, settled).await;
    assert!(settled.is_ok(), "before {before:?}, after {:?}", pids.map(Holds::of));
}
