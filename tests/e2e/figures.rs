//! What `/proc` and the kernel say about the machine is about the sandbox.

use std::time::Duration;

use serde_json::json;
use testkit::Server;

use crate::server;

async fn small(server: &Server) {
    let resources = json!({"memoryBytes": 256 << 20, "cpuMillis": 1000});
    let made = server.post("/v1/sandboxes", &json!({"id": "s", "resources": resources})).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// The number behind a name in `/proc/meminfo`, in KiB.
async fn memory(server: &Server, name: &str) -> u64 {
    let line = server.shell("s", &format!("grep ^{name}: /proc/meminfo")).await;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("it is a number")
}

#[tokio::test]
async fn a_sandbox_sees_its_own_figures() {
    let server = server();
    small(&server).await;

    assert_eq!(memory(&server, "MemTotal").await, 256 << 10);
    assert_eq!(server.shell("s", "nproc; grep -c ^processor /proc/cpuinfo").await, "1\n1\n");
    let cpus = "python3 -c 'import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))'";
    assert_eq!(server.shell("s", cpus).await, "1 1\n");
    assert_eq!(server.shell("s", "grep -c '^cpu[0-9]' /proc/stat").await, "1\n");
    let up: f64 = server.shell("s", "cut -d' ' -f1 /proc/uptime").await.trim().parse().unwrap();
    assert!(up < 600.0, "up for {up} s");
    let clock = "python3 -c 'import time; print(int(time.monotonic()))'";
    let clock: u64 = server.shell("s", clock).await.trim().parse().unwrap();
    assert!(clock < 600, "{clock} s");
    // Programs that read them still do.
    server.shell("s", "free -m && uptime && ps aux && top -bn1 | head -5 && vmstat").await;
}

#[tokio::test]
async fn figures_follow_what_the_sandbox_does() {
    let server = server();
    small(&server).await;
    let before = memory(&server, "MemAvailable").await;

    let work =
        "import time\nx = bytearray(100 << 20)\nprint('ready', flush=True)\nwhile True: pass";
    server.put("/v1/sandboxes/s/files/tmp/work.py", work).await;
    server.start_process("s", "python3 /tmp/work.py", "ready").await;

    // It is looked at once a second.
    let follows = "import time\n\
        def field(p, n): return next(l.split() for l in open(p) if l.startswith(n))\n\
        for _ in range(600):\n\
        \x20 a = int(field('/proc/meminfo', 'MemAvailable:')[1])\n\
        \x20 u = int(field('/proc/stat', 'cpu ')[1])\n\
        \x20 l = float(open('/proc/loadavg').read().split()[0])\n\
        \x20 if a < {limit} and u > 50 and l > 0: break\n\
        \x20 time.sleep(0.1)\n\
        print(a, u, l)";
    let limit = before.saturating_sub(90 << 10);
    let follows = follows.replace("{limit}", &limit.to_string());
    server.put("/v1/sandboxes/s/files/tmp/follow.py", follows).await;
    let said = server.shell("s", "python3 /tmp/follow.py").await;
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    #[expect(clippy::cast_precision_loss, reason = "KiB of one sandbox")]
    let limit = limit as f64;
    assert!(numbers[0] < limit && numbers[1] > 50.0 && numbers[2] > 0.0, "{said}, limit {limit}");
}

#[tokio::test]
async fn each_life_of_a_sandbox_has_its_own_age_and_boot_id() {
    let server = server();
    let id = "cat /proc/sys/kernel/random/boot_id";
    let (a, b) = (server.shell("a", id).await, server.shell("b", id).await);
    assert_ne!(a, b);
    assert_ne!(a, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
    assert_eq!(a, server.shell("a", id).await, "it stays while the sandbox runs");

    tokio::time::sleep(Duration::from_millis(1100)).await; // Ages are whole seconds apart.
    let age = "cut -d. -f1 /proc/uptime";
    // The younger one's first, so that time which passes in between is the older one's alone.
    let new: u64 = server.shell("c", age).await.trim().parse().unwrap();
    let old: u64 = server.shell("a", age).await.trim().parse().unwrap();
    assert!(new < old, "{new} is not below {old}");
    // What the kernel says of a process agrees with the clock, as it was before and after.
    let times = format!("{age}; cut -d' ' -f22 /proc/self/stat; {age}");
    let times = server.shell("a", &times).await;
    let times: Vec<u64> = times.lines().filter_map(|line| line.parse().ok()).collect();
    let (before, begun, after) = (times[0], times[1] / 100, times[2]);
    assert!(before <= begun + 1 && begun <= after + 1, "{times:?}");
}
