//! What a sandbox feels of a neighbour that takes all it is given.
//!
//! The promise, a p99 of at most 1.25 times its quiet value, is measured by `sandbar bench --neighbours`
//! on a quiet machine. Here other tests run at the same time, so a test can only tell a neighbour that
//! is starved from one that is not: that is a fault, and not noise.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::Server;

use crate::server;

const LOAD: &str = include_str!("../../attacks/load.py");

/// The loads of `attacks/load.py`, by the ids of the attacks: Q20 and Q21, Q22, Q01, Q03, Q24, Q10, Q08,
/// Q16, Q23, Q38, N13, Q25.
const LOADS: [&str; 12] = [
    "processors",
    "calls",
    "processes",
    "memory",
    "disk",
    "files",
    "pipes",
    "watches",
    "packets",
    "connections",
    "names",
    "output",
];

/// Turns of quiet and load, and execs in each.
const ROUNDS: usize = 3;
const EXECS: usize = 15;

/// How many times its quiet median, and what beside it, the least median of a turn under load may be: what
/// else runs on this machine, or beside it, disturbs some of the turns, and the load each of them. A
/// neighbour whose processes, memory or disk were not its own would wait for seconds or for ever.
const GROSS_TIMES: u32 = 10;
const GROSS_BESIDE: Duration = Duration::from_millis(50);

async fn exec(server: &Server, id: &str, command: &[&str]) -> Duration {
    let begin = Instant::now();
    let path = format!("/v1/sandboxes/{id}/exec");
    let answer = server.post(&path, &json!({"command": command})).await;
    assert_eq!(answer.json["ending"], json!({"type": "exited", "code": 0}), "{}", answer.text);
    begin.elapsed()
}

async fn feel(server: &Server) -> Vec<Duration> {
    let mut times = Vec::with_capacity(EXECS);
    for _exec in 0..EXECS {
        times.push(exec(server, "victim", &["true"]).await);
    }
    times
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn an_exhausted_limit_is_not_a_neighbour_s() {
    let server = server();
    let limits =
        json!({"memoryBytes": 256 << 20, "pids": 128, "cpuMillis": 1000, "diskBytes": 1 << 30});
    let created = server.post("/v1/sandboxes", &json!({"id": "abuser", "resources": limits})).await;
    assert_eq!(created.status, 201, "{}", created.text);
    server.put("/v1/sandboxes/abuser/files/tmp/load.py", LOAD).await;
    feel(&server).await;

    for load in LOADS {
        let (mut quiet, mut loaded) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            quiet.extend(feel(&server).await);
            let process = format!("/v1/sandboxes/abuser/processes/{load}-{round}");
            let start = json!({"id": format!("{load}-{round}"), "command": ["python3", "/tmp/load.py", load]});
            let started = server.post("/v1/sandboxes/abuser/processes", &start).await;
            assert_eq!(started.status, 201, "{load}: {}", started.text);
            let begun = json!({"until": {"type": "log", "text": "begun"}, "timeoutMs": 120_000});
            let begun = server.post(&format!("{process}/wait"), &begun).await;
            assert_eq!(begun.status, 200, "{load}: {}", begun.text);

            loaded.push(median(feel(&server).await));

            // However much it has taken, it can be ended, and then goes on.
            let killed = server.post(&format!("{process}/kill"), &json!({"signal": "KILL"})).await;
            assert_eq!(killed.status, 200, "{load}: {}", killed.text);
            let end = json!({"until": {"type": "exit"}, "timeoutMs": 120_000});
            let end = server.post(&format!("{process}/wait"), &end).await;
            assert_eq!(end.status, 200, "{load}: {}", end.text);
            exec(&server, "abuser", &["true"]).await;
        }
        let (quiet, loaded) = (median(quiet), loaded.into_iter().min().expect("turns"));
        println!("{load}: {quiet:.2?} quiet, {loaded:.2?} loaded");
        assert!(loaded <= quiet * GROSS_TIMES + GROSS_BESIDE, "{load}: {quiet:?}, {loaded:?}");
    }
}
